r"""Learning rate times batch size: the grid of the hyperparameter study of Frey et al.

Forms: embedded (default), full, smoke, as in the ``*_ani1x`` configs. Each batch holds
exactly the given number of molecules, so that it means what it means in the paper,
which trains each cell for 50 epochs and ranks it by its first 10.

Arguments: model (painn, schnet, allegro, spookynet).

    python launch/local.py --config=configs/hpo_force_fields.py:embedded,model=schnet \
        --workdir=runs/hpo
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from chemscale_jax.configs import (
    allegro_ani1x,
    common,
    painn_ani1x,
    schnet_ani1x,
    spookynet_ani1x,
)

FORMS = common.ANI1X_FORMS
MODELS = {
    "painn": painn_ani1x,
    "schnet": schnet_ani1x,
    "allegro": allegro_ani1x,
    "spookynet": spookynet_ani1x,
}
LEARNING_RATES = (1e-3, 1e-4, 1e-5)
BATCH_SIZES = (4, 8, 16, 32, 64)


def get_config(arg: str = "") -> ConfigDict:
    form, options = common.parse_arg(arg, FORMS, {"model": "painn"})
    name = common.one_of("model", options["model"], MODELS)
    config = MODELS[name].get_config(form)
    config.name = f"hpo-{config.name}"
    config.batch.rows = 4
    config.batch.exact_molecules = BATCH_SIZES[0]
    # As in the study: forces only, one learning rate throughout.
    config.loss.alpha_energy = 0.0
    config.optimizer.schedule = "constant"
    config.optimizer.warmup_steps = 0
    config.train.use_plateau = True
    if form != "smoke":
        config.train.epochs = 50
    return config


def sweep() -> Iterator[dict[str, Any]]:
    """Every learning rate with every batch size."""
    for lr in LEARNING_RATES:
        for molecules in BATCH_SIZES:
            yield {"optimizer.lr": lr, "batch.exact_molecules": molecules}
