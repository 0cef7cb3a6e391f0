"""Finished runs of a sweep side by side: losses with intervals, and what helps.

Runs are grouped by the fields of the config in which they differ, over their seeds. All
runs of a comparison are scored on the same records, so differences between runs are
means of differences of single records, whose intervals are much narrower than those of
the losses themselves.
"""

import dataclasses
import itertools
import json
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from chemscale_jax.analysis import bootstrap
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.likelihoods import Likelihoods
from chemscale_jax.core.predictions import Predictions
from chemscale_jax.core.workdir import Workdir

SPLIT = "valid"
SEED = "seed"
_REPLICATES = 1000
# Fields that say how a run is called, kept or hastened, and change nothing in it.
_NAMES = ("name", "form", "log", "workdir")
# Fields that are looked at first when several change together.
_FIRST = ("model.", "data.", "batch.", "optimizer.")


class Losses(NamedTuple):
    """Losses of the records of one split: a loss is ``sum(values) / sum(counts)``."""

    values: np.ndarray  # (n,)
    counts: np.ndarray  # (n,)
    record: np.ndarray  # (n,) what the records are called
    unit: str


def _language_model(path: pathlib.Path) -> Losses:
    found = Likelihoods.load(path)
    return Losses(found.nats, np.ones(len(found)), found.line, "nats/molecule")


def _force_field(path: pathlib.Path) -> Losses:
    found = Predictions.load(path)
    labelled = found.forces_mask
    error = found.forces_pred[labelled].astype(np.float64) - found.forces_true[labelled]
    frame = found.frame[labelled]
    values = 1e3 * np.bincount(frame, np.abs(error).sum(axis=1), len(found))
    counts = 3 * np.bincount(frame, minlength=len(found))
    return Losses(values, counts, found.id, "force MAE, meV/A")


# By the config's task: the losses in a file of predictions.
LOSSES = {"causal_lm": _language_model, "force_field": _force_field}


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """One finished run."""

    name: str  # of its folder
    fields: Mapping[str, Any]  # of the config, flat: {"model.width": 64, ...}
    losses: Losses
    train_loss: float  # mean of the last epoch, as it was optimised
    valid_losses: Sequence[float]  # of each epoch, as it was optimised
    steps: int
    seconds: float

    @property
    def loss(self) -> float:
        """The mean over all records."""
        return float(self.losses.values.sum() / self.losses.counts.sum())

    @property
    def best(self) -> int:
        """The epoch whose weights are kept, from 1."""
        return int(np.argmin(self.valid_losses)) + 1


@dataclasses.dataclass(frozen=True, eq=False)
class Cell:
    """Runs that differ in their seeds only."""

    settings: tuple[Any, ...]  # values of the compared fields
    runs: tuple[Run, ...]

    @property
    def values(self) -> np.ndarray:
        """(n,) of the records, means over the seeds."""
        return np.mean([run.losses.values for run in self.runs], axis=0)

    @property
    def counts(self) -> np.ndarray:
        """(n,) what the values are sums over."""
        return self.runs[0].losses.counts

    @property
    def loss(self) -> float:
        """The mean over seeds and records."""
        return float(self.values.sum() / self.counts.sum())

    @property
    def interval(self) -> tuple[float, float]:
        """95 % of the bootstrap over records; of the sample, not of the seeds."""
        ends = bootstrap.mean_interval(self.values, 0, _REPLICATES, self.counts)
        return ends or (self.loss, self.loss)


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
    """Cells of a grid."""

    by: tuple[str, ...]  # compared fields of the config
    cells: tuple[Cell, ...]  # in the order of their settings
    unit: str

    def neighbours(self) -> Iterator[tuple[int, Cell, Cell]]:
        """Cells that differ in one field, by one step of those that are there.

        Yields:
            The place of the field in ``by``, and the cells with the lower and the
            higher value.
        """
        for place in range(len(self.by)):

            def others(cell: Cell, place: int = place) -> tuple[Any, ...]:
                rest = cell.settings[:place] + cell.settings[place + 1 :]
                return tuple(map(_rank, rest))

            for _, line in itertools.groupby(sorted(self.cells, key=others), others):
                ordered = sorted(line, key=lambda cell: _rank(cell.settings[place]))
                for low, high in itertools.pairwise(ordered):
                    yield place, low, high


class Step(NamedTuple):
    """What became of the loss from one cell to the next."""

    field: str
    low: Cell
    high: Cell
    change: float  # of the loss; negative where it falls
    interval: tuple[float, float]  # 95 % of the bootstrap over records
    verdict: str  # falls, rises, or is open
    why: str  # "" where it falls


def read_runs(folder: pathlib.Path) -> list[Run]:
    """The finished runs in the folders of a folder.

    Raises:
        UserError: there is none, or a run has no predictions of its validation set.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; give the folder of a sweep")
    runs = []
    for path in sorted(p for p in folder.iterdir() if (p / "run.json").exists()):
        workdir = Workdir(path)
        if workdir.run().get("state") == "finished" and workdir.card.exists():
            runs.append(_read_run(workdir))
    if not runs:
        raise UserError(
            f"{folder} holds no finished run; give the folder of a sweep, as "
            "launch/local.py leaves it"
        )
    return runs


def compare(runs: Sequence[Run], by: Sequence[str] = ()) -> Comparison:
    """Groups runs into cells.

    Args:
        runs: at least two, of the same data and task.
        by: fields of the config; by default those in which the runs differ, without
            fields that follow from others.

    Raises:
        UserError: a field does not exist, or two runs have the same settings and seed,
            or runs were not scored on the same records.
    """
    for name in by:
        if not any(name in run.fields for run in runs):
            raise UserError(
                f"the config has no field {name!r}; runs differ in "
                f"{', '.join(_varying(runs)) or 'nothing'}"
            )
    chosen = tuple(by) or _independent(runs)
    first = runs[0].losses
    cells: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        if not np.array_equal(run.losses.record, first.record):
            raise UserError(
                f"{run.name} was scored on other records than {runs[0].name}; compare "
                "runs with the same data and split_seed"
            )
        settings = tuple(run.fields.get(name) for name in chosen)
        cells.setdefault(settings, []).append(run)
    for settings, group in cells.items():
        seeds = [run.fields[SEED] for run in group]
        if len(set(seeds)) < len(seeds):
            said = ", ".join(f"{n}={v}" for n, v in zip(chosen, settings, strict=True))
            raise UserError(
                f"{', '.join(run.name for run in group)} have the same "
                f"{said or 'config'} and the same seed; they differ in "
                f"{', '.join(_varying(group)) or 'nothing'}; add a field to --by, or "
                "take a folder away"
            )
    ordered = sorted(cells, key=lambda settings: tuple(map(_rank, settings)))
    made = tuple(Cell(settings, tuple(cells[settings])) for settings in ordered)
    return Comparison(chosen, made, first.unit)


def steps(comparison: Comparison) -> list[Step]:
    """Whether the loss falls from each cell to the next, and if not, why."""
    found = []
    for place, low, high in comparison.neighbours():
        difference = high.values - low.values
        change = float(difference.sum() / low.counts.sum())
        ends = bootstrap.mean_interval(difference, 0, _REPLICATES, low.counts)
        interval = ends or (change, change)
        ranges = [[run.loss for run in cell.runs] for cell in (low, high)]
        apart = max(ranges[1]) < min(ranges[0]) or max(ranges[0]) < min(ranges[1])
        if interval[0] <= 0 <= interval[1]:
            verdict, why = "open", "the interval holds 0"
        elif not apart:
            verdict, why = "open", "seeds differ by as much"
        elif change < 0:
            verdict, why = "falls", ""
        else:
            verdict, why = "rises", _why_worse(low, high)
        found.append(
            Step(comparison.by[place], low, high, change, interval, verdict, why)
        )
    return found


def _why_worse(low: Cell, high: Cell) -> str:
    """What the logs say about a loss that rises."""
    reasons = []
    late = [run for run in high.runs if run.best < len(run.valid_losses)]
    if late:
        epochs = ", ".join(f"{run.best} of {len(run.valid_losses)}" for run in late)
        reasons.append(f"it overfits: its best epoch is {epochs}")
    trained = [np.mean([run.train_loss for run in cell.runs]) for cell in (low, high)]
    if trained[1] > trained[0]:
        made = [int(np.mean([run.steps for run in cell.runs])) for cell in (low, high)]
        reasons.append(
            f"its training loss is higher as well ({trained[0]:.4g} to "
            f"{trained[1]:.4g} after {made[0]:,} and {made[1]:,} steps): it is not "
            "trained to its end, or not as well"
        )
    elif not late:
        reasons.append(
            f"its training loss is lower ({trained[0]:.4g} to {trained[1]:.4g}): it "
            "fits its training set better, but generalises worse"
        )
    return "; ".join(reasons)


def _read_run(workdir: Workdir) -> Run:
    config, run = workdir.config(), workdir.run()
    path = workdir.predictions / f"{SPLIT}.npz"
    if not path.exists():
        raise UserError(
            f"{workdir.path} has no predictions/{SPLIT}.npz, from which intervals are "
            "made; give the command of the run again, or take the folder away"
        )
    return Run(
        name=workdir.path.name,
        fields=dict(_flat(config)),
        losses=LOSSES[config["task"]](path),
        train_loss=float(workdir.series("epoch", "train_loss")[1][-1]),
        valid_losses=workdir.series(SPLIT, "loss")[1],
        steps=run["steps"],
        seconds=run["total_s"],
    )


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", _plain(value)


def _plain(value: Any) -> Any:
    """A value that can be compared and hashed."""
    return json.dumps(value) if isinstance(value, list) else value


def _varying(runs: Sequence[Run]) -> list[str]:
    """Fields in which runs differ, those that are looked at first before others."""
    # Models have fields of their own.
    every = dict.fromkeys(name for run in runs for name in run.fields)
    names = [
        name
        for name in every
        if name != SEED
        and name.split(".")[0] not in _NAMES
        and len({str(run.fields.get(name)) for run in runs}) > 1
    ]

    def place(name: str) -> int:
        return next(
            (i for i, first in enumerate(_FIRST) if name.startswith(first)), len(_FIRST)
        )

    return sorted(names, key=place)


def _independent(runs: Sequence[Run]) -> tuple[str, ...]:
    """Varying fields, each of which tells apart runs that those before it do not."""
    chosen: tuple[str, ...] = ()

    def groups(names: Iterable[str]) -> int:
        return len({tuple(str(run.fields.get(n)) for n in names) for run in runs})

    for name in _varying(runs):
        if groups((*chosen, name)) > groups(chosen):
            chosen = (*chosen, name)
    return chosen


def _rank(value: Any) -> tuple[bool, float, str]:
    """An order of numbers before texts."""
    number = isinstance(value, int | float)
    return (not number, float(value) if number else 0.0, str(value))
