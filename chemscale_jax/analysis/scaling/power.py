"""The power law of Frey et al. 2023, ``L = alpha R^-beta``, with its window by a rule.

The paper draws a line through those points that look straight. Here the window is the
longest run of neighbouring points that is straight in log-log coordinates: a parabola
fits no better than a line (t test at 5 %), and neither end lies off the line through
the others (1 %); of equally long ones that with the steepest line, which is
where more is worth most. Fits are least squares of the
log loss, with Student's intervals of n - 2 degrees of freedom.

A law without a floor describes a bent curve only locally, so slopes between neighbours
are given as well, and the region in which the loss falls fastest.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from chemscale_jax.analysis.bootstrap import LEVEL
from chemscale_jax.analysis.scaling.data import Cell, Cells
from chemscale_jax.analysis.scaling.intervals import Interval

_FEWEST = 3
_CURVED = 0.05
_OFF_LINE = 0.01
# Below this spread of the log loss about a line, points lie on it.
_EXACT = 1e-9


class PowerLaw(NamedTuple):
    """A line through log losses: ``L = alpha x^-beta``."""

    alpha: float
    beta: float
    interval: Interval  # 95 % of beta; open for fewer than three points
    error: float  # standard error of beta
    freedom: int
    r_squared: float
    low: float  # the window, in x
    high: float
    points: int  # in the window
    of: int  # points there were
    curved: float  # p-value of a quadratic term over all points; NaN for fewer than 4
    mean_log_x: float  # of the window
    noise: float  # standard deviation of log losses about the line

    def loss(self, x: np.ndarray) -> np.ndarray:
        """The law at other x."""
        return self.alpha * x**-self.beta

    def band(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """95 % interval of the mean loss at other x."""
        if self.freedom < 1:
            return np.full(len(x), np.nan), np.full(len(x), np.nan)
        t = stats.t.ppf(0.5 + LEVEL / 2, self.freedom)
        off = np.log(x) - self.mean_log_x
        width = t * np.sqrt(self.noise**2 / self.points + (self.error * off) ** 2)
        return self.loss(x) * np.exp(-width), self.loss(x) * np.exp(width)


class Slope(NamedTuple):
    """``-d log L / d log x`` between neighbours."""

    low: float  # x
    high: float
    slope: float
    interval: Interval  # 95 % over seeds; open where there are too few


def fit_power(x: np.ndarray, losses: np.ndarray) -> PowerLaw:
    """A line through all points.

    Args:
        x: (n,) positive, of at least two different values.
        losses: (n,) positive.
    """
    return _line(np.log(x), np.log(losses), len(x), _curvature(x, losses))


def fit_window(x: np.ndarray, losses: np.ndarray) -> PowerLaw:
    """A line through the window that the rule of this file chooses.

    Args:
        x: (n,) positive and different, ascending.
        losses: (n,) positive.
    """
    n, curved = len(x), _curvature(x, losses)
    logs, y = np.log(x), np.log(losses)
    for length in range(n, _FEWEST, -1):
        windows = [slice(first, first + length) for first in range(n - length + 1)]
        straight = [w for w in windows if _straight(x[w], losses[w])]
        if straight:
            lines = [_line(logs[w], y[w], n, curved) for w in straight]
            return max(lines, key=lambda line: line.beta)
    length = min(n, _FEWEST)
    lines = [
        _line(logs[i : i + length], y[i : i + length], n, curved)
        for i in range(n - length + 1)
    ]
    return max(lines, key=lambda line: line.beta)


def local_slopes(
    x: np.ndarray, seeds: Sequence[np.ndarray], noise: tuple[float, int]
) -> list[Slope]:
    """Slopes between neighbours.

    Args:
        x: (n,) ascending.
        seeds: log losses of the seeds of each point.
        noise: standard deviation over seeds, pooled, and its degrees of freedom.
    """
    spread, freedom = noise
    found = []
    for i, j in itertools.pairwise(range(len(x))):
        run = np.log(x[j] / x[i])
        slope = float((seeds[i].mean() - seeds[j].mean()) / run)
        interval = Interval(None, None)
        if freedom:
            error = spread * np.sqrt(1 / len(seeds[i]) + 1 / len(seeds[j])) / run
            half = float(stats.t.ppf(0.5 + LEVEL / 2, freedom) * error)
            interval = Interval(slope - half, slope + half)
        found.append(Slope(float(x[i]), float(x[j]), slope, interval))
    return found


def steepest(slopes: Sequence[Slope]) -> Slope | None:
    """Where more is worth most; None without slopes."""
    return max(slopes, key=lambda one: one.slope, default=None)


class Line(NamedTuple):
    """The points of a grid along one variable, all else equal."""

    along: str  # letter of the variable
    at: tuple[tuple[str, float], ...]  # letters and values of what is equal
    cells: Cells  # ascending


def lines_of(cells: Cells, along: str, equal: str) -> list[Line]:
    """Lines of a grid along one variable, for each value of another.

    Args:
        cells: of one group.
        along: letter of the variable that changes.
        equal: letter of the one that does not; without values all cells are one line.
    """
    if not cells.has(along):
        return []
    fixed = cells.column(equal) if cells.has(equal) else np.ones(len(cells))
    keys = np.round(np.log(fixed), 6)
    lines = []
    for key in np.unique(keys):
        part = _once(cells.where(keys == key), along)
        at = ((equal, float(part.column(equal)[0])),) if cells.has(equal) else ()
        if len(part) > 1:
            lines.append(Line(along, at, part))
    return lines


def _once(cells: Cells, along: str) -> Cells:
    """Ascending; of cells at the same place, as equal sizes can be, the best."""
    best: dict[float, Cell] = {}
    for cell in cells.cells:
        key = float(np.round(np.log(cell.values[along]), 9))
        if key not in best or cell.loss < best[key].loss:
            best[key] = cell
    return dataclasses.replace(cells, cells=tuple(best[key] for key in sorted(best)))


class Difference(NamedTuple):
    """Of the exponents of two groups: second less first."""

    first: str
    second: str
    value: float
    interval: Interval
    p: float  # two-sided

    @property
    def verdict(self) -> str:
        """What can be said about it."""
        if not self.interval.closed:
            return "open"
        if self.interval.holds(0.0):
            return "open"
        return "larger" if self.value > 0 else "smaller"


def difference(first: str, second: str, laws: Mapping[str, PowerLaw]) -> Difference:
    """The difference of two exponents, by Welch's t (Satterthwaite's freedom)."""
    a, b = laws[first], laws[second]
    value = b.beta - a.beta
    if min(a.freedom, b.freedom) < 1:
        return Difference(first, second, value, Interval(None, None), float("nan"))
    error = max(np.hypot(a.error, b.error), 1e-300)
    parts = a.error**4 / a.freedom + b.error**4 / b.freedom
    freedom = error**4 / parts if parts else float(a.freedom + b.freedom)
    half = float(stats.t.ppf(0.5 + LEVEL / 2, freedom) * error)
    p = float(2 * stats.t.sf(abs(value) / error, freedom))
    return Difference(first, second, value, Interval(value - half, value + half), p)


def law_difference(
    first: str,
    second: str,
    values: Mapping[str, float],
    intervals: Mapping[str, Interval],
) -> Difference:
    """The difference of two exponents with skew intervals (Zou and Donner 2008)."""
    a, b = values[first], values[second]
    value, ends = b - a, Interval(None, None)
    if intervals[first].closed and intervals[second].closed:
        (low_a, high_a), (low_b, high_b) = intervals[first].ends, intervals[second].ends
        down, up = np.hypot(b - low_b, high_a - a), np.hypot(high_b - b, a - low_a)
        ends = Interval(float(value - down), float(value + up))
    return Difference(first, second, value, ends, float("nan"))


def _line(logs: np.ndarray, y: np.ndarray, of: int, curved: float) -> PowerLaw:
    n, mean = len(logs), logs.mean()
    off = logs - mean
    slope = float((off * y).sum() / (off**2).sum())
    residuals = y - y.mean() - slope * off
    squares, freedom = float((residuals**2).sum()), n - 2
    around = float(((y - y.mean()) ** 2).sum())
    noise = np.sqrt(squares / freedom) if freedom else float("nan")
    error = float(noise / np.sqrt((off**2).sum()))
    interval = Interval(None, None)
    if freedom:
        half = float(stats.t.ppf(0.5 + LEVEL / 2, freedom) * error)
        interval = Interval(-slope - half, -slope + half)
    return PowerLaw(
        alpha=float(np.exp(y.mean() - slope * mean)),
        beta=-slope,
        interval=interval,
        error=error,
        freedom=freedom,
        r_squared=1 - squares / around if around else float("nan"),
        low=float(np.exp(logs.min())),
        high=float(np.exp(logs.max())),
        points=n,
        of=of,
        curved=curved,
        mean_log_x=float(mean),
        noise=float(noise),
    )


def _straight(x: np.ndarray, losses: np.ndarray) -> bool:
    """Whether at least four points are on a line, by the rule of this file."""
    ends = [_off_line(np.log(x), np.log(losses), end) for end in (0, len(x) - 1)]
    return _curvature(x, losses) > _CURVED and min(ends) > _OFF_LINE


def _off_line(logs: np.ndarray, y: np.ndarray, place: int) -> float:
    """The p-value of a point's distance from the line through the others."""
    others = np.arange(len(y)) != place
    line = _line(logs[others], y[others], len(y), float("nan"))
    off = logs[place] - line.mean_log_x
    expected = np.log(line.alpha) - line.beta * logs[place]
    noise = max(line.noise, _EXACT)
    squares = ((logs[others] - line.mean_log_x) ** 2).sum()
    error = noise * np.sqrt(1 + 1 / others.sum() + off**2 / squares)
    return float(2 * stats.t.sf(abs(y[place] - expected) / error, line.freedom))


def _curvature(x: np.ndarray, losses: np.ndarray) -> float:
    """The p-value of a quadratic term in log-log coordinates; NaN below 4 points."""
    n = len(x)
    if n < 4:
        return float("nan")
    off = np.log(x) - np.log(x).mean()
    design = np.stack([np.ones(n), off, off**2], axis=1)
    y = np.log(losses)
    coefficients = np.linalg.lstsq(design, y, rcond=None)[0]
    squares = float(((y - design @ coefficients) ** 2).sum())
    variance = max(squares / (n - 3), _EXACT**2)
    error = np.sqrt(variance * np.linalg.inv(design.T @ design)[2, 2])
    return float(2 * stats.t.sf(abs(coefficients[2]) / error, n - 3))
