r"""COMPAS-1D: Table 5 of Ji et al. 2024 (Uni-Mol2), from the official table.

Forms:
    cpu (default): a small network, all four properties together, 4 epochs.
    paper: settings to start the paper's grid from, see sweep().
    smoke: a tiny network on molecules of the package, under a minute on a CPU.

Arguments: target (all, aEA, aIP, dispersion: eV; dipole: D), features (keep: the rows
with a star in the table; drop), seed, and init, size and variant as in finetune.py.

    python -m chemscale_jax.main --config=configs/compas.py \
        --config.data.path=COMPAS-1D.csv
    python launch/local.py --config=configs/compas.py:paper,target=aIP,size=84M \
        --config.data.path=COMPAS-1D.csv --config.init_from=checkpoint.pt \
        --workdir=runs/compas

Geometries are made from SMILES. Molecules are split by clusters of similar scaffolds;
the paper's own split is not published.
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from chemscale_jax.configs import common, finetune

FORMS = ("cpu", "paper", "smoke")
OPTIONS = {"target": "all", "features": "keep", "seed": 0, **finetune.OPTIONS}
# Column and unit of each property.
TARGETS = {
    "aEA": ("aEA_eV", "eV"),
    "aIP": ("aIP_eV", "eV"),
    "dispersion": ("dispersion_eV", "eV"),
    "dipole": ("Dipmom_Debye", "D"),
}


def get_config(arg: str = "") -> ConfigDict:
    form, options = common.parse_arg(arg, FORMS, OPTIONS)
    target = common.one_of("target", options["target"], ("all", *TARGETS))
    config = finetune.properties(
        form, options["size"], options["init"], options["variant"]
    )
    config.name = f"compas-{form}-{target}-{options['init']}"
    config.seed = options["seed"]
    chosen = TARGETS.values() if target == "all" else (TARGETS[target],)
    config.data.smiles_col = "smiles"
    config.data.targets = tuple(column for column, _ in chosen)
    config.data.units = tuple(unit for _, unit in chosen)
    config.data.kind = "regression"
    config.data.split = "cluster"
    config.data.features = common.one_of(
        "features", options["features"], ("keep", "drop")
    )
    if form == "paper":
        config.data.conformers = 4
        return config
    finetune.on_processor(config)
    # Three quarters of the molecules have 42 atoms.
    config.batch.buckets = (31, 43)
    # Large molecules: a quarter of an hour of one core.
    config.train.epochs = 4
    if form == "smoke":
        finetune.smoke(config)
    return config


def sweep() -> Iterator[dict[str, Any]]:
    """The grid of Table 9. The best cell on validation is run with seeds 0, 1, 2."""
    yield from finetune.paper_grid()
