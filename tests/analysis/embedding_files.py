"""Small files of embeddings, for tests of what reads them."""

import numpy as np

from chemscale_jax.core.embedding_table import EmbeddingTable

RINGS = ("c1ccccc1", "c1ccncc1", "C1CCCCC1", "c1ccc2ccccc2c1")
TAILS = [end + "C" * n for n in range(1, 6) for end in ("", "O", "N", "F", "Cl")]


def ring_smiles():
    """A hundred molecules of four scaffolds."""
    from chemscale_jax.chem.molecule_list import canonical_smiles

    return [canonical_smiles(tail + ring) for ring in RINGS for tail in TAILS]


def table(smiles, values, **changes):
    """Embeddings as they are read; rows of NaN are failed."""
    values = np.asarray(values, np.float32)
    failed = ~np.isfinite(values).all(1)
    fields = {
        "index": np.arange(len(smiles)),
        "where": np.array([f"mols.csv line {i + 2}" for i in range(len(smiles))]),
        "smiles": np.array(smiles, np.str_),
        "status": np.where(failed, "failed", "2d"),
        "reason": np.where(failed, "no SMILES", ""),
        "values": values,
        "about": {"task": "causal_lm", "model": "chemgpt"},
    }
    return EmbeddingTable(**(fields | changes))


def ring_values(scale, seed=0, width=8):
    """Values that tell the scaffolds of `ring_smiles` apart if scale is large."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(len(RINGS)), len(TAILS))
    centres = rng.normal(size=(len(RINGS), width)) * scale
    return centres[groups] + rng.normal(size=(len(groups), width))
