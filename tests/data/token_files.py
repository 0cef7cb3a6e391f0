"""Token stores in memory, for tests."""

import numpy as np

from chemscale_jax.chem.vocabulary import SPECIALS, Vocabulary
from chemscale_jax.data.text.token_store import TokenStore

SYMBOLS = tuple(f"[S{i}]" for i in range(40))


def store_of(lengths, keys=None) -> TokenStore:
    """Molecules of random symbols; molecule i comes from line 3 i + 7."""
    lengths = np.asarray(lengths, np.int64)
    n = len(lengths)
    rng = np.random.default_rng(n)
    if keys is None:
        keys = np.stack([np.arange(n), np.arange(n)], 1)
    return TokenStore(
        vocabulary=Vocabulary(SPECIALS + SYMBOLS),
        tokens=rng.integers(5, 45, lengths.sum()).astype(np.uint16),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        lines=np.arange(n) * 3 + 7,
        keys=np.asarray(keys, np.uint64),
        heavy_atoms=(lengths // 2).astype(np.uint16),
        info={"source": {"path": "molecules.smi"}},
        coverage={},
    )


def text_of(store: TokenStore, index: int) -> list[int]:
    """``[CLS] symbols [SEP]`` of a molecule, the plain way."""
    words = store.vocabulary
    return [words.begin, *map(int, store.symbols(index)), words.end]


def pubchem_lengths(n, seed=0) -> np.ndarray:
    """Tokens per molecule like those of PubChem: 41.6 on average, some above 200."""
    rng = np.random.default_rng(seed)
    common = rng.normal(39, 13, n)
    rare = rng.gamma(3.0, 30.0, n)
    drawn = np.where(rng.random(n) < 0.96, common, rare)
    return np.clip(np.rint(drawn), 5, 500).astype(np.int64)


def moses_lengths(n, seed=0) -> np.ndarray:
    """Tokens per molecule like those of MOSES: 36 on average, none far from it."""
    rng = np.random.default_rng(seed)
    return np.clip(np.rint(rng.normal(36, 4.2, n)), 20, 52).astype(np.int64)
