r"""Prompts, sampling and sizes of language models, as in Fig. 6 of Frey et al. 2023.

Ten molecules are cut to their first 5, 10 and 20 symbols and to all but three (l-3),
and two models of different size go on from there, with top-k, top-p, temperature and
beam search, one of them at a time. Of each setting: the share of new molecules that
passes the filters of MOSES, and how much heavier they are than the molecule they began
as. These, and k = 1000, are the paper's.

Differs from the paper: the molecules and the other values of the grids are our own,
for the paper's text does not give them. Cuts are moved out of the indices of branches
and rings. The molecules are those of `chem.drugs.PROMPT_NAMES`: well-known drugs, no
two with the same scaffold, without charges, each of 35 to 59 symbols, and each passes
the filters.

Forms: paper (default; 53,400 molecules of each model), smoke (204 of each, for tiny
models that are there already). Nothing is trained.

    chemscale prompt-study --config=configs/prompting.py --workdir=DIR \
        --config.models=runs/small,runs/large
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from chemscale_jax.configs import common

FORMS = ("paper", "smoke")


def get_config(arg: str = "") -> ConfigDict:
    # RDKit, for which a list of configs need not wait.
    from chemscale_jax.chem.drugs import PROMPT_NAMES

    form, _ = common.parse_arg(arg, FORMS, {})
    config = common.base()
    config.name = f"prompting-{form}"
    config.form = form
    config.task = "prompting"
    # Folders, hub:owner/name, with commas between; empty: the model of the package.
    # Those published, but not the largest, which is known to write nonsense.
    config.models = "hub:ncfrey/ChemGPT-4.7M,hub:ncfrey/ChemGPT-19M"
    config.prompts = {
        "names": PROMPT_NAMES,  # of chem/drugs.csv
        "path": "",  # of a file of molecules to take instead
        "column": "",  # of its SMILES; empty: the one that is called so
        "lengths": ("5", "10", "20", "l-3"),  # in symbols
    }
    config.sampling = {
        "samples": 100,  # of each prompt; beam search: as many as beams, at most
        "max_tokens": 256,  # of a molecule, without its prompt
        "batch": 256,  # molecules at once
    }
    # What is not varied is off: all tokens, temperature 1.
    config.grid = {
        "top_k": (10, 50, 100, 1000),  # 1000 is more than there are: plain sampling
        "top_p": (0.5, 0.8, 0.9, 0.95),
        "temperature": (0.5, 0.75, 1.0, 1.25, 1.5),
        "num_beams": (5, 10, 20),
    }
    config.reference = {
        "path": "",  # of molecules such as the training data; empty: none
        "column": "",
        "molecules": 10_000,  # of its first ones, whose pass rate stands beside
    }
    if form == "smoke":
        config.models = ""
        config.prompts.names = PROMPT_NAMES[:3]
        config.prompts.lengths = ("5", "l-3")
        config.sampling.samples, config.sampling.max_tokens = 8, 32
        config.grid.top_k, config.grid.top_p = (10, 1000), (0.9,)
        config.grid.temperature, config.grid.num_beams = (1.0,), (2,)
    return config


def sweep() -> Iterator[dict[str, Any]]:
    """Other random numbers."""
    for seed in range(3):
        yield {"seed": seed}
