"""Radial bases and smooth switches of SpookyNet, and its angular functions.

Unke et al., "SpookyNet: Learning force fields with electronic degrees of freedom and
nonlocal effects", Nature Communications 2021. A basis is not yet multiplied by the
cut-off function.
"""

import math
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from chemscale_jax.core.types import Array


def smooth_cutoff(distance_E: Array, cutoff_ang: float) -> Array:
    """``exp(-d^2 / ((r_c - d)(r_c + d)))`` below the cut-off, else 0."""
    # So near the cut-off it underflows in float64, and its quotient would overflow.
    inside_E = distance_E < (1 - 1e-4) * cutoff_ang
    d_E = jnp.where(inside_E, distance_E, 0.0)
    inner_E = jnp.exp(-(d_E**2) / ((cutoff_ang - d_E) * (cutoff_ang + d_E)))
    return jnp.where(inside_E, inner_E, 0.0)


def smooth_switch(distance_P: Array, on_ang: float, off_ang: float) -> Array:
    """1 below ``on_ang``, 0 above ``off_ang``, smooth to every order between."""

    def rise(x_P: Array) -> Array:
        # exp(-1/x) underflows in float64 long before its derivatives overflow.
        positive_P = x_P > 1e-3
        inner_P = jnp.exp(-1.0 / jnp.where(positive_P, x_P, 1.0))
        return jnp.where(positive_P, inner_P, 0.0)

    x_P = (distance_P - on_ang) / (off_ang - on_ang)
    up_P, down_P = rise(x_P), rise(1.0 - x_P)
    return down_P / (up_P + down_P)


def log_binomials(n_rbf: int) -> np.ndarray:
    """``log C(K - 1, v)`` for v = 0 ... K - 1."""
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n_rbf)))])
    return log_factorial[-1] - log_factorial - log_factorial[::-1]


def _bernstein(log_x_E1: Array, n_rbf: int) -> Array:
    """``C(K-1, v) x^(K-1-v) (1 - x)^v`` from log x < 0."""
    v_K = np.arange(n_rbf, dtype=np.float64)
    dtype = log_x_E1.dtype
    rest_E1 = jnp.log(-jnp.expm1(log_x_E1))
    exponent_EK = (
        jnp.asarray(log_binomials(n_rbf), dtype)[None]
        + jnp.asarray(v_K[::-1], dtype)[None] * log_x_E1
        + jnp.asarray(v_K, dtype)[None] * rest_E1
    )
    return jnp.exp(exponent_EK)


def exp_bernstein(distance_E: Array, alpha: Array, n_rbf: int) -> Array:
    """Bernstein polynomials in ``x = exp(-alpha d)``; the first alone is 1 at d = 0."""
    apart_E = distance_E > 0
    # The logarithm of 1 - x needs x < 1.
    safe_E1 = jnp.where(apart_E, distance_E, 1.0)[:, None]
    basis_EK = _bernstein(-alpha * safe_E1, n_rbf)
    at_zero_1K = (jnp.arange(n_rbf) == 0).astype(basis_EK.dtype)[None]
    return jnp.where(apart_E[:, None], basis_EK, at_zero_1K)


def bernstein(distance_E: Array, cutoff_ang: float, n_rbf: int) -> Array:
    """Bernstein polynomials in ``x = d / r_c``, where 0 < x < 1, else 0."""
    inside_E = (distance_E > 0) & (distance_E < cutoff_ang)
    x_E1 = jnp.where(inside_E, distance_E / cutoff_ang, 0.5)[:, None]
    basis_EK = _bernstein(jnp.log(x_E1), n_rbf)
    return jnp.where(inside_E[:, None], basis_EK, 0.0)


def exp_gaussian(distance_E: Array, alpha: Array, n_rbf: int) -> Array:
    """Gaussians of width K in ``exp(-alpha d)``, centred from 1 down to 0."""
    centre_1K = jnp.linspace(1.0, 0.0, n_rbf, dtype=distance_E.dtype)[None]
    return jnp.exp(-n_rbf * (jnp.exp(-alpha * distance_E)[:, None] - centre_1K) ** 2)


def gaussian(distance_E: Array, cutoff_ang: float, n_rbf: int) -> Array:
    """Gaussians of width K / r_c, centred from 0 to r_c."""
    centre_1K = jnp.linspace(0.0, cutoff_ang, n_rbf, dtype=distance_E.dtype)[None]
    return jnp.exp(-(n_rbf / cutoff_ang) * (distance_E[:, None] - centre_1K) ** 2)


def sinc(distance_E: Array, cutoff_ang: float, n_rbf: int) -> Array:
    """``sin(n pi x) / (n pi x)`` of ``x = d / r_c``, n = 1 ... K."""
    n_1K = jnp.arange(1, n_rbf + 1, dtype=distance_E.dtype)[None]
    return jnp.sinc(distance_E[:, None] / cutoff_ang * n_1K)


# Bases over a distance, which scales with a learned alpha.
EXPONENTIAL: dict[str, Callable[[Array, Array, int], Array]] = {
    "exp-bernstein": exp_bernstein,
    "exp-gaussian": exp_gaussian,
}
# Bases over a distance and the cut-off.
FIXED: dict[str, Callable[[Array, float, int], Array]] = {
    "bernstein": bernstein,
    "gaussian": gaussian,
    "sinc": sinc,
}


def d_functions(unit_E3: Array) -> Array:
    """xy, xz, yz, z^2 and x^2 - y^2 of unit vectors, with unit norm over the five."""
    x_E, y_E, z_E = unit_E3[:, 0], unit_E3[:, 1], unit_E3[:, 2]
    root = math.sqrt(3.0)
    return jnp.stack(
        [
            root * x_E * y_E,
            root * x_E * z_E,
            root * y_E * z_E,
            0.5 * (3.0 * z_E * z_E - 1.0),
            0.5 * root * (x_E * x_E - y_E * y_E),
        ],
        axis=1,
    )
