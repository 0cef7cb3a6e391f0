r"""Neural scaling of Uni-Mol2: model size x steps (Ji et al. 2024, Fig. 3, 4, Table 3).

Forms:
    full (default): the paper's six sizes, 818,359 steps of 1024 molecules each, on a
        store of conformers. Its law is fitted along these single trajectories.
    annealed: the same sizes, with schedules of a quarter and of half the length as
        well, so that every point of a fit has a learning rate that was annealed.
    small: three small sizes on molecules that the package makes by itself, each with
        four lengths of the schedule; the longest give the trajectories.
    smoke: two tiny networks on a few molecules, with two lengths.

A cell has size and steps, which the study fills in.

    chemscale study --config=configs/scaling_unimol2.py:small --workdir=runs/unimol2 \
        --jobs=2
    chemscale plan --config=configs/scaling_unimol2.py --device=h100
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from chemscale_jax.configs import common, unimol2_pretrain

FORMS = ("full", "annealed", "small", "smoke")
OPTIONS = {"size": "", "steps": 0}
PAPER_SIZES = ("42M", "84M", "164M", "310M", "570M", "1.1B")
PAPER_STEPS = 818_359
# Differ in width and depth together, as the paper's do.
SMALL_SIZES: dict[str, dict[str, int]] = {
    "small-1": dict(width=32, depth=3, heads=2, pair_width=16, pair_hidden=4),
    "small-2": dict(width=64, depth=4, heads=4, pair_width=32, pair_hidden=8),
    "small-3": dict(width=96, depth=5, heads=6, pair_width=48, pair_hidden=12),
    "smoke-1": dict(width=8, depth=1, heads=1, pair_width=4, pair_hidden=2),
    "smoke-2": dict(width=16, depth=2, heads=2, pair_width=8, pair_hidden=2),
}
SIZES = {
    "full": PAPER_SIZES,
    "annealed": PAPER_SIZES,
    "small": ("small-1", "small-2", "small-3"),
    "smoke": ("smoke-1", "smoke-2"),
}
STEPS = {
    "full": (PAPER_STEPS,),
    "annealed": (PAPER_STEPS // 4, PAPER_STEPS // 2, PAPER_STEPS),
    "small": (300, 600, 1_200, 2_400),
    "smoke": (6, 12),
}


def get_config(arg: str = "") -> ConfigDict:
    form, options = common.parse_arg(arg, FORMS, OPTIONS)
    size = common.one_of("size", options["size"] or SIZES[form][0], SIZES[form])
    steps = options["steps"] or STEPS[form][-1]
    if form in ("full", "annealed"):
        config = unimol2_pretrain.get_config(f"paper,size={size}")
        if steps != PAPER_STEPS:
            config.optimizer.warmup_steps = steps * 100_000 // PAPER_STEPS
    else:
        config = unimol2_pretrain.get_config("embedded,size=tiny")
        config.model.size = "tiny"  # what it takes from there is replaced below
        config.model.update(SMALL_SIZES[size])
        config.train.epochs = 1_000  # the steps come first
        # Draws, so that an epoch, and with it the validation, is short.
        config.data.sampling = "natural"
        config.data.epoch_molecules = 1_200
        config.train.checkpoint_every_steps = 0
    config.name = f"scaling-unimol2-{form}-{size}-{steps}"
    config.form = form
    config.train.max_steps = steps
    if form == "smoke":
        config.data.embedded_molecules = 48
        config.data.epoch_molecules = 32
        config.batch.form = "equal"
        config.batch.buckets = (31,)
        config.optimizer.warmup_steps = 2
    return config


def study(arg: str = "") -> Iterator[dict[str, Any]]:
    """Every size with every length of the schedule."""
    form, _ = common.parse_arg(arg, FORMS, OPTIONS)
    for size in SIZES[form]:
        for steps in STEPS[form]:
            yield {":size": size, ":steps": steps}


def sweep() -> Iterator[dict[str, Any]]:
    """The cells of the study in its first form."""
    yield from study()
