"""Molecules that stay together, such as all of a scaffold, dealt out into folds."""

import numpy as np


def sizes_of(blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First molecule of each block, block of each molecule, molecules of each block."""
    _, first, place, sizes = np.unique(
        blocks, return_index=True, return_inverse=True, return_counts=True
    )
    return first, place, sizes


def deal_folds(
    blocks: np.ndarray, strata: np.ndarray, folds: int, rng: np.random.Generator | None
) -> np.ndarray:
    """Number of each molecule's fold: large blocks first, each to the smallest fold.

    Args:
        blocks: (M,) int, of each molecule.
        strata: (M,) int, of each molecule; where one is not 0, all folds get equal
            numbers of the blocks of each, whatever their sizes.
        folds: how many; of fewer blocks some folds stay empty.
        rng: draws the order of equal blocks; None: as they stand.
    """
    first, place, sizes = sizes_of(blocks)
    drawn = np.argsort(first) if rng is None else rng.permutation(len(sizes))
    if strata.any():
        # One after the other within strata: equal numbers of each in all folds.
        drawn = drawn[np.argsort(strata[first][drawn], kind="stable")]
        fold = np.empty(len(sizes), np.int64)
        fold[drawn] = np.arange(len(sizes)) % folds
        return fold[place]
    fold, filled = np.empty(len(sizes), np.int64), np.zeros(folds, np.int64)
    for block in drawn[np.argsort(-sizes[drawn], kind="stable")]:
        fold[block] = filled.argmin()
        filled[fold[block]] += sizes[block]
    return fold[place]
