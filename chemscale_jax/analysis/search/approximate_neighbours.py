"""Approximate search by faiss: what it needs of a store, and how to ask it.

=====  =============================================================================
kind   what it is
=====  =============================================================================
ivf    inverted lists: vectors by their nearest of some centres, of which a query
       looks at a few (`effort`); built in seconds to minutes
hnsw   a graph of near vectors (Malkov and Yashunin 2020), searched with a list of
       candidates (`effort`); faster to ask, much slower to build
=====  =============================================================================

Inverted lists keep four bits a number, which are compared many at a time (product
quantisation with one number a part; Andre et al. 2015): 20,000 vectors of width 100
take 0.15 ms of one core, 0.8 ms as float32 and 3.9 ms as eight bits. What is found is a
longer list of candidates, which `exact_neighbours.ranked` sorts by the true vectors.
Graphs, and all indexes for the metric l1, keep the numbers as they are. Cosine is
searched as Euclidean distance between vectors of length 1, which has the same order.
"""

import math
import os
import pathlib
import time
from typing import Any

import numpy as np

from chemscale_jax.analysis.search.exact_neighbours import Neighbours, ranked
from chemscale_jax.core.errors import UserError

KINDS = ("ivf", "hnsw")
INDEX_FILE = "neighbours.faiss"
# Candidates for each neighbour that is asked for, where four bits tell of a number.
_CANDIDATES = 5
# Fewer vectors are kept as they are: their distribution is not known well enough.
_MANY = 1000
# Vectors for each centre that k-means sees.
_TRAIN = 64
# Neighbours of a vector in the graph, and candidates while it is built.
_LINKS, _BUILD_EFFORT = 32, 100
_CHUNK = 16384


def import_faiss(what: str) -> Any:
    """The module.

    Raises:
        UserError: it is missing.
    """
    faiss = faiss_or_none()
    if faiss is None:
        raise UserError(
            f"{what} needs faiss: pip install 'chemscale_jax[search]', or take "
            "--kind=flat, which does without"
        )
    return faiss


def faiss_or_none() -> Any | None:
    """The module, or None where it is not installed."""
    try:
        import faiss
    except ImportError:
        return None
    return faiss


def build(
    vectors: np.ndarray,
    folder: pathlib.Path,
    kind: str,
    metric: str,
    *,
    lists: int = 0,
    seed: int = 0,
    save_s: float = 60.0,
    bar: Any = None,
) -> None:
    """Builds the index of a store, or goes on with one that was begun.

    Args:
        vectors: (M, d) float32, memory-mapped or not.
        folder: to write `INDEX_FILE` into.
        kind: one of `KINDS`.
        metric: of `exact_neighbours`.
        lists: of ivf; 0: four times the root of M.
        seed: of the vectors that k-means sees.
        save_s: seconds between two savings of what is there.
        bar: of tqdm, is told how many vectors are in.
    """
    faiss = import_faiss(f"kind={kind}")
    path, draft = folder / INDEX_FILE, folder / f"{INDEX_FILE}.part"
    if path.exists():
        return
    M = len(vectors)
    if draft.exists():
        index = faiss.read_index(str(draft))
    else:
        index = _trained(faiss, vectors, kind, metric, lists, seed)
        _save(faiss, index, draft)
    if bar is not None:
        bar.update(index.ntotal)
    saved = time.monotonic()
    while (done := index.ntotal) < M:
        index.add(np.ascontiguousarray(vectors[done : done + _CHUNK]))
        if bar is not None:
            bar.update(index.ntotal - done)
        if time.monotonic() - saved > save_s:
            _save(faiss, index, draft)
            saved = time.monotonic()
    _save(faiss, index, path)
    draft.unlink(missing_ok=True)


def lists_for(M: int) -> int:
    """Inverted lists of an index of M vectors, unless the user says."""
    return max(1, min(round(4 * math.sqrt(M)), M // 39))


def load(folder: pathlib.Path) -> Any:
    """The index, memory-mapped.

    Raises:
        UserError: the file is missing or broken, or faiss is missing.
    """
    faiss = import_faiss(f"the index {folder}")
    path = folder / INDEX_FILE
    try:
        return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:
        found = str(error).split("\n")[0]
        raise UserError(
            f"{path} cannot be read ({found}): delete it and give the command that "
            "built the index again"
        ) from None


def efforts(index: Any, kind: str, k: int) -> list[int]:
    """Efforts from the least to the one that looks at everything or nearly so."""
    most = index.nlist if kind == "ivf" else 4096
    least = 1 if kind == "ivf" else min(16, most)
    steps = range(2 * math.ceil(math.log2(most / least)) + 1)
    return sorted({min(most, round(least * 2 ** (i / 2))) for i in steps} | {most})


def search(
    index: Any,
    vectors: np.ndarray,
    queries: np.ndarray,
    metric: str,
    k: int,
    effort: int,
) -> Neighbours:
    """The k nearest that the index finds, sorted by true distances.

    Args:
        index: from `load`.
        vectors: (M, d), those that are in the index.
        queries: (Q, d) float32.
        metric: of `exact_neighbours`.
        k: neighbours.
        effort: lists to look at (ivf), or candidates to keep (hnsw; at least k).
    """
    faiss = import_faiss("this index")
    more = 1 if hasattr(index, "hnsw") or not hasattr(index, "pq") else _CANDIDATES
    many = min(len(vectors), more * k + 8)
    if hasattr(index, "nlist"):
        how = faiss.SearchParametersIVF(nprobe=min(effort, index.nlist))
    else:
        how = faiss.SearchParametersHNSW(efSearch=max(effort, many))
    queries = np.ascontiguousarray(queries, np.float32)
    _, ids = index.search(queries, many, params=how)
    return ranked(vectors, queries, metric, ids, k)


def _trained(
    faiss: Any, vectors: np.ndarray, kind: str, metric: str, lists: int, seed: int
) -> Any:
    """An index without vectors, whose centres and scales are known."""
    M, d = vectors.shape
    measure = faiss.METRIC_L1 if metric == "l1" else faiss.METRIC_L2
    coded = kind == "ivf" and metric != "l1" and M >= _MANY
    code = f"PQ{d}x4fs" if coded else "Flat"
    lists = lists or lists_for(M)
    front = f"IVF{lists}" if kind == "ivf" else f"HNSW{_LINKS}"
    index = faiss.index_factory(d, f"{front},{code}", measure)
    needed = max(20_000, _TRAIN * lists if kind == "ivf" else 0)
    sample = np.sort(np.random.default_rng(seed).permutation(M)[:needed])
    if kind == "ivf":
        index.cp.min_points_per_centroid = 1  # few are for tests and small sets
        index.cp.max_points_per_centroid = _TRAIN
    else:
        index.hnsw.efConstruction = _BUILD_EFFORT
    index.train(np.ascontiguousarray(vectors[sample]))
    return index


def _save(faiss: Any, index: Any, path: pathlib.Path) -> None:
    draft = path.with_name(f".{path.name}")
    faiss.write_index(index, str(draft))
    os.replace(draft, path)
