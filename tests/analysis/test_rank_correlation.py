import math

import numpy as np
import pytest

from chemscale_jax.analysis.rank_correlation import spearman, spearman_interval


def test_rank_correlation_with_ties_and_without_spread():
    x = np.array([1.0, 2.0, 2.0, 4.0])
    # Ranks 1, 2.5, 2.5, 4 against 1, 3, 2, 4.
    expected = np.corrcoef([1, 2.5, 2.5, 4], [1, 3, 2, 4])[0, 1]
    assert spearman(x, np.array([0.0, 5.0, 3.0, 9.0])) == pytest.approx(expected)
    assert spearman(x, -(x**3)) == pytest.approx(-1.0)
    assert math.isnan(spearman(x, np.ones(4)))
    assert math.isnan(spearman(x[:1], x[:1]))


def test_infinities_are_last_and_tied():
    x = np.array([1.0, 2.0, 3.0, math.inf, math.inf])
    assert spearman(x, np.array([1.0, 2, 3, math.inf, math.inf])) == 1.0
    assert spearman(x, np.array([5.0, 4, 3, 2, 1])) == pytest.approx(-0.9747, 1e-4)
    assert math.isnan(spearman(np.ones(3), np.arange(3.0)))
    low, high = spearman_interval(np.arange(9.0), np.arange(9.0)) or (0, 0)
    assert low == high == 1.0
    noisy = np.array([2.0, 1, 4, 3, 6, 5, 8, 7, 9])
    low, high = spearman_interval(np.arange(9.0), noisy) or (0, 0)
    assert low < spearman(np.arange(9.0), noisy) < high <= 1
