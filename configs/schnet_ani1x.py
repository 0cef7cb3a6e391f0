"""SchNet on ANI-1x, or on the data set that comes with the package.

Forms:
    embedded (default): GFN2-xTB frames of the package, energies and forces.
    full: ANI-1x with the protocol of Frey et al. (force-only L1, plateau and early
        stop), from ``--config.data.path=ani1x-release.h5``.
    smoke: a tiny model on a few frames, under a minute on a CPU.

Arguments: width (16, 64, 256; 64 where not given), depth (2, 3, 4; 3 where not given),
train_size (0: all), faithful (true: the paper's code, whose energy jumps where a
neighbour crosses the cut-off; false: with a cut-off function).

    python -m chemscale_jax.main --config=configs/schnet_ani1x.py
    python -m chemscale_jax.main --config=configs/schnet_ani1x.py:full,faithful=true
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from chemscale_jax.configs import common

FORMS = common.ANI1X_FORMS
OPTIONS = {"width": 0, "depth": 0, "train_size": 0, "faithful": False}


def get_config(arg: str = "") -> ConfigDict:
    form, options = common.parse_arg(arg, FORMS, OPTIONS)
    # The smallest useful model where nothing else is asked for.
    width, depth = (8, 2) if form == "smoke" else (64, 3)
    config = common.base()
    config.name = f"schnet_ani1x-{form}"
    common.ani1x_form(config, form)
    config.data.train_size = options["train_size"]
    model: dict[str, Any] = {
        "name": "schnet",  # an entry of chemscale_jax.models.ENERGY_MODELS
        "width": options["width"] or width,  # features per atom
        "depth": options["depth"] or depth,  # interactions
        "n_rbf": 32,  # Gaussians, trained in each layer
        "cutoff_ang": 5.0,  # angstrom
        "cutoff_fn": "cosine",  # cosine, none
        "dtype": "float32",  # of matrix products: float32, bfloat16
    }
    if options["faithful"]:
        from chemscale_jax.models import schnet

        model |= schnet.FAITHFUL
    config.model = model
    return config


def sweep() -> Iterator[dict[str, Any]]:
    """The learning-rate grid of the paper's hyperparameter study."""
    for lr in (1e-3, 1e-4, 1e-5):
        yield {"optimizer.lr": lr}
