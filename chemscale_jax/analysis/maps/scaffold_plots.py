"""Plots of scaffold frequencies, and drawings of the most frequent scaffolds."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from chemscale_jax.analysis import plots
from chemscale_jax.chem.drawings import AROMATIC, Drawing, drawing_of
from chemscale_jax.data.conformers.scaffold_table import ScaffoldTable

# Drawings in a row.
_DRAWN = 8
# Where the lines of a bond lie, in units of their distance; a single line otherwise.
_LINES = {2.0: (0.0, 1.0), 3.0: (-1.0, 0.0, 1.0), AROMATIC: (0.0, 1.0)}
# Distance of the lines of a double bond, angstrom.
_GAP_ANG = 0.22
# Half the width of the smallest drawing: single rings are not shown larger.
_LEAST_ANG = 3.0
# Points of a curve: more than can be told apart.
_POINTS = 2000


def scaffold_figure(tables: Sequence[ScaffoldTable]) -> Figure:
    """Fig. 1: frequencies by rank above, the most frequent scaffolds below.

    Args:
        tables: the sets, each with at least one molecule.
    """
    figure = Figure(figsize=(11.0, 4.0 + 1.9 * len(tables)), layout="constrained")
    parts = figure.subfigures(
        1 + len(tables), 1, squeeze=False, height_ratios=[2.1, *[1.0] * len(tables)]
    )
    top, *rows = parts[:, 0]
    by_rank, cumulative = top.subplots(1, 2)
    for index, table in enumerate(tables):
        style = plots.style_of(index)
        ranks = _ranks(len(table.counts))
        share = np.cumsum(table.counts) / table.counts.sum()
        looks = {"color": style.color, "linestyle": style.line, "linewidth": 1.5}
        by_rank.plot(ranks, table.counts[ranks - 1], label=table.name, **looks)
        cumulative.plot(ranks, share[ranks - 1], label=table.name, **looks)
    by_rank.set_yscale("log")
    by_rank.set_ylabel("molecules of the scaffold")
    cumulative.set_ylabel("share of molecules, cumulative")
    cumulative.set_ylim(0, 1.03)
    for axes in (by_rank, cumulative):
        axes.set_xscale("log")
        axes.set_xlabel("rank of the scaffold")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(visible=True, color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
    by_rank.legend(frameon=False)
    for table, row in zip(tables, rows, strict=True):
        row.suptitle(f"most frequent in {table.name}", fontsize=10)
        _structures(row, table)
    return figure


def draw_structure(axes: Axes, drawing: Drawing) -> None:
    """Draws bonds as lines, and elements other than carbon as letters."""
    points = drawing.points_N2
    for ends, order in zip(points[drawing.bonds_E2], drawing.orders_E, strict=True):
        along = ends[1] - ends[0]
        aside = np.array([-along[1], along[0]]) / max(float(np.hypot(*along)), 1e-6)
        # The second line of a double bond lies on the side of most atoms.
        if aside @ ends.mean(0) > 0:
            aside = -aside
        for shift in _LINES.get(float(order), (0.0,)):
            second = shift != 0.0
            # Inner lines are a little shorter.
            line = ends + np.array([0.12, -0.12])[:, None] * along * second
            line = line + shift * _GAP_ANG * aside
            dashes = "--" if second and order == AROMATIC else "-"
            axes.plot(*line.T, color="black", linewidth=0.9, linestyle=dashes)
    for point, symbol in zip(points, drawing.symbols, strict=True):
        if symbol != "C" or len(points) == 1:
            axes.text(
                float(point[0]),
                float(point[1]),
                symbol,
                ha="center",
                va="center",
                fontsize=7,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
            )


def _structures(row: SubFigure, table: ScaffoldTable) -> None:
    """Draws the most frequent scaffolds side by side."""
    some = table.scaffolds[:_DRAWN]
    drawings = [drawing_of(smiles) for smiles in some]
    for place, axes in enumerate(row.subplots(1, _DRAWN)):
        axes.axis("off")
        if place >= len(some):
            continue
        reach = 1 + np.abs(drawings[place].points_N2).max(initial=_LEAST_ANG)
        axes.set_xlim(-reach, reach)
        axes.set_ylim(-reach, reach)
        axes.set_aspect("equal")
        if some[place]:
            draw_structure(axes, drawings[place])
        else:
            axes.text(0, 0, "acyclic", ha="center", va="center")
        axes.set_title(f"{table.counts[place]:,}", fontsize=9, y=-0.15)


def _ranks(n: int) -> np.ndarray:
    """Ranks 1 to n, of many those that lie evenly on a logarithmic axis."""
    if n <= _POINTS:
        return np.arange(1, n + 1)
    return np.unique(np.geomspace(1, n, _POINTS).round().astype(int))
