"""Encoded molecules on the way to a store: files that survive a kill.

Chunks are added at the end of a few files; then one line of a journal says how long
each file is now. Whatever is behind the last complete line was broken off and is cut
away when the work goes on, so that the files become what they would have been.

Symbols have provisional numbers, in the order of their first appearance in the source.
"""

import contextlib
import fcntl
import io
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from chemscale_jax.core.errors import UserError
from chemscale_jax.data.encode_lines import EncodedChunk

# Number of all symbols after the first 65,535 different ones.
OVERFLOW = 2**16 - 1
OVERFLOW_SYMBOL = f"(not among the first {OVERFLOW} symbols)"
# Name of a file of the parts and type of its items.
_ARRAYS: dict[str, np.dtype] = {
    "tokens": np.dtype("<u2"),
    "lengths": np.dtype("<i4"),
    "lines": np.dtype("<i8"),
    "keys": np.dtype("<u8"),
    "heavy_atoms": np.dtype("<u2"),
}
_TEXTS = ("symbols", "ledger")


class Progress(NamedTuple):
    """What the parts hold."""

    chunks: int = 0
    lines: int = 0  # of the source, without its header
    molecules: int = 0
    failed: int = 0
    cpu_s: float = 0.0  # of the processes that encoded


class Block(NamedTuple):
    """Some consecutive molecules."""

    tokens: np.ndarray  # provisional numbers
    lengths: np.ndarray
    lines: np.ndarray
    keys: np.ndarray  # (m, 2)
    heavy_atoms: np.ndarray


class TokenParts:
    """The folder of parts of one store; use as a context."""

    def __init__(self, folder: pathlib.Path, settings: Mapping[str, Any]):
        """Opens the folder, or begins it.

        Args:
            folder: of the parts.
            settings: everything that the parts depend on.

        Raises:
            UserError: the folder was begun with other settings, another process is
                writing it, or it cannot be written.
        """
        self.folder = folder
        self.progress = Progress()
        self.symbols: dict[str, int] = {}
        wanted = json.dumps(settings, sort_keys=True, indent=1)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._journal = (folder / "journal.jsonl").open("ab+")
        except OSError as error:
            raise UserError(
                f"cannot write {folder} ({error.strerror}): choose another --out"
            ) from None
        try:
            fcntl.flock(self._journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._journal.close()
            raise UserError(
                f"another process is writing {folder}: wait for it, or choose another "
                "--out"
            ) from None
        stamp = folder / "settings.json"
        if not stamp.exists():
            # Without settings nothing can have been recorded.
            self._journal.truncate(0)
            draft = stamp.with_suffix(".tmp")
            draft.write_text(wanted)
            draft.replace(stamp)
        elif stamp.read_text() != wanted:
            self._journal.close()
            raise UserError(
                f"{folder} was begun from another file, or with other settings or "
                f"versions ({_difference(stamp.read_text(), settings)}): give those "
                "again, or remove the folder"
            )
        self._files = {
            name: (folder / f"{name}.part").open("ab") for name in (*_ARRAYS, *_TEXTS)
        }
        self._resume()

    def _resume(self) -> None:
        """Goes back to the last record whose files are all there."""
        sizes = {name: os.fstat(f.fileno()).st_size for name, f in self._files.items()}
        self._journal.seek(0)
        end, record = 0, {}
        for line in self._journal:
            try:
                found = json.loads(line)
                whole = all(found["sizes"][name] <= sizes[name] for name in sizes)
            except (ValueError, KeyError):
                whole = False
            if not whole or not line.endswith(b"\n"):
                break
            record, end = found, end + len(line)
        self._journal.truncate(end)
        self._journal.seek(end)
        for name, file in self._files.items():
            file.truncate(record["sizes"][name] if record else 0)
            file.seek(0, os.SEEK_END)
        if record:
            self.progress = Progress(*record["progress"])
        text = (self.folder / "symbols.part").read_text(encoding="utf-8")
        self.symbols = {symbol: i for i, symbol in enumerate(text.split("\n")[:-1])}

    def append(self, chunk: EncodedChunk) -> list[str]:
        """Adds the molecules of the next chunk; returns the symbols that are new."""
        fresh = []
        numbers = np.empty(len(chunk.symbols), np.uint16)
        for place, symbol in enumerate(chunk.symbols):
            number = self.symbols.get(symbol, OVERFLOW)
            if number == OVERFLOW and len(self.symbols) < OVERFLOW:
                number = self.symbols[symbol] = len(self.symbols)
                fresh.append(symbol)
            numbers[place] = number
        arrays = chunk._replace(tokens=numbers[chunk.tokens])
        for name, dtype in _ARRAYS.items():
            self._files[name].write(np.asarray(getattr(arrays, name), dtype).tobytes())
        self._files["symbols"].write("".join(f"{s}\n" for s in fresh).encode())
        self._files["ledger"].write(chunk.ledger)
        self.progress = Progress(
            self.progress.chunks + 1,
            self.progress.lines + chunk.lines_read,
            self.progress.molecules + len(chunk.lengths),
            self.progress.failed + chunk.failed,
            self.progress.cpu_s + chunk.cpu_s,
        )
        for file in self._files.values():
            file.flush()
        sizes = {name: file.tell() for name, file in self._files.items()}
        record = {"progress": self.progress, "sizes": sizes}
        self._journal.write(json.dumps(record).encode() + b"\n")
        self._journal.flush()
        return fresh

    def blocks(self, molecules: int) -> Iterator[Block]:
        """All molecules, some at a time."""
        with contextlib.ExitStack() as stack:
            files = {
                name: stack.enter_context((self.folder / f"{name}.part").open("rb"))
                for name in _ARRAYS
            }

            def take(name: str, count: int) -> np.ndarray:
                return np.fromfile(files[name], _ARRAYS[name], count)

            for start in range(0, self.progress.molecules, molecules):
                m = min(molecules, self.progress.molecules - start)
                lengths = take("lengths", m).astype(np.int64)
                tokens = take("tokens", int(lengths.sum()))
                yield Block(
                    # The overflow becomes the number after the last symbol.
                    np.minimum(tokens, len(self.symbols)),
                    lengths,
                    take("lines", m),
                    take("keys", 2 * m).reshape(m, 2),
                    take("heavy_atoms", m),
                )

    def ledger(self) -> io.TextIOWrapper:
        """Rows of the ledger, without its head."""
        path = self.folder / "ledger.part"
        return path.open(newline="", encoding="utf-8")

    def __enter__(self) -> "TokenParts":
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the files; the lock ends with the journal."""
        for file in (*self._files.values(), self._journal):
            file.close()


def _difference(found: str, wanted: Mapping[str, Any]) -> str:
    """Which settings differ."""
    try:
        before = json.loads(found)
    except ValueError:
        return "its settings cannot be read"
    after = json.loads(json.dumps(wanted))
    names = [k for k in {**before, **after} if before.get(k) != after.get(k)]
    return "; ".join(f"{k}: {before.get(k)}, now {after.get(k)}" for k in names)
