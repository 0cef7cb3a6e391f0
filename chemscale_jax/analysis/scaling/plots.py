"""Plots of scaling studies in the form of the papers: log-log panels with bands.

One panel per group and one line per size or amount of data. Lines differ in marker,
dash and lightness, so they survive black-and-white print; cells that are limited by
their steps are drawn hollow.
"""

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from chemscale_jax.analysis import plots
from chemscale_jax.analysis.scaling import limits
from chemscale_jax.analysis.scaling.analysis import Analysis, LineLaw, band
from chemscale_jax.analysis.scaling.data import Cells

_MARKERS = "os^Dv<>PXp"
_DASHES = ("-", "--", "-.", ":")
_POINTS = 25
# Letters of limits in the map of residuals.
_LETTERS = {
    limits.DATA: "d",
    limits.CAPACITY: "c",
    limits.STEP: "s",
    limits.NONE: "-",
    "": "",
}


def power_laws(
    analyses: Sequence[Analysis], along: str, labels: Mapping[str, str], unit: str
) -> Figure:
    """Losses along data or size with power laws in their windows.

    Args:
        analyses: of the groups, a panel each.
        along: "D" or "N".
        labels: of the axes, by letter.
        unit: of the loss.
    """
    figure, panels = _panels(len(analyses))
    for axes, analysis in zip(panels, analyses, strict=True):
        lines = analysis.by_data if along == "D" else analysis.by_size
        for index, one in enumerate(lines):
            _power_law(axes, one, _look(index, len(lines)), labels)
        letter = lines[0].line.along if lines else along
        _finish(axes, labels[letter], analysis.cells.group, len(lines) > 0)
    panels[0].set_ylabel(unit)
    return figure


def exponents_of_groups(
    analyses: Sequence[Analysis], size: float | None, labels: Mapping[str, str]
) -> Figure:
    """All groups in one panel at one size, as Fig. A.5 of Frey et al. 2023.

    Args:
        analyses: of the groups.
        size: the wanted size; that which is nearest is taken in each group, the
            smallest if None.
        labels: of the axes, by letter.
    """
    figure = Figure(figsize=(5.4, 4.2), layout="constrained")
    axes = figure.subplots()
    for index, analysis in enumerate(analyses):
        one = nearest(analysis.by_data, size)
        if one is None:
            continue
        law = one.law
        low, high = law.interval
        known = f" ({low:.2f} to {high:.2f})" if low is not None else ""
        name = analysis.cells.group or "runs"
        _power_law(
            axes,
            one,
            _look(index, len(analyses)),
            labels,
            f"{name}: β = {law.beta:.2f}{known}",
        )
    lines = [line for analysis in analyses for line in analysis.by_data[:1]]
    _finish(axes, labels[lines[0].line.along if lines else "D"], "", True)
    axes.set_ylabel(labels["loss"])
    return figure


def nearest(lines: Sequence[LineLaw], size: float | None) -> LineLaw | None:
    """The line whose size is nearest; the smallest where none is wanted."""
    if not lines:
        return None
    if size is None:
        return lines[0]
    return min(lines, key=lambda one: abs(np.log(one.at / size)))


def law_panels(
    analyses: Sequence[Analysis], along: str, labels: Mapping[str, str]
) -> Figure:
    """Losses along data or size under the law that was fitted to all cells."""
    shown = [a for a in analyses if a.law is not None]
    figure, panels = _panels(len(shown))
    for axes, analysis in zip(panels, shown, strict=True):
        lines = analysis.by_data if along == "D" else analysis.by_size
        law = analysis.law
        for index, one in enumerate(lines):
            look = _look(index, len(lines))
            cells = one.line.cells
            letter = one.line.along
            x = cells.column(letter)
            _points(axes, x, cells, look, _name(one, labels))
            if law is None or letter not in _letters(analysis):
                continue
            at = np.geomspace(x.min(), x.max(), _POINTS)
            loss, low, high = band(law.fit, cells, letter, at)
            axes.plot(at, loss, color=look["color"], linestyle=look["linestyle"])
            axes.fill_between(at, low, high, color=look["color"], alpha=0.15, lw=0)
        title = analysis.cells.group
        if law is not None:
            title = f"{title}  {law.fit.form.equation}".strip()
        letter = lines[0].line.along if lines else along
        _finish(axes, labels[letter], title, len(lines) > 0)
    panels[0].set_ylabel(labels["loss"])
    return figure


def by_compute(analyses: Sequence[Analysis], labels: Mapping[str, str]) -> Figure:
    """Losses against compute, a line per size, and the best split of each budget."""
    figure, panels = _panels(len(analyses))
    for axes, analysis in zip(panels, analyses, strict=True):
        for index, one in enumerate(analysis.by_data):
            look = _look(index, len(analysis.by_data))
            cells = one.line.cells
            x = cells.column("C")
            order = np.argsort(x)
            axes.plot(
                x[order], cells.losses[order], color=look["color"], ls=look["linestyle"]
            )
            _points(axes, x, cells, look, _name(one, labels))
        found = analysis.allocation
        if found is not None and found.optima:
            at = [one.compute for one in found.optima]
            best = [one.loss for one in found.optima]
            ends = [one.loss_interval for one in found.optima]
            axes.plot(at, best, "k:", marker="*", label="best split under the law")
            if all(end.closed for end in ends):
                axes.fill_between(
                    at,
                    [end.ends[0] for end in ends],
                    [end.ends[1] for end in ends],
                    color="black",
                    alpha=0.12,
                    lw=0,
                )
        _finish(axes, labels["C"], analysis.cells.group, True)
    panels[0].set_ylabel(labels["loss"])
    return figure


def residual_maps(analyses: Sequence[Analysis], labels: Mapping[str, str]) -> Figure:
    """Residuals of the law over the grid; letters say what limits a cell."""
    shown = [a for a in analyses if a.law is not None]
    figure, panels = _panels(len(shown))
    image = None
    most = max(float(np.abs(a.law.fit.residuals).max()) for a in shown if a.law)
    for axes, analysis in zip(panels, shown, strict=True):
        law = analysis.law
        if law is None:
            continue
        n, d = law.used.column("N"), law.used.column("D")
        image = axes.scatter(
            d,
            n,
            c=100 * law.fit.residuals,
            s=260,
            marker="s",
            cmap="RdBu_r",
            vmin=-100 * most,
            vmax=100 * most,
            edgecolors="black",
            linewidths=0.6,
        )
        for x, y, cell, off in zip(
            d, n, law.used.cells, law.fit.residuals, strict=True
        ):
            text = f"{100 * off:+.1f}\n{_LETTERS[cell.limit]}".strip()
            axes.text(x, y, text, ha="center", va="center", fontsize=6)
        axes.set(xscale="log", yscale="log")
        axes.margins(0.12)
        axes.set_xlabel(labels["D"])
        axes.set_title(analysis.cells.group, fontsize=10)
    panels[0].set_ylabel(labels["N"])
    if image is not None:
        figure.colorbar(image, ax=list(panels), label="law less loss (%)", aspect=30)
    return figure


def _letters(analysis: Analysis) -> set[str]:
    law = analysis.law
    letters = {x for v in law.fit.form.variables for x in v} if law else set()
    return letters | ({"N"} if "M" in letters else set())


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    columns = min(max(count, 1), 3)
    rows = -(-max(count, 1) // columns)
    figure = Figure(figsize=(4.6 * columns + 0.6, 4.0 * rows), layout="constrained")
    panels = list(np.ravel(figure.subplots(rows, columns, squeeze=False)))
    for axes in panels[max(count, 1) :]:
        axes.remove()
    return figure, panels[: max(count, 1)]


def _look(index: int, of: int) -> dict[str, str]:
    """Dark to light along lines, with markers and dashes that differ."""
    shade = colormaps["viridis"](0.85 * index / max(of - 1, 1))
    return {
        "color": to_hex(shade),
        "marker": _MARKERS[index % len(_MARKERS)],
        "linestyle": _DASHES[index % len(_DASHES)],
    }


def _power_law(
    axes: Axes,
    one: LineLaw,
    look: Mapping[str, str],
    labels: Mapping[str, str],
    name: str = "",
) -> None:
    cells, law = one.line.cells, one.law
    _points(axes, cells.column(one.line.along), cells, look, name or _name(one, labels))
    at = np.geomspace(law.low, law.high, _POINTS)
    axes.plot(at, law.loss(at), color=look["color"], linestyle=look["linestyle"])
    low, high = law.band(at)
    # A line through three points has a band that hides the others.
    if law.freedom > 1:
        axes.fill_between(at, low, high, color=look["color"], alpha=0.15, lw=0)


def _points(
    axes: Axes, x: np.ndarray, cells: Cells, look: Mapping[str, str], name: str
) -> None:
    """Means over seeds, with single seeds as dots; hollow where limited by steps."""
    starved = np.array([cell.limit == limits.STEP for cell in cells.cells])
    for chosen, face in ((~starved, look["color"]), (starved, "white")):
        axes.scatter(
            x[chosen],
            cells.losses[chosen],
            marker=look["marker"],
            s=34,
            facecolors=face,
            edgecolors=look["color"],
            zorder=3,
        )
    for at, cell in zip(x, cells.cells, strict=True):
        if len(cell.losses) > 1:
            axes.plot([at] * len(cell.losses), cell.losses, "k.", ms=2.5, zorder=4)
    axes.plot(
        [],
        [],
        color=look["color"],
        marker=look["marker"],
        linestyle=look["linestyle"],
        label=name,
    )


def _name(one: LineLaw, labels: Mapping[str, str]) -> str:
    return ", ".join(f"{labels[x]} {_number(value)}" for x, value in one.line.at)


def _number(value: float) -> str:
    """Three digits: 77,600 or 1.2e+07."""
    return f"{value:,.0f}" if 1 <= value < 1e6 else f"{value:.3g}"


def _finish(axes: Axes, label: str, title: str, legend: bool) -> None:
    axes.set(xscale="log", yscale="log")
    axes.set_xlabel(label)
    axes.set_title(title, fontsize=10)
    low, high = axes.get_ylim()
    # A decade has its ticks by itself; a shorter range needs more of them.
    if high / low < 30:
        subs = (1, 2, 5) if high / low > 3 else tuple(np.arange(1, 10, 0.5))
        axes.yaxis.set_major_locator(LogLocator(subs=subs))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    if legend and axes.get_legend_handles_labels()[1]:
        axes.legend(frameon=False, fontsize=8)


SUFFIXES = (".png", ".svg")


def save(figure: Figure, stem: pathlib.Path) -> None:
    """Writes a figure as PNG and as SVG."""
    for suffix in SUFFIXES:
        # A file that is written again is the same file.
        metadata = {"Date": None} if suffix == ".svg" else None
        figure.savefig(stem.with_suffix(suffix), dpi=plots.DPI, metadata=metadata)
