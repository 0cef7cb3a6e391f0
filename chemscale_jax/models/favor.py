"""Attention among the atoms of each molecule: FAVOR+ in linear time, or exact.

Choromanski et al., "Rethinking attention with performers", ICLR 2021: with random
directions omega, ``exp(q.k / sqrt d)`` is the mean of ``phi(q) phi(k)`` over features
``phi(x) = exp(x.omega / d^(1/4) - |x|^2 / (2 sqrt d))``, so that

    out_i = phi(q_i)^T [sum_j phi(k_j) v_j^T] / (phi(q_i)^T sum_j phi(k_j))

needs sums over each molecule only, never a matrix of pairs. For few atoms the matrix
``phi(q) phi(k)^T`` is faster, and gives the same. A small number is added to the
features, which makes their scale matter: they are divided by an estimate of
their size, called the maximum.
"""

import math

import jax
import jax.numpy as jnp

from chemscale_jax.core.batches import GraphPack
from chemscale_jax.core.types import Array, Key
from chemscale_jax.models import layers
from chemscale_jax.models.electrostatics import pair_sum

MAXIMA = ("molecule", "batch")
FEATURE_EPS = 1e-4
NORM_EPS = 1e-8
# Up to so many atoms per feature, products with a matrix of all pairs of atoms are
# faster than sums over molecules, which move N R F numbers several times.
DENSE_ATOMS_PER_FEATURE = 4


def molecule_sum(x: Array, pack: GraphPack) -> Array:
    """Sums an atom array over the atoms of each molecule."""
    return jax.ops.segment_sum(
        x,
        pack.molecule_N,
        pack.molecule_mask_M.shape[0],
        indices_are_sorted=True,
        mode="promise_in_bounds",
    )


def _molecule_max(x_N: Array, pack: GraphPack) -> Array:
    return jax.ops.segment_max(
        x_N,
        pack.molecule_N,
        pack.molecule_mask_M.shape[0],
        indices_are_sorted=True,
        mode="promise_in_bounds",
    )


def random_features(key: Key, width: int, count: int) -> Array:
    """Directions omega, (width, count): orthogonal in blocks, of normal length."""
    blocks = -(-count // width)
    block_key, norm_key = jax.random.split(key)
    rows = jax.random.orthogonal(block_key, width, (blocks,))
    rows = rows.reshape(blocks * width, width)[:count]
    normal = jax.random.normal(norm_key, (count, width))
    return (rows * layers.safe_norm(normal)[:, None]).T


def favor_attention(
    q_NF: Array,
    k_NF: Array,
    v_NF: Array,
    omega_FR: Array,
    pack: GraphPack,
    maximum: str = "molecule",
) -> Array:
    """Values averaged over the molecule of each atom with weights ``exp(q.k/sqrt F)``.

    Args:
        q_NF: queries.
        k_NF: keys.
        v_NF: values.
        omega_FR: from `random_features`.
        pack: says which atoms make a molecule.
        maximum: ``molecule`` or ``batch``, see `_key_features`.
    """
    phi_q_NR = _query_features(*_exponents(q_NF, omega_FR), maximum)
    phi_k_NR = _key_features(*_exponents(k_NF, omega_FR), pack, maximum)
    n_atoms, n_features = phi_q_NR.shape
    if n_atoms <= DENSE_ATOMS_PER_FEATURE * n_features:
        same_NN = pack.molecule_N[:, None] == pack.molecule_N[None]
        weight_NN = jnp.where(same_NN, phi_q_NR @ phi_k_NR.T, 0.0)
        norm_N1 = jnp.sum(weight_NN, axis=1, keepdims=True) + NORM_EPS
        return weight_NN @ v_NF / norm_N1
    values_MRF = molecule_sum(phi_k_NR[:, :, None] * v_NF[:, None, :], pack)
    norm_MR = molecule_sum(phi_k_NR, pack)
    values_NRF = layers.rows_of(values_MRF, pack.molecule_N)
    norm_NR = layers.rows_of(norm_MR, pack.molecule_N)
    norm_N1 = jnp.sum(phi_q_NR * norm_NR, axis=1, keepdims=True) + NORM_EPS
    return jnp.einsum("nr,nrf->nf", phi_q_NR, values_NRF) / norm_N1


def _exponents(x_NF: Array, omega_FR: Array) -> tuple[Array, Array]:
    """``x.omega / d^(1/4)`` and ``|x|^2 / (2 sqrt d)``."""
    d = x_NF.shape[1]
    u_NR = (x_NF / d**0.25) @ omega_FR
    h_N1 = jnp.sum(x_NF * x_NF, axis=1, keepdims=True) / (2 * math.sqrt(d))
    return u_NR, h_N1


def _query_features(u_NR: Array, h_N1: Array, maximum: str) -> Array:
    root = math.sqrt(u_NR.shape[1])
    if maximum == "batch":
        top_N1 = jnp.max(u_NR, axis=1, keepdims=True)
        return (jnp.exp(u_NR - h_N1 - top_N1) + FEATURE_EPS) / root
    # h is the same for all features of an atom and cancels.
    top_N1 = jax.lax.stop_gradient(jnp.max(u_NR, axis=1, keepdims=True))
    size_NR = jnp.exp(u_NR - top_N1)
    mean_N1 = jnp.mean(size_NR, axis=1, keepdims=True)
    return (size_NR / mean_N1 + FEATURE_EPS) / root


def _key_features(u_NR: Array, h_N1: Array, pack: GraphPack, maximum: str) -> Array:
    """Features of keys, divided by their size in the molecule.

    ``batch`` is the reference: the size is the exponential of ``max(0, max u)`` over
    the molecule, or of ``max u`` where the pack holds one molecule only, and the
    gradient of a maximum goes to one of the atoms that tie.
    """
    # Differs from the paper: ``molecule`` divides by the mean of the exponentials over
    # the atoms and features of the molecule. So energies do not depend on what else is
    # in the batch, symmetric atoms get symmetric forces, and every derivative exists.
    root = math.sqrt(u_NR.shape[1])
    if maximum == "batch":
        top_M = _molecule_max(jnp.max(u_NR, axis=1), pack)
        alone = jnp.sum(pack.molecule_mask_M) == 1
        top_M = jnp.where(alone, top_M, jnp.maximum(top_M, 0.0))
        top_N1 = layers.rows_of(top_M, pack.molecule_N)[:, None]
        return (jnp.exp(u_NR - h_N1 - top_N1) + FEATURE_EPS) / root
    # The maximum only prevents overflow; it cancels, and so does its gradient.
    x_NR = u_NR - h_N1
    top_M = _molecule_max(jax.lax.stop_gradient(jnp.max(x_NR, axis=1)), pack)
    size_NR = jnp.exp(x_NR - layers.rows_of(top_M, pack.molecule_N)[:, None])
    count_M = molecule_sum(jnp.ones_like(u_NR[:, 0]), pack)
    mean_M = molecule_sum(jnp.mean(size_NR, axis=1), pack) / jnp.maximum(count_M, 1.0)
    mean_N1 = layers.rows_of(mean_M, pack.molecule_N)[:, None]
    return (size_NR / mean_N1 + FEATURE_EPS) / root


def exact_attention(
    q_NF: Array,
    k_NF: Array,
    v_NF: Array,
    pack: GraphPack,
    maximum: str = "molecule",
) -> Array:
    """What `favor_attention` estimates, over all pairs of a molecule.

    Needs the second pair list of the pack, of all pairs. With ``maximum="batch"``, the
    reference, exponents are shifted by their maximum over all pairs of atoms of the
    batch, which enters through a small number added to the norm.
    """
    assert pack.pair_senders_P is not None
    assert pack.pair_receivers_P is not None
    receivers_P, n_atoms = pack.pair_receivers_P, q_NF.shape[0]
    root = math.sqrt(q_NF.shape[1])

    q_PF = layers.rows_of(q_NF, receivers_P)
    k_PF = layers.rows_of(k_NF, pack.pair_senders_P)
    dot_P, own_N = jnp.sum(q_PF * k_PF, axis=1), jnp.sum(q_NF * k_NF, axis=1)
    if maximum == "batch":
        real_N = pack.species_N > 0
        all_NN = jnp.where(real_N[:, None] & real_N[None], q_NF @ k_NF.T, -jnp.inf)
        # Padding has a maximum of its own, so that nothing there overflows.
        top_N, eps = jnp.where(real_N, jnp.max(all_NN), own_N), NORM_EPS
    else:
        top_N = jax.ops.segment_max(
            jax.lax.stop_gradient(dot_P), receivers_P, n_atoms, indices_are_sorted=True
        )
        top_N, eps = jnp.maximum(top_N, jax.lax.stop_gradient(own_N)), 0.0
    weight_P = jnp.exp((dot_P - layers.rows_of(top_N, receivers_P)) / root)
    # Padding pairs join the last atom, which is padding, to itself.
    own_N1 = jnp.exp((own_N - top_N) / root)[:, None]
    sent_PF = weight_P[:, None] * layers.rows_of(v_NF, pack.pair_senders_P)
    total_N1 = pair_sum(weight_P, pack)[:, None] + own_N1 + eps
    return (pair_sum(sent_PF, pack) + own_N1 * v_NF) / total_N1
