"""A conformer store by Apache Beam, for more molecules than one machine makes.

The same functions as in `conform_source`, on the same items, write the same shards:

    lines -> candidates -> by shard, without repeats -> conformers -> by shard -> files

Records, ledger and counts are those of the local way, byte for byte; shards that are
there already, from either way, are not made again. All workers must see the folder of
the store under the same path, such as on a shared disk, and have this package
installed. Beam comes with the extra ``beam``.
"""

import functools
import importlib
import json
import os
import pathlib
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from chemscale_jax.core.errors import UserError
from chemscale_jax.data.conformers.build import Build, Plan, build_store
from chemscale_jax.data.conformers.shards import has_shard, write_shard
from chemscale_jax.data.conformers.steps import (
    Candidate,
    Molecule,
    leave_out_repeats,
    make_molecules,
    read_chunk,
    shard_of_key,
    shard_of_line,
)
from chemscale_jax.data.conformers.store import ConformerStore
from chemscale_jax.data.text.molecule_text import Chunk, TextSource
from chemscale_jax.data.text.text_layout import Layout
from chemscale_jax.data.text.token_store import Failure, write_json

_COUNTERS = "conformers"
_LINES_FILE = "lines.json"
_FAILURES, _COUNTS = "failures", "counts"


def conform_with_beam(
    source: TextSource,
    out: str | os.PathLike,
    plan: Plan = Plan(),  # noqa: B008
    *,
    runner: str = "DirectRunner",
    options: str | Sequence[str] = (),
) -> ConformerStore:
    """Makes the conformer store of a source, or the shards of it that are missing.

    Args:
        source: the lines.
        out: folder of the store; it appears when all is done.
        plan: what it is to hold.
        runner: of Beam, by name.
        options: of Beam, such as "--direct_num_workers=2".

    Raises:
        UserError: see `conform_source`; or the pipeline fails.
    """
    beam = _beam()
    flags = shlex.split(options) if isinstance(options, str) else list(options)

    def make(build: Build) -> None:
        from_flags = importlib.import_module("apache_beam.options.pipeline_options")
        chosen = from_flags.PipelineOptions([f"--runner={runner}", *flags])
        try:
            with beam.Pipeline(options=chosen) as pipeline:
                add_steps(pipeline, build)
        except (RuntimeError, ValueError, ImportError) as error:
            said = str(error).strip().splitlines()
            raise UserError(
                f"the pipeline failed on {runner} ({said[-1] if said else error}): "
                "complete shards are kept, and the same command goes on from there"
            ) from error
        lines = json.loads((build.folder / _LINES_FILE).read_text())
        # All shards are there, so the local way would have nothing to do either.
        build.parts.append({}, {"complete": True, **lines})

    return build_store(source, out, plan, make)


def add_steps(pipeline: Any, build: Build) -> None:
    """Adds the steps that write the shards that are not there yet.

    The counters ``conformers:*`` of the pipeline say how many lines were read, stored,
    and left out for which reason.

    Args:
        pipeline: of Beam.
        build: the store; its folder of parts is visible to all workers.
    """
    beam = _beam()
    plan, folder = build.plan, build.folder
    shards = plan.shards
    todo = [number for number in range(shards) if not has_shard(folder, number)]
    read = (
        pipeline
        | "Start" >> beam.Create([0])
        | "Chunks" >> beam.FlatMap(_chunks, source=build.source)
        | "Spread" >> beam.Reshuffle()
        | "Read"
        >> beam.FlatMap(
            _read,
            layout=build.source.layout,
            max_atoms=plan.max_atoms,
            shards=shards,
            todo=frozenset(todo),
        ).with_outputs(_FAILURES, _COUNTS, main="candidates")
    )
    _ = (
        read[_COUNTS]
        | "Lines" >> beam.CombineGlobally(sum)
        | "Note lines" >> beam.Map(_note_lines, folder=folder)
    )
    distinct = (
        read["candidates"]
        | "By shard" >> beam.GroupByKey()
        | "Leave out repeats"
        >> beam.FlatMap(_distinct).with_outputs(_FAILURES, main="candidates")
    )
    made = (
        distinct["candidates"]
        | "Spread molecules" >> beam.Reshuffle()
        | "Conformers"
        >> beam.FlatMap(_conform, plan=plan).with_outputs(_FAILURES, main="molecules")
    )
    failures = (
        read[_FAILURES],
        distinct[_FAILURES],
        made[_FAILURES],
    ) | "All failures" >> beam.Flatten()
    # A shard without molecules is written too.
    numbers = pipeline | "Shards" >> beam.Create([(number, None) for number in todo])
    _ = (
        {"molecules": made["molecules"], "failures": failures, "numbers": numbers}
        | "By shard again" >> beam.CoGroupByKey()
        | "Write" >> beam.Map(_write, folder=folder, shards=shards)
    )


def _chunks(start: int, *, source: Any) -> Iterator[Chunk]:
    return source.chunks()


def _read(
    chunk: Chunk, *, layout: Layout, max_atoms: int, shards: int, todo: frozenset[int]
) -> Iterator[Any]:
    """(shard, candidate), and failures and the number of lines beside it."""
    reading = read_chunk(chunk, {}, _nowhere, layout=layout, max_atoms=max_atoms)
    _count("lines", reading.lines)
    yield _beside(_COUNTS, reading.lines)
    for candidate in reading.candidates:
        number = shard_of_key(candidate.key, shards)
        if number in todo:
            yield number, candidate
    for failure in reading.failures:
        number = shard_of_line(failure.line, shards)
        if number in todo:
            yield _failed(number, failure)


def _distinct(group: tuple[int, Iterable[Candidate]]) -> Iterator[Any]:
    number, candidates = group
    distinct, repeats = leave_out_repeats(candidates)
    for candidate in distinct:
        yield number, candidate
    for failure in repeats:
        yield _failed(number, failure)


def _conform(item: tuple[int, Candidate], *, plan: Plan) -> Iterator[Any]:
    number, candidate = item
    making = make_molecules(
        [candidate],
        {},
        _nowhere,
        settings=plan.conformers,
        max_atoms=plan.max_atoms,
        float32=plan.float32,
    )
    for molecule in making.molecules:
        _count("stored")
        yield number, molecule
    for failure in making.failures:
        yield _failed(number, failure)


def _write(
    group: tuple[int, Mapping[str, Iterable[Any]]], *, folder: pathlib.Path, shards: int
) -> None:
    number, found = group
    molecules: list[Molecule] = sorted(found["molecules"])
    write_shard(folder, number, shards, molecules, found["failures"])


def _note_lines(lines: int, *, folder: pathlib.Path) -> None:
    write_json(folder / _LINES_FILE, {"lines": lines})


def _failed(number: int, failure: Failure) -> Any:
    _count(failure.reason)
    return _beside(_FAILURES, (number, failure))


def _beside(tag: str, value: Any) -> Any:
    return _beam().pvalue.TaggedOutput(tag, value)


def _count(name: str, by: int = 1) -> None:
    _beam().metrics.Metrics.counter(_COUNTERS, name).inc(by)


def _nowhere(place: int) -> None:
    """Beam does not ask at which molecule a worker is."""


@functools.cache
def _beam() -> Any:
    try:
        return importlib.import_module("apache_beam")
    except ImportError:
        raise UserError(
            "the pipeline needs Apache Beam: pip install 'chemscale_jax[beam]'"
        ) from None
