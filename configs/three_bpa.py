r"""An ensemble of force fields on 3BPA: trained at 300 K, tested on other frames.

Forms:
    train (default): as many seeds as ``ensemble`` says, trained as one program; the
        spread of their predictions is the uncertainty.
    smoke: two tiny models on a few frames of the package, under a minute on a CPU.

Arguments: model (painn, allegro), ensemble (4).

    python -m chemscale_jax.main --config=configs/three_bpa.py \
        --config.data.path=train_300K.xyz --config.data.test_path=train_mixedT.xyz

The files are those of https://doi.org/10.1021/acs.jctc.1c00647 (Kovacs et al. 2021).
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from chemscale_jax.configs import common

FORMS = ("train", "smoke")
OPTIONS = {"model": "allegro", "ensemble": 4}
CUTOFF_ANG = 5.0
# Hyperparameters and learning rate of the form "train", and of the tiny form.
MODELS = {
    "painn": ({"width": 64, "depth": 3}, 3e-3, {"width": 8, "depth": 2}),
    "allegro": (
        {"width": 64, "depth": 2, "l_max": 2},
        1e-2,
        {"width": 8, "depth": 1, "l_max": 1},
    ),
}


def get_config(arg: str = "") -> ConfigDict:
    form, options = common.parse_arg(arg, FORMS, OPTIONS)
    name = common.one_of("model", options["model"], MODELS)
    hyperparameters, lr, tiny = MODELS[name]
    config = common.base()
    config.name = f"three_bpa-{name}-{form}"
    common.trajectory_form(config, form)
    common.set_network(
        config, name, CUTOFF_ANG, tiny if form == "smoke" else hyperparameters
    )
    config.train.ensemble = options["ensemble"]
    if form == "smoke":
        config.train.ensemble = 2
        return config
    config.optimizer.lr = lr
    config.train.epochs = 8
    # With 450 frames, an average over 1,000 steps would be of far too early weights.
    config.optimizer.ema_decay = 0.99
    config.data.source = "extxyz"
    config.data.valid_size = 50
    return config


def sweep() -> Iterator[dict[str, Any]]:
    """Every model."""
    for model in MODELS:
        yield {":model": model}
