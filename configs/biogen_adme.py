r"""Biogen ADME (Fang et al. 2023): one task of Uni-Mol2's, from the authors' tables.

Forms:
    cpu (default): a small network, 1,000 to 1,700 updates, which one slow core of a CPU
        does in a quarter of an hour.
    paper: settings to start the paper's grid from, see sweep().
    smoke: a tiny network on molecules of the package, under a minute on a CPU.

Arguments: task (HLM, RLM: intrinsic clearance; MDR1_ER: efflux ratio; Sol: solubility
at pH 6.8; hPPB, rPPB: unbound share in plasma; all decadic logarithms), seed, and init,
size and variant as in finetune.py.

    python -m chemscale_jax.main --config=configs/biogen_adme.py:task=HLM \
        --config.data.path=ADME_HLM_train.csv --config.data.test_path=ADME_HLM_test.csv

The files are those of the folder MPNN of the authors' repository, with their split into
training and test molecules. Without --config.data.test_path clusters of similar
scaffolds are the test set.
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from chemscale_jax.configs import common, finetune

FORMS = ("cpu", "paper", "smoke")
OPTIONS = {"task": "HLM", "seed": 0, **finetune.OPTIONS}
UNITS = {
    "HLM": "log10(mL/min/kg)",
    "RLM": "log10(mL/min/kg)",
    "MDR1_ER": "log10(ratio)",
    "Sol": "log10(ug/mL)",
    "hPPB": "log10(% unbound)",
    "rPPB": "log10(% unbound)",
}
# Of the training part of each of the authors' training files: about 1,700 updates, of
# hPPB 1,000, a third of whose molecules have more than 31 heavy atoms.
PASSES = {"HLM": 16, "RLM": 16, "MDR1_ER": 18, "Sol": 22, "hPPB": 16, "rPPB": 55}


def get_config(arg: str = "") -> ConfigDict:
    form, options = common.parse_arg(arg, FORMS, OPTIONS)
    task = common.one_of("task", options["task"], UNITS)
    config = finetune.properties(
        form, options["size"], options["init"], options["variant"]
    )
    config.name = f"biogen_adme-{form}-{task}-{options['init']}"
    config.seed = options["seed"]
    config.data.smiles_col = "smiles"
    config.data.targets = ("activity",)
    config.data.units = (UNITS[task],)
    config.data.kind = "regression"
    config.data.split = "cluster"
    config.data.test_fraction = 0.2
    if form == "paper":
        config.data.conformers = 11
        return config
    finetune.on_processor(config)
    config.train.epochs = PASSES[task]
    if form == "smoke":
        finetune.smoke(config)
    return config


def sweep() -> Iterator[dict[str, Any]]:
    """Every task with three seeds; each needs --config.data.path of its own."""
    for task in UNITS:
        for seed in range(3):
            yield {":task": task, ":seed": seed}
