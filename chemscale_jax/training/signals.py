"""Asking a run to stop."""

import signal
from typing import Any

import jax
from jax.experimental import multihost_utils


class StopRequest:
    """Turns SIGTERM and SIGINT into a request; a second signal acts at once.

    Where several processes train together JAX tells all of them of a SIGTERM that one
    got, and of the step after which they stop; SIGINT, which a terminal sends to each
    at another moment, is not taken.

    ``received`` is the name of the signal, or empty.
    """

    def __init__(self) -> None:
        """Nothing is installed before the context is entered."""
        self.received = ""
        self._alone = jax.process_count() == 1
        self._steps = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        """Installs the handlers."""
        if self._alone:
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._receive)
        return self

    def after_step(self) -> bool:
        """Whether to stop now; every process asks after each of its steps."""
        self._steps += 1
        if not self._alone and multihost_utils.reached_preemption_sync_point(
            self._steps
        ):
            self.received = signal.SIGTERM.name
        return bool(self.received)

    def _receive(self, number: int, _: Any) -> None:
        self.received = signal.Signals(number).name
        signal.signal(number, self._before[number])

    def __exit__(self, *_: object) -> None:
        """Puts the former handlers back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
