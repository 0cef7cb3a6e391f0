"""Plots of probes: metrics of all representations, and their differences."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from chemscale_jax.analysis import plots
from chemscale_jax.analysis.probes.figures import TRIVIAL, ProbeResults
from chemscale_jax.analysis.probes.tables import OPEN, Comparison, Measured
from chemscale_jax.analysis.properties.metrics import METRICS

# Inches for each target, and letters of its name.
_HEIGHT = 0.55
_LONGEST = 24


def metrics_plot(results: ProbeResults, best: Sequence[Measured]) -> Figure:
    """The metric that comes first, of each representation and target."""
    metric = METRICS[results.rows.kind][0]
    targets = results.rows.targets
    figure = Figure(figsize=(7.0, 1.6 + _HEIGHT * len(targets)), layout="constrained")
    axes = figure.subplots()
    step = 0.8 / max(len(best), 1)
    for index, one in enumerate(best):
        style = plots.style_of(index)
        trivial = one.arm.model == TRIVIAL
        values = [f[metric.name] for f in one.figures]
        at = np.arange(len(targets)) + step * (index - (len(best) - 1) / 2)
        _intervals(
            axes,
            at,
            [v.value for v in values],
            [v.interval for v in values],
            color="black" if trivial else style.color,
            marker="x" if trivial else style.marker,
            label=one.arm.name,
            # Colours and markers come round again.
            markerfacecolor="none" if index >= 4 else None,
        )
    units = set(results.rows.units) if metric.has_unit else {""}
    (unit,) = units if len(units) == 1 else ("unit of each target",)
    _targets(axes, targets)
    axes.set_xlabel(f"{metric.title} ({unit})" if unit else metric.title)
    axes.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def differences_plot(results: ProbeResults, found: Sequence[Comparison]) -> Figure:
    """Differences with their intervals: filled where they hold no zero."""
    targets = results.rows.targets
    metric = METRICS[results.rows.kind][0]
    width = 2.2 + 2.4 * max(len(found), 1)
    size = (width, 1.6 + _HEIGHT * len(targets))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(1, max(len(found), 1), sharey=True, squeeze=False)[0]
    for axes, one in zip(panels, found, strict=False):
        for place, (gap, verdict) in enumerate(
            zip(one.differences, one.verdicts, strict=True)
        ):
            _intervals(
                axes,
                np.array([place]),
                [gap.value],
                [gap.interval],
                color="black",
                marker="o",
                markerfacecolor="white" if verdict == OPEN else "black",
            )
        axes.axvline(0, color="black", linewidth=0.8, linestyle=":")
        axes.set_title(f"{one.first}\n- {one.second}", fontsize=9)
        side = "lower" if metric.lower_is_better else "higher"
        axes.set_xlabel(f"{metric.title} ({side}: first is better)", fontsize=8)
    _targets(panels[0], targets)
    return figure


def _intervals(
    axes: Axes,
    at: np.ndarray,
    values: Sequence[float],
    intervals: Sequence[tuple[float, float] | None],
    **style,
) -> None:
    ends = [(v, v) if i is None else i for v, i in zip(values, intervals, strict=True)]
    # Of draws, a value may lie outside by rounding.
    low = np.maximum([v - e[0] for v, e in zip(values, ends, strict=True)], 0)
    high = np.maximum([e[1] - v for v, e in zip(values, ends, strict=True)], 0)
    axes.errorbar(values, at, xerr=(low, high), linestyle="none", capsize=2, **style)


def _targets(axes: Axes, targets: Sequence[str]) -> None:
    names = [t if len(t) <= _LONGEST else f"{t[: _LONGEST - 1]}…" for t in targets]
    axes.set_yticks(range(len(targets)), names)
    axes.set_ylim(len(targets) - 0.4, -0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
