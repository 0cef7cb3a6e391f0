"""Power laws: windows by rule, local slopes, differences of exponents."""

import numpy as np
import pytest

from chemscale_jax.analysis.scaling.intervals import Interval
from chemscale_jax.analysis.scaling.power import (
    difference,
    fit_power,
    fit_window,
    law_difference,
    lines_of,
    local_slopes,
    steepest,
)
from tests.analysis.scaling_studies import IDENTIFIABLE, cells_of, even, noisy

X = even(1e2, 1e6, 9)


def test_a_straight_line_is_taken_whole():
    law = fit_window(X, np.exp(noisy(50 * X**-0.3, 0)).mean(axis=1))
    assert law.points == law.of == 9
    assert law.interval.holds(0.3)
    assert law.r_squared > 0.99


def test_the_window_ends_where_the_line_bends():
    bent = 50 * np.minimum(X, 1e4) ** -0.3
    law = fit_window(X, bent * np.exp(0.001 * (-1.0) ** np.arange(9)))
    assert (law.low, law.high) == pytest.approx((1e2, 1e4))
    assert law.beta == pytest.approx(0.3, abs=0.01)
    whole = fit_power(X, bent)
    assert whole.beta < 0.25
    assert whole.curved < 0.01


def test_of_windows_as_long_the_steepest():
    # No four neighbours are on a line.
    x = even(1, 1e4, 5)
    law = fit_window(x, np.exp(np.array([0.0, -0.1, -0.2, -1.2, -2.2])))
    assert law.points == 3
    assert (law.low, law.high) == pytest.approx((1e2, 1e4), rel=1e-6)


def test_the_band_is_narrow_inside_and_wide_outside():
    law = fit_window(X, np.exp(noisy(50 * X**-0.3, 0)).mean(axis=1))
    low, high = law.band(np.array([1e4, 1e9]))
    assert (low < law.loss(np.array([1e4, 1e9]))).all()
    width = np.log(high / low)
    assert width[1] > 2 * width[0]


def test_two_points_have_no_interval():
    law = fit_window(X[:2], 50 * X[:2] ** -0.3)
    assert law.beta == pytest.approx(0.3)
    assert law.interval == (None, None)
    assert np.isnan(law.band(X)[0]).all()


def test_local_slopes_and_where_more_is_worth_most():
    seeds = [np.array([0.0, 0.02]), np.array([-1.0, -1.02]), np.array([-1.1, -1.1])]
    x = np.exp(np.array([0.0, 1.0, 2.0]))
    found = local_slopes(x, seeds, (0.014, 3))
    assert [one.slope for one in found] == pytest.approx([1.02, 0.09])
    assert found[0].interval.holds(1.0)
    assert steepest(found) == found[0]
    assert local_slopes(x, seeds, (0.0, 0))[0].interval == (None, None)


def test_differences_of_exponents():
    def law(beta, size, seed):
        return fit_power(X, np.exp(noisy(50 * X**-beta, seed, size)).mean(axis=1))

    laws = {"schnet": law(0.17, 0.01, 0), "painn": law(0.26, 0.01, 1)}
    found = difference("schnet", "painn", laws)
    assert found.interval.holds(0.09)
    assert found.verdict == "larger"
    assert difference("painn", "schnet", laws).verdict == "smaller"
    laws = {"schnet": law(0.17, 0.1, 2), "painn": law(0.18, 0.1, 3)}
    assert difference("schnet", "painn", laws).verdict == "open"


def test_differences_of_skew_intervals():
    values = {"a": 0.2, "b": 0.5}
    found = law_difference(
        "a", "b", values, {"a": Interval(0.1, 0.23), "b": Interval(0.46, 0.9)}
    )
    assert found.value == pytest.approx(0.3)
    assert found.interval == pytest.approx((0.3 - 0.05, 0.3 + np.hypot(0.4, 0.1)))
    assert found.verdict == "larger"
    open_ended = {"a": Interval(0.1, None), "b": Interval(0.46, 0.9)}
    assert law_difference("a", "b", values, open_ended).verdict == "open"


def test_lines_of_a_grid():
    cells = cells_of(IDENTIFIABLE["chinchilla"])
    lines = lines_of(cells, "D", "N")
    assert [len(line.cells) for line in lines] == [4] * 4
    for line in lines:
        assert len(np.unique(line.cells.column("N"))) == 1
        assert (np.diff(line.cells.column("D")) > 0).all()
    assert lines_of(cells, "S", "N") == []
