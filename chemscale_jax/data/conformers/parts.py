"""Molecules on the way to a conformer store: lines that were read, and half a shard.

Both are journaled files, so what is there survives a kill. Of the lines that were read,
only their places are in memory, and only those of one shard.
"""

import csv
import io
import pathlib
import shutil
from collections.abc import Iterable, Iterator

import numpy as np

from chemscale_jax.data.conformers.build import Build
from chemscale_jax.data.conformers.shards import ROW, row_of, write_shard
from chemscale_jax.data.conformers.steps import (
    Candidate,
    Making,
    Molecule,
    Reading,
    shard_of,
    shard_of_line,
)
from chemscale_jax.data.journaled_files import JournaledFiles
from chemscale_jax.data.text.token_store import Failure

_READ_ROW = np.dtype([("lines", "<i8"), ("keys", "<u8"), ("ends", "<i8")])
_MADE_FILES = ("rows", "scaffolds", "records", "ledger")
_MADE_ROW = np.dtype([*ROW.descr, ("bytes", "<u4")])
# Rows looked at together when those of a shard are sought.
_ROWS = 1 << 20


def add_reading(parts: JournaledFiles, reading: Reading) -> None:
    """Adds the lines of the next chunk.

    The state counts chunks, lines, candidates, and bytes of SMILES.
    """
    counts = dict.fromkeys(("chunks", "lines", "candidates", "bytes"), 0)
    state = {**counts, **parts.state}
    found = reading.candidates
    texts = [candidate.smiles.encode() for candidate in found]
    rows = np.empty(len(found), _READ_ROW)
    rows["lines"] = [candidate.line for candidate in found]
    rows["keys"] = [candidate.key for candidate in found]
    rows["ends"] = state["bytes"] + np.cumsum([len(text) for text in texts])
    pieces = {
        "rows": rows.tobytes(),
        "smiles": b"".join(texts),
        "ledger": _ledger_rows(reading.failures),
    }
    state["chunks"] += 1
    state["lines"] += reading.lines
    state["candidates"] += len(found)
    state["bytes"] += sum(map(len, texts))
    parts.append(pieces, state)


def shard_files(folder: pathlib.Path, number: int) -> JournaledFiles:
    """Molecules on the way to a shard."""
    return JournaledFiles(folder / f"shard-{number:05d}.parts", _MADE_FILES, {})


def add_made(files: JournaledFiles, making: Making) -> None:
    """Adds the molecules of the next job, and counts it as ``jobs``."""
    molecules = making.molecules
    rows = np.array([(*row_of(m), len(m.data)) for m in molecules], _MADE_ROW)
    pieces = {
        "rows": rows.tobytes(),
        "scaffolds": "".join(f"{m.scaffold}\n" for m in molecules).encode(),
        "records": b"".join(m.data for m in molecules),
        "ledger": _ledger_rows(making.failures),
    }
    files.append(pieces, {"jobs": files.state.get("jobs", 0) + 1})


def finish_shard(
    build: Build, number: int, files: JournaledFiles, repeats: list[Failure]
) -> None:
    """Writes a shard of all its molecules, which are no longer needed then."""
    shards = build.plan.shards
    failures = [
        *repeats,
        *_read_ledger(files.path("ledger")),
        *(
            failure
            for failure in _read_ledger(build.parts.path("ledger"))
            if shard_of_line(failure.line, shards) == number
        ),
    ]
    write_shard(build.folder, number, shards, _molecules(files), failures)
    files.close()
    shutil.rmtree(files.folder)


def _molecules(files: JournaledFiles) -> Iterator[Molecule]:
    rows = np.fromfile(files.path("rows"), _MADE_ROW)
    with (
        files.path("records").open("rb") as records,
        files.path("scaffolds").open(encoding="utf-8", newline="") as scaffolds,
    ):
        for row, scaffold in zip(rows, scaffolds, strict=True):
            yield Molecule(
                line=int(row["lines"]),
                key=int(row["keys"]),
                atoms=int(row["atoms"]),
                conformers=int(row["conformers"]),
                status=int(row["status"]),
                scaffold=scaffold.rstrip("\n"),
                data=records.read(int(row["bytes"])),
            )


def _read_rows(build: Build) -> np.ndarray:
    path = build.parts.path("rows")
    # An empty file cannot be mapped.
    if not path.stat().st_size:
        return np.zeros(0, _READ_ROW)
    return np.memmap(path, _READ_ROW, "r")


def places_of(build: Build, number: int) -> np.ndarray:
    """Which of the lines with a molecule belong to a shard."""
    keys = _read_rows(build)["keys"]
    found = [np.zeros(0, np.int64)]
    for start in range(0, len(keys), _ROWS):
        own = shard_of(keys[start : start + _ROWS], build.plan.shards) == number
        found.append(start + np.flatnonzero(own))
    return np.concatenate(found)


def candidates_of(build: Build, number: int) -> Iterator[Candidate]:
    """All lines with a molecule of a shard."""
    rows = _read_rows(build)
    with build.parts.path("smiles").open("rb") as texts:
        for place in places_of(build, number).tolist():
            start = int(rows["ends"][place - 1]) if place else 0
            texts.seek(start)
            smiles = texts.read(int(rows["ends"][place]) - start).decode()
            line, key, _ = rows[place].item()
            yield Candidate(line, key, smiles)


def _ledger_rows(failures: Iterable[Failure]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(failures)
    return text.getvalue().encode()


def _read_ledger(path: pathlib.Path) -> Iterator[Failure]:
    with path.open(encoding="utf-8", newline="") as stream:
        for line, *rest in csv.reader(stream):
            yield Failure(int(line), *rest)
