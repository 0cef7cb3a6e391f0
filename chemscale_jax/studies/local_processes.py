"""Processes of this machine, each with a device or a share of the CPU's cores.

Processes that run side by side without devices share the CPU cores out among them:
small models gain little from a second core, so two at a time are done sooner.

A process holds a lock on each folder it writes, also when the program that started it
was killed. So the same command, given again, waits for what still runs and starts no
run twice.
"""

import collections
import dataclasses
import fcntl
import os
import pathlib
import signal
import subprocess
import time
from collections.abc import Sequence
from typing import IO, Any

from tqdm import tqdm

from chemscale_jax.analysis.markdown import markdown_table
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.workdir import Workdir
from chemscale_jax.studies.cell_process import LOCK, LOG
from chemscale_jax.studies.cells import Cell

# Seconds between looks at the processes, and at the logs they write.
POLL_S, LOOK_S = 0.1, 10.0


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a process runs."""

    device: str = ""  # for CUDA_VISIBLE_DEVICES; "" leaves the choice to JAX
    cores: frozenset[int] = frozenset()  # of the CPU; none leaves the choice to Linux


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
    """A process to start."""

    name: str
    command: tuple[str, ...]
    workdirs: tuple[Workdir, ...]  # that it alone may write while it runs
    log: pathlib.Path  # of its output, appended to
    takes_orders: bool = False  # lines of text on its standard input


def places(jobs: int, devices: Sequence[str]) -> list[Place]:
    """A place for each of several processes: a device, or a share of the CPU's cores.

    Cores are shared out where the system can bind a process to some, and where there
    are as many cores as jobs.
    """
    if devices:
        return [Place(device=device) for device in devices[:jobs]]
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if jobs == 1 or len(cores) < jobs:
        return [Place()] * jobs
    return [Place(cores=frozenset(cores[job::jobs])) for job in range(jobs)]


def places_of(jobs: int, devices: str) -> list[Place]:
    """The places that ``--jobs=N`` (0: one, or one per device) and ``--devices`` give.

    Raises:
        UserError: there are fewer devices than jobs, or no job.
    """
    names = devices.split(",") if devices else []
    jobs = jobs or max(len(names), 1)
    if jobs < 1 or (names and jobs > len(names)):
        raise UserError(
            f"--jobs={jobs} with {len(names)} devices; give at least one job and no "
            "more than there are devices"
        )
    return places(jobs, names)


class Processes:
    """The processes that run now; a context that leaves none of them behind.

    SIGINT and SIGTERM are passed on to the processes, which save and stop.

    Attributes:
        received: the signal that came, if any.
    """

    def __init__(self, places: Sequence[Place]) -> None:
        """Starts nothing yet; as many processes run at a time as there are places."""
        self._free = list(places)
        self._running: dict[Job, tuple[subprocess.Popen, Place, IO[bytes]]] = {}
        self.received: signal.Signals | None = None
        self._unsent: signal.Signals | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Processes":
        """Takes over the signals."""
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        """Gives the signals back and asks what still runs to save and stop."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        for one in self._running.values():
            one[0].terminate()
        for job in self.running:
            self._end(job)

    @property
    def free(self) -> int:
        """How many more processes may be started."""
        return len(self._free)

    @property
    def running(self) -> list[Job]:
        """What runs now, in the order of the starts."""
        return list(self._running)

    def start(self, job: Job) -> bool:
        """Starts a process; there has to be a free place.

        Returns:
            False: it was not started, as another process still writes its folders.

        Raises:
            UserError: a folder or the log cannot be written.
        """
        locks: list[IO[bytes]] = []
        try:
            for workdir in job.workdirs:
                workdir.path.mkdir(parents=True, exist_ok=True)
                locks.append((workdir.path / LOCK).open("ab"))
                try:
                    fcntl.flock(locks[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return False
            job.log.parent.mkdir(parents=True, exist_ok=True)
            log = job.log.open("ab")
            place = self._free.pop(0)
            chosen = {"CUDA_VISIBLE_DEVICES": place.device} if place.device else {}
            process = subprocess.Popen(
                job.command,
                stdin=subprocess.PIPE if job.takes_orders else subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | chosen,
                # Out of the terminal's reach: Ctrl-C arrives once, through poll().
                start_new_session=True,
                # The child has the locks too, and for as long as it lives.
                pass_fds=[lock.fileno() for lock in locks],
            )
        except OSError as error:
            raise UserError(
                f"{error.filename} cannot be written ({error.strerror}); choose "
                "another --workdir"
            ) from None
        finally:
            for lock in locks:
                lock.close()
        if place.cores:
            os.sched_setaffinity(process.pid, place.cores)
        self._running[job] = process, place, log
        return True

    def order(self, job: Job, line: str) -> bool:
        """Sends a line to a process that takes orders; False: it takes no more."""
        pipe = self._running[job][0].stdin
        assert pipe is not None, "only jobs that take orders have a pipe"
        if pipe.closed:
            return False
        try:
            pipe.write(line.encode() + b"\n")
            pipe.flush()
        except BrokenPipeError:
            return False
        return True

    def close_orders(self, job: Job) -> None:
        """Tells a process that takes orders that no more will come."""
        pipe = self._running[job][0].stdin
        if pipe is not None:
            try:
                pipe.close()
            except BrokenPipeError:
                pass  # it has ended

    def poll(self) -> list[tuple[Job, int]]:
        """Passes a signal on, if one came; returns what has ended, with exit codes."""
        if self._unsent is not None:
            number, self._unsent = self._unsent, None
            for job, (process, _, _) in self._running.items():
                process.send_signal(number)
                self.close_orders(job)
        ended = [job for job, (p, *_) in self._running.items() if p.poll() is not None]
        return [(job, self._end(job)) for job in ended]

    def _end(self, job: Job) -> int:
        self.close_orders(job)
        process, place, log = self._running.pop(job)
        code = process.wait()
        log.close()
        self._free.append(place)
        return code

    def _receive(self, number: int, _: Any) -> None:
        # Sent on from poll(), where the list of processes is not half-changed.
        self.received = self._unsent = signal.Signals(number)


def is_locked(workdir: Workdir) -> bool:
    """Whether a process writes a folder: one of this program's or an earlier one's."""
    try:
        with (workdir.path / LOCK).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def cell_job(cell: Cell, program: Sequence[str], *more: str) -> Job:
    """The process of one cell.

    Args:
        cell: what to train.
        program: the command that takes a cell's arguments.
        *more: further arguments.
    """
    return Job(
        name=cell.name,
        command=(*program, *cell.arguments, *more),
        workdirs=(cell.workdir,),
        log=cell.workdir.path / LOG,
    )


class CellRuns:
    """Runs every cell of a list to its end.

    Attributes:
        exits: exit code of the last process of each cell.
    """

    def __init__(
        self, cells: Sequence[Cell], program: Sequence[str], places: Sequence[Place]
    ) -> None:
        """Starts nothing yet.

        Args:
            cells: what to train; those that are done are left alone.
            program: the command that takes a cell's arguments.
            places: where processes run.
        """
        self._cells = {cell.name: cell for cell in cells}
        self._program = program
        self._places = places
        self._waiting = collections.deque(cell for cell in cells if not cell.done)
        self.exits: dict[str, int] = {}

    def run(self) -> signal.Signals | None:
        """Runs the cells that are not done; returns the signal that stopped it."""
        bar = tqdm(
            total=len(self._cells),
            initial=len(self._cells) - len(self._waiting),
            bar_format="{n:.1f} of {total} cells [{elapsed}, ETA {remaining}{postfix}]",
            mininterval=0.0,
        )
        looked = 0.0
        with Processes(self._places) as processes:
            while processes.running or (self._waiting and not processes.received):
                ended = processes.poll()
                for job, code in ended:
                    self.exits[job.name] = code
                if not processes.received:
                    self._start_some(processes)
                now = time.monotonic()
                if ended or now - looked > LOOK_S:
                    looked = now
                    self._show(bar, [job.name for job in processes.running])
                time.sleep(POLL_S)
        bar.close()
        return processes.received

    def table(self) -> str:
        """State and best validation loss of every cell."""
        rows = []
        for cell in self._cells.values():
            loss = cell.best_loss()
            state = cell.state
            if self.exits.get(cell.name):
                state = f"failed ({self.exits[cell.name]}), see {LOG}"
            rows.append((cell.name, state, "-" if loss is None else f"{loss:.6g}"))
        return markdown_table(("cell", "state", "best valid loss"), rows)

    def _start_some(self, processes: Processes) -> None:
        """Fills the free places; a cell that still runs from before waits its turn."""
        for _ in range(len(self._waiting)):
            if not processes.free:
                return
            cell = self._waiting.popleft()
            # A process from before may have ended its run in the meantime.
            if not cell.done and not processes.start(cell_job(cell, self._program)):
                self._waiting.append(cell)

    def _show(self, bar: tqdm, running: Sequence[str]) -> None:
        ended = [
            name
            for name, cell in self._cells.items()
            if cell.done or name in self.exits
        ]
        bar.n = len(ended) + sum(self._cells[name].progress() for name in running)
        failed = sum(code != 0 for code in self.exits.values())
        text = f"{failed} failed, running {', '.join(running) or 'nothing'}"
        before = sum(is_locked(cell.workdir) for cell in self._waiting)
        if before:
            text += f", {before} still running from before"
        bar.set_postfix_str(text, refresh=False)
        bar.refresh()
