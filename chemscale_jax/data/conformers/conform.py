"""Text files of molecules to a conformer store: parallel, resumable, no line lost.

First all lines are read, then the shards are made one after the other, both in several
processes and into a folder beside the store (``OUT.parts``). A run that was killed goes
on after the last piece that is there; neither kills nor the number of processes change
a byte of the store.
"""

import functools
import itertools
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from tqdm import tqdm

from chemscale_jax.core.errors import UserError
from chemscale_jax.core.worker_processes import usable_processes
from chemscale_jax.data.conformers.build import PER_JOB, Build, Plan, build_store
from chemscale_jax.data.conformers.parts import (
    add_made,
    add_reading,
    candidates_of,
    finish_shard,
    places_of,
    shard_files,
)
from chemscale_jax.data.conformers.shards import has_shard
from chemscale_jax.data.conformers.steps import (
    Candidate,
    Making,
    leave_out_repeats,
    make_molecules,
    read_chunk,
)
from chemscale_jax.data.conformers.store import ConformerStore
from chemscale_jax.data.journaled_files import JournaledFiles
from chemscale_jax.data.text.molecule_text import TextSource
from chemscale_jax.data.text.token_store import Failure
from chemscale_jax.data.worker_pool import ordered_map

# Wall seconds after which a molecule is given up: far more than any needs, even on a
# machine that is busy with something else.
_HANG_S = 900.0
# Seconds between redrawings of the bar where nobody watches it move.
_LOG_INTERVAL = 30.0


class Conformed(NamedTuple):
    """A store and what it cost."""

    store: ConformerStore
    made: int = 0  # molecules that were not there yet
    cpu_s: float = 0.0  # of the processes that made them


def conform_source(
    source: TextSource,
    out: str | os.PathLike,
    plan: Plan = Plan(),  # noqa: B008
    *,
    workers: int | None = None,
    progress: bool = True,
) -> Conformed:
    """Makes the conformer store of a source, or goes on with it.

    Every line becomes a molecule of the store or a row of its ledger.

    Args:
        source: the lines.
        out: folder of the store; it appears when all is done.
        plan: what it is to hold.
        workers: processes with one thread each; default one for each core that may be
            used; 0 works in this process, unprotected from molecules that crash it.
        progress: whether there are bars.

    Raises:
        UserError: the source has no lines or is damaged, the store is there already
            and another one, the parts belong to other settings, or an argument makes
            no sense.
    """
    if workers is not None and workers < 0:
        raise UserError(f"workers is {workers}: it must not be negative")
    count = usable_processes() if workers is None else workers
    made, cpu_s = 0, 0.0

    def make(build: Build) -> None:
        nonlocal made, cpu_s
        _read(build, count, progress)
        if build.parts.state["lines"]:
            made, cpu_s = _make(build, count, progress)

    store = build_store(source, out, plan, make)
    return Conformed(store, made, cpu_s)


def _read(build: Build, workers: int, progress: bool) -> None:
    """Adds the chunks of lines that are not there yet."""
    source, parts = build.source, build.parts
    if parts.state.get("complete"):
        return
    chunks = itertools.islice(source.chunks(), parts.state.get("chunks", 0), None)
    work = functools.partial(
        read_chunk, layout=source.layout, max_atoms=build.plan.max_atoms
    )
    with _bar("reading", "line", progress, parts.state.get("lines", 0)) as bar:
        for reading in ordered_map(work, chunks, workers, _HANG_S):
            add_reading(parts, reading)
            # Nobody knows the number of lines; the bytes that were read tell about it.
            bar.total = round(parts.state["lines"] / max(reading.read, 1e-9))
            bar.update(reading.lines)
    parts.append({}, {"lines": 0, **parts.state, "complete": True})


class _Job(NamedTuple):
    shard: int
    last: bool  # of its shard
    candidates: list[Candidate]


def _make(build: Build, workers: int, progress: bool) -> tuple[int, float]:
    """Makes the shards that are not there yet.

    Returns:
        Molecules, and CPU seconds of making them.
    """
    plan, folder, shards = build.plan, build.folder, build.plan.shards
    todo = [number for number in range(shards) if not has_shard(folder, number)]
    if not todo:
        return 0, 0.0
    repeats: dict[int, list[Failure]] = {}
    # Shards are made one after the other, so only the first of them can be begun.
    with shard_files(folder, todo[0]) as begun:
        done = begun.state.get("jobs", 0)

    def jobs() -> Iterator[_Job]:
        for number in todo:
            distinct, repeats[number] = leave_out_repeats(candidates_of(build, number))
            starts = range(0, max(len(distinct), 1), PER_JOB)
            skip = done if number == todo[0] else 0
            for start in starts[skip:]:
                some = distinct[start : start + PER_JOB]
                yield _Job(number, start == starts[-1], some)
            if skip >= len(starts):
                # All was made, but the shard was not written.
                yield _Job(number, True, [])

    work = functools.partial(
        _work,
        settings=plan.conformers,
        max_atoms=plan.max_atoms,
        float32=plan.float32,
    )
    made, cpu_s = 0, 0.0
    total = build.parts.state.get("candidates", 0)
    before = total - sum(len(places_of(build, number)) for number in todo)
    with _bar("conformers", "mol", progress, before + PER_JOB * done, total) as bar:
        files: JournaledFiles | None = None
        try:
            for job, making in ordered_map(work, jobs(), workers, _HANG_S):
                files = files or shard_files(folder, job.shard)
                add_made(files, making)
                made += len(making.molecules)
                cpu_s += making.cpu_s
                bar.update(len(job.candidates))
                if job.last:
                    failures = repeats.pop(job.shard)
                    bar.update(len(failures))
                    finish_shard(build, job.shard, files, failures)
                    files = None
        finally:
            if files is not None:
                files.close()
    return made, cpu_s


def _work(
    job: _Job,
    given_up: Mapping[int, str],
    at: Callable[[int], None],
    **options: Any,
) -> tuple[_Job, Making]:
    return job, make_molecules(job.candidates, given_up, at, **options)


def _bar(
    label: str, unit: str, progress: bool, initial: int, total: int | None = None
) -> tqdm:
    return tqdm(
        initial=initial,
        total=total,
        unit=unit,
        desc=label,
        disable=not progress,
        smoothing=0.05,
        dynamic_ncols=True,
        mininterval=0.1 if sys.stderr.isatty() else _LOG_INTERVAL,
    )
