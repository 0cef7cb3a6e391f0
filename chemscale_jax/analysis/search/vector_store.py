"""The vectors of an index and whose they are, in files that only grow.

===================  ===============================================================
vectors.f32          (M, d) float32
rows.i64             (M,) int64: row of the input of ``chemscale embed``, from 0
sources.u16          (M,) uint16: number of the file of embeddings
smiles.txt           canonical SMILES, one on a line
smiles_ends.i64      (M,) int64: where each line ends, in bytes
fingerprints.u8      (M, 256) uint8, see `chem.fingerprint_search`; if asked for
left_out.csv         rows that have no vector, each with the reason
stored.json          how far all of these are whole
===================  ===============================================================

Whatever lies behind the lengths of ``stored.json`` was begun before a kill, and is cut
off when the work goes on.
"""

import csv
import functools
import io
import os
import pathlib
from collections.abc import Iterable
from typing import Any, NamedTuple, Self

import numpy as np

from chemscale_jax.core.errors import UserError
from chemscale_jax.core.workdir import read_json, write_json

LEFT_OUT = "left_out.csv"
_STATE = "stored.json"
_LEFT_OUT_HEADER = "source,row,where,status,reason\n"


class LeftOut(NamedTuple):
    """A row without a vector."""

    source: int
    row: int
    where: str
    status: str
    reason: str


class Stored(NamedTuple):
    """How far the files are whole.

    Attributes:
        vectors: in the files.
        left_out: rows without a vector.
        smiles_bytes: of smiles.txt.
        left_out_bytes: of left_out.csv.
        source: number of the file of embeddings that comes next.
        rows: of it that are done.
        done: whether nothing comes any more.
    """

    vectors: int = 0
    left_out: int = 0
    smiles_bytes: int = 0
    left_out_bytes: int = 0
    source: int = 0
    rows: int = 0
    done: bool = False


class VectorStore:
    """Read access: nothing is read before it is asked for."""

    def __init__(self, folder: pathlib.Path, width: int, fingerprints: bool):
        self.folder, self.width = folder, width
        self.state = stored_state(folder)
        self._fingerprints = fingerprints

    def __len__(self) -> int:
        return self.state.vectors

    @functools.cached_property
    def vectors(self) -> np.ndarray:
        """(M, d) float32, memory-mapped."""
        return self._map("vectors.f32", np.float32, self.width)

    @functools.cached_property
    def rows(self) -> np.ndarray:
        """(M,) int64, memory-mapped."""
        return self._map("rows.i64", np.int64)

    @functools.cached_property
    def sources(self) -> np.ndarray:
        """(M,) uint16, memory-mapped."""
        return self._map("sources.u16", np.uint16)

    @functools.cached_property
    def fingerprints(self) -> np.ndarray:
        """(M, 256) uint8, memory-mapped.

        Raises:
            UserError: the index was built without.
        """
        if not self._fingerprints:
            raise UserError(
                f"{self.folder} has no fingerprints: build it again without "
                "--no-fingerprints"
            )
        from chemscale_jax.chem.fingerprint_search import BYTES

        return self._map("fingerprints.u8", np.uint8, BYTES)

    def smiles(self, ids: Iterable[int]) -> np.ndarray:
        """Canonical SMILES of some vectors: (n,) str; "" for the id -1."""
        found = []
        for i in ids:
            if i < 0:
                found.append("")
                continue
            begin = self._ends[i - 1] if i else 0
            found.append(bytes(self._text[begin : self._ends[i] - 1]).decode())
        return np.array(found, np.str_)

    def every_smiles(self) -> list[str]:
        """Canonical SMILES of all vectors, in memory."""
        return bytes(self._text).decode().split("\n")[:-1] if len(self) else []

    @functools.cached_property
    def _ends(self) -> np.ndarray:
        return self._map("smiles_ends.i64", np.int64)

    @functools.cached_property
    def _text(self) -> np.ndarray:
        return np.memmap(
            self.folder / "smiles.txt", np.uint8, "r", shape=self.state.smiles_bytes
        )

    def _map(self, name: str, dtype: Any, width: int = 0) -> np.ndarray:
        path, M = self.folder / name, len(self)
        shape = (M, width) if width else (M,)
        size = np.dtype(dtype).itemsize * M * max(width, 1)
        found = path.stat().st_size if path.exists() else -1
        if found < size:
            raise UserError(
                f"{path} has {max(found, 0):,} bytes, expected {size:,}: copy the "
                "whole folder again, or delete it and build the index again"
            )
        return np.memmap(path, dtype, "r", shape=shape)


class StoreWriter:
    """Adds to the files of a store, from where they are whole."""

    def __init__(self, folder: pathlib.Path, width: int, fingerprints: bool):
        self.state = stored_state(folder)
        self._folder = folder
        state = self.state
        lengths = {
            "vectors.f32": 4 * width * state.vectors,
            "rows.i64": 8 * state.vectors,
            "sources.u16": 2 * state.vectors,
            "smiles_ends.i64": 8 * state.vectors,
            "smiles.txt": state.smiles_bytes,
            LEFT_OUT: state.left_out_bytes,
        }
        if fingerprints:
            from chemscale_jax.chem.fingerprint_search import BYTES

            lengths["fingerprints.u8"] = BYTES * state.vectors
        self._files = {}
        for name, length in lengths.items():
            path = folder / name
            path.touch()
            if path.stat().st_size < length:
                raise UserError(
                    f"{path} is shorter than {_STATE} says: delete {folder} and build "
                    "the index again"
                )
            os.truncate(path, length)
            self._files[name] = path.open("ab")
        if not state.left_out_bytes:
            self._files[LEFT_OUT].write(_LEFT_OUT_HEADER.encode())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused) -> None:
        for file in self._files.values():
            file.close()

    def add(
        self,
        vectors: np.ndarray,
        rows: np.ndarray,
        source: int,
        smiles: np.ndarray,
        left_out: Iterable[LeftOut],
        fingerprints: np.ndarray | None = None,
    ) -> None:
        """Adds vectors, and rows that have none."""
        lines = [text.encode() + b"\n" for text in smiles.tolist()]
        ends = self.state.smiles_bytes + np.cumsum([len(x) for x in lines], dtype="i8")
        self._write("vectors.f32", vectors.astype(np.float32))
        self._write("rows.i64", rows.astype(np.int64))
        self._write("sources.u16", np.full(len(rows), source, np.uint16))
        self._write("smiles_ends.i64", ends.astype(np.int64))
        self._files["smiles.txt"].write(b"".join(lines))
        if fingerprints is not None:
            self._write("fingerprints.u8", fingerprints)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        without = list(left_out)
        writer.writerows(without)
        self._files[LEFT_OUT].write(text.getvalue().encode())
        self.state = self.state._replace(
            vectors=self.state.vectors + len(rows),
            left_out=self.state.left_out + len(without),
            smiles_bytes=self.state.smiles_bytes + sum(map(len, lines)),
        )

    def commit(self, source: int, rows: int, done: bool = False) -> None:
        """Says that all before a row of a source is in the files."""
        for file in self._files.values():
            file.flush()
        self.state = self.state._replace(
            left_out_bytes=self._files[LEFT_OUT].tell(),
            source=source,
            rows=rows,
            done=done,
        )
        write_json(self._folder / _STATE, self.state._asdict())

    def _write(self, name: str, array: np.ndarray) -> None:
        self._files[name].write(np.ascontiguousarray(array).tobytes())


def stored_state(folder: pathlib.Path) -> Stored:
    """How far the files of a folder are whole."""
    path = folder / _STATE
    return Stored(**read_json(path)) if path.exists() else Stored()
