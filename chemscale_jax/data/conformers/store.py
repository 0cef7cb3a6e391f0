"""The conformer store: molecule records in one folder, for random access.

=============================  =======================================================
``store.json``                 schema version, source, settings, counts, versions
``conformers-*.array_record``  the records, see `conformer_codec`; shards by key
``atoms.npy``                  uint16 (M,): heavy atoms
``conformers.npy``             uint16 (M,): conformers
``status.npy``                 uint8 (M,): place in `STATUS_CODES`
``keys.npy``                   uint64 (M,): `molecule_key` of the canonical SMILES
``lines.npy``                  int64 (M,): line of the source, the first being 1
``scaffold.npy``               int32 (M,): number of the Murcko scaffold
``scaffolds.txt``              SMILES of scaffold i in line i + 1; "" is acyclic
``ledger.csv``                 every line of the source that is not in the store
=============================  =======================================================

Numbers are little-endian. Molecules follow one another by shard, and by line within a
shard. The arrays are memory-mapped and the shards opened when a record is read, so a
store may be larger than memory and is cheap to send to another process.
"""

import dataclasses
import functools
import json
import os
import pathlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from array_record.python.array_record_data_source import ArrayRecordDataSource

from chemscale_jax.chem.molecule_record import MoleculeRecord
from chemscale_jax.core.errors import UserError
from chemscale_jax.data.conformers.codec import STATUS_CODES, VERSION, decode_record
from chemscale_jax.data.text.token_store import LEDGER_FILE, Failure, read_ledger

SCHEMA_VERSION = 1
STORE_FILE = "store.json"
SCAFFOLDS_FILE = "scaffolds.txt"
# The columns of molecules: file name and type.
COLUMNS: dict[str, type[np.generic]] = {
    "atoms": np.uint16,
    "conformers": np.uint16,
    "status": np.uint8,
    "keys": np.uint64,
    "lines": np.int64,
    "scaffold": np.int32,
}


class _Shard(NamedTuple):
    """What the reader of shards wants to know beforehand, to open none too early."""

    filename: str
    skip: int
    take: int
    examples_in_shard: int


@dataclasses.dataclass(frozen=True, eq=False)
class ConformerStore:
    """Molecule records, with what is known about each without decoding it.

    Attributes:
        folder: where it lies.
        info: content of ``store.json``.
        atoms: uint16 (M,), heavy atoms.
        conformers: uint16 (M,).
        status: uint8 (M,), place in `STATUS_CODES`.
        keys: uint64 (M,), `molecule_key` of the canonical SMILES.
        lines: int64 (M,), line of the source.
        scaffold: int32 (M,), place in `scaffolds`.
    """

    folder: pathlib.Path
    info: Mapping[str, Any]
    atoms: np.ndarray
    conformers: np.ndarray
    status: np.ndarray
    keys: np.ndarray
    lines: np.ndarray
    scaffold: np.ndarray

    @classmethod
    def open(cls, path: str | os.PathLike) -> "ConformerStore":
        """Maps the arrays of a store into memory.

        Raises:
            UserError: there is no store, it is of another version, or a file is
                missing or damaged.
        """
        folder = pathlib.Path(path).expanduser().absolute()
        info = _read_info(folder)
        damaged = f"the conformer store {folder} is damaged"
        anew = "make it again with chemscale conformers"
        try:
            columns = {
                name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in COLUMNS
            }
        except (OSError, ValueError, EOFError) as error:
            raise UserError(f"{damaged} ({error}): {anew}") from None
        M = info["molecules"]
        for name, dtype in COLUMNS.items():
            array = columns[name]
            if array.shape != (M,) or array.dtype != dtype:
                raise UserError(
                    f"{damaged}: {name}.npy holds {array.dtype} {array.shape}, but "
                    f"{STORE_FILE} promises {np.dtype(dtype)} ({M},); {anew}"
                )
        for file, _ in info["shards"]:
            if not (folder / file).is_file():
                raise UserError(f"{damaged}: {file} is missing; {anew}")
        return cls(folder, info, **columns)

    def __len__(self) -> int:
        """Number of molecules."""
        return len(self.keys)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles as its place: the other process opens it anew."""
        return ConformerStore.open, (self.folder,)

    @functools.cached_property
    def _source(self) -> ArrayRecordDataSource:
        shards: Any = [
            _Shard(str(self.folder / file), 0, molecules, molecules)
            for file, molecules in self.info["shards"]
            if molecules
        ]
        return ArrayRecordDataSource(shards)

    def record(self, index: int) -> MoleculeRecord:
        """One molecule.

        Raises:
            IndexError: there is no such molecule.
            UserError: its shard is damaged.
        """
        return self.records([index])[0]

    def records(self, indices: Sequence[int] | np.ndarray) -> list[MoleculeRecord]:
        """Some molecules, in the order of the indices; see `record`."""
        wanted = [int(i) for i in indices]
        for index in wanted:
            if not 0 <= index < len(self):
                raise IndexError(f"molecule {index} of {len(self)}")
        if not wanted:
            return []
        try:
            return [decode_record(data) for data in self._source.__getitems__(wanted)]
        except (ValueError, IndexError, RuntimeError) as error:
            raise UserError(
                f"a shard of the conformer store {self.folder} is damaged ({error}): "
                "make it again with chemscale conformers"
            ) from None

    @functools.cached_property
    def scaffolds(self) -> list[str]:
        """SMILES of all scaffolds; "" is that of molecules without rings."""
        text = (self.folder / SCAFFOLDS_FILE).read_text(encoding="utf-8")
        return text.split("\n")[:-1]

    @property
    def scaffold_counts(self) -> np.ndarray:
        """Molecules of each scaffold, int64."""
        return np.bincount(self.scaffold, minlength=self.info["scaffolds"])

    def has_status(self, *names: str) -> np.ndarray:
        """Which molecules have one of these statuses: bool (M,)."""
        return np.isin(self.status, [STATUS_CODES.index(name) for name in names])

    def ledger(self) -> Iterator[Failure]:
        """The lines of the source that are not here, in their order."""
        with (self.folder / LEDGER_FILE).open(newline="", encoding="utf-8") as stream:
            yield from read_ledger(stream)

    def failed(self) -> Counter[str]:
        """Number of lines that are not here by reason."""
        return Counter(self.info["failed"])


def _read_info(folder: pathlib.Path) -> dict[str, Any]:
    try:
        info = json.loads((folder / STORE_FILE).read_text(encoding="utf-8"))
        versions = info["schema_version"], info["codec_version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder} is no conformer store ({STORE_FILE}: {error}); make one with "
            "chemscale conformers"
        ) from None
    if versions != (SCHEMA_VERSION, VERSION):
        raise UserError(
            f"{folder} has version {versions} of the conformer store, this program "
            f"reads {(SCHEMA_VERSION, VERSION)}: make it again with chemscale "
            "conformers"
        )
    return info
