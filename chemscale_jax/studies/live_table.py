"""What a sweep shows while it runs: a table on a terminal, lines elsewhere."""

import math
import shutil
import sys
import time
from collections.abc import Callable
from typing import TextIO

from chemscale_jax.analysis.markdown import markdown_table
from chemscale_jax.studies.cell_status import forecast
from chemscale_jax.studies.policies import Policy, Seen
from chemscale_jax.studies.sweep import Glance

# Seconds between looks, and between lines without news where it is no terminal.
_LOOK_S, _LINE_S = 2.0, 60.0
# Lines of a terminal that the table leaves free.
_MARGIN = 6
HEADER = ("cell", "state", "epochs", "target", "score", "best valid loss")


class LiveTable:
    """Draws the same lines again and again; called by ``Sweep.run``."""

    def __init__(self, policy: Policy, places: int, out: TextIO = sys.stdout) -> None:
        """Nothing is drawn yet.

        Args:
            policy: of the sweep, which tells what is still to come.
            places: processes at a time.
            out: a terminal or not.
        """
        self._policy, self._places, self._out = policy, places, out
        self._terminal = out.isatty()
        self._start = time.monotonic()
        self._drawn = 0  # lines on the terminal
        self._due = 0.0
        self._said = -math.inf
        self._last: dict[str, str] = {}

    def __call__(self, glance: Callable[[], Glance]) -> None:
        """Draws if it is time to."""
        now = time.monotonic()
        if now < self._due:
            return
        found = glance()
        self._due = now + _LOOK_S
        if self._terminal:
            self._draw(found)
        else:
            self._say(found, now)

    def _draw(self, glance: Glance) -> None:
        size = shutil.get_terminal_size()
        lines = [self._summary(glance), *table(glance).split("\n")]
        most = max(size.lines - _MARGIN, 4)
        if len(lines) > most:
            lines = [*lines[:most], f"... and {len(lines) - most} more"]
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        text = "".join(f"\x1b[2K{line[: size.columns - 1]}\n" for line in lines)
        self._out.write(up + text + "\x1b[J")
        self._out.flush()
        self._drawn = len(lines)

    def _say(self, glance: Glance, now: float) -> None:
        """A line for each cell that has come further, and one for all now and then."""
        states = {cell.name: state(glance, cell.name) for cell in glance.cells}
        for name, text in states.items():
            if self._last.get(name, "waits") != text:
                print(f"{name}: {text}", file=self._out)
        if states != self._last or now - self._said > _LINE_S:
            self._said = now
            print(self._summary(glance), file=self._out)
        self._last = states
        self._out.flush()

    def _summary(self, glance: Glance) -> str:
        """One line: what is done of what is planned, and how long the rest takes."""
        left, rate = remaining(self._policy, glance), seconds_per_epoch(glance)
        done = sum(seen.done for seen in glance.seen.values())
        text = f"{len(glance.cells)} cells, {done} epochs done, {left} or so to come"
        if rate is not None:
            together = max(sum(map(len, glance.running)), 1)
            processes = max(len(glance.running), 1)
            eta = left * rate * processes / together / self._places
            text += f", ETA {duration(eta)}"
        elapsed = duration(time.monotonic() - self._start)
        if glance.before:
            text += f"; {len(glance.before)} still trained by an earlier command"
        return f"[{elapsed}] {text}"


def state(glance: Glance, name: str) -> str:
    """What a cell does, in a few words."""
    status, seen = glance.statuses[name], glance.seen[name]
    if name in glance.broken:
        return f"failed ({glance.broken[name]})"
    if status.diverged:
        return "diverged"
    if status.done:
        return "finished"
    if status.waits_at(round(glance.targets.get(name, 0.0) * seen.epochs)):
        return f"waits at epoch {seen.done}"
    if any(name in names for names in glance.running) or name in glance.before:
        return "trains"
    return "waits"


def table(glance: Glance) -> str:
    """All cells, those that train or got far first."""

    def order(name: str) -> tuple[bool, float, float]:
        seen = glance.seen[name]
        last = seen.scores[-1] if seen.scores else math.inf
        return (state(glance, name) != "trains", -seen.fraction, last)

    rows = []
    for name in sorted(glance.seen, key=order):
        seen, status = glance.seen[name], glance.statuses[name]
        planned = round(glance.targets.get(name, 0.0) * seen.epochs)
        rows.append(
            (
                name,
                state(glance, name),
                f"{seen.done} of {seen.epochs}",
                str(planned),
                number(seen.scores[seen.done - 1] if seen.done else None),
                number(None if status.curve is None else status.curve.final),
            )
        )
    return markdown_table(HEADER, rows)


def remaining(policy: Policy, glance: Glance) -> int:
    """Epochs of all runs together that are still to come, if no ranks change."""
    end = forecast(policy, glance.seen) if glance.complete else _targets(glance)
    return sum(max(end[name] - seen.done, 0) for name, seen in glance.seen.items())


def seconds_per_epoch(glance: Glance) -> float | None:
    """The mean over the runs that have one; start and compilation included."""
    found = [
        status.curve.seconds / status.curve.epochs
        for status in glance.statuses.values()
        if status.curve is not None and status.curve.epochs
    ]
    return sum(found) / len(found) if found else None


def number(value: float | None) -> str:
    """Four digits, or a dash where there is none."""
    if value is None or math.isnan(value):
        return "-"
    return f"{value:.4g}"


def duration(seconds: float) -> str:
    """``1:02:03`` or ``2:03``."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def _targets(glance: Glance) -> dict[str, int]:
    def epochs(name: str, seen: Seen) -> int:
        return round(glance.targets.get(name, 0.0) * seen.epochs)

    return {name: epochs(name, seen) for name, seen in glance.seen.items()}
