"""Encoded molecules on the way to a store, in files that survive a kill.

Symbols have provisional numbers, in the order of their first appearance in the source.
"""

import contextlib
import io
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from chemscale_jax.data.journaled_files import JournaledFiles
from chemscale_jax.data.text.encode_lines import EncodedChunk

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
    """The folder of parts of one store; use as a context.

    Attributes:
        folder: of the parts.
        progress: what they hold.
        symbols: by provisional number.
    """

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
        self._files = JournaledFiles(folder, (*_ARRAYS, *_TEXTS), settings)
        self.progress = Progress(**self._files.state)
        text = self._files.path("symbols").read_text(encoding="utf-8")
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
        pieces = {
            name: np.asarray(getattr(arrays, name), dtype).tobytes()
            for name, dtype in _ARRAYS.items()
        }
        pieces["symbols"] = "".join(f"{symbol}\n" for symbol in fresh).encode()
        pieces["ledger"] = chunk.ledger
        self.progress = Progress(
            self.progress.chunks + 1,
            self.progress.lines + chunk.lines_read,
            self.progress.molecules + len(chunk.lengths),
            self.progress.failed + chunk.failed,
            self.progress.cpu_s + chunk.cpu_s,
        )
        self._files.append(pieces, self.progress._asdict())
        return fresh

    def blocks(self, molecules: int) -> Iterator[Block]:
        """All molecules, some at a time."""
        with contextlib.ExitStack() as stack:
            files = {
                name: stack.enter_context(self._files.path(name).open("rb"))
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
        return self._files.path("ledger").open(newline="", encoding="utf-8")

    def __enter__(self) -> "TokenParts":
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the files; the lock ends with them."""
        self._files.close()
