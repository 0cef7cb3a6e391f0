"""Allegro on ANI-1x, or on the data set that comes with the package.

Forms:
    embedded (default): GFN2-xTB frames of the package, energies and forces.
    full: ANI-1x with the protocol of Frey et al. (force-only L1, plateau and early
        stop), from ``--config.data.path=ani1x-release.h5``.
    smoke: a tiny model on a few frames, under a minute on a CPU.

Arguments: width (16, 64, 256; 32 where not given), depth (2, 3, 4; 2 where not given),
train_size (0: all), faithful (true: the code of the paper; false: the leaner one of
2025), width_map (what the width stands for, which the paper does not say: A for its
reproduction, with MLPs of up to 512, C for comparisons at equal width; B, quarter; A
where faithful and not given, else quarter).

    python -m chemscale_jax.main --config=configs/allegro_ani1x.py
    python -m chemscale_jax.main --config=configs/allegro_ani1x.py:full,faithful=true
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from chemscale_jax.configs import common

FORMS = common.ANI1X_FORMS
OPTIONS = {
    "width": 0,
    "depth": 0,
    "train_size": 0,
    "width_map": "",
    "faithful": False,
}


def get_config(arg: str = "") -> ConfigDict:
    form, options = common.parse_arg(arg, FORMS, OPTIONS)
    # The smallest useful model where nothing else is asked for.
    width, depth = (8, 1) if form == "smoke" else (32, 2)
    config = common.base()
    config.name = f"allegro_ani1x-{form}"
    common.ani1x_form(config, form)
    config.data.train_size = options["train_size"]
    config.model = {
        "name": "allegro",  # an entry of chemscale_jax.models.ENERGY_MODELS
        "form": "2025",  # 2022, 2025
        "width": options["width"] or width,  # w, see width_map
        "depth": options["depth"] or depth,  # layers
        "width_map": "quarter",  # MLPs of width w, w / 4 tensors; A, B, C: as Frey's w
        "cutoff_ang": 5.0,  # angstrom
        "l_max": 1 if form == "smoke" else 2,  # of spherical harmonics
        # These three are taken from the training set.
        "elements": (),  # atomic numbers
        "avg_num_neighbors": 0.0,  # within the cut-off
        "energy_scale": 0.0,  # eV
        "dtype": "float32",  # of matrix products: float32, bfloat16
    }
    if options["faithful"]:
        from chemscale_jax.models import allegro

        with config.model.unlocked():
            config.model.update(allegro.FAITHFUL)
    if options["width_map"]:
        config.model.width_map = options["width_map"]
    return config


def sweep() -> Iterator[dict[str, Any]]:
    """The learning-rate grid of the paper's hyperparameter study."""
    for lr in (1e-3, 1e-4, 1e-5):
        yield {"optimizer.lr": lr}
