"""A saved index of embeddings: opened without reading it, asked in batches.

    index = VectorIndex.open("library.index")
    hits = index.search(index.project(embeddings), k=100)
    index.smiles(hits.ids[0])

Built by `index_build.build_index`. The folder holds the files of `vector_store`, and

===================  ===============================================================
index.json           settings, what made the embeddings, counts, measured recall;
                     written last
asked.json           what was asked to be built, by which a build goes on
projection.npz       `principal_components.Projection`, with pca
neighbours.faiss     see `approximate_neighbours`; of ivf and hnsw
own_neighbours.npz   how far some of the vectors are from their nearest other one
===================  ===============================================================
"""

import functools
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from chemscale_jax.analysis.search import approximate_neighbours, exact_neighbours
from chemscale_jax.analysis.search.exact_neighbours import METRICS, Neighbours
from chemscale_jax.analysis.search.principal_components import Projection
from chemscale_jax.analysis.search.vector_store import VectorStore
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.workdir import read_json

KINDS = ("flat", *approximate_neighbours.KINDS)
INDEX_JSON, ASKED_JSON = "index.json", "asked.json"
PROJECTION, OWN = "projection.npz", "own_neighbours.npz"
# Queries that are answered at once.
_BATCH = 1024


class VectorIndex:
    """Read access to an index.

    Attributes:
        folder: where it is.
        facts: the contents of index.json.
        store: the vectors and whose they are.
        projection: to principal components, or None.
    """

    def __init__(self, folder: pathlib.Path, facts: Mapping[str, Any]):
        self.folder, self.facts = folder, facts
        settings = facts["settings"]
        self.kind: str = settings["kind"]
        self.metric: str = settings["metric"]
        self.store = VectorStore(folder, facts["width"], settings["fingerprints"])
        self.projection = Projection.load(folder / PROJECTION) if facts["pca"] else None

    @classmethod
    def open(cls, folder: str | os.PathLike) -> "VectorIndex":
        """Opens an index.

        Raises:
            UserError: the folder holds none, or one that was not finished.
        """
        path = pathlib.Path(folder).expanduser()
        if not (path / INDEX_JSON).exists():
            found = "holds no index"
            if (path / ASKED_JSON).exists():
                found = "holds an index that was not finished"
            elif not path.exists():
                found = "does not exist"
            raise UserError(
                f"{path} {found}: build it with chemscale index --out={path}, which "
                "goes on where it was stopped"
            )
        facts = read_json(path / INDEX_JSON)
        if facts.get("schema") != 1:
            raise UserError(
                f"{path / INDEX_JSON} has schema {facts.get('schema')}, this version "
                "reads 1: build the index again"
            )
        return cls(path, facts)

    def __len__(self) -> int:
        return len(self.store)

    @property
    def about(self) -> Mapping[str, Any]:
        """What made the embeddings."""
        return self.facts["about"]

    def smiles(self, ids: Iterable[int]) -> np.ndarray:
        """Canonical SMILES of some vectors; "" for the id -1."""
        return self.store.smiles(ids)

    def source_names(self) -> list[str]:
        """The files of embeddings, by number."""
        return [source["name"] for source in self.facts["sources"]]

    def project(self, values: np.ndarray) -> np.ndarray:
        """Embeddings as the index keeps them: what `search` takes.

        Args:
            values: (Q, D); rows of NaN stay NaN.

        Returns:
            (Q, d) float32; NaN for the metric cosine where there is no direction.

        Raises:
            UserError: D is not that of the embeddings of the index.
        """
        if values.ndim != 2 or values.shape[1] != self.facts["input_width"]:
            raise UserError(
                f"queries have the shape {values.shape}, and {self.folder} is of "
                f"embeddings of width {self.facts['input_width']}: embed the queries "
                "with the model of the index"
            )
        return kept_form(values, self.projection, self.metric)

    def search(
        self,
        queries: np.ndarray,
        k: int = 100,
        *,
        exact: bool = False,
        effort: int | None = None,
    ) -> Neighbours:
        """The k nearest vectors of each query.

        Args:
            queries: (Q, d), from `project`; finite.
            k: neighbours.
            exact: compare with every vector, whatever the kind of the index.
            effort: of an approximate search; default: with which the recall that was
                asked for was reached when the index was built.

        Raises:
            UserError: k or effort makes no sense, a query is not finite, or faiss is
                missing for an approximate search.
        """
        if k < 1:
            raise UserError(f"k is {k}: ask for at least 1 neighbour")
        if effort is not None and effort < 1:
            raise UserError(f"effort is {effort}: it must be at least 1")
        if not np.isfinite(queries).all():
            raise UserError(
                "a query is not finite: leave out rows that failed before searching"
            )
        exact = exact or self.kind == "flat"
        chosen: int = effort or self.facts.get("effort", 1)
        parts = [self._none(k)]
        for start in range(0, len(queries), _BATCH):
            some = queries[start : start + _BATCH]
            if exact:
                faiss = approximate_neighbours.faiss_or_none()
                part = exact_neighbours.exact_neighbours(
                    self.store.vectors, some, self.metric, k, faiss
                )
            else:
                part = approximate_neighbours.search(
                    self._faiss, self.store.vectors, some, self.metric, k, chosen
                )
            parts.append(part)
        return Neighbours(
            np.concatenate([part.ids for part in parts]),
            np.concatenate([part.distances for part in parts]),
        )

    def similar(
        self, fingerprints: np.ndarray, k: int = 100
    ) -> tuple[np.ndarray, np.ndarray]:
        """The k molecules of the highest Tanimoto similarity, exactly.

        Args:
            fingerprints: (Q, 256), from `chem.fingerprint_search`.
            k: molecules.

        Returns:
            ids and similarities: see `chem.fingerprint_search.most_similar`.

        Raises:
            UserError: the index has no fingerprints.
        """
        from chemscale_jax.chem.fingerprint_search import most_similar

        return most_similar(self.store.fingerprints, fingerprints, k)

    @functools.cached_property
    def _faiss(self) -> Any:
        return approximate_neighbours.load(self.folder)

    def _none(self, k: int) -> Neighbours:
        return Neighbours(np.zeros((0, k), np.int64), np.zeros((0, k)))


def kept_form(
    values: np.ndarray, projection: Projection | None, metric: str
) -> np.ndarray:
    """Embeddings after the projection, and of length 1 for cosine; (n, d) float32."""
    if metric not in METRICS:
        raise UserError(f"metric is {metric!r}, expected one of {METRICS}")
    vectors = np.asarray(values, np.float32)
    if projection is not None:
        vectors = projection.apply(vectors)
    if metric == "cosine":
        length = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
        length[length == 0] = np.nan
        vectors = (vectors / length).astype(np.float32)
    return vectors
