"""Plots of maps: one panel for each space, coloured by groups or by numbers.

Groups differ in colour and marker, numbers in lightness, so plots survive
black-and-white print. Of scaffolds, the legend shows the structures.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D

from chemscale_jax.analysis.maps.mapped_molecules import (
    ACYCLIC_NAME,
    SCAFFOLD,
    Coloring,
)
from chemscale_jax.analysis.maps.scaffold_plots import draw_structure
from chemscale_jax.chem.drawings import drawing_of


class GroupStyle(NamedTuple):
    """How a group looks."""

    color: str
    marker: str


# Of the largest groups, in their order; colours of Okabe and Ito, which colour-blind
# readers can tell apart, and a brown.
GROUP_STYLES = (
    GroupStyle("#0072B2", "o"),
    GroupStyle("#D55E00", "s"),
    GroupStyle("#009E73", "^"),
    GroupStyle("#CC79A7", "D"),
    GroupStyle("#E69F00", "v"),
    GroupStyle("#56B4E9", "P"),
    GroupStyle("#000000", "X"),
    GroupStyle("#8C510A", "*"),
)
OTHERS = GroupStyle("#bdbdbd", ".")
NUMBER_COLORS = "viridis"
# Numbers beyond these shares of all have the colour of the ends.
NUMBER_ENDS = (0.02, 0.98)
# Panels in a row.
_WIDE = 3
_PANEL_IN = 4.2
# Half the width of the smallest drawing, angstrom: single rings are not shown larger.
_LEAST_ANG = 3.0
_LONGEST_NAME = 40


def map_figure(
    maps: Mapping[str, np.ndarray], coloring: Coloring, title: str
) -> Figure:
    """All spaces side by side.

    Args:
        maps: coordinates by the name of the space, (n, 2) each.
        coloring: of the n molecules.
        title: above all panels.
    """
    columns = min(len(maps), _WIDE)
    rows = -(-len(maps) // columns)
    legend_in = 1.7 if coloring.groups is not None else 0.0
    size = (max(columns * _PANEL_IN, 7.0), rows * _PANEL_IN + legend_in + 0.4)
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(title, fontsize=11)
    if coloring.groups is None:
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        _numbers(figure, panels[: len(maps)], maps, coloring)
    else:
        heights = (size[1] - 2.1, legend_in)
        parts = figure.subfigures(2, 1, squeeze=False, height_ratios=heights)
        top, bottom = parts[:, 0]
        panels = top.subplots(rows, columns, squeeze=False).ravel()
        _groups(panels[: len(maps)], maps, coloring)
        _legend(bottom, coloring)
    for axes, name in zip(panels, maps, strict=False):
        axes.set_title(name, fontsize=10)
        axes.set(xticks=[], yticks=[])
        axes.set_aspect("equal", adjustable="datalim")
    for axes in panels[len(maps) :]:
        axes.axis("off")
    return figure


def number_range(numbers: np.ndarray) -> tuple[float, float]:
    """Where the colours of numbers begin and end."""
    low, high = np.quantile(numbers[np.isfinite(numbers)], NUMBER_ENDS)
    return (float(low), float(high)) if high > low else (low - 0.5, low + 0.5)


def shown_groups(coloring: Coloring) -> dict[str, int]:
    """The groups that have a style of their own, and their molecules."""
    return dict(list(coloring.ranked().items())[: len(GROUP_STYLES)])


def _groups(panels: np.ndarray, maps: Mapping[str, np.ndarray], coloring: Coloring):
    assert coloring.groups is not None
    names = shown_groups(coloring)
    size = _marker_size(len(coloring.groups))
    others = ~np.isin(coloring.groups, list(names))
    for axes, points in zip(panels, maps.values(), strict=True):
        _scatter(axes, points[others], OTHERS, size, 1)
        for style, name in zip(GROUP_STYLES, names, strict=False):
            _scatter(axes, points[coloring.groups == name], style, size, 2)


def _scatter(
    axes: Axes, points: np.ndarray, style: GroupStyle, size: float, order: int
) -> None:
    axes.scatter(
        *points.T,
        s=size,
        c=style.color,
        marker=style.marker,
        linewidths=0,
        alpha=0.8,
        zorder=order,
        rasterized=True,
    )


def _numbers(
    figure: Figure,
    panels: np.ndarray,
    maps: Mapping[str, np.ndarray],
    coloring: Coloring,
) -> None:
    assert coloring.numbers is not None
    known = coloring.known
    low, high = number_range(coloring.numbers)
    size = _marker_size(len(known))
    drawn = None
    for axes, points in zip(panels, maps.values(), strict=True):
        axes.scatter(
            *points[~known].T, s=size, c=OTHERS.color, marker="x", linewidths=0.6
        )
        drawn = axes.scatter(
            *points[known].T,
            s=size,
            c=coloring.numbers[known],
            cmap=NUMBER_COLORS,
            vmin=low,
            vmax=high,
            linewidths=0,
            rasterized=True,
        )
    assert drawn is not None
    bar = figure.colorbar(drawn, ax=list(panels), aspect=30, extend="both")
    bar.set_label(coloring.name)


def _legend(part: SubFigure, coloring: Coloring) -> None:
    """Of scaffolds their structures, of others their names, and the molecules."""
    names = shown_groups(coloring)
    assert coloring.groups is not None
    rest = int((~np.isin(coloring.groups, [*names, ""])).sum())
    unknown = int((coloring.groups == "").sum())
    styles = list(zip(GROUP_STYLES, names.items(), strict=False))
    last = [f"{rest:,} in other groups"] * bool(rest)
    last += [f"{unknown:,} unknown"] * bool(unknown)
    if coloring.name == SCAFFOLD:
        _structures(part, styles)
    else:
        handles = [_key(style) for style, _ in styles]
        labels = [f"{_short(name)} ({n:,})" for _, (name, n) in styles]
        part.legend(
            handles,
            labels,
            title=coloring.name,
            ncols=min(len(handles), 4),
            loc="center",
            frameon=False,
            fontsize=9,
        )
    if last:
        part.supxlabel(f"light: {', '.join(last)}", fontsize=8)


def _structures(
    part: SubFigure, styles: list[tuple[GroupStyle, tuple[str, int]]]
) -> None:
    panels = part.subplots(1, len(GROUP_STYLES), squeeze=False)[0]
    for axes in panels:
        axes.axis("off")
    for axes, (style, (smiles, n)) in zip(panels, styles, strict=False):
        ring = smiles != ACYCLIC_NAME
        drawing = drawing_of(smiles if ring else "")
        reach = 1 + np.abs(drawing.points_N2).max(initial=_LEAST_ANG)
        axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
        if ring:
            draw_structure(axes, drawing)
        else:
            axes.text(0, 0, "acyclic", ha="center", va="center", fontsize=9)
        axes.legend(
            [_key(style)],
            [f"{n:,}"],
            loc="upper center",
            bbox_to_anchor=(0.5, 1.3),
            frameon=False,
            fontsize=9,
            handletextpad=0.1,
        )


def _key(style: GroupStyle) -> Line2D:
    return Line2D(
        [], [], color=style.color, marker=style.marker, linestyle="", markersize=6
    )


def _marker_size(n: int) -> float:
    """Area in points squared: smaller where there are many."""
    return float(np.clip(16_000 / n, 2.5, 26))


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 3] + "..."
