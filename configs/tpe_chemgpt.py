r"""Learning rate times batch size of ChemGPT on MOSES: the runs that TPE is judged by.

Frey et al. 2023 train 50 epochs and predict the final loss from the first ten; the
usual setting of Hugging Face's trainer, a learning rate of 5e-5 and batches of 8 rows,
is one of the grid (Fig. 2). Which others they took is not said; these are ours.

Forms:
    small (default): 1,500 molecules in rows of 64 tokens, 400 to validate, 24 layers
        of width 32, 10 epochs: about a minute of training for each of the 12 runs.
    full: all of MOSES in rows of 512 tokens cut from one text, 24 layers of width 128,
        50 epochs; days on a GPU.
    smoke: a tiny model on a few molecules of the package, under a minute on a CPU.

    chemscale sweep --config=configs/tpe_chemgpt.py --policy=full \
        --config.data.path=moses.csv --workdir=runs/tpe-chemgpt --jobs=2
    chemscale tpe --runs=runs/tpe-chemgpt --fraction=0.2 \
        --mark=optimizer.lr=5e-5,batch.rows=8

The file has one SMILES per line or a column of them. With the policy full every run is
trained to its end, so that predictions can be judged. Runs of one batch size share
their shapes, so they train as lanes of one program.
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from chemscale_jax.configs import chemgpt, common

FORMS = ("small", "full", "smoke")
LEARNING_RATES = (5e-5, 2e-4, 1e-3, 5e-3)
BATCH_SIZES = (8, 16, 32)


def get_config(arg: str = "") -> ConfigDict:
    form, _ = common.parse_arg(arg, FORMS, {})
    if form == "smoke":
        config = chemgpt.get_config("smoke")
    else:
        width = 128 if form == "full" else 32
        config = chemgpt.get_config(f"faithful,width={width}")
    config.name = f"tpe-chemgpt-{form}"
    config.form = form
    # As Hugging Face's trainer, but at a constant learning rate: AdamW without decay of
    # weights, gradients clipped.
    config.optimizer.name = "adamw"
    config.optimizer.b2, config.optimizer.eps = 0.999, 1e-8
    config.optimizer.weight_decay = 0.0
    config.optimizer.clip_norm = 1.0
    config.optimizer.schedule = "constant"
    config.optimizer.warmup_unit = "step"
    config.optimizer.warmup_steps = 100 if form == "full" else 10
    config.optimizer.lr = LEARNING_RATES[0]
    config.batch.rows = BATCH_SIZES[0]
    config.batch.tokens = 0
    if form == "full":
        config.train.epochs = 50
        return config
    config.batch.form, config.batch.length = "packed", 64
    config.model.positions = 64
    config.train.checkpoint_every_steps = 0
    config.train.epochs = 5 if form == "smoke" else 10
    # Losses are compared here; few molecules are scored and drawn.
    config.sample.scored = config.sample.molecules = config.sample.reference = 20
    config.sample.max_tokens = 60  # the rows hold two more, at both ends
    if form == "small":
        config.data.train_molecules = 1_500
        config.data.valid_molecules_max = 400
    return config


def sweep() -> Iterator[dict[str, Any]]:
    """Every batch size with every learning rate."""
    for rows in BATCH_SIZES:
        for lr in LEARNING_RATES:
            yield {"batch.rows": rows, "optimizer.lr": lr}
