"""Scaling of labels: what each method does, and that it can be undone."""

import json

import numpy as np
import pytest

from chemscale_jax.core.errors import UserError
from chemscale_jax.core.target_scaling import (
    METHODS,
    fit_scaling,
    no_scaling,
    scale,
    unscale,
)

RNG = np.random.default_rng(0)
LABELS = RNG.gamma(2.0, 3.0, (50, 3))
LABELS[::7, 1] = np.nan


@pytest.mark.parametrize("method", METHODS)
def test_unscale_undoes_scale_and_nan_stays(method):
    scaling = json.loads(json.dumps(fit_scaling(LABELS, method)))
    scaled = scale(LABELS, scaling)
    np.testing.assert_array_equal(np.isnan(scaled), np.isnan(LABELS))
    np.testing.assert_allclose(unscale(scaled, scaling), LABELS, rtol=1e-12)


def test_what_each_method_makes_of_labels():
    scaled = scale(LABELS, fit_scaling(LABELS, "auto"))
    np.testing.assert_allclose(np.nanmean(scaled, 0), 0, atol=1e-12)
    np.testing.assert_allclose(np.nanstd(scaled, 0), 1, atol=1e-12)
    scaled = scale(LABELS, fit_scaling(LABELS, "minmax"))
    assert np.nanmin(scaled) == 0
    np.testing.assert_allclose(np.nanmax(scaled, 0), 1)
    scaled = scale(LABELS, fit_scaling(LABELS, "robust"))
    low, middle, high = np.nanquantile(scaled, (0.25, 0.5, 0.75), axis=0)
    np.testing.assert_allclose(middle, 0, atol=1e-12)
    np.testing.assert_allclose(high - low, 1)
    scaled = scale(LABELS, fit_scaling(LABELS, "log1p"))
    np.testing.assert_allclose(np.nanmean(scaled, 0), 0, atol=1e-12)
    again = fit_scaling(np.log1p(LABELS), "standard")
    np.testing.assert_allclose(scaled, scale(np.log1p(LABELS), again))
    np.testing.assert_array_equal(scale(LABELS, no_scaling(3)), LABELS)


def test_equal_labels_are_shifted_only():
    labels = np.full((9, 1), 0.1 + 0.2)
    scaling = fit_scaling(labels, "standard")
    assert scaling["scale"] == [1.0]
    np.testing.assert_allclose(scale(labels, scaling), 0, atol=1e-15)


def test_large_labels_keep_their_digits():
    labels = -1e5 + RNG.normal(size=(40, 1)) * 1e-3
    scaling = fit_scaling(labels, "standard")
    np.testing.assert_allclose(
        unscale(scale(labels, scaling), scaling), labels, rtol=1e-14
    )


def test_what_cannot_be_scaled_is_refused():
    with pytest.raises(UserError, match="'zscore' is unknown"):
        fit_scaling(LABELS, "zscore")
    with pytest.raises(UserError, match="'b' has no label"):
        fit_scaling(np.array([[1.0, np.nan]]), "standard", ("a", "b"))
    with pytest.raises(UserError, match=r"'a' has the value -2"):
        fit_scaling(np.array([[-2.0]]), "log1p", ("a",))
    with pytest.raises(UserError, match="has the value -3"):
        scale(np.array([[-3.0]]), fit_scaling(np.array([[1.0], [2.0]]), "log1p"))
