"""The token store: all molecules of a text as ids, in one folder of flat files.

=================  ===================================================================
``store.json``     schema version, notation, source, counts, versions, round trip
``vocabulary.json``  which id is which symbol
``tokens.bin``     uint16, the symbols of all molecules one after another, no specials
``offsets.npy``    int64 (M + 1,): molecule i has the symbols offsets[i]:offsets[i + 1]
``lines.npy``      int64 (M,): line of the source, the first being 1
``keys.npy``       uint64 (M, 2): hashes of the canonical and the neutralised SMILES
``heavy_atoms.npy``  uint16 (M,): atoms that are not hydrogen
``ledger.csv``     every line of the source that is not in the store, with the reason
``coverage.json``  how often each symbol occurs, and which the vocabulary lacks
=================  ===================================================================

Numbers are little-endian. Everything is memory-mapped, so a store may be larger than
memory, and processes that read it share its pages.
"""

import csv
import dataclasses
import functools
import json
import os
import pathlib
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from chemscale_jax.chem.vocabulary import Vocabulary
from chemscale_jax.core.errors import UserError
from chemscale_jax.data.growing_array import GrowingArray, cumulative

SCHEMA_VERSION = 1
STORE_FILE = "store.json"
LEDGER_FILE = "ledger.csv"
LEDGER_COLUMNS = ("line", "reason", "smiles", "message")
TOKEN_DTYPE = np.dtype("<u2")
# The columns of molecules: file name, type and shape of one row.
_COLUMNS: dict[str, tuple[type[np.generic], tuple[int, ...]]] = {
    "lines": (np.int64, ()),
    "keys": (np.uint64, (2,)),
    "heavy_atoms": (np.uint16, ()),
}


class Failure(NamedTuple):
    """A line of the source that is not in the store."""

    line: int
    reason: str  # a short code
    smiles: str  # as in the source, shortened
    message: str


@dataclasses.dataclass(frozen=True, eq=False)
class TokenStore:
    """Molecules as ids, with what is known about each.

    Attributes:
        vocabulary: which id is which symbol.
        tokens: uint16, symbols of all molecules one after another.
        offsets: int64 (M + 1,), bounds of the molecules in ``tokens``.
        lines: int64 (M,), line of the source.
        keys: uint64 (M, 2), `molecule_key` of the canonical SMILES and of that without
            stereo, isotopes and removable charges.
        heavy_atoms: uint16 (M,).
        info: content of ``store.json``.
        coverage: content of ``coverage.json``.
        folder: where it lies; None for one that is in memory.
        failures: of a store in memory; use `ledger`.
    """

    vocabulary: Vocabulary
    tokens: np.ndarray
    offsets: np.ndarray
    lines: np.ndarray
    keys: np.ndarray
    heavy_atoms: np.ndarray
    info: Mapping[str, Any]
    coverage: Mapping[str, Any]
    folder: pathlib.Path | None = None
    failures: tuple[Failure, ...] = ()

    @classmethod
    def open(cls, path: str | os.PathLike) -> "TokenStore":
        """Maps the files of a store into memory.

        Raises:
            UserError: there is no store, it is of another version, or a file is
                missing or cut short.
        """
        folder = pathlib.Path(path).expanduser()
        info = _read_json(folder / STORE_FILE, f"{folder} is no token store")
        found = info.get("schema_version")
        if found != SCHEMA_VERSION:
            raise UserError(
                f"{folder} has version {found} of the token store, this program reads "
                f"{SCHEMA_VERSION}: tokenise the text again"
            )
        damaged = f"the token store {folder} is damaged"
        try:
            vocabulary = Vocabulary.load(folder / "vocabulary.json")
            store = cls(
                vocabulary,
                map_tokens(folder / "tokens.bin"),
                *(
                    np.load(folder / f"{name}.npy", mmap_mode="r")
                    for name in ("offsets", *_COLUMNS)
                ),
                info=info,
                coverage=_read_json(folder / "coverage.json", damaged),
                folder=folder,
            )
        except (OSError, ValueError, KeyError, EOFError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"{damaged} ({error}): tokenise the text again") from None
        store._check(damaged)
        return store

    def _check(self, damaged: str) -> None:
        M, n_symbols = self.info["molecules"], self.info["symbols"]
        expected = {
            "tokens.bin": (self.tokens, (n_symbols,), TOKEN_DTYPE),
            "offsets.npy": (self.offsets, (M + 1,), np.int64),
        } | {
            f"{name}.npy": (getattr(self, name), (M, *row), dtype)
            for name, (dtype, row) in _COLUMNS.items()
        }
        for name, (array, shape, dtype) in expected.items():
            if array.shape != shape or array.dtype != dtype:
                raise UserError(
                    f"{damaged}: {name} holds {array.dtype} {array.shape}, but "
                    f"{STORE_FILE} promises {np.dtype(dtype)} {shape}; tokenise the "
                    "text again"
                )
        steps = np.diff(self.offsets)
        if self.offsets[0] or self.offsets[-1] != n_symbols or (steps < 0).any():
            raise UserError(
                f"{damaged}: offsets.npy ends at {self.offsets[-1]}, but there are "
                f"{n_symbols} symbols; tokenise the text again"
            )
        if self.vocabulary.size != self.info["vocabulary_size"]:
            raise UserError(
                f"{damaged}: vocabulary.json has {self.vocabulary.size} tokens, but "
                f"{STORE_FILE} promises {self.info['vocabulary_size']}; put the file "
                "back or tokenise the text again"
            )

    def __len__(self) -> int:
        """Number of molecules."""
        return len(self.lines)

    def symbols(self, index: int) -> np.ndarray:
        """Ids of one molecule, uint16, without begin and end: a view."""
        if not 0 <= index < len(self):
            raise IndexError(f"molecule {index} of {len(self)}")
        return self.tokens[self.offsets[index] : self.offsets[index + 1]]

    @functools.cached_property
    def lengths(self) -> np.ndarray:
        """Number of symbols of each molecule, int64 (M,)."""
        return np.diff(self.offsets)

    def ledger(self) -> Iterator[Failure]:
        """The lines of the source that are not here, in their order."""
        if self.folder is None:
            yield from self.failures
            return
        with (self.folder / LEDGER_FILE).open(newline="", encoding="utf-8") as stream:
            yield from read_ledger(stream)

    def failed(self) -> Counter[str]:
        """Number of failed lines by reason."""
        return Counter(self.info["failed"])

    def in_memory(self) -> "TokenStore":
        """A copy that needs no files."""
        arrays = ("tokens", "offsets", *_COLUMNS)
        return dataclasses.replace(
            self,
            **{name: np.array(getattr(self, name)) for name in arrays},
            folder=None,
            failures=tuple(self.ledger()),
        )


def read_ledger(stream: Any) -> Iterator[Failure]:
    """Rows of an open ``ledger.csv``."""
    rows = csv.reader(stream)
    if tuple(next(rows, ())) != LEDGER_COLUMNS:
        raise UserError(
            f"the ledger does not begin with {','.join(LEDGER_COLUMNS)}: it is damaged"
        )
    for line, reason, smiles, message in rows:
        yield Failure(int(line), reason, smiles, message)


class StoreWriter:
    """Writes a store molecule by molecule, with little in memory.

    ``store.json`` is written last, so that what was broken off is no store. Use as a
    context: files are closed on every way out.
    """

    def __init__(self, folder: pathlib.Path, vocabulary: Vocabulary):
        """Begins a store in a folder, which is made if it is not there."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.vocabulary = vocabulary
        self.molecules = 0
        self.symbols = 0
        vocabulary.save(folder / "vocabulary.json")
        self._tokens = (folder / "tokens.bin").open("wb")
        self._offsets = GrowingArray(folder / "offsets.npy", np.int64)
        self._offsets.append(np.zeros(1, np.int64))
        self._columns = {
            name: GrowingArray(folder / f"{name}.npy", dtype, row)
            for name, (dtype, row) in _COLUMNS.items()
        }

    def append(
        self,
        tokens: np.ndarray,
        lengths: np.ndarray,
        lines: np.ndarray,
        keys: np.ndarray,
        heavy_atoms: np.ndarray,
    ) -> None:
        """Adds molecules.

        Args:
            tokens: ids of all of them, one after another.
            lengths: (m,) number of ids of each.
            lines: (m,) of the source.
            keys: (m, 2) `molecule_key` of canonical and neutralised SMILES.
            heavy_atoms: (m,).
        """
        m = len(lengths)
        assert lengths.sum() == len(tokens)
        assert len(lines) == len(keys) == len(heavy_atoms) == m
        self._tokens.write(np.ascontiguousarray(tokens, TOKEN_DTYPE).data)
        self._offsets.append(cumulative(lengths, self.symbols))
        for name, array in (
            ("lines", lines),
            ("keys", keys),
            ("heavy_atoms", heavy_atoms),
        ):
            self._columns[name].append(array)
        self.molecules += m
        self.symbols += len(tokens)

    def close(self) -> None:
        """Finishes the files of the molecules; does nothing the second time."""
        self._tokens.close()
        for array in (self._offsets, *self._columns.values()):
            array.close()

    def finish(self, info: Mapping[str, Any], coverage: Mapping[str, Any]) -> None:
        """Writes ``coverage.json`` and, last of all, ``store.json``.

        Args:
            info: facts beside those that the writer knows; ``failed`` is needed.
            coverage: of the vocabulary.
        """
        self.close()
        ledger = self.folder / LEDGER_FILE
        if not ledger.exists():
            ledger.write_text(",".join(LEDGER_COLUMNS) + "\n")
        write_json(self.folder / "coverage.json", coverage)
        facts = {
            "schema_version": SCHEMA_VERSION,
            "notation": self.vocabulary.notation,
            "vocabulary_size": self.vocabulary.size,
            "molecules": self.molecules,
            "symbols": self.symbols,
        }
        write_json(self.folder / STORE_FILE, {**facts, **info})

    def __enter__(self) -> "StoreWriter":
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the files."""
        self.close()


def write_json(path: pathlib.Path, content: Mapping[str, Any]) -> None:
    """Writes a file so that it is there whole or not at all."""
    draft = path.with_name(path.name + ".tmp")
    draft.write_text(
        json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    draft.replace(path)


def _read_json(path: pathlib.Path, complaint: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict):
            return content
        problem = "is not a JSON object"
    except OSError as error:
        problem = f"cannot be read ({error.strerror})"
    except ValueError as error:
        problem = f"is no JSON ({error})"
    raise UserError(
        f"{complaint}: {path.name} {problem}; make one with chemscale tokenize"
    ) from None


def map_tokens(path: pathlib.Path) -> np.ndarray:
    """The ids of ``tokens.bin``, read when they are used."""
    size = path.stat().st_size
    if size % TOKEN_DTYPE.itemsize:
        raise ValueError(f"{path.name} has {size} bytes, not a multiple of 2")
    # An empty file cannot be mapped.
    return np.memmap(path, TOKEN_DTYPE, "r") if size else np.zeros(0, TOKEN_DTYPE)
