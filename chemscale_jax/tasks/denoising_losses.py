"""The three losses of pretraining, and what they are without a network.

Ji et al. 2024, Section 3.3, as their code computes them. With N atoms in a molecule,
clean positions r, proposed ones r', and distances d of all ordered pairs::

    token = mean over masked atoms of -log p(element)
    coord = mean over molecules of 1/N sum_i |x - x'| + |y - y'| + |z - z'|
    dist  = mean over molecules of 1/N^2 sum_ij |d_ij - d'_ij|

Each has a baseline: the elements' frequencies in the training set, and for both others
the noised positions as they are.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chemscale_jax.core.task import Mean
from chemscale_jax.core.types import Array
from chemscale_jax.models import unimol2
from chemscale_jax.tasks.conformer_noise import Noised

TOKENS = 128
UNITS: Mapping[str, str] = {
    "token": "nats",
    "token_entropy": "nats",
    "coord": "angstrom",
    "coord_zero": "angstrom",
    "coord_3d": "angstrom",
    "coord_2d": "angstrom",
    "dist": "angstrom",
    "dist_noised": "angstrom",
    "dist_3d": "angstrom",
    "dist_2d": "angstrom",
}


def element_log_probs(counts: Mapping[str, int]) -> np.ndarray:
    """(128,) float32, logarithms of the frequencies of tokens.

    Args:
        counts: {atomic number: atoms of the training set}. Elements that are not
            counted are taken for one atom each.
    """
    atoms = np.ones(TOKENS)
    for number, count in counts.items():
        atoms[int(number)] = max(count, 1)
    return np.log(atoms / atoms[1:].sum()).astype(np.float32)


def denoising_metrics(
    noised: Noised, logits_BNV: Array, positions_BN3: Array
) -> dict[str, Mean]:
    """The losses, and their parts.

    Args:
        noised: what the network was shown.
        logits_BNV: its scores of the 128 tokens.
        positions_BN3: the positions it proposes, angstrom.
    """
    real_BN = noised.species_BN > 0
    wide_BNV = logits_BNV.astype(jnp.promote_types(logits_BNV.dtype, jnp.float32))
    # A sum over the vocabulary, not a gather: its gradient is no scatter.
    chosen_BNV = jnp.arange(TOKENS)[None, None] == noised.species_BN[..., None]
    score_BN = jnp.sum(jnp.where(chosen_BNV, wide_BNV, 0.0), axis=-1)
    nll_BN = jax.nn.logsumexp(wide_BNV, axis=-1) - score_BN
    hit_BN = jnp.argmax(wide_BNV, axis=-1) == noised.species_BN
    coord_B = coordinate_error(noised.clean_BN3, positions_BN3, real_BN)
    dist_B = distance_error(noised.clean_BN3, positions_BN3, real_BN)
    any_B = real_BN.any(axis=1)
    solid_B, flat_B = any_B & ~noised.flat_B, any_B & noised.flat_B
    atoms = jnp.sum(real_BN, dtype=jnp.float32)
    one = jnp.ones((), jnp.float32)
    return {
        "token": _mean(nll_BN, noised.masked_BN),
        "token_accuracy": _mean(hit_BN.astype(jnp.float32), noised.masked_BN),
        "coord": _mean(coord_B, any_B),
        "coord_3d": _mean(coord_B, solid_B),
        "coord_2d": _mean(coord_B, flat_B),
        "dist": _mean(dist_B, any_B),
        "dist_3d": _mean(dist_B, solid_B),
        "dist_2d": _mean(dist_B, flat_B),
        "molecules": Mean(jnp.sum(any_B, dtype=jnp.float32), one),
        "atoms": Mean(atoms, one),
        "atom_fill": Mean(atoms, jnp.float32(real_BN.size)),
    }


def baseline_metrics(noised: Noised, log_prob_V: Any) -> dict[str, Mean]:
    """The same losses without a network.

    Args:
        noised: what the network was shown.
        log_prob_V: of `element_log_probs`.
    """
    real_BN = noised.species_BN > 0
    any_B = real_BN.any(axis=1)
    shown_BN3 = noised.rows.positions_BN3
    nll_BN = -jnp.asarray(log_prob_V)[noised.species_BN.astype(jnp.int32)]
    coord_B = coordinate_error(noised.clean_BN3, shown_BN3, real_BN)
    dist_B = distance_error(noised.clean_BN3, shown_BN3, real_BN)
    return {
        "token_entropy": _mean(nll_BN, noised.masked_BN),
        "coord_zero": _mean(coord_B, any_B),
        "dist_noised": _mean(dist_B, any_B),
    }


def coordinate_error(clean_BN3: Array, found_BN3: Array, real_BN: Array) -> Array:
    """Sum over axes of absolute differences, mean over atoms, (B,) angstrom."""
    error_BN = jnp.sum(jnp.abs(found_BN3 - clean_BN3), axis=-1)
    total_B = jnp.sum(jnp.where(real_BN, error_BN, 0.0), axis=1)
    return total_B / _atoms(real_BN)


def distance_error(clean_BN3: Array, found_BN3: Array, real_BN: Array) -> Array:
    """Absolute differences of distances, mean over N^2 pairs, (B,) angstrom."""
    error_BNN = jnp.abs(unimol2.distances(found_BN3) - unimol2.distances(clean_BN3))
    pair_BNN = real_BN[:, :, None] & real_BN[:, None, :]
    total_B = jnp.sum(jnp.where(pair_BNN, error_BNN, 0.0), axis=(1, 2))
    return total_B / _atoms(real_BN) ** 2


def _atoms(real_BN: Array) -> Array:
    return jnp.maximum(jnp.sum(real_BN, axis=1, dtype=jnp.float32), 1.0)


def _mean(values: Array, mask: Array) -> Mean:
    wide = jnp.promote_types(values.dtype, jnp.float32)
    total = jnp.sum(jnp.where(mask, values, 0.0), dtype=wide)
    return Mean(total, jnp.sum(mask, dtype=jnp.float32))
