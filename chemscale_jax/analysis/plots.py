"""Plots of a run, as figures that no global state of matplotlib knows of.

Splits differ in colour, marker and line style, so plots survive black-and-white print;
the colours are from the palette of Okabe and Ito, which colour-blind readers can tell
apart.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from chemscale_jax.analysis import force_errors
from chemscale_jax.analysis.splits import in_order
from chemscale_jax.chem.elements import symbol_of
from chemscale_jax.core.predictions import Predictions

# {split: {metric: (steps, values)}}, see `curves_of`.
Curves = Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]]

DPI = 150
# Up to this many points are drawn one by one, more as a density.
_SCATTER_POINTS = 2000
# Dark where dense; without the lightest tones, so that a lone point shows on white.
_DENSITY_COLORS = ListedColormap(colormaps["viridis_r"](np.linspace(0.15, 1.0, 256)))


class Style(NamedTuple):
    """How a split looks."""

    color: str
    marker: str
    line: str
    hatch: str


_TRAIN = Style("#7f7f7f", "", "-", "")
_STYLES = (
    Style("#0072B2", "o", "-", ""),
    Style("#D55E00", "s", "--", "////"),
    Style("#009E73", "^", "-.", "...."),
    Style("#CC79A7", "D", ":", "xxxx"),
)


def style_of(index: int) -> Style:
    """The style of the split at ``index`` of `in_order`."""
    return _STYLES[index % len(_STYLES)]


def learning_curves(curves: Curves, metric: str, label: str) -> Figure:
    """Loss, one more metric and learning rate against the step.

    Args:
        curves: all metrics of the run; splits other than "train" and "epoch" are
            evaluation sets.
        metric: the name of the other metric.
        label: what it is, for its axis.
    """
    figure = Figure(figsize=(7.0, 7.5), layout="constrained")
    loss_axes, metric_axes, lr_axes = figure.subplots(
        3, 1, sharex=True, height_ratios=(3, 3, 1.5)
    )
    train = curves.get("train", {})
    for axes, name in ((loss_axes, "loss"), (metric_axes, metric)):
        if name in train:
            shown = "training batch" if name == "loss" else None
            axes.plot(
                *train[name], color=_TRAIN.color, linewidth=0.8, alpha=0.7, label=shown
            )
        for index, split in enumerate(_evals(curves)):
            if name in curves[split]:
                _line(axes, *curves[split][name], style_of(index), split)
    if "train_loss" in curves.get("epoch", {}):
        steps, values = curves["epoch"]["train_loss"]
        loss_axes.plot(
            steps, values, "kx", markersize=5, label="training, mean of an epoch"
        )
    if "lr" in train:
        lr_axes.plot(*train["lr"], color="black", linewidth=1.2)
    loss_axes.set_ylabel("loss")
    metric_axes.set_ylabel(label)
    lr_axes.set_ylabel("learning rate")
    lr_axes.set_xlabel("step")
    for axes in (loss_axes, metric_axes):
        _log_if_positive(axes)
    lr_axes.set_ylim(bottom=0)
    lr_axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    lr_axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (loss_axes, metric_axes, lr_axes):
        _tidy(axes)
    if loss_axes.get_legend_handles_labels()[0]:
        loss_axes.legend(frameon=False, fontsize=9)
    return figure


def force_parity(splits: Mapping[str, Predictions]) -> Figure:
    """Predicted against true force components, one panel for each split."""
    points = {}
    for split, frames in splits.items():
        labelled = frames.forces_mask
        points[split] = (
            frames.forces_true[labelled].ravel(),
            frames.forces_pred[labelled].ravel(),
        )
    return _parity(points, "force component (eV/Å)", "meV/Å", 1e3)


def energy_parity(splits: Mapping[str, Predictions], force_only: bool) -> Figure:
    """Predicted against true energies per atom, one panel for each split.

    Energies are those a model learns: without the elements' reference energies.

    Args:
        splits: {split: its frames}.
        force_only: whether energies were left out of the training loss.
    """
    points = {}
    for split, frames in splits.items():
        labelled = frames.energy_mask
        per_atom = 1e3 / frames.n_atoms[labelled]
        points[split] = (
            frames.energy_true[labelled] * per_atom,
            frames.energy_pred[labelled] * per_atom,
        )
    figure = _parity(points, "energy less references (meV/atom)", "meV/atom", 1.0)
    if force_only:
        figure.suptitle("trained on forces only: energies are uncalibrated", fontsize=9)
    return figure


def error_per_element(splits: Mapping[str, Predictions]) -> Figure:
    """Force error of each element, the splits beside each other."""
    errors = {
        s: force_errors.force_mae_by_element(frames) for s, frames in splits.items()
    }
    numbers = sorted({z for found in errors.values() for z in found})
    width = max(1.8 * len(numbers), 4.5)
    figure = Figure(figsize=(min(width, 16), 4.2), layout="constrained")
    axes = figure.subplots()
    share = 0.8 / max(len(errors), 1)
    for index, (split, found) in enumerate(errors.items()):
        style = style_of(index)
        centres = np.arange(len(numbers)) + (index - (len(errors) - 1) / 2) * share
        heights = [np.nan_to_num(found[z][0]) if z in found else 0.0 for z in numbers]
        bars = axes.bar(
            centres,
            heights,
            share * 0.92,
            color=style.color,
            edgecolor="white",
            hatch=style.hatch,
            label=split,
        )
        labels = [
            f"{found[z][0]:.0f}\n({_short(found[z][1])})" if z in found else "none"
            for z in numbers
        ]
        axes.bar_label(bars, labels, fontsize=7, padding=2)
    axes.set_xticks(range(len(numbers)), [symbol_of(z) for z in numbers])
    axes.set_ylabel("force MAE (meV/Å)")
    axes.set_xlabel("element; above the bars: MAE and (number of atoms)")
    axes.margins(y=0.16)
    # Above the axes, since a bar can be anywhere within.
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=max(len(errors), 1),
        frameon=False,
        fontsize=9,
    )
    _tidy(axes)
    axes.grid(visible=False, axis="x")
    return figure


def curves_of(records) -> dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Steps and values of every metric; a value that was not finite becomes NaN.

    Args:
        records: the records of metrics.jsonl.
    """
    lists: dict[str, dict[str, tuple[list, list]]] = {}
    for record in records:
        metrics = lists.setdefault(record["split"], {})
        steps, values = metrics.setdefault(record["name"], ([], []))
        steps.append(record["step"])
        values.append(np.nan if record["value"] is None else record["value"])
    return {
        split: {
            name: (np.array(steps), np.array(values, np.float64))
            for name, (steps, values) in metrics.items()
        }
        for split, metrics in lists.items()
    }


def _parity(
    points: Mapping[str, tuple[np.ndarray, np.ndarray]],
    quantity: str,
    error_unit: str,
    error_scale: float,
) -> Figure:
    """One panel for each split, over the same range and with the same colours."""
    figure = Figure(figsize=(4.4 * len(points) + 0.7, 4.5), layout="constrained")
    panels = figure.subplots(1, len(points), squeeze=False)[0]
    limits = _limits([x for pair in points.values() for x in pair])
    densities = []
    for index, (axes, (split, (true, pred))) in enumerate(
        zip(panels, points.items(), strict=True)
    ):
        finite = np.isfinite(true) & np.isfinite(pred)
        left_out = int((~finite).sum())
        true, pred = true[finite].astype(np.float64), pred[finite].astype(np.float64)
        title = f"{split}: nothing labelled"
        if len(true):
            error = error_scale * (pred - true)
            title = (
                f"{split}: MAE {np.abs(error).mean():.1f}, "
                f"RMSE {np.sqrt((error**2).mean()):.1f} {error_unit}"
            )
        if left_out:
            title += f"\n{left_out:,} not finite, left out"
        if len(true) > _SCATTER_POINTS:
            densities.append(_density(axes, true, pred, limits))
        else:
            _scatter(axes, true, pred, style_of(index))
        axes.plot(limits, limits, "k--", linewidth=0.8)
        axes.set(xlim=limits, ylim=limits, aspect="equal")
        axes.set_title(title, fontsize=10)
        axes.set_xlabel(f"true {quantity}")
        if index == 0:
            axes.set_ylabel(f"predicted {quantity}")
        _tidy(axes)
    if densities:
        norm = LogNorm(1, max(2.0, *(d.get_array().max() for d in densities)))
        for density in densities:
            density.set_norm(norm)
        figure.colorbar(densities[0], ax=list(panels), label="points", aspect=30)
    return figure


def _scatter(axes: Axes, true: np.ndarray, pred: np.ndarray, style: Style) -> None:
    axes.scatter(
        true,
        pred,
        s=12,
        marker=style.marker,
        facecolors="none",
        edgecolors=style.color,
        linewidths=0.7,
    )


def _density(
    axes: Axes, true: np.ndarray, pred: np.ndarray, limits: tuple[float, float]
) -> PolyCollection:
    return axes.hexbin(
        true,
        pred,
        gridsize=70,
        extent=(*limits, *limits),
        mincnt=1,
        cmap=_DENSITY_COLORS,
        linewidths=0.1,
    )


def _limits(values: list[np.ndarray]) -> tuple[float, float]:
    every = np.concatenate([x[np.isfinite(x)] for x in values])
    if not len(every):
        return -1.0, 1.0
    low, high = float(every.min()), float(every.max())
    margin = 0.03 * (high - low) or 1.0
    return low - margin, high + margin


def _line(axes: Axes, steps: np.ndarray, values: np.ndarray, style: Style, label: str):
    axes.plot(
        steps,
        values,
        color=style.color,
        linestyle=style.line,
        marker=style.marker,
        markersize=4,
        markevery=max(1, len(steps) // 25),
        linewidth=1.4,
        label=label,
    )


def _evals(curves: Curves) -> list[str]:
    return in_order(set(curves) - {"train", "epoch"})


def _log_if_positive(axes: Axes) -> None:
    values = np.concatenate(
        [np.asarray(line.get_ydata(), np.float64) for line in axes.get_lines()]
        or [np.zeros(0)]
    )
    values = values[np.isfinite(values)]
    if len(values) and values.min() > 0:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)


def _short(count: int) -> str:
    """A count of at most four characters or so: 950, 12k, 3.4M."""
    if count < 1000:
        return str(count)
    if count < 1_000_000:
        return f"{count / 1e3:.1f}k" if count < 10_000 else f"{count / 1e3:.0f}k"
    return f"{count / 1e6:.1f}M"
