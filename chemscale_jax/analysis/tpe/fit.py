"""Eq. 8 of Frey et al. 2023, ``L = m TSE + b``, and how far it can be trusted.

The line is fitted to runs that are finished. In-sample R^2, which the paper gives, says
how well a line goes through the points it was drawn through; leave-one-out R^2 and
prediction intervals say what to expect of a run that is not finished.
"""

import dataclasses
import math

import numpy as np
from scipy import stats

LEVEL = 0.95  # of all intervals


@dataclasses.dataclass(frozen=True)
class Line:
    """A least-squares line through n points, with normal errors of equal size."""

    slope: float  # m
    intercept: float  # b
    n: int
    mean: float  # of the points' x
    spread: float  # sum of squares of x - mean
    error: float  # standard deviation of the points about the line; NaN for n = 2

    def at(self, x: np.ndarray) -> np.ndarray:
        """The line."""
        return self.slope * np.asarray(x) + self.intercept

    def interval(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Between what a new point at x is expected with probability `LEVEL`.

        ``t s sqrt(1 + 1/n + (x - mean)^2 / spread)`` about the line, t of n - 2 degrees
        of freedom. Infinite for two points, which a line always meets.
        """
        x = np.asarray(x, float)
        if self.n < 3:
            return np.full_like(x, -math.inf), np.full_like(x, math.inf)
        t = stats.t.ppf((1 + LEVEL) / 2, self.n - 2)
        lever = 1 + 1 / self.n + (x - self.mean) ** 2 / self.spread
        half = t * self.error * np.sqrt(lever)
        return self.at(x) - half, self.at(x) + half


def fit_line(x: np.ndarray, y: np.ndarray) -> Line | None:
    """The least-squares line; None for fewer than two different x.

    Args:
        x: (n,) finite.
        y: (n,) finite.
    """
    n = len(x)
    if n < 2 or np.ptp(x) == 0:
        return None
    mean = float(np.mean(x))
    spread = float(np.sum((x - mean) ** 2))
    slope = float(np.sum((x - mean) * y) / spread)
    intercept = float(np.mean(y)) - slope * mean
    residual = y - (slope * x + intercept)
    error = math.sqrt(float(residual @ residual) / (n - 2)) if n > 2 else math.nan
    return Line(slope, intercept, n, mean, spread, error)


def r_squared(x: np.ndarray, y: np.ndarray) -> float:
    """Of the line through all points: 1 - residual / total sum of squares."""
    line = fit_line(x, y)
    if line is None or np.ptp(y) == 0:
        return math.nan
    return 1 - float(np.sum((y - line.at(x)) ** 2) / np.sum((y - np.mean(y)) ** 2))


def r_squared_left_out(x: np.ndarray, y: np.ndarray) -> float:
    """Each point predicted by the line through the others (PRESS).

    The total sum of squares is about the mean of all points, as in `r_squared`; below
    zero, the mean would have predicted better than the lines.
    """
    predicted = left_out(x, y)
    if predicted is None or np.ptp(y) == 0:
        return math.nan
    error = np.sum((y - predicted) ** 2)
    return 1 - float(error / np.sum((y - np.mean(y)) ** 2))


def left_out(x: np.ndarray, y: np.ndarray) -> np.ndarray | None:
    """(n,) each point predicted by the line through the others; None without lines."""
    line = fit_line(x, y)
    if line is None or line.n < 3:
        return None
    lever = 1 / line.n + (x - line.mean) ** 2 / line.spread
    if lever.max() > 1 - 1e-12:  # the others all have the same x
        return None
    return y - (y - line.at(x)) / (1 - lever)


def left_out_covered(x: np.ndarray, y: np.ndarray) -> int | None:
    """How many points lie in the prediction intervals that the others give them."""
    covered = 0
    for i in range(len(x)):
        rest = np.arange(len(x)) != i
        line = fit_line(x[rest], y[rest])
        if line is None or line.n < 3:
            return None
        low, high = line.interval(x[i])
        covered += bool(low <= y[i] <= high)
    return covered if len(x) else None
