import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chemscale_jax.models import favor
from tests.models.molecules import MOLECULE, WATER, pack_of

WIDTH = 6


def queries_keys_values():
    rng = np.random.default_rng(0)
    # Short queries and keys, whose exponentials have a small variance.
    scales = (0.5, 0.5, 1.0)
    return [jnp.asarray(scale * rng.normal(size=(10, WIDTH))) for scale in scales]


def softmax_attention(q, k, v):
    weight = np.exp(q @ k.T / np.sqrt(q.shape[1]))
    return weight / weight.sum(1, keepdims=True) @ v


def expected():
    q, k, v = (np.asarray(x) for x in queries_keys_values())
    molecules = [slice(0, 5), slice(5, 8)]
    return np.concatenate([softmax_attention(q[m], k[m], v[m]) for m in molecules])


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("maximum", favor.MAXIMA)
def test_exact_attention_is_a_softmax_over_each_molecule(maximum):
    q, k, v = queries_keys_values()
    found = favor.exact_attention(q, k, v, pack_of(MOLECULE, WATER), maximum)
    # The reference adds 1e-8 to a norm which here is at least 0.05.
    np.testing.assert_allclose(found[:8], expected(), atol=1e-6)


@pytest.mark.parametrize("maximum", favor.MAXIMA)
def test_random_features_tend_to_the_softmax(maximum):
    pack, errors = pack_of(MOLECULE, WATER), []
    q, k, v = queries_keys_values()
    for count in (24, 24_000):
        omega = favor.random_features(jax.random.key(0), WIDTH, count)
        found = favor.favor_attention(q, k, v, omega, pack, maximum)
        errors.append(np.abs(found[:8] - expected()).max())
    # As 1 / sqrt(count), up to the constant that is added to the features.
    assert errors[1] < 0.02
    assert errors[1] < errors[0] / 5


@pytest.mark.parametrize("maximum", favor.MAXIMA)
def test_few_atoms_and_many_are_computed_alike(maximum, monkeypatch):
    pack = pack_of(MOLECULE, WATER)
    q, k, v = queries_keys_values()
    omega = favor.random_features(jax.random.key(0), WIDTH, 24)

    def value(q, k, v):
        found = favor.favor_attention(q, k, v, omega, pack, maximum)
        return jnp.sum(jnp.sin(found)), found

    found = {}
    for limit in (0, 4):
        monkeypatch.setattr(favor, "DENSE_ATOMS_PER_FEATURE", limit)
        found[limit] = jax.grad(value, (0, 1, 2), has_aux=True)(q, k, v)
    for sums, dense in zip(*map(jax.tree.leaves, found.values()), strict=True):
        np.testing.assert_allclose(dense, sums, atol=1e-13)


def test_directions_are_orthogonal_in_blocks_and_normal_in_length():
    omega = np.asarray(favor.random_features(jax.random.key(1), 40, 100))
    assert omega.shape == (40, 100)
    square = (omega**2).sum(axis=0)
    # Of a chi-squared distribution: mean 40, standard error sqrt(80 / 100) = 0.9.
    assert square.mean() == pytest.approx(40, abs=3)
    assert square.std() == pytest.approx(np.sqrt(80), rel=0.3)
    for block in (slice(0, 40), slice(80, 100)):
        unit = omega[:, block] / np.sqrt(square[block])
        np.testing.assert_allclose(unit.T @ unit, np.eye(unit.shape[1]), atol=1e-6)


def test_only_the_reference_depends_on_the_batch():
    """Its maximum is not below zero, unless a molecule is alone."""
    q, k, v = queries_keys_values()
    # Many directions and long keys, so that every product with a key is below zero.
    omega = -jnp.abs(favor.random_features(jax.random.key(0), WIDTH, WIDTH))
    k = 4 * jnp.abs(k)
    alone, batch = pack_of(MOLECULE), pack_of(MOLECULE, WATER)
    for maximum in favor.MAXIMA:
        first = favor.favor_attention(q, k, v, omega, alone, maximum)[:5]
        second = favor.favor_attention(q, k, v, omega, batch, maximum)[:5]
        change = np.abs(first - second).max()
        assert (change > 1e-4) == (maximum == "batch")
        if maximum == "molecule":
            assert change < 1e-12
