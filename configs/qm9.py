r"""QM9: Tables 4 and 6 of Ji et al. 2024 (Uni-Mol2), from the official files.

Forms:
    cpu (default): a small network, 20 epochs.
    paper: settings to start the paper's grid from, see sweep().
    smoke: a tiny network on molecules of the package, under a minute on a CPU.

Arguments: target (gap, homo, lumo: hartree; frontier: these three; mu: D; alpha:
bohr^3; r2: bohr^2; zpve: hartree; cv: cal/mol/K), geometry (dft: of the sdf; rdkit:
made from SMILES), train (molecules to train on, nested subsets; 0: all; Table 6 takes
half as many as the test set, as many and twice as many), seed, and init, size and
variant as in finetune.py.

    python -m chemscale_jax.main --config=configs/qm9.py:target=mu \
        --config.data.path=gdb9.sdf.csv --config.data.geometries=gdb9.sdf
    python launch/local.py --config=configs/qm9.py:paper,target=gap,size=84M \
        --config.data.path=gdb9.sdf.csv --config.data.geometries=gdb9.sdf \
        --config.init_from=checkpoint.pt --workdir=runs/qm9

Molecules are split by clusters of similar scaffolds; the paper's own split is not
published. As there, features of atoms and bonds are withheld, and geometries have no
hydrogens.
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from chemscale_jax.configs import common, finetune

FORMS = ("cpu", "paper", "smoke")
OPTIONS = {
    "target": "gap",
    "geometry": "dft",
    "train": 0,
    "seed": 0,
    **finetune.OPTIONS,
}
UNITS = {
    "homo": "hartree",
    "lumo": "hartree",
    "gap": "hartree",
    "mu": "D",
    "alpha": "bohr^3",
    "r2": "bohr^2",
    "zpve": "hartree",
    "cv": "cal/mol/K",
}
GROUPS = {"frontier": ("homo", "lumo", "gap")}


def get_config(arg: str = "") -> ConfigDict:
    form, options = common.parse_arg(arg, FORMS, OPTIONS)
    target = common.one_of("target", options["target"], (*UNITS, *GROUPS))
    config = finetune.properties(
        form, options["size"], options["init"], options["variant"]
    )
    config.name = f"qm9-{form}-{target}-{options['geometry']}-{options['init']}"
    config.seed = options["seed"]
    names = GROUPS.get(target, (target,))
    config.data.targets = names
    config.data.units = tuple(UNITS[name] for name in names)
    config.data.kind = "regression"
    geometry = common.one_of("geometry", options["geometry"], ("dft", "rdkit"))
    config.data.geometry = "given" if geometry == "dft" else "conformers"
    config.data.conformers = 1 if geometry == "dft" else 4
    config.data.features = "drop"
    config.data.split = "cluster"
    config.data.train_molecules = options["train"]
    if form == "paper":
        return config
    finetune.on_processor(config)
    config.batch.buckets = (9,)
    config.train.epochs = 20
    config.data.conformers = 1
    if form == "smoke":
        finetune.smoke(config)
    return config


def sweep() -> Iterator[dict[str, Any]]:
    """The grid of Table 9. The best cell on validation is run with seeds 0, 1, 2."""
    yield from finetune.paper_grid()
