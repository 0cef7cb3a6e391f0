import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chemscale_jax.models import radial_bases


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("n_rbf", [2, 5, 16])
def test_bernstein_polynomials_sum_to_one(n_rbf):
    distance = jnp.array([0.0, 1e-9, 0.3, 1.0, 4.0, 30.0])
    basis = radial_bases.exp_bernstein(distance, jnp.array(0.9), n_rbf)
    np.testing.assert_allclose(basis.sum(axis=1), 1, atol=1e-12)
    assert np.all(basis >= 0)
    fixed = radial_bases.bernstein(distance[2:4], 5.0, n_rbf)
    np.testing.assert_allclose(fixed.sum(axis=1), 1, atol=1e-12)


@pytest.mark.parametrize("name", [*radial_bases.EXPONENTIAL, *radial_bases.FIXED])
def test_bases_have_finite_second_derivatives(name):
    def total(distance):
        if name in radial_bases.EXPONENTIAL:
            basis = radial_bases.EXPONENTIAL[name](distance[None], jnp.array(0.9), 6)
        else:
            basis = radial_bases.FIXED[name](distance[None], 5.0, 6)
        return jnp.sum(basis**2)

    curvature = jax.jit(jax.vmap(jax.grad(jax.grad(total))))
    assert np.isfinite(curvature(jnp.array([0.0, 1e-6, 2.0, 5.0, 10.0]))).all()


@pytest.mark.parametrize(
    "function",
    [
        lambda d: radial_bases.smooth_cutoff(d, 3.0),
        lambda d: radial_bases.smooth_switch(d, 1.0, 3.0),
    ],
)
def test_switches_fall_smoothly_from_one_to_zero(function):
    distance = jnp.linspace(0, 4, 4001)
    value = np.asarray(function(distance))
    assert value[0] == 1
    assert not value[distance >= 3].any()
    assert np.all(np.diff(value) <= 0)
    slope = jax.grad(lambda d: function(d[None])[0])
    slopes, curvatures = jax.jit(
        lambda d: (jax.vmap(slope)(d), jax.vmap(jax.grad(slope))(d))
    )(distance)
    # No jump between neighbours on the grid, 0.001 apart.
    assert np.abs(np.diff(value)).max() < 3e-3
    assert np.abs(np.diff(slopes)).max() < 3e-2
    assert np.abs(np.diff(curvatures)).max() < 1.0


def test_d_functions_turn_like_a_second_order_legendre_polynomial():
    rng = np.random.default_rng(0)
    unit = rng.normal(size=(20, 3))
    unit = jnp.asarray(unit / np.linalg.norm(unit, axis=1, keepdims=True))
    functions = radial_bases.d_functions(unit)
    cosine = unit @ unit.T
    legendre = 1.5 * cosine**2 - 0.5
    np.testing.assert_allclose(functions @ functions.T, legendre, atol=1e-12)
    # Averages over the six directions of the axes vanish.
    axes = jnp.concatenate([jnp.eye(3), -jnp.eye(3)])
    np.testing.assert_allclose(radial_bases.d_functions(axes).sum(0), 0, atol=1e-12)
