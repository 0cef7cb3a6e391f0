r"""Maps of what ChemGPT makes of FreeSolv and Tox21, as Fig. 7 of Frey et al. 2023.

t-SNE of embeddings, coloured by scaffold and by label, beside two controls that the
paper lacks: the same network with fresh parameters, and Morgan fingerprints. Numbers
with intervals say in which of the three neighbours agree.

Differs from the paper: which layer is pooled how, and the perplexity, its text does not
give; here the last layer, a mean over the molecule's symbols, and 30.

Forms: freesolv (default; 642 molecules, under a minute on a CPU), tox21 (8,014 rows,
minutes), table (any csv with SMILES), smoke (drugs of the package, for a look).

    chemscale map --config=configs/maps.py:freesolv --out=maps/freesolv \
        --config.data.path=freesolv.csv

FreeSolv is the csv of MoleculeNet with the columns smiles and expt (kcal/mol), Tox21
the tox21.csv.gz of DeepChem with a column for each of 12 assays.
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from chemscale_jax.configs import common

FORMS = ("freesolv", "tox21", "table", "smoke")
COLORS = {
    "freesolv": ("scaffold", "expt"),
    "tox21": ("scaffold", "NR-AhR", "SR-ARE"),
    "table": ("scaffold",),
    "smoke": ("scaffold", "logP"),
}


def get_config(arg: str = "") -> ConfigDict:
    form, _ = common.parse_arg(arg, FORMS, {})
    config = common.base()
    config.name = f"maps-{form}"
    config.form = form
    config.task = "maps"
    config.data = {
        "path": "",  # of the table; empty: drugs of the package with their logP
        "smiles_col": "",  # of its SMILES; empty: the one that is called so
    }
    config.embed = {
        "workdir": "chemgpt",  # see chemscale embed --workdir
        "controls": ("untrained", "morgan"),  # any of these two
        "layer": -1,
        "pool": "auto",  # auto, mean, sum, cls, last; auto: as the model is used
        "geometry": "given",  # given, conformers, flat; not for language models
    }
    config.map = {
        "color": COLORS[form],  # scaffold, or columns of the table
        "method": "tsne",  # tsne, pca, umap
        "scale": "auto",  # columns, rows, none; auto: rows of counts, else columns
        "components": 50,  # of the PCA before t-SNE and UMAP
        "perplexity": 30.0,  # of t-SNE
        "umap_neighbors": 15,
        "max_points": 20_000,  # of more molecules, a random choice
        "neighbors": 5,  # that are looked at
        "least_members": 10,  # of a group that is measured
        "replicates": 200,  # random halves, for intervals
        "permutations": 200,  # of labels, for what chance gives
    }
    if form == "smoke":
        config.embed.controls = ("morgan",)
        config.map.method = "pca"
        config.map.max_points = 200
        config.map.least_members = 5
        config.map.replicates = config.map.permutations = 20
    return config


def sweep() -> Iterator[dict[str, Any]]:
    """Other fresh parameters and other layouts."""
    for seed in range(3):
        yield {"seed": seed}
