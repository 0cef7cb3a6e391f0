"""Learning curves of runs, as their workdirs hold them, and prefixes of them.

All that is decided before a run is at its end (which run goes on, what it will come
to) is decided from a `RunCurve` that was cut to the epochs trained so far.
"""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from chemscale_jax.core.errors import UserError
from chemscale_jax.core.workdir import Workdir

# What the trainer says of a run that it stopped because of its loss.
_NOT_FINITE = "not finite"

# Fields of the config that say how a run is called, kept or hastened.
_NAMES = ("name", "form", "log", "workdir")

Record = Mapping[str, Any]  # a line of metrics.jsonl


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class RunCurve:
    """One run: what it was told, and its losses so far.

    T epochs are completed; V validations were made, which is one more where
    ``train.max_steps`` ends a run in the middle of an epoch. Losses are those that are
    optimised, in the units of the config's loss.
    """

    name: str  # of the run's folder
    settings: Mapping[str, Any]  # of the config, flat: {"optimizer.lr": 1e-3, ...}
    epochs_planned: int
    steps_planned: int
    epoch_step: np.ndarray  # (T,) int, steps at the end of each epoch
    epoch_seconds: np.ndarray  # (T,) spent by then, summed over processes
    train_loss: np.ndarray  # (T,) mean of each epoch; NaN where not finite
    valid_step: np.ndarray  # (V,) int
    valid_loss: np.ndarray  # (V,) NaN where not finite
    warmup_steps: int
    schedule: str  # of the learning rate
    batch: int  # examples of a batch, see `batch_size`
    state: str  # of run.json; a prefix of a longer run is "paused"
    stop_reason: str
    diverged: bool  # a loss was not finite
    seconds: float  # from the start of each process to its last record, summed

    @property
    def epochs(self) -> int:
        """Completed epochs."""
        return len(self.train_loss)

    @property
    def fraction(self) -> float:
        """Completed epochs of the planned ones."""
        return self.epochs / self.epochs_planned

    @property
    def ended(self) -> bool:
        """Whether nothing more will come: finished, or diverged."""
        return self.state == "finished" or self.diverged

    @property
    def ended_within_epoch(self) -> bool:
        """Whether it ended some steps after its last completed epoch."""
        if self.diverged:
            return bool(np.isfinite(self.train_loss).all())
        last = self.epoch_step[-1] if self.epochs else 0
        return self.ended and bool((self.valid_step > last).any())

    @property
    def final(self) -> float:
        """The lowest validation loss; infinite where diverged or not yet known."""
        known = self.valid_loss[np.isfinite(self.valid_loss)]
        return math.inf if self.diverged or not len(known) else float(known.min())

    def upto(self, fraction: float) -> "RunCurve":
        """The run as it was after the first epochs.

        Args:
            fraction: of the planned epochs, see `epochs_at`.
        """
        return self.first(epochs_at(fraction, self.epochs_planned))

    def first(self, epochs: int) -> "RunCurve":
        """The run as it was after so many epochs; itself, where it has no more."""
        if epochs > self.epochs or (
            epochs == self.epochs and self.ended and not self.ended_within_epoch
        ):
            return self
        last = self.epoch_step[epochs - 1] if epochs else 0
        seen = self.valid_step <= last
        return dataclasses.replace(
            self,
            epoch_step=self.epoch_step[:epochs],
            epoch_seconds=self.epoch_seconds[:epochs],
            train_loss=self.train_loss[:epochs],
            valid_step=self.valid_step[seen],
            valid_loss=self.valid_loss[seen],
            state="paused",
            stop_reason="",
            diverged=not np.isfinite(self.train_loss[:epochs]).all(),
            seconds=float(self.epoch_seconds[epochs - 1]) if epochs else 0.0,
        )


@functools.cache
def epochs_at(fraction: float, epochs_planned: int) -> int:
    """The whole number of epochs next to a fraction of them, at least 1."""
    if not 0 < fraction <= 1:
        raise UserError(f"a fraction of the epochs is {fraction}, expected 0 to 1")
    return max(math.floor(fraction * epochs_planned + 0.5), 1)


def batch_size(settings: Mapping[str, Any]) -> int:
    """What a batch holds: molecules; of bucketed text tokens, of other text rows.

    Comparable among runs of one config only, as molecules may be a mean and a budget.

    Args:
        settings: of a config, flat.
    """
    if settings.get("batch.exact_molecules"):
        return settings["batch.exact_molecules"]
    if "batch.molecules" in settings:
        return settings["batch.molecules"] * settings["batch.rows"]
    for field in ("batch.tokens", "batch.budget"):
        if settings.get(field):
            return settings[field]
    return settings.get("batch.rows", 0)


def varying(curves: Sequence[RunCurve]) -> tuple[str, ...]:
    """Fields of the config in which runs differ, but for those that only name them."""
    every = dict.fromkeys(field for curve in curves for field in curve.settings)
    return tuple(
        field
        for field in every
        if field.split(".")[0] not in _NAMES
        and len({repr(curve.settings.get(field)) for curve in curves}) > 1
    )


def label(curve: RunCurve, fields: Sequence[str]) -> str:
    """``lr 0.001, rows 8``: a run by some of its settings; else by its name."""
    parts = [f"{f.rpartition('.')[2]} {curve.settings.get(f)}" for f in fields]
    return ", ".join(parts) or curve.name


def read_curves(folder: pathlib.Path) -> list[RunCurve]:
    """The curves of all runs in the folders of a folder that have begun to train.

    Lanes of an ensemble are runs of their own, named ``FOLDER/lanes/0``.

    Raises:
        UserError: there is none.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; give the folder of a sweep")
    curves = []
    for path in sorted(p for p in folder.iterdir() if p.is_dir()):
        lanes = path / "lanes"
        runs = sorted(lanes.iterdir(), key=_lane) if lanes.is_dir() else [path]
        for run in runs:
            workdir = Workdir(run)
            if workdir.run_json.exists() and workdir.metrics_jsonl.exists():
                name = str(run.relative_to(folder))
                curves.append(dataclasses.replace(read_curve(workdir), name=name))
    if not curves:
        raise UserError(
            f"{folder} holds no run that was begun; give the folder of a sweep, which "
            "has a folder for each run"
        )
    return curves


def read_curve(workdir: Workdir) -> RunCurve:
    """The curve of a run, finished or not.

    Raises:
        UserError: the run has not begun to train.
    """
    run = workdir.run()
    settings = dict(_flat(workdir.config()))
    planned = workdir.artifacts().get("planned")
    if planned is None:
        raise UserError(
            f"{workdir.artifacts_json} does not say how many steps were planned; the "
            "run is of an older version, train it again"
        )
    per_epoch, steps = planned["steps_per_epoch"], planned["steps"]
    train: list[Record] = []
    skipped: list[Record] = []
    valid: list[Record] = []
    clock = _Clock()
    for record in workdir.metrics():
        clock.see(record["time"]["run_s"])
        kind = (record["split"], record["name"])
        if kind == ("epoch", "train_loss"):
            train.append({**record, "seconds": clock.total})
        elif kind == ("epoch", "skipped_steps"):
            skipped.append(record)
        elif kind == ("valid", "loss"):
            valid.append(record)
    train_loss = np.where(_skipped(train, skipped), np.nan, _values(train))
    state, reason = run.get("state", "new"), run.get("stop_reason", "")
    return RunCurve(
        name=workdir.path.name,
        settings=settings,
        epochs_planned=min(settings["train.epochs"], math.ceil(steps / per_epoch)),
        steps_planned=steps,
        epoch_step=np.array([r["step"] for r in train], int),
        epoch_seconds=np.array([r["seconds"] for r in train], float),
        train_loss=train_loss,
        valid_step=np.array([r["step"] for r in valid], int),
        valid_loss=_values(valid),
        warmup_steps=_warmup_steps(settings, steps, per_epoch),
        schedule=settings["optimizer.schedule"],
        batch=batch_size(settings),
        state=state,
        stop_reason=reason,
        diverged=bool(
            (state == "failed" and _NOT_FINITE in reason)
            or not np.isfinite(train_loss).all()
        ),
        seconds=clock.total,
    )


class _Clock:
    """Adds up the clocks of the processes that a run was trained by."""

    def __init__(self) -> None:
        self._before, self._now = 0.0, 0.0

    def see(self, run_s: float) -> None:
        if run_s < self._now:  # a new process, whose clock starts at 0
            self._before += self._now
        self._now = run_s

    @property
    def total(self) -> float:
        return self._before + self._now


def _values(records: list[Record]) -> np.ndarray:
    return np.array([np.nan if r["value"] is None else r["value"] for r in records])


def _skipped(train: list[Record], skipped: list[Record]) -> np.ndarray:
    """(T,) bool: whether an epoch's steps were all left out, so that its mean is 0."""
    if len(skipped) < len(train):
        return np.zeros(len(train), bool)
    of_epoch = np.diff([r["value"] for r in skipped], prepend=0)
    return of_epoch >= np.diff([r["step"] for r in train], prepend=0)


def _warmup_steps(settings: Mapping[str, Any], steps: int, per_epoch: int) -> int:
    length = settings["optimizer.warmup_steps"]
    unit = settings["optimizer.warmup_unit"]
    if unit == "percent":
        whole = settings["optimizer.decay_steps"] or steps
        return round(whole * length / 100)
    return length * (per_epoch if unit == "epoch" else 1)


def _lane(path: pathlib.Path) -> tuple[int, str]:
    return (int(path.name) if path.name.isdecimal() else 0, path.name)


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            plain = tuple(value) if isinstance(value, list) else value
            yield f"{prefix}{name}", plain
