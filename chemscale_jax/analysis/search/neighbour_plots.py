"""Fig. 7e: densities of properties near a query, and of differences over many."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import gaussian_kde

from chemscale_jax.analysis import plots
from chemscale_jax.analysis.search.neighbour_properties import (
    FINGERPRINT,
    RANDOM,
    Deltas,
)
from chemscale_jax.chem.descriptors import PROPERTIES

_UNITS = {"MW": "MW, g/mol"}
_GRID = 256


def density_figure(smiles: str, deltas: Deltas) -> Figure:
    """Fig. 7e: properties of the nearest neighbours of one query, and of the corpus.

    Args:
        smiles: of the query.
        deltas: of one query.
    """
    figure = Figure(figsize=(9.0, 6.4), layout="constrained")
    for p, (axes, prop) in enumerate(
        zip(figure.subplots(2, 2).ravel(), PROPERTIES, strict=True)
    ):
        curves = {name: near[0, :, p] for name, near in deltas.near.items()}
        curves.pop(RANDOM)
        _densities(axes, curves | {"corpus": deltas.pool[:, p]})
        own = deltas.own[0, p]
        if np.isfinite(own):
            axes.axvline(float(own), color="black", linewidth=1.0, label="query")
        axes.set_xlabel(_UNITS.get(prop, prop))
    _finish(figure)
    figure.suptitle(f"nearest neighbours of {smiles}", fontsize=9, wrap=True)
    return figure


def difference_figure(deltas: Deltas) -> Figure:
    """Densities over queries of the mean over neighbours less the query's property."""
    figure = Figure(figsize=(9.0, 6.4), layout="constrained")
    for p, (axes, prop) in enumerate(
        zip(figure.subplots(2, 2).ravel(), PROPERTIES, strict=True)
    ):
        _densities(axes, {name: x[:, p, 0] for name, x in deltas.signed.items()})
        axes.axvline(0.0, color="black", linewidth=1.0)
        axes.set_xlabel(f"mean of neighbours less query, {_UNITS.get(prop, prop)}")
    _finish(figure)
    return figure


def _densities(axes: Axes, curves: dict[str, np.ndarray]) -> None:
    """Curves by name; reference curves are grey, the others differ in line too."""
    known = {name: x[np.isfinite(x)] for name, x in curves.items()}
    every = np.concatenate([*known.values(), np.zeros(0)])
    if not len(every):
        return
    # A few far molecules would squeeze the rest.
    low, high = np.percentile(every, [0.5, 99.5])
    margin = 0.1 * (high - low) or 1.0
    grid = np.linspace(low - margin, high + margin, _GRID)
    index = 0
    for name, values in known.items():
        grey = name in (RANDOM, "corpus")
        style = plots.style_of(0 if name == FINGERPRINT else index + 1)
        index += not grey and name != FINGERPRINT
        if len(values) < 2 or np.ptp(values) == 0:
            continue  # a single value has no density
        height = gaussian_kde(values)(grid)
        if grey:
            axes.fill_between(grid, height, color="#cccccc", label=name, linewidth=0)
        else:
            axes.plot(grid, height, color=style.color, linestyle=style.line, label=name)
    axes.set_ylim(bottom=0)


def _finish(figure: Figure) -> None:
    for axes in figure.axes:
        axes.set_ylabel("density")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(visible=True, color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
    figure.axes[0].legend(frameon=False, fontsize=8)
