"""Tables of a scaling study, in Markdown, for one group of runs at a time."""

from collections.abc import Mapping, Sequence

import numpy as np

from chemscale_jax.analysis.markdown import markdown_table
from chemscale_jax.analysis.scaling.allocation import Allocation, NextRun
from chemscale_jax.analysis.scaling.analysis import Analysis, Law, LineLaw
from chemscale_jax.analysis.scaling.data import Cells
from chemscale_jax.analysis.scaling.intervals import Interval
from chemscale_jax.analysis.scaling.power import Difference, steepest
from chemscale_jax.analysis.scaling.selection import Trial
from chemscale_jax.analysis.scaling.size_variables import Contest, RankCorrelation

_RUNS_SHOWN = 5
_LIMITS = "what limits it"


def cells_table(cells: Cells, labels: Mapping[str, str]) -> str:
    """Every cell: where it is, its loss, and what limits it."""
    letters = [x for x in ("N", "D", "S", "C") if cells.varies(x) > 1]
    header = [*(labels[x] for x in letters), "seeds", labels["loss"], "std of log (%)"]
    header += ["training loss", "best step", _LIMITS]
    rows = []
    for cell in cells.cells:
        spread = np.log(cell.losses).std(ddof=1) if len(cell.losses) > 1 else np.nan
        rows.append(
            [
                *(number(cell.values[x]) for x in letters),
                str(len(cell.losses)),
                f"{cell.loss:.4g}",
                "-" if np.isnan(spread) else f"{100 * spread:.2f}",
                _mean(cell.rows, "train_loss"),
                _mean(cell.rows, "best_step"),
                cell.limit or "-",
            ]
        )
    return markdown_table(header, rows)


def power_table(lines: Sequence[LineLaw], equal: str, labels: Mapping[str, str]) -> str:
    """Power laws in their windows, beside the line through all cells."""
    header = (
        labels[equal] if lines and lines[0].line.at else "cells",
        "window",
        "points",
        "beta",
        "95 % interval",
        "R^2",
        "left out",
        "beta of all",
        "95 % of all",
        "p of curvature",
        "steepest at",
        "local slope",
    )
    rows = []
    for one in lines:
        law, every, best = one.law, one.every, steepest(one.slopes)
        rows.append(
            [
                number(one.at) if one.line.at else "all",
                f"{number(law.low)} to {number(law.high)}",
                f"{law.points} of {len(one.line.cells)}",
                f"{law.beta:.3f}",
                interval(law.interval),
                f"{law.r_squared:.3f}",
                f"{one.left_out} by limit" if one.left_out else one.why_not or "-",
                f"{every.beta:.3f}",
                interval(every.interval),
                "-" if np.isnan(every.curved) else f"{every.curved:.2g}",
                f"{number(best.low)} to {number(best.high)}" if best else "-",
                f"{best.slope:.3f} ({interval(best.interval)})" if best else "-",
            ]
        )
    return markdown_table(header, rows)


def slopes_table(
    lines: Sequence[LineLaw], equal: str, labels: Mapping[str, str]
) -> str:
    """Local slopes between neighbours along each line."""
    header = (labels[equal], "from", "to", "local slope", "95 % over seeds")
    rows = [
        [
            number(one.at) if one.line.at else "all",
            number(slope.low),
            number(slope.high),
            f"{slope.slope:.3f}",
            interval(slope.interval),
        ]
        for one in lines
        for slope in one.slopes
    ]
    return markdown_table(header, rows)


def trials_table(trials: Sequence[Trial], chosen: str) -> str:
    """Errors of every form on held-out runs, and on the largest size."""
    header = ("form", "law", "parameters", "held out", "error (%)")
    # Of the largest size alone, as in Table 3 of Ji et al. 2024.
    header = (*header, "RMAE", "MSE", "R^2", "Pearson's r", "")
    rows = []
    for trial in trials:
        score = ["-"] * 4
        if trial.score is not None:
            score = [f"{x:.3g}" for x in trial.score[:4]]
        rows.append(
            [
                trial.form.name,
                trial.form.equation,
                str(len(trial.form.names)),
                str(trial.held_out),
                "-" if trial.why_not else f"{100 * trial.error:.2f}",
                *score,
                trial.why_not or ("chosen" if trial.form.name == chosen else ""),
            ]
        )
    return markdown_table(header, rows)


def law_table(law: Law) -> str:
    """Parameters with profile-likelihood and bootstrap intervals."""
    header = ("parameter", "value", "95 % interval", "over seeds", "over cells", "")
    rows = []
    for one in law.estimates:
        if not one.identified:
            rows.append(
                [one.name, "-", "-", "-", "-", f"not identified: {one.why_not}"]
            )
            continue
        rows.append(
            [
                one.name,
                f"{one.value:.4g}",
                interval(one.interval),
                interval(law.seeds.get(one.name)),
                interval(law.cells.get(one.name)),
                "",
            ]
        )
    return markdown_table(header, rows)


def allocation_table(found: Allocation, labels: Mapping[str, str]) -> str:
    """The best split of each budget."""
    header = (
        "budget",
        "of the largest run",
        labels["N"],
        "95 % interval",
        labels["D"],
        "95 % interval",
        labels["loss"],
        "95 % interval",
    )
    rows = [
        [
            f"{one.compute:.3g}",
            f"{one.multiple:g} times",
            number(one.size),
            interval(one.size_interval),
            number(one.data),
            interval(one.data_interval),
            f"{one.loss:.4g}",
            interval(one.loss_interval),
        ]
        for one in found.optima
    ]
    return markdown_table(header, rows)


def next_table(runs: Sequence[NextRun], labels: Mapping[str, str]) -> str:
    """Runs that would narrow the intervals most, and the best per cost."""
    by_cost = sorted(runs, key=lambda run: np.log(run.narrower) / run.compute)
    shown = list(dict.fromkeys([*runs[:_RUNS_SHOWN], *by_cost[:1]]))
    header = (labels["N"], labels["D"], "compute", "width after it", "")
    rows = [
        [
            number(run.size),
            number(run.data),
            f"{run.compute:.3g}",
            f"{100 * run.narrower:.0f} %",
            "; ".join(
                text
                for text, true in (
                    ("narrows most", run == runs[0]),
                    ("most per compute", run == by_cost[0]),
                    ("beyond the grid", run.beyond),
                )
                if true
            ),
        ]
        for run in shown
    ]
    return markdown_table(header, rows)


def ranks_table(found: Sequence[RankCorrelation], labels: Mapping[str, str]) -> str:
    """Spearman's rho of the loss with size and time."""
    header = (labels["D"], "measure", "cells", "rho with the loss", "95 % over cells")
    rows = [
        [
            "all" if np.isnan(one.data) else number(one.data),
            one.measure,
            str(one.cells),
            f"{one.rho:.2f}",
            interval(one.interval),
        ]
        for one in found
    ]
    return markdown_table(header, rows)


def contests_table(found: Sequence[Contest]) -> str:
    """Which measure of size explains the loss."""
    header = ("one", "other", "crossings", "error of one", "of other", "verdict")
    rows = [
        [
            one.first,
            one.second,
            str(one.crossings),
            "-" if np.isnan(one.first_error) else f"{100 * one.first_error:.2f} %",
            "-" if np.isnan(one.second_error) else f"{100 * one.second_error:.2f} %",
            one.verdict,
        ]
        for one in found
    ]
    return markdown_table(header, rows)


def differences_table(found: Sequence[Difference]) -> str:
    """Exponents of groups against each other."""
    header = ("group", "against", "its beta less the other's", "95 %", "p", "it is")
    rows = [
        [
            one.second,
            one.first,
            f"{one.value:+.3f}",
            interval(one.interval),
            "-" if np.isnan(one.p) else f"{one.p:.2g}",
            one.verdict,
        ]
        for one in found
    ]
    return markdown_table(header, rows)


def summary_line(analysis: Analysis) -> str:
    """The law of a group in one line."""
    law = analysis.law
    if law is None:
        return f"No law is fitted: {analysis.why_no_law}."
    names = ", ".join(
        f"{one.name} = {one.value:.3g} ({interval(one.interval)})"
        if one.identified
        else f"{one.name} not identified"
        for one in law.estimates
        if one.name in (*law.fit.form.exponents, law.fit.form.floor)
    )
    return f"{law.fit.form.equation}: {names}."


def number(value: float) -> str:
    """A size or an amount: 77,600, 0.5 or 3.05e+08."""
    if np.isnan(value):
        return "-"
    whole = float(value).is_integer()
    return f"{value:,.0f}" if whole and value < 1e7 else f"{value:.3g}"


def interval(found: Interval | None) -> str:
    """Both ends; a side without one is open."""
    if found is None or (found.low is None and found.high is None):
        return "-"
    low = "..." if found.low is None else f"{found.low:.3g}"
    high = "..." if found.high is None else f"{found.high:.3g}"
    return f"{low} to {high}"


def _mean(rows: Sequence[Mapping[str, str]], name: str) -> str:
    found = [float(row[name]) for row in rows if row.get(name)]
    return f"{np.mean(found):.4g}" if found else "-"
