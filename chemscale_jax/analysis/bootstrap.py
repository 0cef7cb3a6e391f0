"""Intervals of what was measured on a sample of molecules.

Two schemes, both of percentiles and both seeded:

- means over molecules: the bootstrap (Efron 1979), which draws as many molecules as
  there are, with replacement;
- everything that depends on the size of the sample or on pairs of its molecules
  (uniqueness, diversity, cosines of counts, distances of distributions): random halves
  drawn without replacement, the m-out-of-n bootstrap of Politis and Romano 1994. With
  replacement, molecules would be drawn twice and count as duplicates of themselves.
  Over halves of a sample, a mean varies as it does over whole samples of the
  population; what is larger or smaller on any half is taken off by centring.
"""

from collections.abc import Callable

import numpy as np

LEVEL = 0.95


def mean_interval(
    values: np.ndarray,
    seed: int,
    replicates: int,
    counts: np.ndarray | None = None,
) -> tuple[float, float] | None:
    """The bootstrap interval of a mean, by percentiles.

    Args:
        values: (n,) one for each molecule.
        seed: of the draws.
        replicates: number of draws.
        counts: (n,) of what the values are sums over, where the mean is over these.

    Returns:
        Its ends, or None for fewer than two values.
    """
    n = len(values)
    if n < 2:
        return None
    rng = np.random.default_rng(seed)
    values = np.asarray(values, np.float64)
    counts = np.ones(n) if counts is None else counts
    means = []
    for _ in range(replicates):
        drawn = rng.integers(n, size=n)
        means.append(values[drawn].sum() / counts[drawn].sum())
    return _percentiles(np.array(means))


def half_samples(n: int, seed: int, replicates: int) -> np.ndarray:
    """(replicates, n) bool: the places of random halves, n // 2 in each."""
    rng = np.random.default_rng(seed)
    halves = np.zeros((replicates, n), bool)
    for row in halves:
        row[rng.permutation(n)[: n // 2]] = True
    return halves


def half_sample_interval(
    value: float, replicates: np.ndarray, n: int, lowest: float, highest: float
) -> tuple[float, float] | None:
    """The interval of a statistic from its values on random halves, by percentiles.

    Args:
        value: on all n molecules.
        replicates: (r,) on each half.
        n: number of molecules.
        lowest: no end is below.
        highest: no end is above.

    Returns:
        Its ends, or None for fewer than four molecules or a value that is not finite.
    """
    if n < 4 or not np.isfinite(value):
        return None
    found = replicates[np.isfinite(replicates)]
    if not len(found):
        return None
    half = n // 2
    # Without replacement, halves of n vary by (n - half) / (n half), samples by 1 / n.
    spread = np.sqrt(half / (n - half))
    low, high = _percentiles(value + spread * (found - found.mean()))
    return max(low, lowest), min(high, highest)


def over_halves(
    statistic: Callable[[np.ndarray], float],
    n: int,
    *,
    seed: int,
    replicates: int,
    lowest: float = 0.0,
    highest: float = 1.0,
) -> tuple[float, tuple[float, float] | None]:
    """A statistic of n molecules and its interval.

    Args:
        statistic: of the molecules at some places, ascending.
        n: number of molecules.
        seed: of the halves.
        replicates: number of halves.
        lowest: that the statistic can be.
        highest: that the statistic can be.
    """
    value = statistic(np.arange(n))
    if n < 4 or not np.isfinite(value):
        return value, None
    halves = half_samples(n, seed, replicates)
    found = np.array([statistic(np.flatnonzero(half)) for half in halves])
    return value, half_sample_interval(value, found, n, lowest, highest)


def percentile_interval(draws: np.ndarray) -> tuple[float, float] | None:
    """The interval of a statistic from its values on draws with replacement.

    Args:
        draws: (r,); those where it is not defined (NaN) are left out.

    Returns:
        Its ends, or None without draws.
    """
    found = draws[np.isfinite(draws)]
    return _percentiles(found) if len(found) else None


def _percentiles(values: np.ndarray) -> tuple[float, float]:
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)
