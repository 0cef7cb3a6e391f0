"""Coulomb energy of point charges, damped where charge clouds overlap."""

import jax
import jax.numpy as jnp

from chemscale_jax.core.batches import GraphPack
from chemscale_jax.core.types import Array
from chemscale_jax.models import layers
from chemscale_jax.models.radial_bases import smooth_switch

COULOMB_EV_ANG = 14.399645351950548  # e^2 / (4 pi eps_0)


def pair_distances(pack: GraphPack) -> tuple[Array, Array]:
    """Lengths of the second pair list in angstrom, and which of its pairs are real.

    Padding gets length 1, so that nothing that follows is infinite.
    """
    assert pack.pair_senders_P is not None
    assert pack.pair_receivers_P is not None
    sent_P3 = layers.rows_of(pack.positions_N3, pack.pair_senders_P)
    disp_P3 = sent_P3 - layers.rows_of(pack.positions_N3, pack.pair_receivers_P)
    if pack.cell_M33 is not None and pack.pair_shifts_P3 is not None:
        cell_P33 = pack.cell_M33[pack.molecule_N[pack.pair_receivers_P]]
        shifts_P3 = pack.pair_shifts_P3.astype(disp_P3.dtype)
        disp_P3 = disp_P3 + jnp.einsum("pi,pij->pj", shifts_P3, cell_P33)
    real_P = pack.pair_receivers_P < pack.species_N.shape[0] - 1
    unit_13 = jnp.array([[0.0, 0.0, 1.0]], disp_P3.dtype)
    # Two real atoms at one place have no finite energy; their pair counts as padding.
    real_P = real_P & (jnp.sum(disp_P3 * disp_P3, axis=1) > 0)
    return layers.safe_norm(jnp.where(real_P[:, None], disp_P3, unit_13)), real_P


def pair_sum(x_P: Array, pack: GraphPack) -> Array:
    """Sums a pair array over the pairs of each atom; they are sorted by receiver."""
    assert pack.pair_receivers_P is not None
    return jax.ops.segment_sum(
        x_P,
        pack.pair_receivers_P,
        pack.species_N.shape[0],
        indices_are_sorted=True,
        mode="promise_in_bounds",
    )


def electrostatic_energy(
    charge_N: Array,
    distance_P: Array,
    real_P: Array,
    pack: GraphPack,
    cutoff_ang: float,
    lr_cutoff_ang: float | None = None,
) -> Array:
    """``k_e/2 sum_j q_i q_j [f / sqrt(d^2 + 1) + (1 - f) / d]`` of each atom, in eV.

    The switch f goes from 1 at a quarter of the model's cut-off to 0 at three quarters
    (Unke et al. 2021). No pair is excluded.

    Args:
        charge_N: partial charges.
        distance_P: from `pair_distances`.
        real_P: from `pair_distances`.
        pack: with the second pair list.
        cutoff_ang: of the model.
        lr_cutoff_ang: if given, both laws are shifted to reach it with value and slope
            zero, and vanish beyond.
    """
    assert pack.pair_senders_P is not None
    assert pack.pair_receivers_P is not None
    switch_P = smooth_switch(distance_P, 0.25 * cutoff_ang, 0.75 * cutoff_ang)
    bare_P = 1.0 / distance_P
    damped_P = 1.0 / jnp.sqrt(distance_P**2 + 1.0)
    if lr_cutoff_ang is not None:
        square = lr_cutoff_ang**2
        bare_P = bare_P + distance_P / square - 2.0 / lr_cutoff_ang
        slope = lr_cutoff_ang / (square + 1.0) ** 1.5
        offset = (2.0 * square + 1.0) / (square + 1.0) ** 1.5
        damped_P = damped_P + distance_P * slope - offset
        real_P = real_P & (distance_P < lr_cutoff_ang)
    law_P = switch_P * damped_P + (1.0 - switch_P) * bare_P
    sent_P = layers.rows_of(charge_N, pack.pair_senders_P)
    product_P = sent_P * layers.rows_of(charge_N, pack.pair_receivers_P)
    energy_P = jnp.where(real_P, 0.5 * COULOMB_EV_ANG * product_P * law_P, 0.0)
    return pair_sum(energy_P, pack)
