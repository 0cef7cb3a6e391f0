"""Files of what a search found: every query has its rows, failed ones too."""

import csv
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from chemscale_jax.analysis.search.applicability import LIMIT, applicability
from chemscale_jax.analysis.search.similarity import tanimoto
from chemscale_jax.analysis.search.vector_index import VectorIndex
from chemscale_jax.chem.fingerprint_search import packed_fingerprints
from chemscale_jax.core.embedding_table import EmbeddingTable
from chemscale_jax.core.errors import UserError

BY = ("embedding", "fingerprint")
_QUERY = ("query_row", "query_where", "query_smiles", "status", "reason")
HITS_HEADER = (*_QUERY, "rank", "source", "row", "smiles", "distance", "tanimoto")
APPLICABILITY_HEADER = (
    *("row", "where", "smiles", "status", "reason"),
    *("nearest_source", "nearest_row", "nearest_smiles", "distance", "quantile"),
    "inside",
)


class Asked(NamedTuple):
    """How to search.

    Attributes:
        k: hits of each query.
        by: "embedding" or "fingerprint".
        exact: see `VectorIndex.search`.
        effort: likewise.
    """

    k: int = 100
    by: str = "embedding"
    exact: bool = False
    effort: int | None = None


class Written(NamedTuple):
    """What went into a file: queries that were answered, and that were not."""

    answered: int
    failed: int


def write_hits(
    path: pathlib.Path,
    index: VectorIndex,
    queries: Iterable[EmbeddingTable],
    asked: Asked,
) -> Written:
    """Writes a csv with one row for each hit, nearest first.

    A query that could not be read or embedded has one row, with the reason and without
    a hit. "row" is that of the input of ``chemscale embed``, "distance" is in the
    metric of the index, "tanimoto" of Morgan fingerprints, where the index has them.

    Args:
        path: of the csv.
        index: to search.
        queries: blocks of queries; values do not matter for a search by fingerprint.
        asked: how.

    Raises:
        UserError: the file cannot be written, or what is asked makes no sense.
    """
    if asked.by not in BY:
        raise UserError(f"by is {asked.by!r}, expected one of {BY}")
    if asked.k < 1:
        raise UserError(f"k is {asked.k}: ask for at least 1 hit")
    rows = (line for block in queries for line in _hits(index, block, asked))
    return _write(path, HITS_HEADER, rows)


def write_applicability(
    path: pathlib.Path, index: VectorIndex, queries: Iterable[EmbeddingTable]
) -> Written:
    """Writes a csv with one row for each query: how far it is from the set.

    Args:
        path: of the csv.
        index: of embeddings of the training set.
        queries: blocks of queries.

    Raises:
        UserError: the file cannot be written.
    """
    rows = (line for block in queries for line in _distances(index, block))
    return _write(path, APPLICABILITY_HEADER, rows)


# One line, of a query that was answered or not, and whether it is the query's first.
_Line = tuple[bool, bool, list[Any]]


def _hits(index: VectorIndex, block: EmbeddingTable, asked: Asked) -> Iterator[_Line]:
    vectors = np.zeros((len(block), 0), np.float32)
    known = np.array([text != "" for text in block.smiles.tolist()], bool)
    if asked.by == "embedding":
        vectors = _projected(index, block)
        known = np.isfinite(vectors).all(axis=1)
    places = np.flatnonzero(known)
    has_bits = bool(index.facts["settings"]["fingerprints"])
    bits = np.zeros((0, 0), np.uint8)
    if has_bits or asked.by == "fingerprint":
        bits = packed_fingerprints(block.smiles[places].tolist())
    distances = alike = np.full((len(places), asked.k), np.nan)
    if asked.by == "fingerprint":
        ids, alike = index.similar(bits, asked.k)
    else:
        ids, distances = index.search(
            vectors[places], asked.k, exact=asked.exact, effort=asked.effort
        )
        if has_bits:
            alike = _tanimoto(index, bits, ids)
    names = index.source_names()
    answer = dict(zip(places.tolist(), range(len(places)), strict=True))
    for place in range(len(block)):
        query = _query(block, place, place in answer)
        if place not in answer:
            yield False, True, [*query, *[""] * 6]
            continue
        found = answer[place]
        real = ids[found][ids[found] >= 0]
        for rank, (i, smiles) in enumerate(
            zip(real.tolist(), index.smiles(real).tolist(), strict=True), 1
        ):
            yield (
                True,
                rank == 1,
                [
                    *query,
                    rank,
                    names[index.store.sources[i]],
                    int(index.store.rows[i]),
                    smiles,
                    _shown(distances[found, rank - 1]),
                    _shown(alike[found, rank - 1]),
                ],
            )


def _distances(index: VectorIndex, block: EmbeddingTable) -> Iterator[_Line]:
    found = applicability(index, _projected(index, block))
    names, inside = index.source_names(), found.inside(LIMIT)
    for place, i in enumerate(found.nearest.tolist()):
        query = _query(block, place, i >= 0)
        if i < 0:
            yield False, True, [*query, *[""] * 6]
            continue
        yield (
            True,
            True,
            [
                *query,
                names[index.store.sources[i]],
                int(index.store.rows[i]),
                index.smiles([i])[0],
                _shown(found.distance[place]),
                f"{found.quantile[place]:.4f}",
                "yes" if inside[place] else "no",
            ],
        )


def _projected(index: VectorIndex, block: EmbeddingTable) -> np.ndarray:
    """(n, d); NaN where a row has no embedding."""
    if block.values.shape[1] == 0 and not block.usable.any():
        return np.full((len(block), index.facts["width"]), np.nan, np.float32)
    vectors = index.project(block.values)
    vectors[~block.usable] = np.nan
    return vectors


def _query(block: EmbeddingTable, place: int, known: bool) -> list[Any]:
    """What is said of the query in each of its lines."""
    reason = str(block.reason[place])
    if not known and not reason:
        reason = "it has no embedding that can be compared"
    return [
        int(block.index[place]),
        str(block.where[place]),
        str(block.smiles[place]),
        str(block.status[place]),
        reason,
    ]


def _tanimoto(index: VectorIndex, bits: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Similarities of each query to its own hits: like ids, NaN where there is none."""
    found = np.full(ids.shape, np.nan)
    known = index.store.fingerprints
    for place, own in enumerate(ids):
        real = own >= 0
        if real.any():
            found[place, real] = tanimoto(bits[place : place + 1], known[own[real]])[0]
    return found


def _shown(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.6g}"


def _write(
    path: pathlib.Path, header: tuple[str, ...], rows: Iterator[_Line]
) -> Written:
    answered = failed = 0
    draft = path.with_name(f".{path.name}.part")
    try:
        with draft.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(header)
            for known, first, line in rows:
                answered += known and first
                failed += not known
                writer.writerow(line)
        draft.replace(path)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror}): choose another file"
        ) from None
    finally:
        draft.unlink(missing_ok=True)
    return Written(answered, failed)
