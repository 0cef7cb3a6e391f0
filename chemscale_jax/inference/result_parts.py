"""Results of many rows of input, part by part; what a kill cut short goes on.

A part holds the results of so many consecutive rows. Parts depend on the rows alone,
so a run that was killed and given again ends with the same result.
"""

import io
import itertools
import os
import pathlib
import struct
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from chemscale_jax.data.journaled_files import JournaledFiles

Part = dict[str, np.ndarray]
# Seconds between redrawings of the bar where nobody watches it move.
_LOG_INTERVAL_S = 30.0
_SIZE = struct.Struct("<Q")


class Reading(NamedTuple):
    """How rows are read.

    Attributes:
        workers: processes that make conformers; default one for each core.
        cache: file of finished conformers; "": that of the package; None: none.
        progress: whether there is a bar.
    """

    workers: int | None = None
    cache: str | os.PathLike | None = ""
    progress: bool = False


class Rows(NamedTuple):
    """Rows of input, and how to work on them.

    Attributes:
        read: from the row of a number on; `InputRow` or what has its fields.
        total: how many there are; None: nobody knows.
        size: rows of a part.
        label: of the progress bar.
        progress: whether there is a bar.
    """

    read: Callable[[int], Iterator[Any]]
    total: int | None
    size: int
    label: str = ""
    progress: bool = True


def compute_parts(
    rows: Rows, work: Callable[[Sequence[Any]], Part], start: int = 0
) -> Iterator[Part]:
    """What ``work`` makes of the rows from ``start`` on, part after part."""
    with tqdm(
        initial=start,
        total=rows.total,
        unit="mol",
        desc=rows.label,
        disable=not rows.progress,
        smoothing=0.05,
        dynamic_ncols=True,
        mininterval=0.1 if sys.stderr.isatty() else _LOG_INTERVAL_S,
    ) as bar:
        read = _counted(rows.read(start), bar)
        while some := list(itertools.islice(read, rows.size)):
            yield work(some)


def kept_parts(
    rows: Rows,
    work: Callable[[Sequence[Any]], Part],
    folder: pathlib.Path,
    settings: Mapping[str, Any],
) -> Iterator[Part]:
    """The same, kept in a folder; what is there is not made again.

    Args:
        rows: see `compute_parts`.
        work: see `compute_parts`.
        folder: of the parts; to be removed when they are no longer needed.
        settings: JSON-able; everything that results depend on.

    Raises:
        UserError: the folder belongs to other settings or another process.
    """
    stamped = {**settings, "rows of a part": rows.size}
    with JournaledFiles(folder, ("results",), stamped) as files:
        done = files.state.get("rows", 0)
        if not files.state.get("complete"):
            for part in compute_parts(rows, work, done):
                done += len(next(iter(part.values())))
                files.append({"results": _packed(part)}, {"rows": done})
            files.append({}, {"rows": done, "complete": True})
        with files.path("results").open("rb") as file:
            while head := file.read(_SIZE.size):
                with np.load(io.BytesIO(file.read(*_SIZE.unpack(head)))) as arrays:
                    yield dict(arrays)


def joined(parts: Sequence[Part]) -> Part:
    """One part of all of them."""
    return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


def texts(values: Sequence[str]) -> np.ndarray:
    """Strings as an array; (0,) of strings for none."""
    return np.array(list(values), np.str_)


def _counted(rows: Iterator[Any], bar: tqdm) -> Iterator[Any]:
    for row in rows:
        yield row
        bar.update()


def _packed(part: Part) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **part)
    return _SIZE.pack(buffer.tell()) + buffer.getvalue()
