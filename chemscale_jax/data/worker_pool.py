"""Work on lists of items in several processes: ordered, bounded, and hard to stop.

An item that kills its process, or keeps it busy for minutes, is found by its place and
given up; the others of its job are worked on again. So no item can end a run.
"""

import contextlib
import ctypes
import dataclasses
import multiprocessing
import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from multiprocessing.connection import Connection, wait
from typing import Any

from chemscale_jax.core.errors import UserError
from chemscale_jax.core.worker_processes import end_with_parent, one_thread

# Called with a job, the items of it to give up, and a function to call with the place
# of each item before it is touched.
Work = Callable[[Any, Mapping[int, str], Callable[[int], None]], Any]
DIED = "crashed"
HUNG = "too_slow"
# Jobs that are worked on or wait for an earlier one, for each worker.
_AHEAD = 4
# What a worker is at before it has asked for its first job, and before the first item.
_STARTING = -1
# Seconds that a worker has for this; on a busy machine imports are slow.
_START_S = 300.0
# Deaths of the same item, or of starting workers: one may be bad luck.
_CHANCES = 2


@dataclasses.dataclass
class _Worker:
    """A process, and what it works on since when."""

    process: Any
    pipe: Connection
    place: Any  # shared number: the item that it is at
    job: int | None = _STARTING
    seen: int = _STARTING
    since: float = dataclasses.field(default_factory=time.monotonic)

    def give(self, number: int, job: Any, given_up: Mapping[int, str]) -> None:
        self.job, self.since = number, time.monotonic()
        self.seen = self.place.value = _STARTING
        with contextlib.suppress(BrokenPipeError):  # its end is noticed soon
            self.pipe.send((job, given_up))

    def hangs(self, limit_s: float) -> bool:
        """Whether it is at the same item for too long."""
        if self.place.value != self.seen:
            self.seen, self.since = self.place.value, time.monotonic()
        if self.seen == _STARTING:
            limit_s = max(limit_s, _START_S)
        return self.job is not None and time.monotonic() - self.since > limit_s

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def ordered_map(
    work: Work, jobs: Iterable[Any], workers: int, hang_s: float = 120.0
) -> Iterator[Any]:
    """Results of ``work`` in the order of the jobs.

    Args:
        work: ``work(job, given_up, at)`` is called in another process; ``given_up``
            are places of items in the job, with `DIED` or `HUNG`, that must not be
            touched; ``at(place)`` has to be called before each item. It must be
            picklable, such as a function of a module or a partial of one.
        jobs: read only as far as there is room for results.
        workers: processes with one thread each; 0 works in this process, without
            protection.
        hang_s: wall seconds after which an item is given up.

    Raises:
        UserError: workers die before they do anything.
    """
    if workers < 1:
        for job in jobs:
            yield work(job, {}, lambda place: None)
        return
    queue = enumerate(jobs)
    pool: list[_Worker] = []
    waiting: deque[int] = deque()
    given: dict[int, Any] = {}  # jobs without a result
    given_up: dict[int, dict[int, str]] = {}  # by job
    deaths: Counter[tuple[int, int]] = Counter()  # by job and place
    results: dict[int, Any] = {}
    turn, more = 0, True
    try:
        while more or given or results:
            while more and len(given) + len(results) < _AHEAD * workers:
                number, job = next(queue, (_STARTING, None))
                more = number != _STARTING
                if more:
                    given[number] = job
                    waiting.append(number)
            while len(pool) < min(workers, len(given)):
                pool.append(_start(work))
            for worker in pool:
                if worker.job is None and waiting:
                    number = waiting.popleft()
                    worker.give(number, given[number], given_up.get(number, {}))
            for worker, outcome in _outcomes(pool, hang_s):
                number = worker.job
                assert number is not None
                if isinstance(outcome, str):
                    place = worker.place.value
                    deaths[number, place] += 1
                    worker.end()
                    pool[pool.index(worker)] = _start(work)
                    last_chance = deaths[number, place] >= _CHANCES or outcome == HUNG
                    if last_chance and place == _STARTING:
                        raise UserError(
                            "worker processes die before they begin, perhaps for lack "
                            "of memory: use fewer with --workers"
                        )
                    if last_chance:
                        given_up.setdefault(number, {})[place] = outcome
                    if number != _STARTING:
                        waiting.appendleft(number)
                    continue
                worker.job = None
                if number != _STARTING:
                    results[number] = outcome
                    del given[number]
            while turn in results:
                yield results.pop(turn)
                turn += 1
    finally:
        for worker in pool:
            worker.end()


def _outcomes(pool: list[_Worker], hang_s: float) -> Iterator[tuple[_Worker, Any]]:
    """Workers that have a result, and those that died or hang, with which of both."""
    by_pipe = {worker.pipe: worker for worker in pool if worker.job is not None}
    ready = wait(list(by_pipe), timeout=min(1.0, hang_s / 4))
    for pipe, worker in by_pipe.items():
        if pipe in ready:
            try:
                result, error = pipe.recv()
            except (EOFError, OSError):
                yield worker, DIED
                continue
            if error is not None:
                raise error
            yield worker, result
        elif worker.hangs(hang_s):
            yield worker, HUNG


def _start(work: Work) -> _Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    place = context.RawValue(ctypes.c_longlong, _STARTING)
    process = context.Process(target=_serve, args=(work, theirs, place), daemon=True)
    with one_thread():
        process.start()
    theirs.close()
    return _Worker(process, ours, place)


def _serve(work: Work, pipe: Connection, place: Any) -> None:
    """What a worker does: one job after the other, until there is nobody to ask."""
    # Control-C reaches all processes; the first one ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()

    def at(number: int) -> None:
        place.value = number

    message: tuple[Any, Any] = (None, None)
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            pipe.send(message)
            job, given_up = pipe.recv()
            try:
                message = (work(job, given_up, at), None)
            except Exception as error:
                message = (None, error)
