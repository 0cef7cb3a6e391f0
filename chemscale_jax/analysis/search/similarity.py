"""Tanimoto similarity of packed fingerprints, in blocks that fit into a cache.

The similarity of two bit sets is |a and b| / |a or b|; that of two empty ones is 1, as
in MOSES.
"""

from collections.abc import Iterator

import numpy as np

# Pairs in a block: rows of the one set by rows of the other.
_ROWS, _COLUMNS = 256, 4096


def tanimoto(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """All similarities of two sets.

    Args:
        first: (n, bytes) uint8, packed bits.
        second: (m, bytes) uint8.

    Returns:
        (n, m) float32.
    """
    found = np.empty((len(first), len(second)), np.float32)
    for rows, columns, block in _blocks(first, second):
        found[rows, columns] = block
    return found


def nearest(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The similarity of each member of a set to its nearest one of another.

    Returns:
        (n,) float64; NaN if the other set is empty.
    """
    found = np.full(len(first), -1.0 if len(second) else np.nan)
    for rows, _, block in _blocks(first, second):
        np.maximum(found[rows], block.max(axis=1), out=found[rows])
    return found


def weighted_sums(
    bits: np.ndarray, weights: np.ndarray, powers: tuple[int, ...]
) -> dict[int, np.ndarray]:
    """Sums over j of T(i, j)^p w(j), for each i, weight and power.

    Args:
        bits: (n, bytes) uint8, packed bits of one set, whose members i and j are.
        weights: (n, k).
        powers: each a p.

    Returns:
        {p: (n, k) float64}.
    """
    weights = weights.astype(np.float32)
    sums = {p: np.zeros(weights.shape) for p in powers}
    for rows, columns, block in _blocks(bits, bits):
        for p, found in sums.items():
            found[rows] += np.power(block, p) @ weights[columns]
    return sums


def _blocks(
    first: np.ndarray, second: np.ndarray
) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """Similarities by blocks: rows of each set, and a float32 array."""
    a, b = _words(first), _words(second)
    n_a, n_b = _counts(a), _counts(b)
    for i in range(0, len(a), _ROWS):
        rows = slice(i, min(i + _ROWS, len(a)))
        for j in range(0, len(b), _COLUMNS):
            columns = slice(j, min(j + _COLUMNS, len(b)))
            both = np.zeros((rows.stop - i, columns.stop - j), np.uint16)
            for word in range(a.shape[1]):
                both += np.bitwise_count(a[rows, word, None] & b[None, columns, word])
            either = n_a[rows, None] + n_b[None, columns] - both
            empty = either == 0
            shared = np.where(empty, 1, both).astype(np.float32)
            yield rows, columns, shared / np.where(empty, 1, either)


def _words(bits: np.ndarray) -> np.ndarray:
    """The same bits, sixty-four to a word: (n, ceil(bytes / 8)) uint64."""
    short = -bits.shape[1] % 8
    return np.ascontiguousarray(np.pad(bits, ((0, 0), (0, short)))).view(np.uint64)


def _counts(words: np.ndarray) -> np.ndarray:
    return np.bitwise_count(words).sum(axis=1, dtype=np.uint16)
