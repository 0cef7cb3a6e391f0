"""Runs every cell of a config's sweep() in processes of this machine.

A cell is one run of the trainer, in a folder of its own. The same command goes on
where a sweep was stopped: cells that are finished are skipped, the others resume.
Cells that run side by side without devices share the CPU cores out among them: small
models gain little from a second core, so two cells at a time are done sooner.
"""

import argparse
import collections
import dataclasses
import hashlib
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any

from tqdm import tqdm

from chemscale_jax import main as trainer
from chemscale_jax.analysis.tables import markdown_table
from chemscale_jax.core import config_files
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.workdir import Workdir, read_json
from chemscale_jax.training.setup import differences

EXAMPLE = """\
example, the learning rates of the config's sweep on a tiny model, two at a time:
  python launch/local.py --config=configs/painn_ani1x.py:smoke \\
      --workdir=runs/lr --jobs=2 --config.train.epochs=1
"""
PROGRAM = (sys.executable, "-m", "chemscale_jax.main")
# Seconds between looks at the processes, and at the logs they write.
_POLL_S, _LOOK_S = 0.1, 10.0
_LONGEST_NAME = 120


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a process runs."""

    device: str = ""  # for CUDA_VISIBLE_DEVICES; "" leaves the choice to JAX
    cores: frozenset[int] = frozenset()  # of the CPU; none leaves the choice to Linux


@dataclasses.dataclass(frozen=True, eq=False)
class Cell:
    """One run of a sweep."""

    name: str  # of its folder, made from its overrides
    arguments: tuple[str, ...]  # of the trainer
    config: Mapping[str, Any]  # resolved
    workdir: Workdir

    @property
    def state(self) -> str:
        """What run.json says, or "new"."""
        if not self.workdir.run_json.exists():
            return "new"
        return self.workdir.run().get("state", "new")

    @property
    def done(self) -> bool:
        """Whether nothing is left to do; the card is the last file of a run."""
        return self.state == "finished" and self.workdir.card.exists()

    def progress(self) -> float:
        """The part of the planned epochs or steps that the log has seen, 0 to 1."""
        last = self.workdir.last_record()
        if last is None:
            return 0.0
        rules = self.config["train"]
        epochs = last["epoch"] / max(rules["epochs"], 1)
        steps = last["step"] / rules["max_steps"] if rules["max_steps"] else 0.0
        return min(max(epochs, steps), 1.0)

    def best_loss(self) -> float | None:
        """The lowest validation loss so far."""
        if not self.workdir.metrics_jsonl.exists():
            return None
        _, losses = self.workdir.series("valid", "loss")
        return min((loss for loss in losses if loss is not None), default=None)


def main(argv: Sequence[str], program: Sequence[str] = PROGRAM) -> int:
    """Runs a sweep; the exit status is 0 if all its cells are finished.

    Args:
        argv: the arguments after the program's name.
        program: the command that takes a cell's arguments.
    """
    parser = make_parser()
    args, overrides = parser.parse_known_args(argv)
    try:
        for override in overrides:
            if not re.match(r"--config\.[\w.]+=", override):
                raise UserError(
                    f"cannot read argument {override!r}; overrides for every cell look "
                    "like --config.train.epochs=2"
                )
        cells = expand(args.config, pathlib.Path(args.workdir), overrides)
        devices = args.devices.split(",") if args.devices else []
        jobs = args.jobs or max(len(devices), 1)
        if jobs < 1 or (devices and jobs > len(devices)):
            raise UserError(
                f"--jobs={args.jobs} with {len(devices)} devices; give at least one "
                "job and no more than there are devices"
            )
        if args.dry_run:
            for cell in cells:
                print(shlex.join([*program, *cell.arguments]))
            return 0
        sweep = Sweep(cells, program, places(jobs, devices))
        received = sweep.run()
        print(sweep.table())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if received:
        print(f"stopped by {received.name}; the same command goes on")
        return 128 + received
    return 0 if all(cell.done for cell in cells) else 1


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python launch/local.py",
        description=__doc__,
        epilog=f"Other arguments of the form --config.KEY=VALUE go to every cell.\n\n"
        f"{EXAMPLE}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", required=True, metavar="FILE[:ARG]")
    parser.add_argument("--workdir", required=True, help="holds a folder per cell")
    parser.add_argument(
        "--jobs",
        type=int,
        default=0,
        help="processes at a time, each with its share of the cores (default: one, or "
        "one per device)",
    )
    parser.add_argument(
        "--devices",
        default="",
        metavar="0,1,...",
        help="GPUs, one for each process; sets CUDA_VISIBLE_DEVICES",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print the commands and run nothing"
    )
    return parser


def expand(config: str, folder: pathlib.Path, overrides: Sequence[str]) -> list[Cell]:
    """The cells of a sweep.

    Args:
        config: a config file, with or without arguments after a colon.
        folder: where the folders of the cells go.
        overrides: arguments for every cell.

    Raises:
        UserError: there is no sweep, an override does not fit the config, or a folder
            holds the run of another config.
    """
    file = config.partition(":")[0]
    sweep: Callable | None = getattr(
        config_files.load_module(config_files.find(file)), "sweep", None
    )
    if sweep is None:
        raise UserError(f"{file} has no sweep(); run it with chemscale train")
    cells = []
    for chosen in sweep():
        name = cell_name(chosen)
        if name in [cell.name for cell in cells]:
            raise UserError(f"sweep() of {file} has the cell {name!r} twice")
        first, *fields = config_files.cell_arguments(config, chosen)
        arguments = (first, *overrides, *fields, f"--workdir={folder / name}")
        resolved = trainer.parse(["launch", *arguments]).to_dict()
        cell = Cell(name, arguments, resolved, Workdir(folder / name))
        if cell.workdir.config_json.exists():
            saved = read_json(cell.workdir.config_json)
            changed = differences(saved, resolved)
            if changed:
                raise UserError(
                    f"{cell.workdir.path} holds a run of another config "
                    f"({'; '.join(changed)}); choose another --workdir"
                )
        cells.append(cell)
    if not cells:
        raise UserError(f"sweep() of {file} gives no cell; let it yield overrides")
    return cells


def cell_name(chosen: Mapping[str, Any]) -> str:
    """``optimizer.lr=0.001,seed=1``: a folder name that says what is special."""
    parts = (f"{key.removeprefix(':')}={value}" for key, value in chosen.items())
    text = ",".join(parts) or "default"
    name = re.sub(r"[^\w.,=+-]", "_", text)
    if name == text and len(name) <= _LONGEST_NAME:
        return name
    return f"{name[:_LONGEST_NAME]}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


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


class Sweep:
    """Cells, and the processes that run them."""

    def __init__(
        self, cells: Sequence[Cell], program: Sequence[str], places: Sequence[Place]
    ) -> None:
        """Starts nothing yet; as many processes run at a time as there are places."""
        self._cells = cells
        self._program = program
        self._free = list(places)
        self._waiting = collections.deque(cell for cell in cells if not cell.done)
        self._running: dict[Cell, tuple[subprocess.Popen, Place, IO[bytes]]] = {}
        self._exits: dict[str, int] = {}
        self._received: signal.Signals | None = None
        self._unsent: signal.Signals | None = None

    def run(self) -> signal.Signals | None:
        """Runs the cells that are not done; returns the signal that stopped it."""
        done = len(self._cells) - len(self._waiting)
        bar = tqdm(
            total=len(self._cells),
            initial=done,
            bar_format="{n:.1f} of {total} cells [{elapsed}, ETA {remaining}{postfix}]",
            mininterval=0.0,
        )
        before = {
            number: signal.signal(number, self._receive)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        looked = 0.0
        try:
            while self._running or (self._waiting and not self._received):
                self._pass_on()
                ended = [
                    c for c, (p, *_) in self._running.items() if p.poll() is not None
                ]
                for cell in ended:
                    self._end(cell)
                while self._free and self._waiting and not self._received:
                    self._start(self._waiting.popleft())
                now = time.monotonic()
                if ended or now - looked > _LOOK_S:
                    looked = now
                    self._show(bar)
                time.sleep(_POLL_S)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            for process, _, _ in self._running.values():
                process.terminate()
            for cell in list(self._running):
                self._end(cell)
            bar.close()
        return self._received

    def table(self) -> str:
        """State and best validation loss of every cell."""
        rows = []
        for cell in self._cells:
            loss = cell.best_loss()
            state = cell.state
            if self._exits.get(cell.name):
                state = f"failed ({self._exits[cell.name]}), see log.txt"
            rows.append((cell.name, state, "-" if loss is None else f"{loss:.6g}"))
        return markdown_table(("cell", "state", "best valid loss"), rows)

    def _start(self, cell: Cell) -> None:
        place = self._free.pop(0)
        try:
            cell.workdir.path.mkdir(parents=True, exist_ok=True)
            log = (cell.workdir.path / "log.txt").open("ab")
        except OSError as error:
            raise UserError(
                f"{cell.workdir.path} cannot be written ({error.strerror}); choose "
                "another --workdir"
            ) from None
        environment = {"CUDA_VISIBLE_DEVICES": place.device} if place.device else {}
        process = subprocess.Popen(
            [*self._program, *cell.arguments],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | environment,
            # Out of the terminal's reach: Ctrl-C arrives once, through _pass_on.
            start_new_session=True,
        )
        if place.cores:
            os.sched_setaffinity(process.pid, place.cores)
        self._running[cell] = process, place, log

    def _end(self, cell: Cell) -> None:
        process, place, log = self._running.pop(cell)
        self._exits[cell.name] = process.wait()
        log.close()
        self._free.append(place)

    def _show(self, bar: tqdm) -> None:
        ended = [cell for cell in self._cells if cell.done or cell.name in self._exits]
        bar.n = len(ended) + sum(cell.progress() for cell in self._running)
        failed = sum(code != 0 for code in self._exits.values())
        running = ", ".join(cell.name for cell in self._running) or "nothing"
        bar.set_postfix_str(f"{failed} failed, running {running}", refresh=False)
        bar.refresh()

    def _receive(self, number: int, _: Any) -> None:
        # Sent on from the loop, where the list of processes is not half-changed.
        self._received = self._unsent = signal.Signals(number)

    def _pass_on(self) -> None:
        """Asks the running cells to save and stop; a second time, to stop at once."""
        if self._unsent is None:
            return
        number, self._unsent = self._unsent, None
        for process, _, _ in self._running.values():
            process.send_signal(number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
