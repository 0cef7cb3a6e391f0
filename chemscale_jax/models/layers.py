"""Pieces that several models share: dense layers, distances, radial bases, sums."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from chemscale_jax.core.batches import GraphPack
from chemscale_jax.core.types import Array

Initializer = Callable[..., Any]

xavier_uniform = nn.initializers.xavier_uniform()


def shifted_softplus(x: Array) -> Array:
    """``log(1 + exp(x)) - log 2``."""
    return jax.nn.softplus(x) - math.log(2.0)


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "silu": jax.nn.silu,
    "shifted_softplus": shifted_softplus,
    "softplus": jax.nn.softplus,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "elu": jax.nn.elu,
    # Not smooth, so forces jump; for imported weights only.
    "relu": jax.nn.relu,
    "leaky_relu": jax.nn.leaky_relu,
}


class Dense(nn.Module):
    """``x @ kernel + bias``, the product optionally in a narrower type."""

    features: int
    use_bias: bool = True
    kernel_init: Initializer = xavier_uniform
    bias_init: Initializer = nn.initializers.zeros
    dtype: str = "float32"  # bfloat16 narrows the product; the result is not narrowed
    first: int = 0  # outputs before this one are not computed

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Applies the layer to the last axis."""
        shape = (x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape)[:, self.first :]
        y = matmul(x, kernel, self.dtype)
        if not self.use_bias:
            return y
        bias = self.param("bias", self.bias_init, (self.features,))[self.first :]
        return y + jnp.broadcast_to(bias, y.shape)


def matmul(x: Array, kernel: Array, dtype: str) -> Array:
    """``x @ kernel`` in ``dtype``, returned in the type of ``x``."""
    if dtype == "float32":
        return x @ kernel
    return (x.astype(dtype) @ kernel.astype(dtype)).astype(x.dtype)


def safe_norm(x: Array, axis: int = -1, eps: float = 0.0) -> Array:
    """``sqrt(sum(x^2) + eps)`` with finite derivatives of every order.

    Without ``eps`` the norm of a zero vector is 0 and so is its gradient: the input
    of the root is replaced before it, the output after it.
    """
    square = jnp.sum(x * x, axis=axis)
    if eps:
        return jnp.sqrt(square + eps)
    positive = square > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1.0)), 0.0)


def displacements(pack: GraphPack, cutoff_ang: float) -> Array:
    """``r_sender + shift @ cell - r_receiver`` of each edge, in angstrom.

    Padding edges get length 2 r_c before anything divides by a length: there every
    smooth envelope is 0, and so are its derivatives.
    """
    sent_E3 = rows_of(pack.positions_N3, pack.senders_E)
    disp_E3 = sent_E3 - rows_of(pack.positions_N3, pack.receivers_E)
    if pack.cell_M33 is not None and pack.shifts_E3 is not None:
        cell_E33 = pack.cell_M33[pack.molecule_N[pack.receivers_E]]
        shifts_E3 = pack.shifts_E3.astype(disp_E3.dtype)
        disp_E3 = disp_E3 + jnp.einsum("ei,eij->ej", shifts_E3, cell_E33)
    far_13 = jnp.array([[0.0, 0.0, 2 * cutoff_ang]], disp_E3.dtype)
    return jnp.where(edge_mask(pack)[:, None], disp_E3, far_13)


def edge_mask(pack: GraphPack) -> Array:
    """True for real edges."""
    return pack.receivers_E < pack.species_N.shape[0] - 1


def rows_of(x: Array, index_E: Array) -> Array:
    """``x[index_E]`` without a bounds check; the indices of a pack are in bounds."""
    return x.at[index_E].get(mode="promise_in_bounds")


def sum_to_receivers(x: Array, pack: GraphPack) -> Array:
    """Sums an edge array over the edges of each atom; edges are sorted by receiver."""
    return jax.ops.segment_sum(
        x,
        pack.receivers_E,
        pack.species_N.shape[0],
        indices_are_sorted=True,
        mode="promise_in_bounds",
    )


def cosine_cutoff(distance_E: Array, cutoff_ang: float) -> Array:
    """``(cos(pi d / r_c) + 1) / 2`` below the cut-off, else 0."""
    inside_E = 0.5 * (jnp.cos(jnp.pi / cutoff_ang * distance_E) + 1.0)
    return jnp.where(distance_E < cutoff_ang, inside_E, 0.0)


def sinc_basis(distance_E: Array, multiple_R: Array, cutoff_ang: float) -> Array:
    """``sin(n pi d / r_c) / d`` for multiples n; its limit n pi / r_c at d = 0."""
    k_1R = (multiple_R.astype(distance_E.dtype) * (math.pi / cutoff_ang))[None]
    d_E1 = distance_E[:, None]
    apart_E1 = d_E1 > 0
    safe_E1 = jnp.where(apart_E1, d_E1, 1.0)
    return jnp.where(apart_E1, jnp.sin(k_1R * safe_E1) / safe_E1, k_1R)


def gaussian_basis(distance_E: Array, centre_R: Array, width_R: Array) -> Array:
    """``exp(-(d - centre)^2 / (2 width^2))``."""
    scaled_ER = (distance_E[:, None] - centre_R[None]) / width_R[None]
    return jnp.exp(-0.5 * scaled_ER**2)
