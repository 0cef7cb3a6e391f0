"""How fast training goes, and whether it has to wait for its input."""

import collections
import contextlib
import time
from collections.abc import Iterator
from typing import NamedTuple

_STEPS = 50  # that are looked back on
# From this share of the time on, waiting is shown beside the rate.
_WORTH_SHOWING = 0.05


class Pace(NamedTuple):
    """Of the last steps."""

    rate: float  # examples per second
    wait: float  # share of the time in which the host had no batch to go on with

    def line(self, counter: str) -> str:
        """For a person.

        Args:
            counter: what examples are called.
        """
        waits = f", {self.wait:.0%} waiting for input"
        return f"{self.rate:.0f} {counter}/s" + waits * (self.wait >= _WORTH_SHOWING)


class Meter:
    """Counts examples and the time without input."""

    def __init__(self) -> None:
        """Nothing has been counted."""
        # Of each step that ended: when, its examples, all the waiting until then.
        self._seen: collections.deque[tuple[float, float, float]] = collections.deque(
            maxlen=_STEPS
        )
        self._waited = 0.0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """While the next batch is asked for."""
        start = time.monotonic()
        yield
        self._waited += time.monotonic() - start

    def add(self, examples: float) -> None:
        """Counts the examples of a step that has just ended."""
        self._seen.append((time.monotonic(), examples, self._waited))

    def pace(self) -> Pace:
        """Of the last steps; zeros before the second one."""
        if len(self._seen) < 2:
            return Pace(0.0, 0.0)
        (start, _, before), *rest = self._seen
        end, _, waited = rest[-1]
        elapsed = max(end - start, 1e-9)
        return Pace(sum(n for _, n, _ in rest) / elapsed, (waited - before) / elapsed)
