"""Plots of training performance estimation, readable in black and white."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from chemscale_jax.analysis import plots
from chemscale_jax.analysis.tpe import scores as tpe
from chemscale_jax.analysis.tpe.estimate import DIVERGED, FINISHED, Estimate, Row

# Losses further apart than this, largest to smallest, are drawn on logarithmic axes.
_LINEAR_UP_TO = 20.0
# Of batch sizes, of which a grid may have many.
_MARKERS = "os^Dv*Ph"
_NAMES = {
    "tse": "TSE",
    "tse_last": "TSE-E, the last epoch",
    "tse_ema": "TSE-EMA",
    "valid": "early validation loss",
}


class _Look(NamedTuple):
    marker: str
    color: str


def estimate_plot(found: Estimate) -> Figure:
    """Final loss against score, a point per run, as in Fig. 2 of Frey et al. 2023.

    Batch sizes differ in marker. Runs that are not finished are hollow, at what the
    line expects of them with its interval; runs that diverged stand at the top.
    """
    figure = Figure(figsize=(6.0, 4.8), layout="constrained")
    axes = figure.subplots()
    shown = [row for row in found.rows if math.isfinite(row.score)]
    _scale(axes, found)
    if found.line is not None and len(found.finished) > 1:
        _draw_line(axes, found)
    sizes = sorted({row.curve.batch for row in found.rows})
    for index, size in enumerate(sizes):
        color = "k" if index > 3 else plots.style_of(index).color
        look = _Look(_MARKERS[index % len(_MARKERS)], color)
        rows = [row for row in shown if row.curve.batch == size]
        done = [row for row in rows if row.state == FINISHED]
        axes.plot(
            [row.score for row in done],
            [row.final for row in done],
            linestyle="",
            marker=look.marker,
            color=look.color,
            label=f"batch {size}",
        )
        for row in rows:
            if row.state not in (FINISHED, DIVERGED) and math.isfinite(row.predicted):
                _draw_expected(axes, row, look)
    for row in shown:
        if row.marked and row.state == FINISHED:
            axes.plot(
                [row.score],
                [row.final],
                linestyle="",
                marker="o",
                markersize=15,
                markerfacecolor="none",
                color="k",
                label=row.label,
            )
    _draw_diverged(axes, found)
    axes.set_xlabel(f"{_NAMES[found.score]} after {found.fraction:.0%} of the epochs")
    axes.set_ylabel("final validation loss")
    axes.set_title(_title(found), fontsize=10)
    axes.legend(frameon=False, fontsize=8)
    return figure


def windows_plot(estimates: Sequence[Estimate]) -> Figure:
    """Rank correlation and regret against the fraction of the budget, a line a score.

    Args:
        estimates: by every score at several fractions.
    """
    figure = Figure(figsize=(6.0, 6.0), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    for index, score in enumerate(tpe.SCORES):
        style = plots.style_of(index)
        own = [e for e in estimates if e.score == score]
        at = [100 * e.fraction for e in own]
        for axes, values in (
            (upper, [e.rho for e in own]),
            (lower, [100 * e.regret for e in own]),
        ):
            axes.plot(
                at,
                values,
                color=style.color,
                marker=style.marker,
                linestyle=style.line,
                label=_NAMES[score],
            )
    rhos = [e.rho for e in estimates if not math.isnan(e.rho)]
    upper.set_ylim(min([0.5, *rhos]) - 0.05, 1.03)
    lower.set_ylim(bottom=-0.5)
    upper.set_ylabel("rank correlation with the final loss")
    lower.set_ylabel("regret of the best score, %")
    lower.set_xlabel("epochs seen, %")
    upper.legend(frameon=False, fontsize=8)
    return figure


def _scale(axes: Axes, found: Estimate) -> None:
    for values, set_scale in (
        ([row.score for row in found.rows], axes.set_xscale),
        ([row.final for row in found.rows], axes.set_yscale),
    ):
        known = [v for v in values if math.isfinite(v)]
        if known and min(known) > 0 and max(known) > _LINEAR_UP_TO * min(known):
            set_scale("log")


def _draw_line(axes: Axes, found: Estimate) -> None:
    assert found.line is not None
    scores = [row.score for row in found.rows if math.isfinite(row.score)]
    finals = [row.final for row in found.finished]
    low, high = min(scores), max(scores)
    log = axes.get_xscale() == "log"
    x = np.geomspace(low, high, 200) if log else np.linspace(low, high, 200)
    y = found.line.at(x)
    # On a logarithmic axis the line may leave what can be drawn.
    keep = y > 0.5 * min(finals) if axes.get_yscale() == "log" else np.full(200, True)
    axes.plot(x[keep], y[keep], color="0.3", linewidth=1.0, label="Eq. 8")
    below, above = found.line.interval(x)
    if not np.isfinite(below).all():
        return
    floor = 0.5 * min(finals) if axes.get_yscale() == "log" else -math.inf
    axes.fill_between(
        x[keep],
        np.maximum(below, floor)[keep],
        above[keep],
        color="0.85",
        linewidth=0,
        label="95 % of new runs",
    )


def _draw_expected(axes: Axes, row: Row, look: _Look) -> None:
    low, high = row.interval
    known = math.isfinite(low)
    half = [[row.predicted - low], [high - row.predicted]] if known else None
    axes.errorbar(
        [row.score],
        [row.predicted],
        yerr=half,
        marker=look.marker,
        color=look.color,
        markerfacecolor="none",
        capsize=2,
        linewidth=0.8,
    )


def _draw_diverged(axes: Axes, found: Estimate) -> None:
    """Crosses along the upper edge; without a score, at the right."""
    rows = [row for row in found.rows if row.state == DIVERGED]
    if not rows:
        return
    edge = axes.get_xlim()[1]
    across = axes.get_xaxis_transform()
    at = [row.score if math.isfinite(row.score) else edge for row in rows]
    axes.plot(
        at,
        [0.98] * len(at),
        linestyle="",
        marker="x",
        color="k",
        transform=across,
        clip_on=False,
        label=f"{len(rows)} diverged",
    )


def _title(found: Estimate) -> str:
    parts = []
    for name, value in (
        ("R^2 in sample", found.r2),
        ("left out", found.r2_left_out),
        ("rho", found.rho),
    ):
        if not math.isnan(value):
            parts.append(f"{name} {value:.2f}")
    if found.rho_interval:
        low, high = found.rho_interval
        parts[-1] += f" ({low:.2f} to {high:.2f})"
    return f"{', '.join(parts)}; n = {len(found.finished)}"
