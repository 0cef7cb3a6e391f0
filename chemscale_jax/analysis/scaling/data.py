"""Runs of a scaling study, from a csv file with a row per run, as cells of a grid.

The csv files of ``chemscale study`` have the columns that are read by default; for any
other, `Columns` names them. Runs that differ in their seeds only are a cell, and what a
law is fitted to is the mean of the log losses of each cell.
"""

import csv
import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from chemscale_jax.analysis.scaling import limits
from chemscale_jax.core.errors import UserError

# Runs with these states have no loss that belongs into a law.
_LEFT_OUT = ("diverged", "failed", "running", "interrupted", "paused")
# The clock, as Frey et al. 2023 rank losses by it.
_SECONDS = "wall_s"


class Columns(NamedTuple):
    """Names of columns; an empty one is not used."""

    loss: str = "valid_loss"
    size: str = "parameters"
    data: str = "data"
    compute: str = "flops"
    steps: str = "steps"
    group: str = "model"
    seed: str = "seed"
    epochs: str = "epochs"


DEFAULT = Columns()
# Without these there is nothing to fit.
REQUIRED = ("loss",)


@dataclasses.dataclass(frozen=True, eq=False)
class Cell:
    """Runs that differ in their seeds only."""

    group: str
    values: Mapping[str, float]  # by letter: N, D, C, S, R, and other columns by name
    losses: np.ndarray  # (k,) of the seeds
    limit: str  # see limits.py; "" where it cannot be said
    rows: tuple[Mapping[str, str], ...]  # of the csv file

    @property
    def log_loss(self) -> float:
        """Mean over the seeds of the logarithm of the loss."""
        return float(np.log(self.losses).mean())

    @property
    def loss(self) -> float:
        """Geometric mean over the seeds."""
        return float(np.exp(self.log_loss))


@dataclasses.dataclass(frozen=True, eq=False)
class Cells:
    """Cells of one group of models, in the order of size and data."""

    group: str
    cells: tuple[Cell, ...]
    columns: Columns
    left_out: tuple[str, ...] = ()  # runs that are not in, and why

    def __len__(self) -> int:
        """The number of cells."""
        return len(self.cells)

    @property
    def losses(self) -> np.ndarray:
        """(n,) geometric means over the seeds."""
        return np.array([cell.loss for cell in self.cells])

    @property
    def seeds(self) -> list[np.ndarray]:
        """Log losses of the seeds of each cell."""
        return [np.log(cell.losses) for cell in self.cells]

    def has(self, letter: str) -> bool:
        """Whether every cell has a positive number for a letter or column."""
        found = [cell.values.get(letter, np.nan) for cell in self.cells]
        return bool(found) and bool(np.all(np.isfinite(found) & (np.array(found) > 0)))

    def column(self, letter: str) -> np.ndarray:
        """(n,) values of a letter or column; NaN where a cell has none."""
        return np.array([cell.values.get(letter, np.nan) for cell in self.cells])

    def varies(self, letter: str) -> int:
        """How many different values a letter has; 0 where a cell has none."""
        if not self.has(letter):
            return 0
        return len(np.unique(np.round(np.log(self.column(letter)), 9)))

    def where(self, chosen: Sequence[bool] | np.ndarray) -> "Cells":
        """Some of the cells."""
        kept = tuple(c for c, keep in zip(self.cells, chosen, strict=True) if keep)
        return dataclasses.replace(self, cells=kept)

    @property
    def seed_noise(self) -> tuple[float, int]:
        """Standard deviation of log losses over seeds, pooled, and its freedom."""
        squares = [((y - y.mean()) ** 2).sum() for y in self.seeds]
        freedom = sum(len(y) - 1 for y in self.seeds)
        return (float(np.sqrt(sum(squares) / freedom)) if freedom else 0.0), freedom


def read_rows(path: pathlib.Path) -> list[dict[str, str]]:
    """The rows of a csv file.

    Raises:
        UserError: there is no such file, or it has no rows.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} cannot be read ({error}); give a csv file with a row per run"
        ) from None
    if not rows:
        raise UserError(f"{path} has no rows; give a csv file with a row per run")
    return rows


def groups_of(
    rows: Sequence[Mapping[str, str]], columns: Columns = DEFAULT
) -> list[Cells]:
    """The cells of every group, in the order in which groups appear.

    Raises:
        UserError: a column that was named does not exist or holds no number.
    """
    _check(rows, columns)
    groups: dict[str, list[Mapping[str, str]]] = {}
    for row in rows:
        groups.setdefault(row.get(columns.group) or "", []).append(row)
    return [_cells(name, found, columns) for name, found in groups.items()]


def _check(rows: Sequence[Mapping[str, str]], columns: Columns) -> None:
    there = [name for name in rows[0] if name]
    for role, name in columns._asdict().items():
        default = Columns._field_defaults[role]
        if name and name not in there and (name != default or role in REQUIRED):
            raise UserError(
                f"there is no column {name!r} for {role}; the file has "
                f"{', '.join(there)}; name one with --{role}"
            )


def _cells(group: str, rows: Sequence[Mapping[str, str]], columns: Columns) -> Cells:
    left_out, kept = [], []
    for number, row in enumerate(rows, 1):
        loss = _number(row, columns.loss)
        name = row.get("cell") or f"row {number}"
        if row.get("state") in _LEFT_OUT:
            left_out.append(f"{name} is {row['state']}")
        elif not (np.isfinite(loss) and loss > 0):
            said = row.get(columns.loss) or "empty"
            left_out.append(f"{name}: its {columns.loss} is {said}")
        else:
            kept.append((loss, row))
    found = _by_settings(kept, columns, _planned(columns))
    if any(_repeated_seeds(group, columns) for group in found.values()):
        # Points of the same runs at several steps.
        found = _by_settings(kept, columns, (*_planned(columns), columns.steps))
    ordered = sorted(found, key=lambda place: tuple(map(_sortable, place)))
    made = [_cell(group, found[place], columns) for place in ordered]
    return Cells(group, tuple(_labelled(made, columns)), columns, tuple(left_out))


# A run's loss and its row.
_Run = tuple[float, Mapping[str, str]]


def _planned(columns: Columns) -> tuple[str, ...]:
    """What tells cells apart: everything that was planned but the seed."""
    return (columns.size, columns.data, "width", "depth", "epochs_planned")


def _by_settings(
    runs: Sequence[_Run], columns: Columns, names: Sequence[str]
) -> dict[tuple[str, ...], list[_Run]]:
    found: dict[tuple[str, ...], list[_Run]] = {}
    for loss, row in runs:
        # Epochs that were made follow from early stopping where others were planned.
        made = "" if row.get("epochs_planned") else row.get(columns.epochs) or ""
        place = (*(row.get(name) or "" for name in names if name), made)
        found.setdefault(place, []).append((loss, row))
    return found


def _repeated_seeds(runs: Sequence[_Run], columns: Columns) -> bool:
    seeds = [row.get(columns.seed) for _, row in runs if row.get(columns.seed)]
    return len(set(seeds)) < len(seeds)


def _cell(group: str, found: Sequence[_Run], columns: Columns) -> Cell:
    rows = tuple(row for _, row in found)
    letters = {
        "N": columns.size,
        "M": columns.size,
        "D": columns.data,
        "C": columns.compute,
        "S": columns.steps,
        "epochs": columns.epochs,
    }
    values = {
        letter: _mean([_number(row, name) for row in rows])
        for letter, name in letters.items()
        if name
    }
    for name in ("capacity", "parameters", "parameters_nonembedding", _SECONDS):
        values[name] = _mean([_number(row, name) for row in rows])
    values["flops"] = values.get("C", np.nan)
    losses = np.array([loss for loss, _ in found])
    return Cell(group, values, losses, "", rows)


def _labelled(cells: Sequence[Cell], columns: Columns) -> list[Cell]:
    """Cells with what limits them, where the rows say enough."""
    if not all("stop_reason" in row for cell in cells for row in cell.rows):
        return list(cells)
    described = [_described(cell, columns) for cell in cells]
    labels = limits.label(described)
    return [
        dataclasses.replace(cell, limit=limit)
        for cell, limit in zip(cells, labels, strict=True)
    ]


def _described(cell: Cell, columns: Columns) -> limits.Cell:
    def mean(name: str) -> float:
        return _mean([_number(row, name) for row in cell.rows])

    logs, k = np.log(cell.losses), len(cell.losses)
    converged = [row["stop_reason"] for row in cell.rows]
    valid = mean("valid_loss")
    return limits.Cell(
        size=cell.values.get("N", np.nan),
        data=cell.values.get("D", np.nan),
        train_loss=mean("train_loss"),
        valid_loss=cell.loss if np.isnan(valid) else valid,
        stop_reason=max(converged, key=converged.count),
        best_share=mean("best_step") / mean(columns.steps or "steps"),
        steps=mean(columns.steps or "steps"),
        noise=float(logs.std(ddof=1) / np.sqrt(k)) if k > 1 else 0.0,
    )


def _number(row: Mapping[str, str], name: str) -> float:
    try:
        return float(row.get(name) or "nan")
    except ValueError:
        raise UserError(
            f"column {name!r} holds {row[name]!r}; give a column of numbers"
        ) from None


def _mean(values: Sequence[float]) -> float:
    found = [value for value in values if np.isfinite(value)]
    return float(np.mean(found)) if found else float("nan")


def _sortable(text: str) -> tuple[float, str]:
    try:
        return (float(text), "")
    except ValueError:
        return (float("inf"), text)
