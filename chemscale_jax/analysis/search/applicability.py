"""Whether molecules lie where a model has seen others: distances to its training set.

A molecule's distance to its nearest one of the training set is compared with how far
molecules of the training set are from their own nearest other one. Where that quantile
is high, what a model says of the molecule is extrapolated; where it is low, it may be
wrong all the same.
"""

from typing import NamedTuple

import numpy as np

from chemscale_jax.analysis.search.own_neighbours import OwnNeighbours
from chemscale_jax.analysis.search.vector_index import OWN, VectorIndex
from chemscale_jax.core.errors import UserError

# Molecules beyond this quantile are called outside.
LIMIT = 0.95


class Applicability(NamedTuple):
    """Of Q molecules.

    Attributes:
        nearest: (Q,) int64 id in the index; -1 for queries that are not finite.
        distance: (Q,) float64, to it, in the metric of the index; NaN for those.
        quantile: (Q,) float64, share of the training molecules whose nearest other
            one is nearer than this; 0 for a molecule of the training set itself.
    """

    nearest: np.ndarray
    distance: np.ndarray
    quantile: np.ndarray

    def inside(self, limit: float = LIMIT) -> np.ndarray:
        """(Q,) bool: whether the quantile is at most the limit."""
        return self.quantile <= limit


def applicability(index: VectorIndex, queries: np.ndarray) -> Applicability:
    """How far molecules are from a training set.

    Args:
        index: of embeddings of the training set.
        queries: (Q, d), from `VectorIndex.project`; rows may be NaN.

    Raises:
        UserError: the training set has fewer than two distinct molecules.
    """
    own = np.sort(OwnNeighbours.load(index.folder / OWN).nearest)
    own = own[np.isfinite(own)]
    if not len(own):
        raise UserError(
            f"{index.folder} has no two distinct molecules, so nothing is near or far "
            "in it: index a training set"
        )
    found = Applicability(
        np.full(len(queries), -1),
        np.full(len(queries), np.nan),
        np.full(len(queries), np.nan),
    )
    known = np.flatnonzero(np.isfinite(queries).all(axis=1))
    hits = index.search(queries[known], 1)
    found.nearest[known] = hits.ids[:, 0]
    found.distance[known] = hits.distances[:, 0]
    # Distances of a vector to itself are 0 but for rounding of the query.
    found.quantile[known] = np.searchsorted(own, hits.distances[:, 0]) / len(own)
    return found
