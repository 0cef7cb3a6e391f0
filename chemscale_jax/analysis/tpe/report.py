"""A training performance estimate for readers: tables, plots, a file for programs."""

import csv
import math
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from chemscale_jax.analysis import plots
from chemscale_jax.analysis.markdown import markdown_table
from chemscale_jax.analysis.tpe import plots as tpe_plots
from chemscale_jax.analysis.tpe import scores as tpe
from chemscale_jax.analysis.tpe.cost import halving_cost, tpe_cost
from chemscale_jax.analysis.tpe.estimate import UNFINISHED, Estimate, Row, estimate
from chemscale_jax.analysis.tpe.run_curves import RunCurve, epochs_at
from chemscale_jax.core.errors import UserError

TABLE, RUNS, PLOT, WINDOWS = "tpe.md", "tpe.csv", "tpe", "tpe_windows"
SUMMARY = "tpe_summary.md"
# Fractions of the budget at which scores are compared.
FRACTIONS = (0.05, 0.1, 0.2, 0.3, 0.5)
_CALIBRATIONS = (5, 10)  # runs to fit Eq. 8, as Frey et al. ask for


class Published(NamedTuple):
    """Of Table 1 and Fig. 2 of Frey et al. 2023: TSE over a fifth of the budget."""

    r2: float  # in sample
    rho: float


PUBLISHED = {
    "schnet": Published(0.99, 0.99),
    "painn": Published(0.91, 0.97),
    "spookynet": Published(0.86, 0.92),
    "gpt_neo": Published(0.98, 1.0),
}
_LEGEND = """\
- final: the lowest validation loss. Runs that diverged are last, and tied; they
  count in rho, not in R^2.
- R^2: of the line L = m TSE + b through the finished runs. In sample is what the paper
  gives; left out: each run predicted by the line through the others (1 - PRESS / total
  sum of squares about the mean).
- rho: Spearman's correlation of score and final loss; its interval is 95 % of the
  bootstrap over runs, too narrow for few.
- expected: by the line through the other finished runs, with its 95 % prediction
  interval, for normal errors of equal size.
- regret: how much higher the final loss of the run with the best score is than the
  lowest of all."""


def write_estimate(
    curves: Sequence[RunCurve], found: Estimate, folder: pathlib.Path
) -> str:
    """Writes tpe.md, tpe.csv and plots as PNG and SVG; returns the text.

    Raises:
        UserError: the folder cannot be written.
    """
    windows = compare_windows(curves)
    text = report(curves, found, windows)
    try:
        (folder / TABLE).write_text(text + "\n", encoding="utf-8")
        write_rows(found, folder / RUNS)
        figures = {PLOT: tpe_plots.estimate_plot(found)}
        if any(found.score == e.score and not math.isnan(e.rho) for e in windows):
            figures[WINDOWS] = tpe_plots.windows_plot(windows)
        for name, figure in figures.items():
            for kind in ("png", "svg"):
                figure.savefig(folder / f"{name}.{kind}", dpi=plots.DPI)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written ({error.strerror}); make it writable"
        ) from None
    return text


def compare_windows(curves: Sequence[RunCurve]) -> list[Estimate]:
    """Estimates by every score at those of `FRACTIONS` that hold at least one epoch.

    Fractions that come to the same epochs of every run are taken once.
    """
    found, seen = [], set()
    for fraction in FRACTIONS:
        if fraction * min(c.epochs_planned for c in curves) < 1 - 1e-9:
            continue
        epochs = tuple(epochs_at(fraction, c.epochs_planned) for c in curves)
        reached = any(
            c.ended or c.epochs >= n for c, n in zip(curves, epochs, strict=True)
        )
        if epochs not in seen and reached:
            seen.add(epochs)
            found += [estimate(curves, fraction, score) for score in tpe.SCORES]
    return found


def report(
    curves: Sequence[RunCurve], found: Estimate, windows: Sequence[Estimate]
) -> str:
    """Everything in words and tables."""
    epochs = sorted({row.epochs for row in found.rows})
    planned = sorted({row.curve.epochs_planned for row in found.rows})
    seen = (
        f"{len(found.rows)} runs ranked by {found.score} over the first "
        f"{_range(epochs)} of {_range(planned)} epochs ({found.fraction:.0%}); "
        f"{len(found.finished)} are finished, {found.diverged} diverged."
    )
    if found.late:
        seen += f" Not come so far: {', '.join(found.late)}."
    parts = [seen, _verdict(found), summary([("", found)])]
    if not math.isnan(found.rho_within_batches):
        parts.append(
            f"Among runs of one batch size, rho is {found.rho_within_batches:.2f} on "
            "average."
        )
    parts.append(_ranking(found))
    if found.ties:
        parts.append("Ties:\n" + "\n".join(f"- {text}" for text in found.ties))
    if found.warnings:
        parts.append("Warnings:\n" + "\n".join(f"- {t}" for t in found.warnings))
    parts.append(_costs(found))
    if windows:
        header = ("epochs", "score", "runs", "R^2", "left out", "rho", "95 %")
        rows = [
            [
                f"{e.fraction:.0%}",
                e.score,
                str(len(e.rows)),
                *_quality(e),
                _percent(e.regret),
            ]
            for e in windows
        ]
        parts.append(markdown_table((*header, "regret, %"), rows))
    return "\n\n".join([*parts, _LEGEND])


def summary(estimates: Sequence[tuple[str, Estimate]]) -> str:
    """A line for each sweep beside what was published for its model.

    Args:
        estimates: (name of the sweep, its estimate).
    """
    header = ("sweep", "model", "runs", "diverged", "R^2", "left out", "rho", "95 %")
    header = (*header, "in intervals", "regret, %", "paper R^2", "paper rho")
    rows = []
    for name, found in estimates:
        model = str(found.rows[0].curve.settings.get("model.name", ""))
        paper = PUBLISHED.get(model)
        covered = "-"
        if found.covered is not None:
            covered = f"{found.covered} of {len(found.finished)}"
        rows.append(
            [
                name or "this",
                model,
                str(len(found.rows)),
                str(found.diverged),
                *_quality(found),
                covered,
                _percent(found.regret),
                f"{paper.r2:.2f}" if paper else "-",
                f"{paper.rho:.2f}" if paper else "-",
            ]
        )
    return markdown_table(header, rows)


def write_rows(found: Estimate, path: pathlib.Path) -> None:
    """One line of a csv file for each run, the best score first."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        columns = ("run", *found.fields, "batch", "marked", "epochs", "score", "value")
        writer.writerow((*columns, "rank", "state", "final", "final_rank", *_EXPECTED))
        for row in found.rows:
            settings = (row.curve.settings.get(field) for field in found.fields)
            writer.writerow(
                (
                    row.curve.name,
                    *settings,
                    row.curve.batch,
                    int(row.marked),
                    row.epochs,
                    found.score,
                    _csv(row.score),
                    _csv(row.rank),
                    row.state,
                    _csv(row.final),
                    _csv(row.final_rank),
                    _csv(row.predicted),
                    *map(_csv, row.interval),
                )
            )


_EXPECTED = ("expected", "expected_low", "expected_high")


def _verdict(found: Estimate) -> str:
    winner = found.winner
    text = f"Best by its score: {winner.label}"
    if not math.isfinite(winner.score):
        return f"{text}, although its loss is not finite, as that of all others."
    if found.best is None and winner.state != UNFINISHED:
        return f"{text}; it is {winner.state}, others are not."
    if found.best is None:
        return f"{text}; train it to its end from its own checkpoint."
    if found.best.curve.name == winner.curve.name:
        return f"{text}. It also has the lowest final loss, {winner.final:.5g}."
    return (
        f"{text}, with a final loss of {winner.final:.5g}. The lowest is "
        f"{found.best.final:.5g}, of {found.best.label}: a regret of "
        f"{_percent(found.regret)} %."
    )


def _ranking(found: Estimate) -> str:
    header = ("run", "state", "epochs", found.score, "rank", "final", "final rank")
    rows = [_run(row) for row in found.rows]
    return markdown_table((*header, "expected", "95 %"), rows)


def _run(row: Row) -> list[str]:
    low, high = row.interval
    shown = "-" if math.isnan(low) or math.isinf(low) else f"{low:.4g} to {high:.4g}"
    return [
        f"{row.label} (marked)" if row.marked else row.label,
        row.state,
        str(row.epochs),
        _number(row.score),
        f"{row.rank:g}",
        "?" if row.state == UNFINISHED else _number(row.final),
        _number(row.final_rank, "g"),
        _number(row.predicted),
        shown,
    ]


def _costs(found: Estimate) -> str:
    """What the choice costs, and what others would have."""
    n, fraction = len(found.rows), found.fraction
    rows = [["all runs to their ends", "-", f"{n:.2f}", "0"]]

    def add(what: str, detail: str, cost: float, whole: float = n) -> None:
        saved = f"{100 * (1 - cost / whole):.0f}"
        rows.append([what, detail, f"{cost:.2f}", saved])

    add("by rank, winner finished", f"{fraction:.0%} each", tpe_cost(n, fraction))
    for k in _CALIBRATIONS:
        if k < n:
            add(
                "the same, expected losses too",
                f"{k} more to their ends",
                tpe_cost(n, fraction, k),
            )
    add("successive halving", "first 1/9, eta 3", halving_cost(n, 1 / 9, 3))
    unfinished = any(row.state == UNFINISHED for row in found.rows)
    if unfinished:
        spent, whole = found.cost(calibrated=True)
        unit = whole / n
        add("these runs, winner finished", "as they are", spent / unit)
    header = ("cost of choosing", "of which", "trainings", "saved, %")
    return markdown_table(header, rows)


def _quality(found: Estimate) -> list[str]:
    ends = found.rho_interval
    return [
        _number(found.r2, ".2f"),
        _number(found.r2_left_out, ".2f"),
        _number(found.rho, ".2f"),
        f"{ends[0]:.2f} to {ends[1]:.2f}" if ends else "-",
    ]


def _range(numbers: Sequence[int]) -> str:
    first, last = numbers[0], numbers[-1]
    return str(first) if first == last else f"{first} to {last}"


def _number(value: float, form: str = ".5g") -> str:
    if math.isnan(value):
        return "-"
    return "not finite" if math.isinf(value) else f"{value:{form}}"


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.1f}"


def _csv(value: float) -> str:
    """Empty where unknown, ``inf`` where diverged."""
    return "" if math.isnan(value) else repr(float(value))
