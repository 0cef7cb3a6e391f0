"""Linear models against their equations, and against scikit-learn."""

import numpy as np
import pytest
from scipy import sparse
from scipy.special import expit
from sklearn.linear_model import Ridge

from chemscale_jax.analysis.probes import linear_probes
from chemscale_jax.analysis.probes.linear_probes import (
    LOGISTIC_PENALTIES,
    RIDGE_PENALTIES,
    fit_logistic,
    fit_ridge,
)


def data(M, D, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(M, D)) * rng.uniform(0.1, 9, D) + rng.normal(size=D)
    return x.astype(np.float32), rng.normal(size=(M, 2))


@pytest.mark.parametrize("D", [5, 60])
def test_ridge_is_that_of_scaled_features_with_every_penalty(D):
    x, y = data(30, D)
    new, _ = data(7, D, seed=1)
    scale = x.std(0)
    for penalty, probe in list(zip(RIDGE_PENALTIES, fit_ridge(x, y), strict=True))[4:]:
        known = Ridge(alpha=30 * penalty).fit((x - x.mean(0)) / scale, y)
        expected = known.predict((new - x.mean(0)) / scale)
        assert probe(new) == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("counts", [False, True])
def test_logistic_regression_is_at_the_optimum_of_equally_heavy_classes(counts):
    rng = np.random.default_rng(0)
    x, _ = data(200, 6)
    if counts:
        x = (rng.random((200, 40)) < 0.1) * rng.integers(1, 5, (200, 40))
    y = (x[:, 0] + rng.normal(size=200) > np.quantile(x[:, 0], 0.85)).astype(int)
    share = y.mean()
    centre, spread = x.mean(0), x.std(0)
    if counts:
        spread = np.full(40, np.sqrt((spread**2).mean()))
    given = sparse.csr_array(x.astype(float)) if counts else x
    made = list(fit_logistic(given, y, 2))
    for penalty, probe in zip(LOGISTIC_PENALTIES, made, strict=True):
        assert probe(given) == pytest.approx(probe(x), abs=1e-12)
        # Without the shift to the frequencies of the classes.
        logit = x @ probe.weights[:, 0] + probe.offset - np.log(share / (1 - share))
        weight = np.where(y == 1, 0.5 / share, 0.5 / (1 - share))
        slope = weight * (expit(logit) - y) / 200
        gradient = slope @ ((x - centre) / spread)
        gradient += penalty * probe.weights[:, 0] * spread
        # At the tolerance of the solver; a tenth of the penalty would be seen.
        assert np.abs(gradient).max() < 2e-3
        assert abs(slope.sum()) < 2e-3
        assert (probe(x) == expit(x @ probe.weights + probe.offset)).all()


def test_several_classes_and_those_without_molecules():
    rng = np.random.default_rng(0)
    y = rng.choice([0, 2, 3], 300, p=[0.6, 0.3, 0.1])
    x = np.eye(5)[y] * 2 + rng.normal(size=(300, 5))
    probe = [*fit_logistic(x, y, 5)][4]
    chances = probe(x)
    assert chances.sum(1) == pytest.approx(np.ones(300))
    assert (chances[:, [1, 4]] == 0).all()
    assert (chances.argmax(1) == y).mean() > 0.75
    assert chances.mean(0)[[0, 2, 3]] == pytest.approx([0.6, 0.3, 0.1], abs=0.1)
    two = [*fit_logistic(x[y < 3], y[y < 3], 5)][4](x)
    assert (two[:, [1, 3, 4]] == 0).all()
    assert (two.argmax(1) == y)[y < 3].mean() > 0.85
    one = next(fit_logistic(x, np.full(300, 2), 5))(x[:2])
    assert one[0].argmax() == 2
    assert 0 < one.min()


def test_features_that_tell_nothing_do_not_matter():
    x, y = data(40, 4)
    x[:, 1] = 1e4
    for probe in (*fit_ridge(x, y), *fit_logistic(x, (y[:, 0] > 0).astype(int), 2)):
        assert (probe.weights[1] == 0).all()
        assert np.isfinite(probe(x)).all()
    assert linear_probes.useful_features(x).tolist() == [True, False, True, True]
    rare = np.zeros((40, 9))
    rare[:2, 3] = 1
    rare[:5, 4] = 2
    assert np.flatnonzero(linear_probes.useful_features(rare)).tolist() == [4]
    assert linear_probes.useful_features(np.ones((3, 2))).tolist() == [True, False]
