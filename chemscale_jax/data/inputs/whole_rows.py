"""Rows of molecules with all of their hydrogens, as force fields need them.

Conformers are made in several processes and kept on disk, as in `conformed_rows`: a
molecule that crashes its process, or keeps it busy for minutes, gets a status.
"""

import functools
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from chemscale_jax.chem.conformers import (
    ConformerSettings,
    WholeGeometry,
    whole_geometry,
)
from chemscale_jax.chem.elements import symbol_of
from chemscale_jax.chem.molecule_record import MoleculeRecord, failed_record
from chemscale_jax.core.worker_processes import usable_processes
from chemscale_jax.data.inputs.conformed_rows import default_cache
from chemscale_jax.data.inputs.molecule_input import UnreadRow
from chemscale_jax.data.worker_pool import ordered_map

_PER_JOB = 8
# So few rows are done sooner than a process starts.
_FEW = 2 * _PER_JOB
# Wall seconds after which a molecule is given up, see `conform.conform_source`.
_HANG_S = 900.0


class WholeRow(NamedTuple):
    """A row of the input, with the fields of `molecule_input.InputRow`.

    Attributes:
        index: of the row, from 0.
        where: it stands.
        record: of its molecule, with the status and reason of its conformers.
        columns: all cells of the row by column.
        whole: its conformers; None where there are none.
    """

    index: int
    where: str
    record: MoleculeRecord
    columns: dict[str, str]
    whole: WholeGeometry | None


def whole_rows(
    rows: Iterable[UnreadRow],
    settings: ConformerSettings,
    *,
    elements: Sequence[str] = (),
    workers: int | None = None,
    cache: str | os.PathLike | None = "",
) -> Iterator[WholeRow]:
    """The same rows in the same order, with conformers that have hydrogens.

    Coordinates of the input are left aside: records have heavy atoms only.

    Args:
        rows: from `MoleculeInput.unread_rows`.
        settings: how conformers are made.
        elements: that a force field knows; molecules with others fail. Empty: all.
        workers: processes; default one for each core, or none for a few rows. 0 works
            in this process.
        cache: file of finished conformers; "": `default_cache`; None: none.

    Raises:
        UserError: the cache cannot be used.
    """
    file = default_cache() if cache == "" else cache
    known = tuple(sorted(elements))
    work = functools.partial(_work, settings=settings, known=known, cache=file)
    stream = iter(rows)
    first = list(itertools.islice(stream, _FEW + 1))
    if workers is None:
        workers = usable_processes() if len(first) > _FEW else 0
    jobs = _batched(itertools.chain(first, stream))
    for done in ordered_map(work, jobs, workers, _HANG_S):
        yield from done


def _batched(rows: Iterator[UnreadRow]) -> Iterator[list[UnreadRow]]:
    while some := list(itertools.islice(rows, _PER_JOB)):
        yield some


def _work(
    rows: Sequence[UnreadRow],
    given_up: Mapping[int, str],
    at: Callable[[int], None],
    *,
    settings: ConformerSettings,
    known: Sequence[str],
    cache: str | os.PathLike | None,
) -> list[WholeRow]:
    done = []
    for place, row in enumerate(rows):
        whole = None
        if place in given_up:
            reason = f"{given_up[place]}: the process did not survive this molecule"
            record = failed_record(row.where, reason)
        else:
            at(place)
            record = row.make()
            if record.status != "failed":
                record, whole = _conformed(record, settings, known, cache)
        done.append(WholeRow(row.index, row.where, record, row.columns, whole))
    return done


def _conformed(
    record: MoleculeRecord,
    settings: ConformerSettings,
    known: Sequence[str],
    cache: str | os.PathLike | None,
) -> tuple[MoleculeRecord, WholeGeometry | None]:
    """The record with the status of its conformers, and these."""
    whole = None
    reason = _unknown(record.species_N, known)
    if not record.smiles:
        reason = "its bonds are unknown, so its hydrogens cannot be placed"
    if not reason:
        try:
            whole = whole_geometry(record.smiles, settings, cache)
        except ValueError as error:
            reason = str(error)
        else:
            reason = _unknown(whole.numbers_N, known)
    if whole is None or reason:
        return record._replace(status="failed", reason=reason), None
    record = record._replace(status=whole.status, reason=whole.reason)
    return record, None if whole.status == "failed" else whole


def _unknown(numbers: np.ndarray, known: Sequence[str]) -> str:
    """Which elements a force field does not know, as a reason, or ""."""
    symbols = {symbol_of(int(number)) for number in np.unique(numbers)}
    if not known or symbols <= set(known):
        return ""
    unknown = ", ".join(sorted(symbols - set(known)))
    return f"the force field was not trained on {unknown}, only on {', '.join(known)}"
