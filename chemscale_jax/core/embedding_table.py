"""Embeddings of molecules as all that follows ``chemscale embed`` reads them.

NumPy only: `analysis` reads these files, and does without JAX.
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np

from chemscale_jax.core import embedding_readers
from chemscale_jax.core.embedding_readers import COLUMN
from chemscale_jax.core.errors import UserError

BLOCK_ROWS = 65536


@dataclasses.dataclass(frozen=True, eq=False)
class EmbeddingTable:
    """Embeddings of one layer of M rows of input, in the input's order.

    Attributes:
        index: (M,) int64, row of the input, the first being 0.
        where: (M,) str, such as "mols.csv line 7".
        smiles: (M,) str, canonical; "" where nothing could be read.
        status: (M,) str, one of `chem.molecule_record.STATUSES`.
        reason: (M,) str, why a row failed.
        values: (M, D) float32; rows without an embedding are NaN.
        columns: of the input by name, (M,) str each; of csv and parquet, and of what
            was written with them.
        about: what made the values: "task", "model", "layer", "level", "pool",
            "source" and more; empty for csv, which has no place for it.
    """

    index: np.ndarray
    where: np.ndarray
    smiles: np.ndarray
    status: np.ndarray
    reason: np.ndarray
    values: np.ndarray
    columns: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    about: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        lengths = {f: len(x) for f, x in self._arrays().items()}
        if len(set(lengths.values())) > 1 or self.values.ndim != 2:
            raise UserError(
                f"embeddings of shape {self.values.shape} for arrays of {lengths}: "
                "values must be (M, D), and all others have M entries"
            )

    def __len__(self) -> int:
        return len(self.index)

    @property
    def usable(self) -> np.ndarray:
        """(M,) bool, which rows have an embedding; a new array."""
        return np.asarray(np.isfinite(self.values).all(axis=1))

    def take(self, rows: np.ndarray | slice) -> Self:
        """The table of some rows: numbers, a mask or a slice."""
        arrays = {f.name: getattr(self, f.name)[rows] for f in _ARRAYS}
        columns = {name: cells[rows] for name, cells in self.columns.items()}
        return dataclasses.replace(self, **arrays, columns=columns)

    def save(self, path: str | os.PathLike) -> None:
        """Writes an ``.npz`` that `read_embeddings` reads."""
        with pathlib.Path(path).open("wb") as file:
            np.savez_compressed(
                file,
                allow_pickle=False,
                about=np.array(json.dumps(dict(self.about))),
                **{n: np.ascontiguousarray(x) for n, x in self._arrays().items()},
            )

    def _arrays(self) -> dict[str, np.ndarray]:
        own = {f.name: getattr(self, f.name) for f in _ARRAYS}
        return own | {f"{COLUMN}{name}": x for name, x in self.columns.items()}


_ARRAYS = tuple(
    f for f in dataclasses.fields(EmbeddingTable) if f.name not in ("columns", "about")
)


def read_embeddings(path: str | os.PathLike) -> EmbeddingTable:
    """Reads all rows of a file of embeddings.

    Args:
        path: ends in .npz, .parquet, .zarr or .csv.

    Raises:
        UserError: see `blocks`.
    """
    return joined(list(blocks(path)))


def blocks(path: str | os.PathLike, rows: int = BLOCK_ROWS) -> Iterator[EmbeddingTable]:
    """Reads a file of embeddings in consecutive blocks, which is all memory it takes.

    Args:
        path: see `read_embeddings`.
        rows: of a block.

    Yields:
        At least one block, the last one shorter.

    Raises:
        UserError: the file is missing, is nothing that ``chemscale embed`` writes, has
            no row, or holds atoms, pairs or several layers; or a package that reads it
            is missing.
    """
    place = pathlib.Path(path).expanduser()
    read = embedding_readers.READERS.get(place.suffix)
    if read is None:
        raise UserError(
            f"{place} must end in {', '.join(embedding_readers.READERS)}: give a file "
            "that chemscale embed wrote"
        )
    if not place.exists():
        raise UserError(
            f"{place} does not exist: make it with chemscale embed --out={place}"
        )
    empty = True
    for fields in read(place, rows):
        empty = False
        yield EmbeddingTable(**fields)
    if empty:
        raise UserError(f"{place} has no row; write it again with chemscale embed")


def joined(tables: Sequence[EmbeddingTable]) -> EmbeddingTable:
    """Consecutive tables as one."""
    if len(tables) == 1:
        return tables[0]
    arrays = {
        f.name: np.concatenate([getattr(table, f.name) for table in tables])
        for f in _ARRAYS
    }
    columns = {
        name: np.concatenate([table.columns[name] for table in tables])
        for name in tables[0].columns
    }
    return EmbeddingTable(**arrays, columns=columns, about=tables[0].about)
