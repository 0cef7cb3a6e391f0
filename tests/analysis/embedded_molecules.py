"""Tables of embeddings without a model: drugs, and numbers that tell of them."""

import numpy as np

from chemscale_jax.chem.count_fingerprints import count_fingerprints
from chemscale_jax.chem.drugs import drugs
from chemscale_jax.core.embedding_table import EmbeddingTable

ABOUT = {"model": "morgan", "level": "molecule", "layer": 0, "pool": "sum"}


def smiles_of_drugs(count, start=0):
    """SMILES of some of the packaged drugs, without two that are equal."""
    return list(dict.fromkeys(drug.smiles for drug in drugs()))[start : start + count]


def table_of(smiles, values=None, name="drugs.csv", about=None):
    """A table as ``chemscale embed`` writes; "" is a row that failed."""
    if values is None:
        values = count_fingerprints(smiles, processes=1).astype(np.float32)[:, ::8]
    values = np.array(values, np.float32)
    failed = np.array([not text for text in smiles])
    values[failed] = np.nan
    return EmbeddingTable(
        index=np.arange(len(smiles)),
        where=np.array([f"{name} line {i + 2}" for i in range(len(smiles))]),
        smiles=np.array(smiles, np.str_),
        status=np.where(failed, "failed", "2d"),
        reason=np.where(failed, "parse: no molecule", ""),
        values=values,
        about=ABOUT if about is None else about,
    )
