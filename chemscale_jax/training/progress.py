"""Host-side state of a run that is not an array: where it is, and when to slow down.

All of it is saved beside every checkpoint as JSON.
"""

import dataclasses
import math
from typing import Any


@dataclasses.dataclass(frozen=True)
class Plateau:
    """Halves the learning rate when validation stops improving.

    The semantics are those of ``torch.optim.lr_scheduler.ReduceLROnPlateau`` in mode
    ``min`` with a relative threshold: a bad epoch is one that does not improve on the
    best by more than ``threshold``; on bad epoch ``patience + 1`` the learning rate
    is multiplied by ``factor``, never below ``floor``, and the count starts again. A
    change of less than ``min_change`` is not made.
    """

    factor: float = 0.5
    patience: int = 30
    floor: float = 1e-7  # learning rate
    threshold: float = 1e-4
    min_change: float = 1e-8
    best: float = math.inf
    bad_epochs: int = 0

    def update(self, value: float, lr: float) -> tuple["Plateau", float]:
        """The state after one validation, and the learning rate to go on with."""
        if value < self.best * (1 - self.threshold):
            return dataclasses.replace(self, best=value, bad_epochs=0), lr
        if self.bad_epochs + 1 <= self.patience:
            return dataclasses.replace(self, bad_epochs=self.bad_epochs + 1), lr
        lower = max(lr * self.factor, self.floor)
        changed = lower if lr - lower > self.min_change else lr
        return dataclasses.replace(self, bad_epochs=0), changed


@dataclasses.dataclass(frozen=True)
class EarlyStop:
    """Counts epochs without any improvement of validation."""

    patience: int = 50
    best: float = math.inf
    stale_epochs: int = 0

    def update(self, value: float) -> "EarlyStop":
        """The state after one validation."""
        if value < self.best:
            return dataclasses.replace(self, best=value, stale_epochs=0)
        return dataclasses.replace(self, stale_epochs=self.stale_epochs + 1)

    @property
    def stop(self) -> bool:
        """Whether patience has run out; a patience of 0 never stops."""
        return 0 < self.patience <= self.stale_epochs


@dataclasses.dataclass(frozen=True)
class Progress:
    """Where a run is: the data position and the state of its two rules.

    ``epoch`` and ``batch`` are those of the next batch to train on; ``batch`` is the
    epoch's length where the epoch is trained but not validated yet. ``log_lines`` is
    the length of metrics.jsonl at that moment.
    """

    plateau: Plateau
    early_stop: EarlyStop
    step: int = 0
    epoch: int = 0
    batch: int = 0
    best_loss: float = math.inf
    best_step: int = -1
    log_lines: int = 0

    def to_json(self) -> dict[str, Any]:
        """Nested dictionaries of numbers."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> "Progress":
        """The inverse of ``to_json``."""
        return cls(
            **{
                **saved,
                "plateau": Plateau(**saved["plateau"]),
                "early_stop": EarlyStop(**saved["early_stop"]),
            }
        )
