"""Asking a run to stop."""

import signal
from typing import Any


class StopRequest:
    """Turns SIGTERM and SIGINT into a request; a second signal acts at once.

    ``received`` is the name of the signal, or empty.
    """

    def __init__(self) -> None:
        """Nothing is installed before the context is entered."""
        self.received = ""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        """Installs the handlers."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._receive)
        return self

    def _receive(self, number: int, _: Any) -> None:
        self.received = signal.Signals(number).name
        signal.signal(number, self._before[number])

    def __exit__(self, *_: object) -> None:
        """Puts the former handlers back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
