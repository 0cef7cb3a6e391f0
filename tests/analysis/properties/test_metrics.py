"""Metrics of properties, against scikit-learn and SciPy; their intervals."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from chemscale_jax.analysis.properties import metrics as property_metrics
from chemscale_jax.analysis.properties.metrics import difference, measure, over_seeds


def values(figures):
    return {name: figure.value for name, figure in figures.items()}


def test_numbers_are_judged_as_scikit_learn_does():
    rng = np.random.default_rng(0)
    true = rng.normal(size=(200, 2)).round(1)  # with ties
    pred = true + rng.normal(size=(200, 2)).round(1)
    true[50:, 1] = np.nan
    first, second = measure(true, pred, "regression", replicates=10)
    for found, rows, t in ((first, slice(None), 0), (second, slice(50), 1)):
        y, p = true[rows, t], pred[rows, t]
        assert values(found) == pytest.approx(
            {
                "mae": metrics.mean_absolute_error(y, p),
                "rmse": metrics.root_mean_squared_error(y, p),
                "r2": metrics.r2_score(y, p),
                "spearman": stats.spearmanr(y, p)[0],
            },
            rel=1e-9,
        )
    assert (first["mae"].molecules, second["mae"].molecules) == (200, 50)


def test_yes_or_no_is_judged_as_scikit_learn_does():
    rng = np.random.default_rng(1)
    true = (rng.random((300, 1)) < 0.2).astype(np.float64)
    pred = np.clip(0.3 * true + rng.random((300, 1)).round(1) * 0.7, 0.01, 0.99)
    (found,) = measure(true, pred, "binary", replicates=10)
    y, p = true[:, 0], pred[:, 0]
    assert values(found) == pytest.approx(
        {
            "roc_auc": metrics.roc_auc_score(y, p),
            "pr_auc": metrics.average_precision_score(y, p),
            "balanced_accuracy": metrics.balanced_accuracy_score(y, p >= 0.5),
            "brier": metrics.brier_score_loss(y, p),
            "log_loss": metrics.log_loss(y, p),
        },
        rel=1e-9,
    )


def test_classes_are_judged_as_scikit_learn_does():
    rng = np.random.default_rng(2)
    pred = rng.dirichlet(np.ones(4), 150)
    pred[:, 3] /= 100  # never chosen, never true
    pred /= pred.sum(1, keepdims=True)
    true = rng.integers(3, size=(150, 1)).astype(np.float64)
    true[0] = np.nan
    (found,) = measure(true, pred, "multiclass", replicates=10)
    y, p = true[1:, 0], pred[1:]
    assert values(found) == pytest.approx(
        {
            "accuracy": metrics.accuracy_score(y, p.argmax(1)),
            "macro_f1": metrics.f1_score(y, p.argmax(1), average="macro"),
            "log_loss": metrics.log_loss(y, p, labels=[0, 1, 2, 3]),
        },
        rel=1e-9,
    )


@pytest.mark.parametrize("kind", list(property_metrics.METRICS))
def test_a_weight_stands_for_that_many_copies(kind):
    rng = np.random.default_rng(3)
    n = 40
    weights = rng.multinomial(n, np.full(n, 1 / n), size=3).astype(np.float64)
    if kind == "multiclass":
        pred, true = rng.dirichlet(np.ones(3), n), rng.integers(3, size=n)
    else:
        pred = rng.random(n).round(1)
        true = (rng.random(n) < 0.4) if kind == "binary" else rng.random(n).round(1)
    true = true.astype(np.float64)
    for metric in property_metrics.METRICS[kind]:
        found = metric.statistic(true, pred, weights)
        for row, value in zip(weights.astype(int), found, strict=True):
            copies = np.repeat(np.arange(n), row)
            once = np.ones((1, n))
            same = metric.statistic(true[copies], pred[copies], once)[0]
            assert value == pytest.approx(same, rel=1e-9), metric.name


def test_intervals_are_those_of_the_theory_and_differences_are_paired():
    rng = np.random.default_rng(4)
    true = rng.normal(size=(1000, 1))
    error = rng.normal(size=(1000, 1))
    one = measure(true, true + error, "regression", replicates=2000)[0]["mae"]
    assert one.interval is not None
    half = 1.96 * np.abs(error).std() / np.sqrt(1000)
    low, high = one.interval
    assert (high - low) / 2 == pytest.approx(half, rel=0.1)
    two = measure(true, true + 0.96 * error, "regression", replicates=2000)[0]["mae"]
    paired = difference(two, one)
    assert paired.value == pytest.approx(-0.04 * np.abs(error).mean())
    assert paired.interval is not None
    assert paired.interval[1] < 0
    # Each alone says less than the difference.
    assert two.interval is not None
    assert two.interval[1] > low


def test_what_is_not_defined_is_not_a_number():
    none = np.full((3, 1), np.nan)
    pred = np.array([[0.2], [0.4], [0.9]])
    (found,) = measure(none, pred, "regression", replicates=5)
    assert all(np.isnan(f.value) and f.interval is None for f in found.values())
    (same,) = measure(np.ones((3, 1)), pred, "binary", replicates=5)
    assert np.isnan(same["roc_auc"].value)
    assert np.isfinite(same["brier"].value)
    (flat,) = measure(np.full((3, 1), 7.3), pred, "regression", replicates=5)
    assert np.isnan(flat["r2"].value)
    assert np.isnan(flat["spearman"].value)
    broken = np.where(pred > 0.8, np.nan, pred)
    (lost,) = measure(pred, broken, "regression", replicates=5)
    assert np.isnan(lost["mae"].value)


def test_seeds_give_mean_and_deviation():
    assert over_seeds([1.0, 2.0, 3.0]) == pytest.approx((2.0, 1.0))
    mean, deviation = over_seeds([2.0])
    assert mean == 2
    assert np.isnan(deviation)
