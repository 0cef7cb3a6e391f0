"""Rows of molecules with conformers, made in several processes and kept on disk.

A molecule that crashes its process, or keeps it busy for minutes, gets a status like
any other; none can end a run, and none disappears.
"""

import functools
import itertools
import os
import pathlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from tqdm import tqdm

from chemscale_jax.chem.conformers import ConformerSettings, conform, flat
from chemscale_jax.chem.molecule_record import (
    NOT_MADE,
    MoleculeRecord,
    failed_record,
)
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.worker_processes import usable_processes
from chemscale_jax.data.cache import cache_folder
from chemscale_jax.data.inputs.molecule_input import InputRow, UnreadRow
from chemscale_jax.data.worker_pool import ordered_map

# Where the coordinates of a molecule come from.
GEOMETRIES = {
    "given": "from the input where it has any, else conformers",
    "conformers": "made from the bonds, whatever the input has",
    "flat": "a drawing",
}
_PER_JOB = 8
# So few rows are done sooner than a process starts.
_FEW = 2 * _PER_JOB
# Wall seconds after which a molecule is given up, see `conform.conform_source`.
_HANG_S = 900.0
# Seconds between redrawings of the bar where nobody watches it move.
_LOG_INTERVAL = 30.0
_GIVEN_UP = "the process did not survive this molecule, or came to no end"


def default_cache() -> pathlib.Path:
    """The file of finished conformers in the cache folder."""
    return cache_folder() / "conformers.sqlite"


def conformed(
    rows: Iterable[UnreadRow | InputRow],
    settings: ConformerSettings,
    *,
    geometry: str = "given",
    workers: int | None = None,
    cache: str | os.PathLike | None = "",
    progress: bool = True,
    label: str = "conformers",
    total: int | None = None,
) -> Iterator[InputRow]:
    """The same rows in the same order, with coordinates in their records.

    Args:
        rows: from `MoleculeInput.unread_rows`, whose molecules are then read in the
            other processes too, or from `MoleculeInput.rows`. They are taken as far
            as there is room for results.
        settings: how conformers are made.
        geometry: one of `GEOMETRIES`.
        workers: processes; default one for each core that may be used, or none for a
            few rows. 0 works in this process, unprotected from molecules that crash
            it.
        cache: file of finished conformers, read and extended, so that a run that was
            killed goes on; "": `default_cache`; None: none.
        progress: whether there is a bar.
        label: stands before the bar.
        total: number of rows, if known.

    Raises:
        UserError: an argument makes no sense, or the cache cannot be used.
    """
    if geometry not in GEOMETRIES:
        raise UserError(
            f"geometry={geometry!r} is unknown: use one of {(*GEOMETRIES,)}"
        )
    if workers is not None and workers < 0:
        raise UserError(f"workers is {workers}: it must not be negative")
    file = default_cache() if cache == "" else cache
    work = functools.partial(_work, settings=settings, geometry=geometry, cache=file)
    stream = iter(rows)
    first = list(itertools.islice(stream, _FEW + 1))
    if workers is None:
        workers = usable_processes() if len(first) > _FEW else 0
    jobs = _batched(itertools.chain(first, stream), _PER_JOB)
    with tqdm(
        total=total,
        unit="mol",
        desc=label,
        disable=not progress or len(first) <= _FEW,
        smoothing=0.05,
        dynamic_ncols=True,
        mininterval=0.1 if sys.stderr.isatty() else _LOG_INTERVAL,
    ) as bar:
        for done in ordered_map(work, jobs, workers, _HANG_S):
            bar.update(len(done))
            yield from done


def _batched(items: Iterator, size: int) -> Iterator[list]:
    while some := list(itertools.islice(items, size)):
        yield some


def _work(
    rows: Sequence[UnreadRow | InputRow],
    given_up: Mapping[int, str],
    at: Callable[[int], None],
    *,
    settings: ConformerSettings,
    geometry: str,
    cache: str | os.PathLike | None,
) -> list[InputRow]:
    """Rows with coordinates: reading row i is place 2 i, its conformers 2 i + 1."""
    done = []
    for i, row in enumerate(rows):
        if 2 * i in given_up:
            record = failed_record(row.where, f"{given_up[2 * i]}: {_GIVEN_UP}")
        else:
            at(2 * i)
            record = row.make() if isinstance(row, UnreadRow) else row.record
            record = _without_own(record, geometry)
            if geometry != "flat" and record.status not in ("failed", "given"):
                if 2 * i + 1 in given_up:
                    reason = f"making a conformer failed: {given_up[2 * i + 1]}"
                    record = flat(record, reason)
                else:
                    at(2 * i + 1)
                    record = conform(record, settings, cache)
        done.append(InputRow(row.index, row.where, record, row.columns))
    return done


def _without_own(record: MoleculeRecord, geometry: str) -> MoleculeRecord:
    """The record without coordinates of its own, where others are wanted."""
    if record.status == "failed" or geometry == "given":
        return record
    if geometry == "flat":
        return flat(record, "a drawing was asked for")
    # Without bonds, there is nothing to make conformers from.
    return flat(record, NOT_MADE) if record.has_bonds else record
