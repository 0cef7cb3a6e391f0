"""The nearest vectors of many, exactly: by faiss where it is installed, else NumPy.

Candidates come from float32 arithmetic; their distances are then computed again in
float64, and sorted by distance and number, so that both ways and a plain comparison
with every vector give the same.

=======  ==========================================================================
metric   distance
=======  ==========================================================================
cosine   1 - cos of the angle; vectors must have length 1
l2       Euclidean
l1       sum of the absolute differences
=======  ==========================================================================
"""

from typing import Any, NamedTuple

import numpy as np
from scipy.spatial.distance import cdist

METRICS = ("cosine", "l2", "l1")
# Candidates beyond those that are asked for, which rounding may have pushed out.
_MORE = 32
# Numbers in a block of distances, and in one of gathered vectors.
_PAIRS, _GATHERED = 1 << 22, 1 << 24


class Neighbours(NamedTuple):
    """The k nearest vectors of each of Q queries, nearest first.

    Attributes:
        ids: (Q, k) int64, places among the vectors; -1 where there are fewer.
        distances: (Q, k) float64; NaN there.
    """

    ids: np.ndarray
    distances: np.ndarray


def exact_neighbours(
    vectors: np.ndarray,
    queries: np.ndarray,
    metric: str,
    k: int,
    faiss: Any = None,
) -> Neighbours:
    """Compares each query with every vector.

    Args:
        vectors: (M, d) float32, in memory or memory-mapped; of length 1 for cosine.
        queries: (Q, d) float32, likewise.
        metric: one of `METRICS`.
        k: neighbours.
        faiss: the module, or None for NumPy.
    """
    many = min(k + _MORE, len(vectors))
    if not many or not len(queries):
        return _nothing(len(queries), k)
    queries = np.ascontiguousarray(queries, np.float32)
    if faiss is not None:
        kind = faiss.METRIC_L1 if metric == "l1" else faiss.METRIC_L2
        _, ids = faiss.knn(queries, np.asarray(vectors), many, metric=kind)
    else:
        ids = _by_blocks(vectors, queries, metric, many)
    return ranked(vectors, queries, metric, ids, k)


def ranked(
    vectors: np.ndarray, queries: np.ndarray, metric: str, ids: np.ndarray, k: int
) -> Neighbours:
    """The k nearest of some candidates, by distances in float64.

    Args:
        vectors: (M, d).
        queries: (Q, d).
        metric: one of `METRICS`.
        ids: (Q, c) of candidates; -1 is none.
        k: to keep.
    """
    found = _nothing(len(queries), k)
    kept = min(k, ids.shape[1])
    size = max(1, _GATHERED // max(1, ids.shape[1] * vectors.shape[1]))
    for start in range(0, len(queries), size):
        rows = slice(start, start + size)
        some = np.sort(ids[rows], axis=1)
        near = np.asarray(vectors[np.maximum(some, 0)], np.float64)
        away = _distances(near, queries[rows].astype(np.float64), metric)
        away[some < 0] = np.inf
        order = np.argsort(away, axis=1, kind="stable")[:, :kept]
        some = np.take_along_axis(some, order, axis=1)
        away = np.take_along_axis(away, order, axis=1)
        found.ids[rows, :kept] = some
        found.distances[rows, :kept] = np.where(some < 0, np.nan, away)
    return found


def _distances(near: np.ndarray, queries: np.ndarray, metric: str) -> np.ndarray:
    """Of (q, c, d) vectors to (q, d) queries: (q, c)."""
    apart = near - queries[:, None]
    if metric == "l1":
        return np.abs(apart).sum(axis=2)
    squares = np.einsum("qcd,qcd->qc", apart, apart)
    return squares / 2 if metric == "cosine" else np.sqrt(squares)


def _by_blocks(
    vectors: np.ndarray, queries: np.ndarray, metric: str, many: int
) -> np.ndarray:
    """(Q, many) places of the nearest, in no order."""
    found = np.empty((len(queries), many), np.int64)
    rows = min(len(vectors), 65536)
    size = max(1, _PAIRS // rows)
    for start in range(0, len(queries), size):
        some = queries[start : start + size]
        best = np.full((len(some), 0), np.inf, np.float32)
        ids = np.full((len(some), 0), -1, np.int64)
        for first in range(0, len(vectors), rows):
            block = np.asarray(vectors[first : first + rows])
            away = _float32_distances(some, block, metric)
            places = np.broadcast_to(np.arange(first, first + len(block)), away.shape)
            best = np.concatenate([best, away], axis=1)
            ids = np.concatenate([ids, places], axis=1)
            if best.shape[1] > many:
                order = np.argpartition(best, many - 1, axis=1)[:, :many]
                best = np.take_along_axis(best, order, axis=1)
                ids = np.take_along_axis(ids, order, axis=1)
        found[start : start + size] = ids
    return found


def _float32_distances(
    queries: np.ndarray, block: np.ndarray, metric: str
) -> np.ndarray:
    """What rises with the distance."""
    if metric == "l1":
        return cdist(queries, block, "cityblock").astype(np.float32)
    squares = np.einsum("md,md->m", block, block)
    return squares - 2 * (queries @ block.T)


def _nothing(Q: int, k: int) -> Neighbours:
    return Neighbours(np.full((Q, k), -1), np.full((Q, k), np.nan))
