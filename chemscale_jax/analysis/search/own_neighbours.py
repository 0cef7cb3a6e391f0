"""How far the vectors of an index are from each other, and what a search finds of it.

Some of the vectors are taken as queries, each without itself: the exact distances say
what is near in this set, and how many of the nearest an approximate search finds.
"""

import dataclasses
import pathlib
from typing import Any

import numpy as np

from chemscale_jax.analysis.search import approximate_neighbours
from chemscale_jax.analysis.search.exact_neighbours import exact_neighbours
from chemscale_jax.analysis.search.vector_store import VectorStore
from chemscale_jax.core.saved_arrays import SavedArrays

# Vectors taken as queries for distances, and of these for the recall.
_SAMPLE, _TUNE = 1000, 200


@dataclasses.dataclass(frozen=True)
class OwnNeighbours(SavedArrays):
    """Distances within the set.

    A molecule that occurs several times is not its own neighbour: SMILES tell.
    """

    ids: np.ndarray  # (n,) int64, of the sample
    nearest: np.ndarray  # (n,) float64, to the nearest other molecule; NaN: none found


def measure(
    store: VectorStore, folder: pathlib.Path, settings: Any
) -> tuple[OwnNeighbours, dict[str, Any]]:
    """Measures distances, and the effort that an approximate search needs.

    Args:
        store: the vectors.
        folder: of the index.
        settings: `index_build.IndexSettings`.

    Returns:
        The distances, and for index.json: effort, recall, and whether that recall was
        reached.
    """
    rng = np.random.default_rng(settings.seed)
    ids = np.sort(rng.permutation(len(store))[:_SAMPLE])
    queries = np.asarray(store.vectors[ids])
    k, faiss = settings.k, approximate_neighbours.faiss_or_none()
    found = exact_neighbours(store.vectors, queries, settings.metric, k + 1, faiss)
    nearest = np.full(len(ids), np.nan)
    for i, own in enumerate(store.smiles(ids)):
        others = found.ids[i] != ids[i]
        others &= found.ids[i] >= 0
        if own:
            others &= store.smiles(found.ids[i]) != own
        if others.any():
            nearest[i] = found.distances[i, others.argmax()]
    distances = OwnNeighbours(ids=ids, nearest=nearest)
    if settings.kind == "flat":
        return distances, {}
    tune = np.sort(rng.permutation(len(ids))[:_TUNE])
    return distances, _effort(
        store, folder, settings, queries[tune], ids[tune], found.ids[tune]
    )


def recall_of(found: np.ndarray, true: np.ndarray) -> float:
    """Share of the true neighbours that were found, over all queries.

    Args:
        found: (Q, k) ids.
        true: (Q, k) ids; -1 is none.
    """
    hits = sum(
        np.isin(one[one >= 0], other).sum()
        for one, other in zip(true, found, strict=True)
    )
    return float(hits / max(1, (true >= 0).sum()))


def _effort(
    store: VectorStore,
    folder: pathlib.Path,
    settings: Any,
    queries: np.ndarray,
    ids: np.ndarray,
    true: np.ndarray,
) -> dict[str, Any]:
    """The least effort with which the recall is reached."""
    index = approximate_neighbours.load(folder)
    k, recall, effort = settings.k, 0.0, 1
    true = _without(true, ids, k)
    for effort in approximate_neighbours.efforts(index, settings.kind, k):
        found = approximate_neighbours.search(
            index, store.vectors, queries, settings.metric, k + 1, effort
        )
        recall = recall_of(_without(found.ids, ids, k), true)
        if recall >= settings.recall:
            break
    return {
        "effort": effort,
        "recall": recall,
        "recall_reached": recall >= settings.recall,
    }


def _without(found: np.ndarray, ids: np.ndarray, k: int) -> np.ndarray:
    """The first k neighbours that are not the query itself."""
    kept = np.full((len(found), k), -1, np.int64)
    for place, own in enumerate(ids):
        others = found[place][(found[place] != own) & (found[place] >= 0)][:k]
        kept[place, : len(others)] = others
    return kept
