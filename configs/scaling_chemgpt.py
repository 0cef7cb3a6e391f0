r"""Neural scaling of ChemGPT: model size x data (Frey et al., Fig. 3, 4, A.1 and A.2).

Forms:
    full (default): the paper's grid, widths 16 to 2048 on 100 to 595,032 rows of 512
        tokens, 10 epochs as its code trains them; a file of SMILES, PubChem10M.
    small: widths 16, 32, 64, 128 with 8 layers on 1,000 to 20,000 molecules, three
        seeds, each cell trained for the same number of updates with an annealed
        learning rate.
    smoke: two tiny models on a few molecules of the package.

Arguments: warmup (epoch: as in the published code, where the learning rate rises once
an epoch; full only). A cell has width and size (rows; small: molecules), which the
study fills in.

    chemscale study --config=configs/scaling_chemgpt.py:small --workdir=runs/chemgpt \
        --config.data.source=file --config.data.path=moses.csv --jobs=2
    chemscale plan --config=configs/scaling_chemgpt.py --device=h100
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from chemscale_jax.configs import chemgpt, common

FORMS = ("full", "small", "smoke")
OPTIONS = {"width": 0, "size": 0, "warmup": "step"}
WIDTHS = {
    "full": tuple(2**exponent for exponent in range(4, 12)),
    "small": (16, 32, 64, 128),
    "smoke": (8, 16),
}
# Rows of 512 tokens, the last one all there are; else molecules.
SIZES = {
    "full": (100, 1_000, 10_000, 100_000, 595_032),
    "small": (1_000, 2_700, 7_400, 20_000),
    "smoke": (60, 180),
}
# Updates of every cell; a little over one pass of the largest set.
UPDATES = {"small": 500, "smoke": 12}


def get_config(arg: str = "") -> ConfigDict:
    form, options = common.parse_arg(arg, FORMS, OPTIONS)
    width = options["width"] or WIDTHS[form][0]
    size = options["size"] or SIZES[form][0]
    if form == "full":
        warmup = options["warmup"]
        config = chemgpt.get_config(f"faithful,width={width},warmup={warmup}")
        config.data.train_rows = size
        config.name = f"scaling-chemgpt-{form}-{width}-{size}"
        config.form = form
        return config

    # Differs from the paper: whole molecules that do not see one another, eight
    # layers, decay and clipping, and as many updates for few molecules as for many.
    config = chemgpt.get_config(f"embedded,width={width}")
    config.name = f"scaling-chemgpt-{form}-{width}-{size}"
    config.form = form
    config.model.depth = 8
    config.model.positions = 128
    config.data.train_molecules = size
    config.data.valid_molecules_max = 1_000
    config.batch.form = "packed"
    config.batch.length = 128
    config.batch.rows = 16
    config.train.max_steps = UPDATES[form]
    config.train.epochs = 1_000  # the updates come first
    config.train.ensemble = 3
    config.train.checkpoint_every_steps = 0
    # Losses are what a study is after: no molecules are drawn.
    config.sample.molecules = config.sample.scored = 0
    if form == "smoke":
        config.model.depth = 2
        config.model.heads = 2
        config.data.embedded_molecules = 400
        config.data.valid_molecules_max = 20
        config.optimizer.warmup_steps = 3
        config.batch.rows = 4
        config.train.ensemble = 2
    return config


def study(arg: str = "") -> Iterator[dict[str, Any]]:
    """Every width on every amount of data."""
    form, _ = common.parse_arg(arg, FORMS, OPTIONS)
    for size in SIZES[form]:
        for width in WIDTHS[form]:
            yield {":width": width, ":size": size}


def sweep() -> Iterator[dict[str, Any]]:
    """The cells of the study in its first form."""
    yield from study()
