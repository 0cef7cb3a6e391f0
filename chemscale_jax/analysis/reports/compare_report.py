"""A comparison of runs for readers: tables, one plot, and a file for programs."""

import csv
import pathlib
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from chemscale_jax.analysis import plots
from chemscale_jax.analysis.markdown import markdown_table
from chemscale_jax.analysis.reports.compare import SEED, Cell, Comparison, Step, steps
from chemscale_jax.core.errors import UserError

TABLE, PLOT, RUNS = "compare.md", "compare.png", "compare.csv"
_LEGEND = """\
- Intervals: 95 % of the bootstrap over the records that all runs were scored on, after
  a mean over seeds; they do not speak of other seeds. Those of changes are of the
  differences of single records.
- falls, rises: the interval of the change does not hold 0, and no seed of one cell is
  between those of the other. Otherwise it is open."""


def write_comparison(comparison: Comparison, folder: pathlib.Path) -> str:
    """Writes compare.md, compare.png and compare.csv; returns the tables.

    Raises:
        UserError: the folder cannot be written.
    """
    text = tables(comparison)
    try:
        (folder / TABLE).write_text(text + "\n", encoding="utf-8")
        write_runs(comparison, folder / RUNS)
        figure = loss_plot(comparison)
        figure.savefig(folder / PLOT, dpi=plots.DPI)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written ({error.strerror}); make it writable"
        ) from None
    return text


def tables(comparison: Comparison) -> str:
    """Losses of all cells, then the changes from each to the next."""
    header = (*comparison.by, "seeds", comparison.unit, "95 % interval")
    header = (*header, "between seeds", "training loss", "best epoch", "minutes")
    rows = [[*map(_text, cell.settings), *_cells(cell)] for cell in comparison.cells]
    parts = [markdown_table(header, rows)]
    found = steps(comparison)
    if found:
        header = ("what changes", "where", "change", "95 % interval", "the loss", "why")
        parts.append(markdown_table(header, [_step(comparison, s) for s in found]))
        parts.append(_summary(found))
    return "\n\n".join([*parts, _LEGEND])


def write_runs(comparison: Comparison, path: pathlib.Path) -> None:
    """One line of a csv file for each run."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        columns = ("loss", "unit", "train_loss", "best_epoch", "epochs", "steps")
        writer.writerow((*comparison.by, SEED, *columns, "seconds", "run"))
        for cell in comparison.cells:
            for run in cell.runs:
                numbers = (run.loss, comparison.unit, run.train_loss, run.best)
                made = (len(run.valid_losses), run.steps, run.seconds, run.name)
                writer.writerow((*cell.settings, run.fields[SEED], *numbers, *made))


def loss_plot(comparison: Comparison) -> Figure:
    """Loss against the last compared field, a line for each setting of the others."""
    figure = Figure(figsize=(6.0, 4.5), layout="constrained")
    axes = figure.subplots()
    lines: dict[tuple[Any, ...], list[Cell]] = {}
    for cell in comparison.cells:
        lines.setdefault(cell.settings[:-1], []).append(cell)
    numbers = all(
        isinstance(cell.settings[-1], int | float) and cell.settings[-1] > 0
        for cell in comparison.cells
        if cell.settings
    )
    for index, (settings, cells) in enumerate(lines.items()):
        style = plots.style_of(index)
        names = zip(comparison.by, settings, strict=False)
        last = [cell.settings[-1] if cell.settings else "" for cell in cells]
        at = last if numbers and comparison.by else [str(value) for value in last]
        losses = [cell.loss for cell in cells]
        ends = [cell.interval for cell in cells]
        axes.errorbar(
            at,
            losses,
            yerr=(
                [loss - low for loss, (low, _) in zip(losses, ends, strict=True)],
                [high - loss for loss, (_, high) in zip(losses, ends, strict=True)],
            ),
            color=style.color,
            marker=style.marker,
            linestyle=style.line,
            capsize=3,
            label=", ".join(f"{name}={_text(value)}" for name, value in names),
        )
        seeds = [
            (x, run.loss)
            for x, cell in zip(at, cells, strict=True)
            for run in cell.runs
        ]
        axes.plot(*zip(*seeds, strict=True), "k.", markersize=3)
    if numbers and comparison.by:
        axes.set_xscale("log")
    axes.set_xlabel(comparison.by[-1] if comparison.by else "")
    axes.set_ylabel(comparison.unit)
    if len(lines) > 1:
        axes.legend(frameon=False, fontsize=9)
    return figure


def _cells(cell: Cell) -> list[str]:
    low, high = cell.interval
    losses = [run.loss for run in cell.runs]
    epochs = [f"{run.best} of {len(run.valid_losses)}" for run in cell.runs]
    spread = f"{max(losses) - min(losses):.3g}" if len(losses) > 1 else "-"
    return [
        str(len(cell.runs)),
        f"{cell.loss:.3f}",
        f"{low:.3f} to {high:.3f}",
        spread,
        f"{sum(run.train_loss for run in cell.runs) / len(cell.runs):.4g}",
        ", ".join(dict.fromkeys(epochs)),
        f"{sum(run.seconds for run in cell.runs) / len(cell.runs) / 60:.1f}",
    ]


def _step(comparison: Comparison, step: Step) -> list[str]:
    place = comparison.by.index(step.field)
    low, high = step.low.settings, step.high.settings
    where = ", ".join(
        f"{name}={_text(value)}"
        for name, value in zip(comparison.by, low, strict=True)
        if name != step.field
    )
    return [
        f"{step.field} {_text(low[place])} to {_text(high[place])}",
        where or "-",
        f"{step.change:+.3f}",
        f"{step.interval[0]:+.3f} to {step.interval[1]:+.3f}",
        step.verdict,
        step.why or "-",
    ]


def _summary(found: Sequence[Step]) -> str:
    counts = {v: sum(s.verdict == v for s in found) for v in ("falls", "open", "rises")}
    if counts["falls"] == len(found):
        return f"The loss falls at all {len(found)} steps."
    return (
        f"Of {len(found)} steps the loss falls at {counts['falls']}, rises at "
        f"{counts['rises']}, and {counts['open']} are open."
    )


def _text(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
