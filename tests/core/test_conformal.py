"""Conformal intervals: coverage of exchangeable data, ranks, files."""

import json
import math

import numpy as np
import pytest

from chemscale_jax.core import conformal
from chemscale_jax.core.errors import UserError


def regression(scores, **kwargs):
    """A calibration of one target whose predictions are 0."""
    true = np.asarray(scores, np.float64)[:, None]
    return conformal.calibrate(
        "regression", ["y"], true, np.zeros_like(true), source="valid", **kwargs
    )


@pytest.mark.parametrize("n", [19, 40])
@pytest.mark.parametrize("level", [0.5, 0.9, 0.95])
def test_coverage_is_that_of_the_theory(n, level):
    rng = np.random.default_rng(n)
    y = rng.standard_t(3, size=(n + 1, 4000))  # as many targets as trials
    names = [str(trial) for trial in range(y.shape[1])]
    made = conformal.calibrate(
        "regression", names, y[:-1], np.zeros_like(y[:-1]), source="valid"
    )
    shares = np.abs(y[-1]) <= made.half_widths(level, 1)[0]
    # Theorem 2.2 of Lei et al.: between level and level + 1 / (n + 1).
    noise = 3 * math.sqrt(0.25 / len(shares))
    assert level - noise <= np.mean(shares) <= level + 1 / (n + 1) + noise


def test_ranks_are_those_of_finite_samples():
    nine = regression(np.arange(1.0, 10.0))
    assert nine.half_width(0.9) == 9
    assert nine.half_width(0.5) == 5
    assert nine.half_width(0.7) == 7  # 10 * 0.7 is a whole number
    assert nine.half_width(0.71) == 8
    assert nine.half_width(0.91) == math.inf
    assert nine.lacking(0.9) == ""
    assert "need 19" in nine.lacking(0.95)
    assert "y has 9" in nine.lacking(0.95)
    assert regression([]).half_width(0.5) == math.inf
    with pytest.raises(UserError, match="0 < level < 1"):
        nine.half_width(1.0)


def test_thinned_scores_are_never_too_small():
    scores = np.random.default_rng(0).permutation(50_001) + 1.0
    few = regression(scores)
    assert len(few.scores[0]) < 3000
    for level in (0.001, 0.5, 0.9, 0.95, 0.999):
        exact = math.ceil(50_002 * level - 1e-9)
        assert exact <= few.half_width(level) <= exact + 50_001 / 2048 + 1


def test_widths_follow_the_spread_of_members_and_cover_better():
    rng = np.random.default_rng(1)
    std = rng.uniform(0.1, 2.0, (4000, 1))
    y = rng.normal(size=(4000, 1)) * std
    zero = np.zeros_like(y)
    made = conformal.calibrate(
        "regression", ["y"], y[:2000], zero[:2000], source="valid", std=std[:2000]
    )
    (found,) = made.coverage(0.9, y[2000:], zero[2000:], std[2000:])
    assert found.molecules == 2000
    assert found.share == pytest.approx(0.9, abs=0.03)
    # Where the spread is large, a constant width covers too few.
    wide = std[2000:, 0] > 1.5
    rows = np.flatnonzero(wide) + 2000
    constant = regression(y[:2000, 0])
    (with_std,) = made.coverage(0.9, y[rows], zero[rows], std[rows])
    (without,) = constant.coverage(0.9, y[rows], zero[rows])
    assert without.share < 0.85 < with_std.share
    with pytest.raises(UserError, match="std"):
        made.half_width(0.9)


@pytest.mark.parametrize("kind", ["binary", "multiclass"])
def test_sets_of_classes_hold_the_label(kind):
    rng = np.random.default_rng(2)
    classes = 2 if kind == "binary" else 4
    chance = rng.dirichlet(np.ones(classes), 6000)
    label = (rng.random(6000)[:, None] > chance.cumsum(1)).sum(1)
    true = label[:, None].astype(np.float64)
    pred = chance[:, 1:] if kind == "binary" else chance
    # An overconfident model: sets must be larger than its probabilities suggest.
    pred = pred**3 / (pred**3 + (1 - pred) ** 3) if kind == "binary" else pred
    made = conformal.calibrate(kind, ["y"], true[:3000], pred[:3000], source="valid")
    for level in (0.5, 0.9):
        (found,) = made.coverage(level, true[3000:], pred[3000:])
        assert found.share == pytest.approx(level, abs=0.03)
    assert made.class_sets(0.9, pred).shape == (6000, 1, classes)
    with pytest.raises(UserError, match="class_sets"):
        made.half_width(0.9)


def test_labels_that_are_missing_do_not_count_and_files_keep_all(tmp_path):
    rng = np.random.default_rng(3)
    true = rng.normal(size=(50, 2))
    true[:30, 1] = np.nan
    made = conformal.calibrate(
        "regression", ["a", "b"], true, np.zeros((50, 2)), source="out-of-fold"
    )
    assert made.counts == (50, 20)
    path = tmp_path / "calibration.json"
    made.save(path)
    again = conformal.Calibration.load(path)
    for level in (0.1, 0.9, 0.97):
        same = made.half_widths(level, 3) == again.half_widths(level, 3)
        assert same.all()
        assert again.half_width(level, "b") == again.half_width(level, 1)
    assert again.half_width(0.97, "b") == math.inf
    assert again.source == "out-of-fold"
    broken = json.loads(path.read_text())
    broken["scores"][0].pop()
    with pytest.raises(UserError, match="no calibration"):
        conformal.Calibration.from_json(broken)


def test_what_could_not_be_predicted_makes_wide_intervals():
    made = conformal.calibrate(
        "regression",
        ["y"],
        np.zeros((10, 1)),
        np.array([[0.0]] * 5 + [[np.nan]] * 5),
        source="valid",
    )
    assert made.half_width(0.4) == 0
    assert made.half_width(0.6) == math.inf
