"""Embeddings of molecules, atoms and pairs of atoms in memory, from any model.

from chemscale_jax.inference.embed import embed
from chemscale_jax.inference.embedder import open_embedder

embed(open_embedder("chemgpt"), open_input("molecules.csv")).values
"""

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from chemscale_jax.core.embedding_readers import COLUMN
from chemscale_jax.core.embedding_table import EmbeddingTable
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.saved_arrays import SavedArrays
from chemscale_jax.data.inputs.molecule_input import MoleculeInput
from chemscale_jax.inference import result_parts
from chemscale_jax.inference.embed_settings import (
    LAST_LAYER,
    EmbedSettings,
    refuse_empty,
)
from chemscale_jax.inference.embedder import Embedder, facts
from chemscale_jax.inference.molecule_batches import BY_DEVICE, Batching
from chemscale_jax.inference.molecule_embeddings import MoleculeEmbedder
from chemscale_jax.inference.molecule_model import MoleculeModel
from chemscale_jax.inference.result_parts import Part, Reading

__all__ = ["LAST_LAYER", "EmbedSettings", "Embeddings", "as_embedder", "embed"]


@dataclasses.dataclass(frozen=True)
class Embeddings(SavedArrays):
    """Embeddings of M rows of input; V values of width D, of L layers if all are asked.

    At the level of molecules V is M, and rows that failed are NaN. At the levels of
    atoms and pairs V counts those of all molecules, one molecule after another, and
    failed ones have none.
    """

    index: np.ndarray  # (M,) int64, row of the input, the first being 0
    where: np.ndarray  # (M,) str, such as "mols.csv line 7"
    smiles: np.ndarray  # (M,) str, canonical; atoms stand in its order
    # (M,) str, one of `chem.molecule_record.STATUSES`, or "read" for models that need
    # no coordinates
    status: np.ndarray
    reason: np.ndarray  # (M,) str
    atoms: np.ndarray  # (M,) int32, heavy atoms
    conformers: np.ndarray  # (M,) int32, geometries that were averaged
    layers: np.ndarray  # (L,) int32
    values: np.ndarray  # (V, D) or (V, L, D) float32
    # Over conformers; left out where no molecule has several.
    std: np.ndarray | None = None  # like values
    # Of atoms and pairs: the row of their molecule, as in index, and their places.
    molecule: np.ndarray | None = None  # (V,) int64
    first: np.ndarray | None = None  # (V,) int32
    second: np.ndarray | None = None  # (V,) int32, of pairs
    species: np.ndarray | None = None  # (V,) uint8, atomic number of the first
    positions: np.ndarray | None = None  # (V, 3) angstrom, of atoms; first conformer
    about: np.ndarray | None = None  # () str, JSON of `embedder.facts`

    def __len__(self) -> int:
        return len(self.index)

    def of(self, row: int) -> np.ndarray:
        """Values of one row of the input: (D,), (N, D) or (N, N, D); (.., L, D)."""
        if self.molecule is None:
            return self.values[row]
        start, stop = np.searchsorted(self.molecule, [row, row + 1])
        found = self.values[start:stop]
        if self.second is None:
            return found
        N = round(len(found) ** 0.5)
        return found.reshape(N, N, *found.shape[1:])

    @property
    def told(self) -> dict[str, Any]:
        """What made the values, see `embedder.facts`; {} where nobody knows."""
        return {} if self.about is None else json.loads(str(self.about))

    def table(self) -> EmbeddingTable:
        """The table that maps, search and probes work on.

        Raises:
            UserError: these are atoms, pairs or several layers.
        """
        if self.molecule is not None or self.values.ndim != 2:
            raise UserError(
                f"a table has one embedding of each molecule, found values of "
                f"{self.values.shape}: embed with level='molecule' and one layer"
            )
        return EmbeddingTable(
            index=self.index,
            where=self.where,
            smiles=self.smiles,
            status=self.status,
            reason=self.reason,
            values=self.values,
            about=self.told,
        )


@dataclasses.dataclass(frozen=True)
class KeptEmbeddings(Embeddings):
    """The same with columns of the input, which are saved beside them."""

    columns: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def _arrays(self) -> dict[str, np.ndarray]:
        own = {n: x for n, x in super()._arrays().items() if n != "columns"}
        return own | {f"{COLUMN}{name}": cells for name, cells in self.columns.items()}


def as_embedder(model: Embedder | MoleculeModel) -> Embedder:
    """The interface to a model that was opened without it."""
    if isinstance(model, MoleculeModel):
        return MoleculeEmbedder(model, {"workdir": model.source})
    return model


def embed(
    model: Embedder | MoleculeModel,
    source: MoleculeInput,
    settings: EmbedSettings = LAST_LAYER,
    *,
    batching: Batching = BY_DEVICE,
    workers: int | None = None,
    cache: str | os.PathLike | None = "",
    progress: bool = False,
) -> Embeddings:
    """Embeddings of all rows, in their order, in memory.

    Args:
        model: from `open_embedder`, or a network of Uni-Mol2.
        source: from `open_input`.
        settings: what to read.
        batching: how molecules share batches; features are those of the settings.
        workers: processes that make conformers; default one for each core.
        cache: file of finished conformers; "": that of the package; None: none.
        progress: whether there is a bar.

    Raises:
        UserError: there is no such layer or pool, or no row.
    """
    embedder = as_embedder(model)
    settings = embedder.settled(settings)
    reading = Reading(workers, cache, progress)
    rows = embedder.read_rows(source, settings, reading)
    work = embedder.make_work(settings, batching)
    about = facts(embedder, settings)
    parts = result_parts.compute_parts(rows, work)
    return gather(parts, embedder.layers(settings), about)


def gather(
    parts: Iterator[Part], layers: list[int], about: Mapping[str, Any]
) -> Embeddings:
    """All parts together.

    Args:
        parts: from the work of an `Embedder`.
        layers: that were read.
        about: what made them, see `embedder.facts`.

    Raises:
        UserError: there is no row.
    """
    if not (found := list(parts)):
        refuse_empty()
    whole: dict[str, Any] = result_parts.joined(found)
    if whole["conformers"].max() < 2:
        whole["std"] = None
    names = {field.name for field in dataclasses.fields(Embeddings)}
    kept = {name: x for name, x in whole.items() if name in names}
    columns = {
        name.removeprefix(COLUMN): cells
        for name, cells in whole.items()
        if name.startswith(COLUMN)
    }
    kept["layers"] = np.array(layers, np.int32)
    kept["about"] = np.array(json.dumps(dict(about)))
    return KeptEmbeddings(**kept, columns=columns) if columns else Embeddings(**kept)
