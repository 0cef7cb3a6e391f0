"""A scaling study for readers: report.md with tables, plots, and files for programs."""

import csv
import dataclasses
import itertools
import json
import math
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from chemscale_jax.analysis.scaling import plots, tables
from chemscale_jax.analysis.scaling.analysis import AUTO, Analysis, Law, analyse
from chemscale_jax.analysis.scaling.data import Columns, groups_of
from chemscale_jax.analysis.scaling.power import Difference, difference, law_difference
from chemscale_jax.core.errors import UserError

REPORT, NUMBERS, CELLS = "report.md", "fit.json", "cells.csv"
_LEGEND = """\
- Every law is fitted to geometric means over the seeds of a cell; its residuals are
  those of the log loss. Intervals are 95 %: by profile likelihood for laws, by
  Student's t for power laws, by the bootstrap where "over seeds" or "over cells" is
  said, which is too narrow for few of them. Bands in plots of laws are those of the
  linearised law.
- What limits a cell is decided by rule before anything is fitted. data: the training
  loss is more than a tenth below the validation loss, or more data help more than a
  larger model. capacity: a larger model on the same data is better. step: the budget
  ended while the loss fell, and a larger model does not help. none: none of these.
- The window of a power law is the longest run of cells that is straight in log-log
  coordinates (no parabola at 5 %, no end off the line of the others at 1 %); of equally
  long ones the steepest. Left out beforehand are, along data, cells limited by steps
  or capacity, along size those limited by steps or data, if three others remain.
- The form is chosen by its error on the largest runs (a fifth of the cells), predicted
  from the others; a simpler one wins if its error is within 10 %. RMAE to Pearson's r
  are of the largest size alone, predicted from the other sizes.
- An exponent is not identified if its variable has fewer than three values or moves
  with another (|r| > 0.975), if the law fits as well without its term (F test, p >
  0.01), or if its interval is open or spans more than a factor of ten."""


@dataclasses.dataclass(frozen=True, eq=False)
class Settings:
    """How a file is fitted."""

    form: str = AUTO
    delta: float | None = None  # of Huber's loss; None for twice the residuals' spread
    replicates: int = 1000  # of the bootstraps
    seed: int = 0
    size: float | None = None  # of the comparison of groups; the smallest if None


@dataclasses.dataclass(frozen=True, eq=False)
class Study:
    """All groups of a file."""

    analyses: Sequence[Analysis]
    columns: Columns
    differences: Sequence[Difference]  # of data exponents, every group with another
    law_differences: Sequence[Difference]  # of those of the laws of size and data
    settings: Settings
    unit: str  # of the loss

    @property
    def labels(self) -> dict[str, str]:
        """Names of axes and columns, by letter."""
        columns = self.columns
        loss = f"{columns.loss} ({self.unit})" if self.unit else columns.loss
        return {
            "N": columns.size,
            "M": columns.size,
            "D": columns.data,
            "S": columns.steps,
            "C": columns.compute,
            "loss": loss,
        }


def study_of(
    rows: Sequence[dict[str, str]],
    columns: Columns | None = None,
    settings: Settings | None = None,
) -> Study:
    """Analyses every group of a results file.

    Raises:
        UserError: a column or form does not fit the file.
    """
    columns, settings = columns or Columns(), settings or Settings()
    analyses = [
        analyse(
            cells, settings.form, settings.delta, settings.replicates, settings.seed
        )
        for cells in groups_of(rows, columns)
        if len(cells)
    ]
    if not analyses:
        raise UserError(
            f"no run has a {columns.loss} that is positive and finite; name the column "
            "of losses with --loss"
        )
    laws = {}
    for analysis in analyses:
        one = plots.nearest(analysis.by_data, settings.size)
        if one is not None:
            laws[analysis.cells.group] = one.law
    pairs = itertools.combinations(laws, 2)
    units = {row.get("loss_unit") or "" for row in rows}
    return Study(
        analyses,
        columns,
        [difference(a, b, laws) for a, b in pairs],
        _law_differences(analyses),
        settings,
        units.pop() if len(units) == 1 else "",
    )


def _law_differences(analyses: Sequence[Analysis]) -> list[Difference]:
    """Of the exponents of data, where the laws of both groups identify theirs."""
    values, intervals = {}, {}
    for analysis in analyses:
        for one in analysis.law.estimates if analysis.law else ():
            if one.name in ("b", "aD") and one.identified:
                values[analysis.cells.group] = one.value
                intervals[analysis.cells.group] = one.interval
    pairs = itertools.combinations(values, 2)
    return [law_difference(a, b, values, intervals) for a, b in pairs]


def write_study(study: Study, folder: pathlib.Path) -> str:
    """Writes report.md, fit.json, cells.csv and plots/; returns the report.

    Raises:
        UserError: the folder cannot be written.
    """
    text = report(study)
    try:
        (folder / "plots").mkdir(parents=True, exist_ok=True)
        (folder / REPORT).write_text(text, encoding="utf-8")
        numbers = json.dumps(_numbers(study), indent=1, allow_nan=False)
        (folder / NUMBERS).write_text(numbers + "\n", encoding="utf-8")
        _write_cells(study, folder / CELLS)
        for name, figure in figures(study):
            plots.save(figure, folder / "plots" / name)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written ({error.strerror}); make it writable"
        ) from None
    return text


def figures(study: Study) -> Iterator[tuple[str, Any]]:
    """Plots by name: those that the runs allow."""
    analyses, labels = list(study.analyses), study.labels
    unit = labels["loss"]
    for along, name in (("D", "data"), ("N", "size")):
        shown = [a for a in analyses if (a.by_data if along == "D" else a.by_size)]
        if shown:
            yield f"power_law_by_{name}", plots.power_laws(shown, along, labels, unit)
        fitted = [a for a in shown if a.law is not None]
        if fitted:
            yield f"law_by_{name}", plots.law_panels(fitted, along, labels)
    lines = [a for a in analyses if a.by_data]
    if len(lines) > 1:
        size = study.settings.size
        yield "groups_by_data", plots.exponents_of_groups(lines, size, labels)
    if all(a.cells.has("C") for a in lines) and lines:
        yield "loss_by_compute", plots.by_compute(lines, labels)
    grids = [a for a in lines if a.law and len(a.by_data) > 1]
    if grids:
        yield "residuals", plots.residual_maps(grids, labels)


def report(study: Study) -> str:
    """The report in Markdown."""
    parts = ["# Scaling laws"]
    if len(study.analyses) > 1:
        parts.append(_overview(study))
    for analysis in study.analyses:
        parts += _group(study, analysis)
    return "\n\n".join([*parts, "## How to read this", _LEGEND]) + "\n"


def _overview(study: Study) -> str:
    lines = [
        f"- {a.cells.group or 'runs'}: {tables.summary_line(a)}" for a in study.analyses
    ]
    parts = ["## Groups", "\n".join(lines)]
    if study.differences:
        parts.append(
            "Exponents of data, each of the line that is nearest in size "
            f"({study.columns.size}), as differences (Welch's t):"
        )
        parts.append(tables.differences_table(study.differences))
    if study.law_differences:
        parts.append("Those of the laws of size and data, from all cells:")
        parts.append(tables.differences_table(study.law_differences))
    return "\n\n".join(parts)


def _group(study: Study, analysis: Analysis) -> Iterator[str]:
    labels, cells = study.labels, analysis.cells
    yield f"## {cells.group or 'Runs'}"
    yield tables.summary_line(analysis)
    if analysis.warnings:
        yield "\n".join(f"- Warning: {text}." for text in analysis.warnings)
    if cells.left_out:
        yield f"Runs that are left out: {'; '.join(cells.left_out)}."
    yield "### Cells"
    yield tables.cells_table(cells, labels)
    for lines, along in ((analysis.by_data, "data"), (analysis.by_size, "size")):
        if lines:
            equal = lines[0].line.at[0][0] if lines[0].line.at else "N"
            yield f"### Power laws of {along}: L = alpha / {along}^beta"
            yield tables.power_table(lines, equal, labels)
            yield tables.slopes_table(lines, equal, labels)
    law = analysis.law
    if analysis.trials:
        yield "### Forms, on the largest runs"
        yield tables.trials_table(analysis.trials, law.fit.form.name if law else "")
    if law is not None:
        yield from _law(law)
    if analysis.allocation is not None:
        yield "### Compute-optimal models"
        yield from _allocation(study, analysis)
    if analysis.next_runs:
        yield "### The next run"
        yield (
            "Width of the mean interval of the exponents (of their logarithms) after "
            "one more cell, in the linearised law:"
        )
        yield tables.next_table(analysis.next_runs, labels)
    if analysis.ranks:
        yield "### Loss with size and time"
        yield tables.ranks_table(analysis.ranks, labels)
    if analysis.contests:
        yield tables.contests_table(analysis.contests)


def _law(law: Law) -> Iterator[str]:
    fit = law.fit
    yield f"### Law: {fit.form.equation}"
    yield (
        f"{fit.form.source}, fitted to {len(fit.y)} cells; residuals "
        f"{100 * fit.noise:.2f} %, R^2 of the log loss {fit.r_squared:.4f}, Huber's "
        f"loss {fit.objective:.9g} with delta {fit.delta:.3g}."
    )
    if law.left_out:
        yield law.left_out[0].upper() + law.left_out[1:] + "."
    yield tables.law_table(law)


def _allocation(study: Study, analysis: Analysis) -> Iterator[str]:
    found = analysis.allocation
    if found is None or found.why_not:
        yield f"Not given: {found.why_not if found else 'there is no law'}."
        return
    cost = found.cost
    how = (
        f"compute as counted, {math.exp(cost.intercept):.3g} N^{cost.p:.3g} "
        f"D^{cost.q:.3g} (within {100 * math.expm1(cost.error):.0f} %)"
        if cost.counted
        else "compute taken to be 6 N D, since none was counted"
    )
    yield (
        f"With {how}, the best size grows as C^{found.exponent:.3f} "
        f"({tables.interval(found.exponent_interval)}). Budgets beyond that of the "
        "largest run are extrapolated."
    )
    yield tables.allocation_table(found, study.labels)


def _write_cells(study: Study, path: pathlib.Path) -> None:
    """One line for each cell."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        letters = ("N", "D", "S", "C", "epochs")
        writer.writerow(("group", *letters, "seeds", "loss", "limit", "law"))
        for analysis in study.analyses:
            fitted = {}
            if analysis.law is not None:
                losses = np.exp(analysis.law.fit.residuals + analysis.law.fit.y)
                fitted = dict(zip(analysis.law.used.cells, losses, strict=True))
            for cell in analysis.cells.cells:
                values = [_plain(cell.values.get(x, math.nan)) for x in letters]
                row = [cell.group, *values, len(cell.losses), cell.loss, cell.limit]
                writer.writerow([*row, fitted.get(cell, "")])


def _numbers(study: Study) -> dict[str, Any]:
    """Everything that was fitted, for programs."""
    groups = []
    for analysis in study.analyses:
        groups.append(
            {
                "group": analysis.cells.group,
                "cells": len(analysis.cells),
                "left_out": list(analysis.cells.left_out),
                "limits": [cell.limit for cell in analysis.cells.cells],
                "power_by_data": [_line(one) for one in analysis.by_data],
                "power_by_size": [_line(one) for one in analysis.by_size],
                "forms": [
                    {
                        "form": trial.form.name,
                        "held_out": trial.held_out,
                        "error": _plain(trial.error),
                        "why_not": trial.why_not,
                        "largest_size": _plain(trial.score),
                    }
                    for trial in analysis.trials
                ],
                "law": None if analysis.law is None else _law_numbers(analysis.law),
                "allocation": _plain(analysis.allocation),
                "next_runs": _plain(list(analysis.next_runs)),
                "rank_correlations": _plain(list(analysis.ranks)),
                "size_variables": _plain(list(analysis.contests)),
                "warnings": list(analysis.warnings),
            }
        )
    return {
        "columns": study.columns._asdict(),
        "unit": study.unit,
        "settings": dataclasses.asdict(study.settings),
        "groups": groups,
        "differences": _plain(list(study.differences)),
        "law_differences": _plain(list(study.law_differences)),
    }


def _line(one) -> dict[str, Any]:
    return {
        "at": _plain(one.at),
        "law": _plain(one.law),
        "every": _plain(one.every),
        "slopes": _plain(list(one.slopes)),
        "left_out": one.left_out,
        "why_not": one.why_not,
    }


def _law_numbers(law: Law) -> dict[str, Any]:
    fit = law.fit
    return {
        "form": fit.form.name,
        "equation": fit.form.equation,
        "cells": len(fit.y),
        "noise": fit.noise,
        "objective": fit.objective,
        "delta": _plain(fit.delta),
        "left_out": law.left_out,
        "parameters": {
            one.name: {
                "value": _plain(one.value),
                "interval": _plain(one.interval),
                "why_not": one.why_not,
                "over_seeds": _plain(law.seeds.get(one.name)),
                "over_cells": _plain(law.cells.get(one.name)),
            }
            for one in law.estimates
        },
    }


def _plain(value: Any) -> Any:
    """Named tuples as dictionaries, and numbers that JSON has; others as None."""
    if hasattr(value, "_asdict"):
        return {name: _plain(part) for name, part in value._asdict().items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value
