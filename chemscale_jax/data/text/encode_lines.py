"""Lines of text to symbols of molecules: what a tokenising process does.

Molecules travel between processes as a few arrays per chunk of lines. Symbols are
numbered within the chunk, in order of appearance, so a result depends on nothing but
its lines.
"""

import csv
import io
import signal
import threading
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

import numpy as np

from chemscale_jax.chem import selfies_bridge, selfies_codec, smiles_tokens
from chemscale_jax.chem.selfies_codec import Encoded
from chemscale_jax.chem.smiles import Parsed, molecule_key, quiet_rdkit, read_molecule
from chemscale_jax.data.text.molecule_text import Chunk
from chemscale_jax.data.text.text_layout import Layout
from chemscale_jax.data.worker_pool import DIED, HUNG

# CPU seconds for one molecule; an ordinary one takes less than a millisecond.
LIMIT_S = 10.0
_GIVEN_UP = {
    DIED: "the process died at this molecule",
    HUNG: "the process did not come back from this molecule",
}
# Lines that are read before they are encoded: either is done faster without the other.
_BATCH = 100
# Characters of a failed line that the ledger shows.
_SHOWN = 120

ENCODERS: dict[str, Callable[[str], Encoded]] = {
    "selfies": selfies_codec.try_encode,
    "selfies-1": selfies_bridge.try_encode,
    "smiles": smiles_tokens.try_encode,
}

_Result = TypeVar("_Result", Parsed, Encoded)


class EncodedChunk(NamedTuple):
    """Molecules of consecutive lines (m of them), and what became of the others."""

    symbols: list[str]  # distinct ones, in order of appearance
    tokens: np.ndarray  # uint32: places in ``symbols``, all molecules one after another
    lengths: np.ndarray  # int32 (m,)
    lines: np.ndarray  # int64 (m,)
    keys: np.ndarray  # uint64 (m, 2)
    heavy_atoms: np.ndarray  # uint16 (m,)
    ledger: bytes  # rows of ledger.csv
    failed: int  # number of these
    lines_read: int
    read: float  # share of the source that was read up to here
    cpu_s: float


class _TooSlowError(Exception):
    """A molecule took more than its time."""


def encode_chunk(
    chunk: Chunk,
    given_up: Mapping[int, str],
    at: Callable[[int], None],
    *,
    layout: Layout,
    notation: str,
    canonical: bool = False,
    limit_s: float = LIMIT_S,
) -> EncodedChunk:
    """Reads and encodes lines.

    Args:
        chunk: the lines.
        given_up: places of lines that must not be touched, and why.
        at: is called with the place of each line before it is touched.
        layout: where the SMILES is.
        notation: "selfies", "selfies-1" or "smiles".
        canonical: encode RDKit's canonical SMILES. Otherwise the SMILES as written,
            and the canonical one where there are atom-map numbers, or where SELFIES
            cannot say what is written, as with N(=O)=O.
        limit_s: CPU seconds for one molecule.
    """
    began = time.process_time()
    encode = ENCODERS[notation]
    numbers = _Numbers()
    tokens: list[int] = []
    lengths, lines, keys, heavy_atoms = [], [], [], []
    failures: list[tuple[int, str, str, str]] = []
    with _Watch(limit_s) as watch:
        for start in range(0, len(chunk.lines), _BATCH):
            good: list[tuple[int, str, Parsed]] = []
            with quiet_rdkit():
                for place in range(start, min(start + _BATCH, len(chunk.lines))):
                    text, reason, message = layout.read(chunk.lines[place])
                    if place in given_up:
                        reason, message = given_up[place], _GIVEN_UP[given_up[place]]
                    if not reason:
                        at(place)
                        parsed, reason, message = watch.call(_read_quietly, text)
                        if parsed is not None and not reason:
                            good.append((place, text, parsed))
                    if reason:
                        failures.append((chunk.first + place, reason, text, message))
            for place, text, parsed in good:
                at(place)
                form = parsed.canonical if canonical or ":" in text else text
                encoded, reason, message = watch.call(encode, form)
                if encoded is None or reason:
                    failures.append((chunk.first + place, reason, text, message))
                    continue
                tokens.extend(map(numbers.__getitem__, encoded.symbols))
                lengths.append(len(encoded.symbols))
                lines.append(chunk.first + place)
                keys.append(
                    (molecule_key(parsed.canonical), molecule_key(parsed.neutral))
                )
                heavy_atoms.append(parsed.heavy_atoms)
    rows = io.StringIO()
    csv.writer(rows, lineterminator="\n").writerows(
        (line, reason, shorten(text), shorten(message))
        for line, reason, text, message in sorted(failures)
    )
    return EncodedChunk(
        list(numbers),
        np.array(tokens, np.uint32),
        np.array(lengths, np.int32),
        np.array(lines, np.int64),
        np.array(keys, np.uint64).reshape(-1, 2),
        np.array(heavy_atoms, np.uint16),
        rows.getvalue().encode(),
        len(failures),
        len(chunk.lines),
        chunk.read,
        time.process_time() - began,
    )


def _read_quietly(text: str) -> Parsed:
    """A molecule, where RDKit is kept quiet for many of them at once."""
    return read_molecule(text, quiet=False)


class _Numbers(dict[str, int]):
    """A number for each symbol, given when it is asked for the first time."""

    def __missing__(self, symbol: str) -> int:
        number = self[symbol] = len(self)
        return number


def shorten(text: str) -> str:
    """A text of one printable line, its middle left out where it is long."""
    if not text.isprintable():
        text = text.encode("unicode_escape", "backslashreplace").decode()
    if len(text) > _SHOWN:
        text = f"{text[:80]}...{text[-30:]} ({len(text)} characters)"
    return text


class _Watch:
    """Interrupts a molecule that takes too long.

    CPU time, so that a busy machine fails no molecule. Python code is interrupted;
    code of libraries ends first. Only the main thread can be interrupted.
    """

    def __init__(self, limit_s: float):
        self._limit_s = limit_s
        self._armed = False
        in_main = threading.current_thread() is threading.main_thread()
        self._works = in_main and hasattr(signal, "setitimer")

    def __enter__(self) -> "_Watch":
        if self._works:
            self._before = signal.signal(signal.SIGVTALRM, self._interrupt)
        return self

    def _interrupt(self, *_: object) -> None:
        if self._armed:
            raise _TooSlowError

    def call(
        self, function: Callable[[str], _Result], text: str
    ) -> tuple[_Result | None, str, str]:
        """What a function makes of a text, and why if it makes nothing."""
        self._armed = True
        if self._works:
            signal.setitimer(signal.ITIMER_VIRTUAL, self._limit_s)
        try:
            result = function(text)
            self._armed = False
            return result, result.reason, result.message
        except _TooSlowError:
            return None, HUNG, f"more than {self._limit_s:g} s of computation"
        except Exception as error:  # one bad line never stops a run
            return None, "error", f"{type(error).__name__}: {error}"
        finally:
            self._armed = False

    def __exit__(self, *_: object) -> None:
        self._armed = False
        if self._works:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            signal.signal(signal.SIGVTALRM, self._before)
