"""Which measure of size explains the loss: capacity, parameters, or compute?

Frey et al. 2023 order force fields by capacity, depth times width (Eq. 6). On a grid
without crossings all measures rank the models alike, and none can be preferred: at
equal data, two measures differ only where one rises and the other falls, as from 8
layers of width 16 to 2 of width 64. This says whether the grid has crossings, and if so
which measure leaves the smaller residuals about a smooth law of size, at every amount
of data.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from chemscale_jax.analysis.bootstrap import percentile_interval
from chemscale_jax.analysis.rank_correlation import spearman, spearman_interval
from chemscale_jax.analysis.scaling.data import Cells
from chemscale_jax.analysis.scaling.intervals import Interval

MEASURES = ("capacity", "parameters", "parameters_nonembedding", "flops")
_SECONDS = "wall_s"
_REPLICATES = 1000
_FEWEST = 4


class RankCorrelation(NamedTuple):
    """Spearman's rho of the loss with a measure, at one amount of data."""

    data: float
    measure: str
    rho: float
    interval: Interval  # 95 % of the bootstrap over cells
    cells: int


class Contest(NamedTuple):
    """Two measures of size."""

    first: str
    second: str
    crossings: int  # pairs of cells that they order differently
    first_error: float  # leave-one-out error of log losses about a parabola in log size
    second_error: float
    verdict: str


def rank_correlations(cells: Cells, seed: int = 0) -> list[RankCorrelation]:
    """Of the loss with every measure of size and with time, for each amount of data."""
    found = []
    for part in by_data(cells):
        data = float(part.column("D")[0]) if part.has("D") else float("nan")
        for measure in (*MEASURES, _SECONDS):
            if part.varies(measure) < 3:
                continue
            x, y = part.column(measure), part.losses
            rho = spearman(x, y)
            if np.isnan(rho):
                continue
            interval = _rank_interval(x, y, seed)
            found.append(RankCorrelation(data, measure, rho, interval, len(x)))
    return found


def _rank_interval(x: np.ndarray, y: np.ndarray, seed: int) -> Interval:
    """By the bootstrap over cells; open for fewer than five."""
    if len(x) <= _FEWEST:
        return Interval(None, None)
    return Interval(*(spearman_interval(x, y, seed) or (None, None)))


def contests(cells: Cells, measures: Sequence[str] = MEASURES) -> list[Contest]:
    """Every pair of measures that the cells have."""
    there = [measure for measure in measures if cells.varies(measure) >= 3]
    return [_contest(cells, a, b) for a, b in itertools.combinations(there, 2)]


def _contest(cells: Cells, first: str, second: str) -> Contest:
    parts = by_data(cells)
    crossings = sum(
        _crossings(part.column(first), part.column(second)) for part in parts
    )
    parts = [part for part in parts if len(part) > _FEWEST]
    errors = [
        np.concatenate([_left_out(part.column(name), part) for part in parts])
        if parts
        else np.zeros(0)
        for name in (first, second)
    ]
    scale = [float(np.sqrt((e**2).mean())) if len(e) else np.nan for e in errors]
    if not crossings:
        verdict = "cannot be told apart: both order all models alike"
    elif not len(errors[0]):
        verdict = f"too few models per amount of data (at least {_FEWEST + 1})"
    else:
        verdict = _compare(errors[0], errors[1], first, second)
    return Contest(first, second, crossings, scale[0], scale[1], verdict)


def _compare(a: np.ndarray, b: np.ndarray, first: str, second: str) -> str:
    """Which leaves smaller squares, by a bootstrap over cells."""
    off = a**2 - b**2
    rng = np.random.default_rng(0)
    means = off[rng.integers(len(off), size=(_REPLICATES, len(off)))].mean(axis=1)
    low, high = percentile_interval(means) or (0.0, 0.0)
    if low > 0:
        return f"{second} explains the loss better"
    if high < 0:
        return f"{first} explains the loss better"
    return "open: the interval of the difference of squares holds 0"


def by_data(cells: Cells) -> list[Cells]:
    """Cells with equal amounts of data."""
    if not cells.has("D"):
        return [cells]
    keys = np.round(np.log(cells.column("D")), 6)
    return [cells.where(keys == key) for key in np.unique(keys)]


def _crossings(x: np.ndarray, y: np.ndarray) -> int:
    i, j = np.triu_indices(len(x), 1)
    return int(((x[i] - x[j]) * (y[i] - y[j]) < 0).sum())


def _left_out(x: np.ndarray, cells: Cells) -> np.ndarray:
    """(n,) leave-one-out residuals of log losses about a parabola in log x."""
    z = np.log(x) - np.log(x).mean()
    degree = 2 if len(np.unique(np.round(z, 9))) > 3 else 1
    design = np.stack([z**k for k in range(degree + 1)], axis=1)
    hat = design @ np.linalg.pinv(design)
    y = np.log(cells.losses)
    return (y - hat @ y) / np.maximum(1 - np.diag(hat), 1e-6)
