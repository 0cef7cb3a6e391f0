"""Folds that probes are tested on: random, by scaffold, or by clusters of scaffolds."""

from collections.abc import Sequence

import numpy as np

from chemscale_jax.chem.scaffolds import scaffold_of
from chemscale_jax.chem.similarity_clusters import similarity_clusters
from chemscale_jax.core.errors import UserError
from chemscale_jax.data.labels.split_folds import deal_folds

SPLITS = {
    "random": "equal molecules together, else at random",
    "scaffold": "whole Murcko scaffolds together",
    "cluster": "whole clusters of similar scaffolds together",
}
# Keeps random numbers of outer and inner folds apart.
_OUTER, _INNER = 5 << 32, 6 << 32


def scaffolds(smiles: Sequence[str]) -> np.ndarray:
    """(M,) int: number of each molecule's scaffold; all without rings share one."""
    names = [scaffold_of(text) for text in smiles]
    return np.unique(names, return_inverse=True)[1].astype(np.int64)


def blocks_of(smiles: Sequence[str], split: str) -> np.ndarray:
    """(M,) int: molecules with equal numbers stay in one fold.

    Args:
        smiles: canonical, of M molecules.
        split: one of `SPLITS`.
    """
    if split not in SPLITS:
        raise UserError(f"split is {split!r}, expected one of {(*SPLITS,)}")
    molecule = np.unique(np.asarray(smiles), return_inverse=True)[1].astype(np.int64)
    if split == "random":
        return molecule
    names, place, counts = np.unique(
        [scaffold_of(text) for text in smiles],
        return_inverse=True,
        return_counts=True,
    )
    if split == "scaffold":
        return place.astype(np.int64)
    return similarity_clusters(names.tolist(), counts).number[place]


def outer_folds(blocks: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """(M,) int: the fold in which each molecule is tested.

    Blocks are dealt out by falling size, each to the smallest fold so far; those of one
    size in an order that the seed draws.

    Raises:
        UserError: there are fewer blocks than folds.
    """
    return _dealt(blocks, folds, [seed, _OUTER])


def inner_folds(blocks: np.ndarray, folds: int, seed: int, fold: int) -> np.ndarray:
    """(M,) int: folds of the training set of an outer fold, as many as can be."""
    folds = min(folds, len(np.unique(blocks)))
    if folds < 2:
        # Nothing can be told about other blocks, so molecules have to do.
        return np.arange(len(blocks)) % 2
    return _dealt(blocks, folds, [seed, _INNER + fold])


def _dealt(blocks: np.ndarray, folds: int, key: list[int]) -> np.ndarray:
    if folds < 2 or len(np.unique(blocks)) < folds:
        raise UserError(
            f"{len(np.unique(blocks))} groups of molecules that stay together cannot "
            f"make {folds} folds: use 2 or more folds, and no more than there are "
            "groups, or --split=random"
        )
    rng = np.random.Generator(np.random.Philox(key=key))
    return deal_folds(blocks, np.zeros(len(blocks), np.int64), folds, rng)
