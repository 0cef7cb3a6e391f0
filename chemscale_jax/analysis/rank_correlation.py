"""Spearman's rho and its interval."""

import math

import numpy as np
from scipy import stats

from chemscale_jax.analysis import bootstrap


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's rho; ties share their mean rank.

    NaN for fewer than two points, and where one side is all ties. Infinite values are
    last, and tied with one another.
    """
    if len(x) < 2:
        return math.nan
    return float(_rhos(np.asarray(x)[None], np.asarray(y)[None])[0])


def spearman_interval(
    x: np.ndarray, y: np.ndarray, seed: int = 0, replicates: int = 2000
) -> tuple[float, float] | None:
    """The bootstrap interval of rho over points, by percentiles.

    Draws in which rho is not defined are left out; None for fewer than three points or
    where it is defined in none. Few points make it too narrow: a draw repeats some of
    them, and perfectly ordered points are perfectly ordered in every draw.
    """
    if len(x) < 3:
        return None
    drawn = np.random.default_rng(seed).integers(len(x), size=(replicates, len(x)))
    return bootstrap.percentile_interval(
        _rhos(np.asarray(x)[drawn], np.asarray(y)[drawn])
    )


def _rhos(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(r,) rho of each of r rows of points."""
    x, y = stats.rankdata(x, axis=1), stats.rankdata(y, axis=1)
    x, y = x - x.mean(1, keepdims=True), y - y.mean(1, keepdims=True)
    scale = np.sqrt((x**2).sum(1) * (y**2).sum(1))
    defined = scale > 0
    return np.where(defined, (x * y).sum(1) / np.where(defined, scale, 1.0), np.nan)
