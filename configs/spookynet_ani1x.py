"""SpookyNet on ANI-1x, or on the data set that comes with the package.

Forms:
    embedded (default): GFN2-xTB frames of the package, energies and forces.
    full: ANI-1x with the protocol of Frey et al. (force-only L1, plateau and early
        stop), from ``--config.data.path=ani1x-release.h5``.
    smoke: a tiny model on a few frames, under a minute on a CPU.

Arguments: width (16, 64, 256; 64 where not given), depth (2, 3, 4; 3 where not given),
train_size (0: all), faithful (true: the paper's code, whose attention depends on the
batch and whose embeddings start at zero; false: neither).

The paper's code has D4 dispersion on, which the labels do not contain. Without it, a
force-only loss gives its network no gradient at the start, so ``full,faithful=true``
asks for D4, whose tables are not part of this package:
``--config.model.d4_tables=WEIGHTS.npz``.

    python -m chemscale_jax.main --config=configs/spookynet_ani1x.py
    python -m chemscale_jax.main --config=configs/spookynet_ani1x.py:full,width=16
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
    width, depth = (8, 1) if form == "smoke" else (64, 3)
    config = common.base()
    config.name = f"spookynet_ani1x-{form}"
    common.ani1x_form(config, form)
    config.data.train_size = options["train_size"]
    # Electrostatics and D4 act between all atoms of a molecule.
    config.data.long_range_ang = float("inf")
    config.model = {
        "name": "spookynet",  # an entry of chemscale_jax.models.ENERGY_MODELS
        "width": options["width"] or width,  # features per atom
        "depth": options["depth"] or depth,  # interaction modules
        "n_rbf": 16,  # radial functions
        "cutoff_ang": 5.0,  # angstrom, of local interactions
        "attention": "favor",  # favor: linear in atoms; exact
        "attention_maximum": "molecule",  # molecule, batch
        "zero_init": False,  # start the nuclear embedding at zero
        "zbl": True,  # repulsion of nuclei
        "electrostatics": True,  # of learned charges
        "d4": False,  # dispersion
        "d4_tables": "",  # an .npz with the reference tables of D4
        "dtype": "float32",  # of matrix products: float32, bfloat16
    }
    if options["faithful"]:
        from chemscale_jax.models import spookynet

        with config.model.unlocked():
            config.model.update(spookynet.FAITHFUL)
        config.model.d4 = form == "full"
    return config


def sweep() -> Iterator[dict[str, Any]]:
    """The learning-rate grid of the paper's hyperparameter study."""
    for lr in (1e-3, 1e-4, 1e-5):
        yield {"optimizer.lr": lr}
