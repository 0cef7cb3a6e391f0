"""Runs a sweep: trains its cells as far as a policy says, and no further.

A policy (`policies`) decides from the losses so far up to which epoch each cell is to
be trained. Here the processes are started that do it: a process for each cell, or one
for several cells that train as lanes of one program. Decisions are in a journal before
they are acted on, and all else is read from the folders of the cells; so a sweep that
was killed goes on with the same command, and trains nothing twice.
"""

import dataclasses
import hashlib
import itertools
import json
import pathlib
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from chemscale_jax.analysis.tpe.run_curves import epochs_at
from chemscale_jax.core.errors import UserError
from chemscale_jax.studies.cell_source import CellSource
from chemscale_jax.studies.cell_status import Status, Statuses
from chemscale_jax.studies.cells import Cell
from chemscale_jax.studies.journal import Journal
from chemscale_jax.studies.lane_groups import APART, lane_groups
from chemscale_jax.studies.local_processes import (
    POLL_S,
    Job,
    Place,
    Processes,
    cell_job,
    is_locked,
)
from chemscale_jax.studies.policies import Policy, Seen, arrived, unseen

# Seconds between looks at what the processes write, where none of them has ended.
_LOOK_S = 0.5
# Ends of a process in a row that leave a cell where it was, before it counts as broken.
_IDLE_ENDS = 2


def _module(name: str) -> tuple[str, ...]:
    return (sys.executable, "-m", name)


@dataclasses.dataclass(frozen=True)
class Programs:
    """The commands that train one cell, and several as lanes."""

    trainer: tuple[str, ...] = _module("chemscale_jax.main")
    lanes: tuple[str, ...] = _module("chemscale_jax.studies.lane_process")


@dataclasses.dataclass(frozen=True, eq=False)
class Glance:
    """A sweep at one moment, for those who watch it and for its report."""

    cells: Sequence[Cell]
    statuses: Mapping[str, Status]
    seen: Mapping[str, Seen]
    targets: Mapping[str, float]  # fraction of the epochs, as decided so far
    running: Sequence[Sequence[str]]  # the cells that each process trains
    before: Sequence[str]  # cells that a process of an earlier command still trains
    broken: Mapping[str, int]  # exit codes
    complete: bool  # whether all cells are known


class Sweep:
    """The cells of a sweep and the processes that train them.

    Attributes:
        broken: {cell: exit code} of those that failed for a reason other than their
            loss; the same command tries them again.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        source: CellSource,
        policy: Policy,
        journal: Journal,
        places: Sequence[Place],
        lanes: int,
        programs: Programs,
    ) -> None:
        """Starts nothing yet.

        Args:
            folder: of the sweep.
            source: of the cells.
            policy: decides how far each is trained.
            journal: of the decisions so far.
            places: where processes run.
            lanes: most cells of one process; 1: every cell has its own.
            programs: that train.
        """
        self._folder, self._source, self._policy = folder, source, policy
        self._journal, self._places = journal, places
        self._lanes, self._programs = lanes, programs
        self._statuses = Statuses()
        self._targets: dict[str, float] = {}
        self._group_of: dict[str, int] = {}
        self._numbers = itertools.count()
        # Of the jobs that run: epochs after which a cell waits (None: it goes to its
        # end; 0: it stands still), when they started, and at which steps.
        self._told: dict[Job, dict[str, int | None]] = {}
        self._started: dict[Job, tuple[float, dict[str, int]]] = {}
        self._idle_ends: dict[str, int] = {}
        self.broken: dict[str, int] = {}

    def run(
        self, show: Callable[[Callable[[], Glance]], None]
    ) -> signal.Signals | None:
        """Trains until the policy wants no more; returns the signal that stopped it.

        Args:
            show: called again and again with what gives the state of the sweep.
        """
        looked = -_LOOK_S
        with Processes(self._places) as processes:
            while True:
                ended = processes.poll()
                for job, code in ended:
                    self._end(job, code)
                if processes.received and not processes.running:
                    break
                now = time.monotonic()
                if not processes.received and (ended or now - looked > _LOOK_S):
                    looked = now
                    self._decide()
                    self._direct(processes)
                    if not processes.running and not self._behind():
                        break
                show(lambda: self.glance(processes))
                time.sleep(POLL_S)
        return processes.received

    def glance(self, processes: Processes | None = None) -> Glance:
        """The sweep as it is now."""
        running = processes.running if processes else []
        moving = [[n for n, e in self._told[job].items() if e != 0] for job in running]
        inside = {name for job in running for name in self._told[job]}
        cells = self._source.cells
        return Glance(
            cells=cells,
            statuses={cell.name: self._statuses.of(cell) for cell in cells},
            seen=self._seen(),
            targets=dict(self._targets),
            running=[moves for moves in moving if moves],
            before=[
                cell.name
                for cell in cells
                if cell.name not in inside and is_locked(cell.workdir)
            ],
            broken=dict(self.broken),
            complete=self._source.complete,
        )

    def _cell(self, name: str) -> Cell:
        return next(cell for cell in self._source.cells if cell.name == name)

    def _seen(self) -> dict[str, Seen]:
        return {
            cell.name: self._statuses.of(cell).seen(
                cell, self._policy.score, cell.name in self.broken
            )
            for cell in self._source.cells
        }

    def _decide(self) -> None:
        """Asks the policy; before all cells are known, only how far they begin."""
        while True:
            seen = self._seen()
            first = self._policy.targets({n: unseen(s.epochs) for n, s in seen.items()})
            if not self._source.wants_scores or any(
                not arrived(s, first[n]) or self._lacks(n, first[n])
                for n, s in seen.items()
            ):
                break
            self._source.advance(
                {n: _score(s, epochs_at(first[n], s.epochs)) for n, s in seen.items()}
            )
        targets = self._policy.targets(seen) if self._source.complete else first
        self._targets = self._journal.raise_targets(targets)

    def _lacks(self, name: str, target: float) -> bool:
        """Whether a cell has to be trained, or reported, to be where it is to be."""
        status = self._statuses.of(self._cell(name))
        if status.done or status.diverged or name in self.broken:
            return False
        epochs = self._epochs(name, target)
        return epochs is None or not status.waits_at(epochs)

    def _behind(self) -> list[str]:
        """Cells that are not where they are to be, the most urgent first."""
        return [n for n, target in self._targets.items() if self._lacks(n, target)]

    def _epochs(self, name: str, target: float) -> int | None:
        """Epochs after which a cell waits; None: it goes to its end."""
        if target >= 1:
            return None
        return epochs_at(target, self._cell(name).config["train"]["epochs"])

    def _direct(self, processes: Processes) -> None:
        """Sends processes on, ends those that have nothing to do, starts new ones."""
        behind = self._behind()
        for job in filter(self._rests, processes.running):
            own = [name for name in behind if name in self._told[job]]
            if own:
                self._send_on(processes, job, own)
        resting = [job for job in processes.running if self._rests(job)]
        inside = {name for job in processes.running for name in self._told[job]}
        waiting = [name for name in behind if name not in inside]
        groups = self._groups()
        wanted = {groups[name] for name in waiting}
        # Either its place is wanted, or nobody is left whose result could send it on.
        over = not processes.free if waiting else len(resting) == len(processes.running)
        for job in resting:
            if over or groups[next(iter(self._told[job]))] in wanted:
                processes.close_orders(job)
        self._start_some(processes, waiting)

    def _rests(self, job: Job) -> bool:
        """Whether a process of lanes has done what it was told."""
        return job.takes_orders and all(
            epochs == 0
            or (status := self._statuses.of(self._cell(name))).done
            or status.diverged
            or (epochs is not None and status.waits_at(epochs))
            for name, epochs in self._told[job].items()
        )

    def _crew(self, names: Sequence[str]) -> list[str]:
        """The cells of the process that is to train some cells of a group.

        Lanes that stand still cost little, a new program costs its compilation; so
        those of before stay together until half of them or fewer go on. After a kill it
        is the crew of before, which was noted: the same program gives the same bits.
        """
        if names[0] in self._journal.apart:
            return [*names]
        targets = {name: self._targets[name] for name in names}
        last = self._journal.crews.get(names[0], {})
        if last.keys() >= {*names}:
            if all(last[name] == target for name, target in targets.items()):
                return list(last)
            if 2 * len(names) > len(last):
                targets = {**last, **targets}
        self._journal.note_crew(targets)
        return list(targets)

    def _send_on(self, processes: Processes, job: Job, names: Sequence[str]) -> None:
        """Lets lanes of a process that rests go on, if it is theirs to do so."""
        if {*self._crew(names)} != {*self._told[job]}:
            processes.close_orders(job)
            return
        told = {name: self._told_now(name, names) for name in self._told[job]}
        if processes.order(job, json.dumps({"pause_after": list(told.values())})):
            self._told[job] = told

    def _told_now(self, name: str, moving: Sequence[str]) -> int | None:
        return self._epochs(name, self._targets[name]) if name in moving else 0

    def _start_some(self, processes: Processes, waiting: Sequence[str]) -> None:
        """Fills the free places, the most urgent cells first."""
        groups = self._groups()
        for group in dict.fromkeys(groups[name] for name in waiting):
            if processes.free:
                self._start(processes, [n for n in waiting if groups[n] == group])

    def _start(self, processes: Processes, names: Sequence[str]) -> None:
        """Starts the process of some cells, unless one from before trains them."""
        crew = self._crew(names)
        if any(is_locked(self._cell(name).workdir) for name in crew):
            return
        cells = [self._cell(name) for name in crew]
        told = {name: self._told_now(name, names) for name in crew}
        if len(cells) == 1:
            pause = told[crew[0]]
            more = [] if pause is None else [f"--pause_after_epochs={pause}"]
            job = cell_job(cells[0], self._programs.trainer, *more)
        else:
            called = hashlib.sha256("\n".join(crew).encode()).hexdigest()[:8]
            job = Job(
                name=f"lanes-{called}",
                command=self._programs.lanes,
                workdirs=tuple(cell.workdir for cell in cells),
                log=self._folder / f"lanes-{called}.txt",
                takes_orders=True,
            )
        steps = {cell.name: _last_step(cell) for cell in cells}
        if not processes.start(job):
            return
        self._told[job] = told
        self._started[job] = time.monotonic(), steps
        if job.takes_orders:
            arguments = [cell.arguments for cell in cells]
            order = {"cells": arguments, "pause_after": list(told.values())}
            processes.order(job, json.dumps(order))

    def _groups(self) -> dict[str, int]:
        """{cell: number of its group}; groups stay as they are when cells come in."""
        new = [cell for cell in self._source.cells if cell.name not in self._group_of]
        apart = self._journal.apart
        found = [[cell] for cell in new if cell.name in apart]
        found += lane_groups(
            [cell for cell in new if cell.name not in apart],
            len(self._places),
            self._lanes,
        )
        for group in found:
            number = next(self._numbers)
            self._group_of.update({cell.name: number for cell in group})
        return self._group_of

    def _end(self, job: Job, code: int) -> None:
        """Takes in that a process has ended."""
        told = self._told.pop(job)
        start, steps = self._started.pop(job)
        seconds = round(time.monotonic() - start, 1)
        self._journal.note_process(job.name, list(told), code, seconds)
        stuck = []
        for name in told:
            if self._lacks(name, self._targets[name]):
                moved = _last_step(self._cell(name)) != steps[name]
                self._idle_ends[name] = 0 if moved else self._idle_ends.get(name, 0) + 1
                if code > 0 or self._idle_ends[name] >= _IDLE_ENDS:
                    stuck.append(name)
        if job.takes_orders and (stuck or code == APART):
            # Too many for one program, or for the memory: one by one they may do.
            self._journal.note_apart(list(told))
            for name in told:
                self._group_of.pop(name)
                self._idle_ends.pop(name, None)
        else:
            self.broken.update(dict.fromkeys(stuck, code))


def check_cells(cells: Sequence[Cell], policy: Policy) -> None:
    """Raises unless a policy can decide between the cells by their epochs.

    Raises:
        UserError: a cell is limited by steps, is an ensemble, or has too few epochs.
    """
    for cell in cells:
        rules = cell.config["train"]
        if rules["max_steps"]:
            raise UserError(
                f"config.train.max_steps is {rules['max_steps']} in {cell.name}; a "
                "sweep decides after whole epochs, so set config.train.epochs and "
                "max_steps=0"
            )
        if rules["ensemble"] > 1:
            raise UserError(
                f"config.train.ensemble is {rules['ensemble']} in {cell.name}; let "
                "the sweep yield seeds, which it trains as lanes too"
            )
    policy.targets({c.name: unseen(c.config["train"]["epochs"]) for c in cells})


def _score(run: Seen, epochs: int) -> float:
    return run.at(epochs) if run.knows(epochs) else float("inf")


def _last_step(cell: Cell) -> int:
    last = cell.workdir.last_record()
    return -1 if last is None else last["step"]
