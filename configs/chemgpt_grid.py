r"""ChemGPT at several widths on several amounts of data: does more of either help?

Forms:
    train (default): the tuned arm of configs/chemgpt.py on nested subsets of a file of
        SMILES; one validation set for all. Fewer molecules are passed over more often.
    smoke: tiny models on a few molecules of the package, under a minute on a CPU.

Arguments: width (32).

    python launch/local.py --config=configs/chemgpt_grid.py --workdir=runs/grid \
        --config.data.path=molecules.csv --jobs=2
    chemscale compare --runs=runs/grid --by=model.width,data.train_molecules
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from chemscale_jax.configs import chemgpt, common

FORMS = ("train", "smoke")
OPTIONS = {"width": 32}
WIDTHS = (32, 64, 128)
# Molecules, and passes over them: more for few, which are done with sooner.
SIZES = ((1_000, 8), (3_000, 4), (9_000, 2))
SEEDS = (0, 1)


def get_config(arg: str = "") -> ConfigDict:
    form, options = common.parse_arg(arg, FORMS, OPTIONS)
    if form == "smoke":
        config = chemgpt.get_config("smoke")
    else:
        config = chemgpt.get_config(f"tuned,width={options['width']}")
        # Thousands of molecules, not millions: many small steps.
        config.batch.rows, config.batch.tokens = 8, 2048
        config.optimizer.warmup_steps = 50
        # Losses are compared here, on molecules scored one by one; few are drawn.
        config.data.valid_molecules_max = 2_000
        config.sample.molecules = config.sample.reference = 100
    config.name = f"chemgpt-grid-{form}-{options['width']}"
    config.form = form
    return config


def sweep() -> Iterator[dict[str, Any]]:
    """All widths, sizes of the training set, and seeds."""
    for molecules, passes in SIZES:
        for width in WIDTHS:
            for seed in SEEDS:
                yield {
                    ":width": width,
                    "data.train_molecules": molecules,
                    "train.epochs": passes,
                    "seed": seed,
                }
