"""Plots of predicted properties: parity, reliability, coverage, several runs."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from chemscale_jax.analysis import plots
from chemscale_jax.analysis.plots import Curves
from chemscale_jax.analysis.properties.runs import OUT_OF_FOLD, Finetuned
from chemscale_jax.core.conformal import Calibration
from chemscale_jax.core.property_predictions import PropertyPredictions

CURVE_LABELS = {"mae": "MAE of scaled labels", "accuracy": "accuracy", "loss": "loss"}
# Interval that is drawn around predictions.
_LEVEL = 0.9
# More targets would not be readable.
_MOST_TARGETS = 6
_MOST_POINTS = 3000
_MOST_BARS = 300
_BINS = 10


def parity(found: Finetuned) -> Figure:
    """Predicted against true values, with intervals: targets by splits."""
    targets = found.targets[:_MOST_TARGETS]
    figure, panels = _grid(len(targets), len(found.splits))
    for row, target in zip(range(len(targets)), targets, strict=True):
        limits = _limits([s.network for s in found.splits.values()], row)
        for column, (split, own) in enumerate(found.splits.items()):
            axes, p = panels[row][column], own.network
            known = np.flatnonzero(
                np.isfinite(p.true[:, row]) & np.isfinite(p.pred[:, row])
            )
            some = known[:: max(1, -(-len(known) // _MOST_POINTS))]
            _intervals(axes, found.calibration, p, row, known, limits)
            style = plots.style_of(column)
            axes.plot(
                p.true[some, row],
                p.pred[some, row],
                linestyle="none",
                marker=style.marker,
                ms=3,
                mfc="none",
                mec=style.color,
                mew=0.6,
            )
            axes.plot(limits, limits, "k--", linewidth=0.8)
            axes.set(xlim=limits, ylim=limits, aspect="equal")
            unit = f" / {found.units[row]}" if found.units[row] else ""
            axes.set_xlabel(f"true {target}{unit}")
            axes.set_ylabel(f"predicted {target}{unit}")
            error = np.abs(p.pred[known, row] - p.true[known, row])
            mae = f"MAE {error.mean():.3g}" if len(known) else "no error"
            axes.set_title(f"{split}, {len(known):,} labels: {mae}", fontsize=10)
            _tidy(axes)
    return figure


def reliability(found: Finetuned) -> Figure:
    """How often a class occurs where its predicted chance is so large."""
    figure = Figure(figsize=(5.5, 5.0), layout="constrained")
    axes = figure.subplots()
    for index, (split, own) in enumerate(found.splits.items()):
        chance, happened = _chances(own.network, found.kind)
        if not len(chance):
            continue
        place = np.minimum((chance * _BINS).astype(int), _BINS - 1)
        counts = np.bincount(place, minlength=_BINS)
        filled = counts > 0
        mean = np.bincount(place, chance, _BINS)[filled] / counts[filled]
        share = np.bincount(place, happened, _BINS)[filled] / counts[filled]
        style = plots.style_of(index)
        axes.plot(
            mean,
            share,
            color=style.color,
            marker=style.marker,
            linestyle=style.line,
            label=f"{split}: {len(chance):,}",
        )
    axes.plot([0, 1], [0, 1], "k--", linewidth=0.8)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    axes.set_xlabel("predicted chance")
    axes.set_ylabel("share that are so")
    axes.legend(frameon=False, fontsize=9)
    _tidy(axes)
    return figure


def coverage(found: Finetuned) -> Figure | None:
    """Labels inside intervals or sets against the level; None where not measured."""
    made = found.calibration
    splits = {
        split: own.network
        for split, own in found.splits.items()
        if made is not None and split not in (made.source, OUT_OF_FOLD)
    }
    if made is None or not splits:
        return None
    levels = np.linspace(0.05, 0.95, 19)
    figure = Figure(figsize=(5.5, 5.0), layout="constrained")
    axes = figure.subplots()
    for p in splits.values():
        std = p.member_std if made.floors is not None else None
        shares = np.array(
            [[c.share for c in made.coverage(x, p.true, p.pred, std)] for x in levels]
        )
        for t, target in enumerate(found.targets[:_MOST_TARGETS]):
            style = plots.style_of(t)
            axes.plot(
                levels,
                shares[:, t],
                color=style.color,
                linestyle=style.line,
                marker=style.marker,
                ms=3,
                label=f"{target}: {int(p.labelled[:, t].sum()):,}",
            )
    axes.plot([0, 1], [0, 1], "k--", linewidth=0.8)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), aspect="equal")
    axes.set_xlabel("level that is promised")
    axes.set_ylabel("labels inside, test set")
    axes.legend(frameon=False, fontsize=9, loc="upper left")
    _tidy(axes)
    return figure


def members_curves(runs: Mapping[str, Curves]) -> Figure:
    """Validation loss of several runs against the step.

    Args:
        runs: {name: all metrics of the run}.
    """
    figure = Figure(figsize=(7.0, 4.5), layout="constrained")
    axes = figure.subplots()
    for index, (name, curves) in enumerate(runs.items()):
        if "loss" not in curves.get("valid", {}):
            continue
        style = plots.style_of(index)
        axes.plot(
            *curves["valid"]["loss"],
            color=style.color,
            linestyle=style.line,
            linewidth=1.2,
            alpha=0.8,
            label=name,
        )
    axes.set_xlabel("step")
    axes.set_ylabel("validation loss")
    if 0 < len(axes.get_lines()) <= 2 * _MOST_TARGETS:
        axes.legend(frameon=False, fontsize=8)
    _tidy(axes)
    return figure


def _chances(p: PropertyPredictions, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Predicted chances, of 1 or of every class, and whether it was so."""
    if kind == "binary":
        return p.pred[p.labelled], p.true[p.labelled]
    rows = p.labelled[:, 0]
    so = p.true[rows] == np.arange(p.pred.shape[1])
    return p.pred[rows].ravel(), so.ravel().astype(np.float64)


def _intervals(
    axes: Axes,
    made: Calibration | None,
    p: PropertyPredictions,
    target: int,
    known: np.ndarray,
    limits: tuple[float, float],
) -> None:
    """A band where all are equally wide, else a bar for each of some molecules."""
    if made is None or (made.floors is not None and p.member_std is None):
        return
    label = f"{_LEVEL:.0%} interval"
    if made.floors is None:
        half = float(made.half_width(_LEVEL, target))
        if np.isfinite(half):
            ends = np.array(limits)
            axes.fill_between(ends, ends - half, ends + half, color="#eeeeee", lw=0)
            axes.plot([], [], color="#dddddd", linewidth=6, label=label)
            axes.legend(frameon=False, fontsize=8, loc="upper left")
        return
    std = p.member_std
    assert std is not None
    some = known[:: max(1, -(-len(known) // _MOST_BARS))]
    half = made.half_width(_LEVEL, target, std[some, target])
    if np.isfinite(half).all() and len(some):
        axes.errorbar(
            p.true[some, target],
            p.pred[some, target],
            yerr=half,
            fmt="none",
            ecolor="#bbbbbb",
            elinewidth=0.6,
            label=label,
        )
        axes.legend(frameon=False, fontsize=8, loc="upper left")


def _grid(rows: int, columns: int) -> tuple[Figure, np.ndarray]:
    size = (4.2 * columns + 0.4, 4.2 * rows + 0.2)
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def _limits(some: list[PropertyPredictions], target: int) -> tuple[float, float]:
    values = np.concatenate(
        [x[:, target] for p in some for x in (p.true, p.pred)] or [np.zeros(0)]
    )
    values = values[np.isfinite(values)]
    if not len(values):
        return -1.0, 1.0
    low, high = float(values.min()), float(values.max())
    margin = 0.03 * (high - low) or 1.0
    return low - margin, high + margin


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
