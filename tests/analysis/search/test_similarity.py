import numpy as np
import pytest

from chemscale_jax.analysis.search import similarity


def packed(*sets, bits=72):
    dense = np.zeros((len(sets), bits), np.uint8)
    for row, places in zip(dense, sets, strict=True):
        row[list(places)] = 1
    return np.packbits(dense, axis=1)


def test_similarities_are_what_a_hand_computes():
    bits = packed({0, 1, 70}, {1, 70}, {5}, set())
    expected = [[1, 2 / 3, 0, 0], [2 / 3, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    np.testing.assert_allclose(similarity.tanimoto(bits, bits), expected, rtol=1e-6)
    found = similarity.nearest(bits[:3], bits[1:])
    np.testing.assert_allclose(found, [2 / 3, 1, 1], rtol=1e-6)
    assert np.isnan(similarity.nearest(bits, bits[:0])).all()
    assert similarity.nearest(bits[:0], bits).shape == (0,)


@pytest.mark.parametrize(("n", "m"), [(300, 5), (5, 4100)])
def test_blocks_have_no_seams(n, m):
    rng = np.random.default_rng(0)
    dense = rng.random((n + m, 64)) < 0.2
    bits = np.packbits(dense, axis=1)
    both = dense[:n].astype(int) @ dense[n:].T.astype(int)
    either = dense[:n].sum(1)[:, None] + dense[n:].sum(1)[None] - both
    expected = np.where(either, both / np.maximum(either, 1), 1)
    np.testing.assert_allclose(
        similarity.tanimoto(bits[:n], bits[n:]), expected, rtol=1e-6
    )
    np.testing.assert_allclose(
        similarity.nearest(bits[:n], bits[n:]), expected.max(axis=1), rtol=1e-6
    )


def test_weighted_sums_are_matrix_products():
    rng = np.random.default_rng(1)
    bits = np.packbits(rng.random((300, 64)) < 0.3, axis=1)
    weights = rng.random((300, 3))
    every = similarity.tanimoto(bits, bits).astype(float)
    found = similarity.weighted_sums(bits, weights, (1, 2))
    for p in (1, 2):
        # Sums of 300 float32.
        np.testing.assert_allclose(found[p], every**p @ weights, rtol=1e-5)
