"""PaiNN on ANI-1x, or on the data set that comes with the package.

Forms:
    embedded (default): GFN2-xTB frames of the package, energies and forces.
    full: ANI-1x with the protocol of Frey et al. (force-only L1, plateau and early
        stop), from ``--config.data.path=ani1x-release.h5``.
    smoke: a tiny model on a few frames, under a minute on a CPU.

Arguments: width (16, 64, 256; 64 where not given), depth (2, 3, 4; 3 where not given),
train_size (0: all).

    python -m chemscale_jax.main --config=configs/painn_ani1x.py
    python -m chemscale_jax.main --config=configs/painn_ani1x.py:full,width=16,depth=4
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from chemscale_jax.configs import common

FORMS = ("embedded", "full", "smoke")
OPTIONS = {"width": 0, "depth": 0, "train_size": 0}


def get_config(arg: str = "") -> ConfigDict:
    form, options = common.parse_arg(arg, FORMS, OPTIONS)
    # The smallest useful model where nothing else is asked for.
    width, depth = (8, 2) if form == "smoke" else (64, 3)
    config = common.base()
    config.name = f"painn_ani1x-{form}"
    config.form = form
    config.task = "force_field"
    config.model = {
        "name": "painn",  # an entry of chemscale_jax.models.ENERGY_MODELS
        "width": options["width"] or width,  # features per atom
        "depth": options["depth"] or depth,  # message and update blocks
        "cutoff_ang": 5.0,  # angstrom
        "dtype": "float32",  # of matrix products: float32, bfloat16
    }
    config.loss = common.force_loss()
    config.data = common.graphs()
    config.data.train_size = options["train_size"]
    config.batch = common.packs()
    if form == "full":
        config.data.source = "ani1x"
        config.batch.molecules = 16
        return config

    # Differs from the paper: a budget of epochs with an annealed learning rate, and
    # an energy term, so that minutes on a CPU give a usable force field.
    config.loss.alpha_energy = 0.02
    config.optimizer.lr = 2e-3
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = 100
    config.optimizer.clip_norm = 10.0
    config.optimizer.ema_decay = 0.99
    config.train.use_plateau = False
    config.train.early_stop_epochs = 0
    config.train.epochs = 15
    if form == "smoke":
        config.optimizer.warmup_steps = 5
        config.data.max_frames = 400
        config.train.epochs = 2
    return config


def sweep() -> Iterator[dict[str, Any]]:
    """The learning-rate grid of the paper's hyperparameter study."""
    for lr in (1e-3, 1e-4, 1e-5):
        yield {"optimizer.lr": lr}
