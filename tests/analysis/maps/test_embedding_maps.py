import importlib.util
import sys

import numpy as np
import pytest

from chemscale_jax.analysis.maps.embedding_maps import (
    MapSettings,
    map_coordinates,
    principal_components,
    scale_of,
    scaled,
)
from chemscale_jax.core.errors import UserError
from tests.analysis.embedding_files import ring_values


def test_columns_get_deviation_one_and_constant_ones_zero():
    values = np.array([[1.0, 5.0, 1e6], [3.0, 5.0, 3e6], [5.0, 5.0, 5e6]])
    found = scaled(values, "columns")
    assert found[:, 1].tolist() == [0, 0, 0]
    np.testing.assert_allclose(found[:, [0, 2]].std(0), 1, rtol=1e-6)
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-6)


def test_counts_are_scaled_by_rows():
    counts = np.array([[0, 3, 4], [1, 0, 0], [0, 0, 0]], np.float32)
    assert scale_of(counts, "auto") == "rows"
    assert scale_of(counts - 0.5, "auto") == "columns"
    np.testing.assert_allclose(scaled(counts), [[0, 0.6, 0.8], [1, 0, 0], [0, 0, 0]])


def test_components_are_those_of_the_singular_values():
    values = ring_values(2.0)
    found, shares = principal_components(values, 3, 0)
    singular = np.linalg.svd(values - values.mean(0), compute_uv=False) ** 2
    np.testing.assert_allclose(shares, (singular / singular.sum())[:3], rtol=1e-4)
    np.testing.assert_allclose((found**2).sum(0), singular[:3], rtol=1e-4)


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_a_seed_gives_one_map(method):
    values = ring_values(3.0)[::2]
    first, second = (
        map_coordinates(values, MapSettings(method=method, perplexity=8))
        for _ in range(2)
    )
    assert first.shape == (50, 2)
    assert np.isfinite(first).all()
    np.testing.assert_array_equal(first, second)


def test_one_dimension_is_padded():
    line = np.linspace(0, 1, 20, dtype=np.float32)[:, None]
    found = map_coordinates(line, MapSettings(method="pca"))
    assert found.shape == (20, 2)
    assert not found[:, 1].any()


def test_what_cannot_be_drawn_is_refused(monkeypatch):
    settings = MapSettings(method="pca")
    with pytest.raises(UserError, match="9 molecules are too few"):
        map_coordinates(np.eye(9, dtype=np.float32), settings)
    with pytest.raises(UserError, match="the same embedding"):
        map_coordinates(np.ones((20, 3), np.float32), settings)
    with pytest.raises(UserError, match="method is 'isomap'"):
        MapSettings(method="isomap")
    with pytest.raises(UserError, match="components is 1"):
        MapSettings(components=1)
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(UserError, match=r"chemscale_jax\[umap\]"):
        map_coordinates(ring_values(1.0), MapSettings(method="umap"))


@pytest.mark.slow
def test_umap_gives_one_map():
    if not importlib.util.find_spec("umap"):
        pytest.skip("there is no umap-learn")
    first, second = (
        map_coordinates(ring_values(3.0), MapSettings(method="umap")) for _ in range(2)
    )
    assert first.shape == (100, 2)
    np.testing.assert_array_equal(first, second)
