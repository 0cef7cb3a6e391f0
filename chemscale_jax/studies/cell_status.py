"""How far the cells of a sweep are, as read from their folders."""

import dataclasses
import math
import pathlib
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from chemscale_jax.analysis.tpe.run_curves import RunCurve, read_curve
from chemscale_jax.studies.cells import Cell
from chemscale_jax.studies.policies import Policy, Seen, arrived, seen, unseen

# A log that grows is read again after so many seconds, and so many times as long as it
# took to read it.
_LOG_S, _SHARE = 2.0, 50.0


@dataclasses.dataclass(frozen=True, eq=False)
class Status:
    """One cell as its folder says it is."""

    state: str  # of run.json, or "new"
    curve: RunCurve | None  # None before the first record of the log
    done: bool  # whether it is finished, and its report is written

    @property
    def diverged(self) -> bool:
        """Whether its loss was not finite: nothing more will come."""
        return self.curve is not None and self.curve.diverged

    def waits_at(self, epochs: int) -> bool:
        """Whether it was trained for so many epochs and saved."""
        done = 0 if self.curve is None else self.curve.epochs
        return self.state == "paused" and done >= epochs

    def seen(self, cell: Cell, score: str, broken: bool = False) -> Seen:
        """What a policy sees of it.

        Args:
            cell: whose status this is.
            score: an entry of ``tpe.SCORES``.
            broken: whether its process failed for a reason other than its loss; such a
                run is ranked last, so that the others need not wait for it.
        """
        planned = cell.config["train"]["epochs"]
        if self.curve is not None:
            curve = self.curve
            if broken:
                curve = dataclasses.replace(curve, diverged=True)
            return seen(curve, score)
        if broken:
            return Seen((math.inf,) * planned, planned, 0, True, math.inf)
        return unseen(planned)


class _Read(NamedTuple):
    """What was read, of which files, and from when on it is read again."""

    status: Status
    state: Any  # of the files that change with the state of a run
    log: Any
    until: float


class Statuses:
    """The statuses of cells; files are read again only if they have changed.

    A log that grows is read now and then: a process that waits says so in run.json.
    """

    def __init__(self) -> None:
        """Nothing has been read."""
        self._known: dict[str, _Read] = {}

    def of(self, cell: Cell) -> Status:
        """The status now."""
        state = _stamp(cell.workdir.run_json), _stamp(cell.workdir.card)
        log = _stamp(cell.workdir.metrics_jsonl)
        known = self._known.get(cell.name)
        now = time.monotonic()
        grown = known is not None and known.log != log and now > known.until
        if known is None or known.state != state or grown:
            status = _read(cell)
            end = time.monotonic()
            until = end + max(_LOG_S, _SHARE * (end - now))
            known = self._known[cell.name] = _Read(status, state, log, until)
        return known.status


def forecast(policy: Policy, now: Mapping[str, Seen]) -> dict[str, int]:
    """Epochs each run will have been trained for when the sweep is over.

    That is how it goes if no ranks change, and none stops early; of runs that are not
    ranked yet, the first go on.
    """
    runs = dict(now)
    for place, (name, run) in enumerate(runs.items()):
        if not run.scores:
            runs[name] = run._replace(final=float(place))
    while True:
        targets = policy.targets(runs)
        behind = [n for n, run in runs.items() if not arrived(run, targets[n])]
        if not behind:
            return {name: run.done for name, run in runs.items()}
        for name in behind:
            run = runs[name]
            done = max(round(targets[name] * run.epochs), run.done + 1)
            score = run.scores[-1] if run.scores else run.final
            runs[name] = run._replace(
                scores=(*run.scores, *[score] * (done - len(run.scores))),
                done=done,
                ended=done >= run.epochs,
                final=score,
            )


def _read(cell: Cell) -> Status:
    state = cell.state
    begun = cell.workdir.metrics_jsonl.exists() and cell.workdir.artifacts_json.exists()
    if not begun or state == "new":
        return Status(state, None, False)
    curve = read_curve(cell.workdir)
    # The log of a process that runs, or was killed, may end between the records of an
    # epoch.
    validated = int(np.isin(curve.epoch_step, curve.valid_step).sum())
    if validated < curve.epochs:
        curve = curve.first(validated)
    return Status(state, curve, cell.done)


def _stamp(path: pathlib.Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_size
