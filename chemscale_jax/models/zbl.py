"""Repulsion of nuclei at short range, after Ziegler, Biersack and Littmark (1985)."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from chemscale_jax.core.batches import GraphPack
from chemscale_jax.core.types import Array
from chemscale_jax.models import layers
from chemscale_jax.models.electrostatics import COULOMB_EV_ANG

BOHR_ANG = 0.5291772105638411
# Start values; each number is kept positive as the softplus of its parameter.
START = {
    "inverse_length": (1.0 / (0.8854 * BOHR_ANG),),  # 1/angstrom
    "power": (0.23,),
    "weights": (0.18180, 0.50990, 0.28020, 0.02817),
    "decays": (3.20000, 0.94230, 0.40280, 0.20160),
}


def softplus_inverse(value: tuple[float, ...]) -> np.ndarray:
    """The x with ``log(1 + exp(x)) = value``."""
    array = np.asarray(value, np.float64)
    return array + np.log(-np.expm1(-array))


class Repulsion(nn.Module):
    """``k_e/2 sum_j f_c Z_i Z_j / d sum_k c_k exp(-a_k (Z_i^p + Z_j^p) l d)``."""

    @nn.compact
    def __call__(self, distance_E: Array, envelope_E: Array, pack: GraphPack) -> Array:
        """The energy of each atom in eV, half of each edge's.

        Args:
            distance_E: lengths of the edges, angstrom.
            envelope_E: f_c, which is 0 for padding.
            pack: with the edges.
        """

        def positive(name: str) -> Array:
            start = softplus_inverse(START[name])
            return jax.nn.softplus(
                self.param(name, lambda _: jnp.asarray(start, jnp.float32))
            )

        inverse_length, power = positive("inverse_length"), positive("power")
        c_4, a_4 = positive("weights"), positive("decays")
        # Padding has no nucleus; 1 keeps the power's derivative finite.
        z_N = jnp.maximum(pack.species_N, 1).astype(distance_E.dtype)
        z_power_N = z_N**power
        sender_E, receiver_E = pack.senders_E, pack.receivers_E
        sum_E = layers.rows_of(z_power_N, sender_E)
        sum_E = sum_E + layers.rows_of(z_power_N, receiver_E)
        apart_E = distance_E > 0
        d_E = jnp.where(apart_E, distance_E, 1.0)
        x_E1 = (sum_E * inverse_length * d_E)[:, None]
        screen_E = jnp.exp(-a_4[None] * x_E1) @ (c_4 / jnp.sum(c_4))
        product_E = layers.rows_of(z_N, sender_E) * layers.rows_of(z_N, receiver_E)
        energy_E = 0.5 * COULOMB_EV_ANG * product_E / d_E * screen_E * envelope_E
        return layers.sum_to_receivers(jnp.where(apart_E, energy_E, 0.0), pack)
