"""Builds an index of embeddings in streaming; what was stopped goes on.

One pass finds the principal components, a second one projects and stores, and then
faiss makes what an approximate search needs. Memory holds one block, the covariance,
and faiss' own index.
"""

import dataclasses
import os
import pathlib
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from chemscale_jax.analysis.search import approximate_neighbours, own_neighbours
from chemscale_jax.analysis.search.exact_neighbours import METRICS
from chemscale_jax.analysis.search.principal_components import (
    Projection,
    fit_projection,
)
from chemscale_jax.analysis.search.vector_index import (
    ASKED_JSON,
    INDEX_JSON,
    KINDS,
    OWN,
    PROJECTION,
    VectorIndex,
    kept_form,
)
from chemscale_jax.analysis.search.vector_sources import VectorSource, shared_about
from chemscale_jax.analysis.search.vector_store import LeftOut, StoreWriter, VectorStore
from chemscale_jax.chem.fingerprint_search import packed_fingerprints
from chemscale_jax.core.embedding_table import EmbeddingTable
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.workdir import read_json, write_json

# Seconds between redrawings of the bar where nobody watches it move.
_LOG_INTERVAL = 30.0
_MOST_SOURCES = 65535


@dataclasses.dataclass(frozen=True, kw_only=True)
class IndexSettings:
    """How to build an index.

    Attributes:
        kind: "flat" (exact), "ivf" or "hnsw"; see `approximate_neighbours`.
        metric: one of `exact_neighbours.METRICS`.
        pca: principal components to keep, as Frey et al. 2023 do with 100; embeddings
            of no more numbers are only turned. 0 takes them as they are.
        fingerprints: whether Morgan fingerprints are kept beside the vectors.
        recall: share of the k nearest that approximate searches shall find.
        k: for which the recall is measured.
        lists: of ivf; 0: by the number of vectors.
        seed: of samples.

    Raises:
        UserError: a value is unknown or out of range.
    """

    kind: str = "flat"
    metric: str = "cosine"
    pca: int = 100
    fingerprints: bool = True
    recall: float = 0.95
    k: int = 100
    lists: int = 0
    seed: int = 0

    def __post_init__(self):
        for name, choices in (("kind", KINDS), ("metric", METRICS)):
            if (found := getattr(self, name)) not in choices:
                raise UserError(f"{name} is {found!r}, expected one of {choices}")
        for name, least in (("pca", 0), ("k", 1), ("lists", 0), ("seed", 0)):
            if (found := getattr(self, name)) < least:
                raise UserError(f"{name} is {found}: it must be at least {least}")
        if not 0 < self.recall <= 1:
            raise UserError(f"recall is {self.recall}: it must be above 0, at most 1")


def build_index(
    sources: Sequence[VectorSource],
    folder: str | os.PathLike,
    settings: IndexSettings | None = None,
    *,
    processes: int | None = None,
    save_s: float = 60.0,
    progress: bool = True,
) -> VectorIndex:
    """Builds an index, or goes on with one that was begun.

    Args:
        sources: of embeddings of one model; see `vector_sources`.
        folder: to write into; made if it is not there.
        settings: how.
        processes: that make fingerprints; default all that may be used.
        save_s: seconds between two savings of what takes long.
        progress: whether there are bars.

    Raises:
        UserError: the folder holds something else, embeddings do not fit together, no
            row has an embedding, or faiss is missing.
    """
    settings = settings or IndexSettings()
    if settings.kind != "flat":
        approximate_neighbours.import_faiss(f"kind={settings.kind}")
    if len(sources) > _MOST_SOURCES:
        raise UserError(f"{len(sources)} files: join them, {_MOST_SOURCES} can be told")
    path = pathlib.Path(folder).expanduser()
    about = shared_about(sources)
    _begin(path, sources, settings)
    if (path / INDEX_JSON).exists():
        return VectorIndex.open(path)
    started = time.monotonic()
    projection = None
    if settings.pca:
        projection = _projection(path / PROJECTION, sources, settings, progress)
    widths = _store(path, sources, settings, projection, processes, save_s, progress)
    store = VectorStore(path, widths[1], settings.fingerprints)
    if not len(store):
        raise UserError(
            f"no row of {sources[0].name} has an embedding: see why in "
            f"{path / 'left_out.csv'}"
        )
    facts: dict[str, Any] = {}
    if settings.kind != "flat":
        with _bar("neighbours", len(store), progress) as bar:
            approximate_neighbours.build(
                store.vectors,
                path,
                settings.kind,
                settings.metric,
                lists=settings.lists,
                seed=settings.seed,
                save_s=save_s,
                bar=bar,
            )
    own, measured = own_neighbours.measure(store, path, settings)
    own.save(path / OWN)
    facts |= measured
    facts |= {
        "schema": 1,
        "settings": dataclasses.asdict(settings),
        "sources": [{"name": s.name, **s.facts} for s in sources],
        "about": about,
        "vectors": len(store),
        "left_out": store.state.left_out,
        "input_width": widths[0],
        "width": widths[1],
        "pca": projection is not None,
        "variance_kept": projection.kept if projection else 1.0,
        "build_s": round(time.monotonic() - started, 3),
    }
    write_json(path / INDEX_JSON, facts)
    return VectorIndex.open(path)


def _begin(
    path: pathlib.Path, sources: Sequence[VectorSource], settings: IndexSettings
) -> None:
    """Makes the folder, or checks that it holds the beginning of the same."""
    asked = {
        "settings": dataclasses.asdict(settings),
        "sources": [{"name": s.name, **s.facts} for s in sources],
    }
    file = path / ASKED_JSON
    try:
        path.mkdir(parents=True, exist_ok=True)
        if file.exists():
            if read_json(file) == asked:
                return
            raise UserError(
                f"{path} holds an index of something else or with other settings: "
                "delete it, or choose another folder"
            )
        if any(path.iterdir()):
            raise UserError(f"{path} holds other files: choose another folder")
        write_json(file, asked)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror}): choose another folder"
        ) from None


def _projection(
    file: pathlib.Path,
    sources: Sequence[VectorSource],
    settings: IndexSettings,
    progress: bool,
) -> Projection:
    if file.exists():
        return Projection.load(file)
    with _bar("components", _rows(sources), progress) as bar:

        def blocks() -> Iterator[np.ndarray]:
            for source in sources:
                for block in source.blocks():
                    yield block.values[block.usable]
                    bar.update(len(block))

        projection = fit_projection(blocks(), settings.pca)
    projection.save(file)
    return projection


def _store(
    path: pathlib.Path,
    sources: Sequence[VectorSource],
    settings: IndexSettings,
    projection: Projection | None,
    processes: int | None,
    save_s: float,
    progress: bool,
) -> tuple[int, int]:
    """Fills the store; widths of the embeddings and of what is kept of them."""
    first = next(sources[0].blocks())
    wide = first.values.shape[1]
    width = len(projection.axes) if projection else wide
    with (
        StoreWriter(path, width, settings.fingerprints) as store,
        _bar("vectors", _rows(sources), progress) as bar,
    ):
        state = store.state
        bar.update(state.vectors + state.left_out)
        if state.done:
            return wide, width
        saved = time.monotonic()
        for number, source in enumerate(sources[state.source :], state.source):
            skip = state.rows if number == state.source else 0
            rows = 0
            for whole in source.blocks():
                rows += len(whole)
                if rows <= skip:
                    continue
                block = whole.take(slice(max(0, len(whole) - (rows - skip)), None))
                if block.values.shape[1] != wide:
                    raise UserError(
                        f"{source.name} has embeddings of width "
                        f"{block.values.shape[1]}, and {sources[0].name} of {wide}: "
                        "index files of one model"
                    )
                _add(store, number, block, settings, projection, processes)
                bar.update(len(block))
                if time.monotonic() - saved > save_s:
                    store.commit(number, rows)
                    saved = time.monotonic()
            store.commit(number + 1, 0)
        store.commit(len(sources), 0, done=True)
    return wide, width


def _add(
    store: StoreWriter,
    number: int,
    block: EmbeddingTable,
    settings: IndexSettings,
    projection: Projection | None,
    processes: int | None,
) -> None:
    usable = block.usable
    vectors = np.full((len(block), 0), np.nan, np.float32)
    if usable.any():
        found = kept_form(block.values[usable], projection, settings.metric)
        vectors = np.full((len(block), found.shape[1]), np.nan, np.float32)
        vectors[usable] = found
    kept = usable & np.isfinite(vectors).all(axis=1)
    without = []
    for i in np.flatnonzero(~kept).tolist():
        reason = str(block.reason[i]) or (
            "all numbers are equal to the mean: no direction for the metric cosine"
            if usable[i]
            else "it has no embedding"
        )
        where, status = str(block.where[i]), str(block.status[i])
        row = int(block.index[i])
        without.append(LeftOut(number, row, where, status, reason))
    smiles = block.smiles[kept]
    bits = None
    if settings.fingerprints:
        bits = packed_fingerprints(smiles.tolist(), processes=processes)
    store.add(vectors[kept], block.index[kept], number, smiles, without, bits)


def _rows(sources: Sequence[VectorSource]) -> int | None:
    counts = [source.rows for source in sources]
    return None if None in counts else sum(n for n in counts if n)


def _bar(label: str, total: int | None, progress: bool) -> tqdm:
    return tqdm(
        total=total,
        unit="mol",
        unit_scale=True,
        desc=label,
        disable=not progress,
        dynamic_ncols=True,
        mininterval=0.1 if sys.stderr.isatty() else _LOG_INTERVAL,
    )
