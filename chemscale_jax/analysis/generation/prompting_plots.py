"""Plots of a prompting study: distributions by setting, and means by prompt length."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from chemscale_jax.analysis import plots
from chemscale_jax.analysis.generation.prompting_rows import (
    KNOBS,
    Cell,
    Row,
    by_molecule,
    summarise,
)
from chemscale_jax.analysis.generation.set_metrics import Draws

LABELS = {
    "top_k": "k of top-k",
    "top_p": "p of top-p",
    "temperature": "temperature",
    "num_beams": "beams",
    "kept": "share that holds its prompt",
    "passes": "share that passes the filters",
    "weight_difference": "mass less prompt molecule's (g/mol)",
}
Cells = Mapping[Cell, Sequence[Row]]


def pass_rates(cells: Cells, models: Sequence[str]) -> Figure:
    """Boxes of the pass rates of single prompts: one value per molecule and length."""
    values = {
        cell: [
            figures["passes"]
            for figures in by_molecule(rows).values()
            if np.isfinite(figures["passes"])
        ]
        for cell, rows in cells.items()
    }
    figure = _by_setting(values, models, LABELS["passes"])
    for axes in figure.axes:
        axes.set_ylim(-0.03, 1.03)
    return figure


def weight_differences(cells: Cells, models: Sequence[str]) -> Figure:
    """Boxes of the mass of new molecules less that of their prompt molecule."""
    values = {
        cell: [row.weight_difference for row in rows if row.new]
        for cell, rows in cells.items()
    }
    figure = _by_setting(values, models, LABELS["weight_difference"])
    for axes in figure.axes:
        axes.axhline(0, color="black", linewidth=0.8)
    return figure


def prompt_lengths(cells: Cells, models: Sequence[str], draws: Draws) -> Figure:
    """Means over all settings by the length of the prompts, with intervals."""
    lengths = list(dict.fromkeys(cell.length for cell in cells))
    figure = Figure(figsize=(11.0, 3.8), layout="constrained")
    panels = figure.subplots(1, 3)
    for axes, name in zip(panels, ("kept", "passes", "weight_difference"), strict=True):
        for index, model in enumerate(models):
            style = plots.style_of(index)
            found = [
                summarise(pooled(cells, model=model, length=length), draws).figures[
                    name
                ]
                for length in lengths
            ]
            means = np.array([one.value for one in found])
            ends = np.array([one.interval or (one.value, one.value) for one in found])
            axes.errorbar(
                np.arange(len(lengths)) + 0.08 * (index - (len(models) - 1) / 2),
                means,
                yerr=np.abs(ends.T - means),
                color=style.color,
                marker=style.marker,
                linestyle=style.line,
                capsize=3,
                label=model,
            )
        axes.set_xticks(range(len(lengths)), lengths)
        axes.set_xlabel("symbols of the prompt")
        axes.set_ylabel(LABELS[name])
        _tidy(axes)
    _legend(figure, panels[0])
    return figure


def pooled(cells: Cells, **wanted: str) -> list[Row]:
    """The rows of all cells with these fields."""
    return [
        row
        for cell, rows in cells.items()
        if all(getattr(cell, name) == value for name, value in wanted.items())
        for row in rows
    ]


def _by_setting(
    values: Mapping[Cell, Sequence[float]], models: Sequence[str], label: str
) -> Figure:
    """A panel for each knob, a group of boxes for each of its values."""
    knobs = [knob for knob in KNOBS if any(cell.knob == knob for cell in values)]
    figure = Figure(figsize=(11.0, 3.8 * -(-len(knobs) // 2)), layout="constrained")
    panels = np.ravel(figure.subplots(-(-len(knobs) // 2), 2, squeeze=False))
    for axes in panels[len(knobs) :]:
        axes.remove()
    width = 0.8 / len(models)
    for axes, knob in zip(panels, knobs, strict=False):
        steps = list(dict.fromkeys(cell.value for cell in values if cell.knob == knob))
        for index, model in enumerate(models):
            style = plots.style_of(index)
            groups = [
                [
                    number
                    for cell, numbers in values.items()
                    if (cell.model, cell.knob, cell.value) == (model, knob, step)
                    for number in numbers
                ]
                for step in steps
            ]
            centres = np.arange(len(steps)) + (index - (len(models) - 1) / 2) * width
            shown = [place for place, group in enumerate(groups) if group]
            if not shown:
                continue
            axes.boxplot(
                [groups[place] for place in shown],
                positions=list(centres[shown]),
                widths=0.85 * width,
                whis=(5, 95),
                showfliers=False,
                showmeans=True,
                manage_ticks=False,
                patch_artist=True,
                boxprops={"facecolor": "white", "edgecolor": style.color},
                medianprops={"color": style.color},
                whiskerprops={"color": style.color, "linestyle": style.line},
                capprops={"color": style.color},
                meanprops={
                    "marker": style.marker,
                    "markerfacecolor": style.color,
                    "markeredgecolor": style.color,
                    "markersize": 4,
                },
            )
            axes.plot(
                [],
                [],
                color=style.color,
                marker=style.marker,
                ls=style.line,
                label=model,
            )
        axes.set_xticks(range(len(steps)), steps)
        axes.set_xlabel(LABELS[knob])
        axes.set_ylabel(label)
        _tidy(axes)
    _legend(figure, panels[0])
    return figure


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(
            handles, labels, loc="outside upper center", ncols=4, frameon=False
        )


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
