"""What is done to molecules before a network has to restore them.

As in Ji et al. 2024 (Uni-Mol2) and their code: some elements are masked, all atoms are
moved at random and the molecule is turned back onto itself; the features of some
molecules are withheld, and some molecules are shown as drawings.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from chemscale_jax.chem.molecule_features import DROPPED, DROPPED_PATH
from chemscale_jax.core.batches import DenoisingRows, MoleculeRows
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.types import Array, Key

MASK = 127  # the token of a masked element


@dataclasses.dataclass(frozen=True, kw_only=True)
class Noise:
    """What is done to how many. The defaults are the paper's, and those of its code.

    Raises:
        UserError: a number is out of range.
    """

    mask_fraction: float = 0.15  # of the atoms of a molecule, whose element is masked
    noise_ang: float = 0.2  # deviation of what is added to each coordinate
    align: bool = True  # turn the noised molecule onto the clean one
    drop_features: float = 0.5  # of the molecules, whose features are withheld
    flat_share: float = 0.5  # of those with features, drawn; not in the text

    def __post_init__(self):
        for field in ("mask_fraction", "drop_features", "flat_share"):
            if not 0 <= (found := getattr(self, field)) <= 1:
                raise UserError(f"config.noise.{field} is {found}, must be in [0, 1]")
        if not 0 <= self.noise_ang < float("inf"):
            raise UserError(
                f"config.noise.noise_ang is {self.noise_ang}, must be 0 or more"
            )


class Noised(NamedTuple):
    """Molecules as a network is shown them, and what it has to restore."""

    rows: MoleculeRows
    species_BN: Array  # uint8, elements without masks
    clean_BN3: Array  # angstrom, centred
    masked_BN: Array  # bool, where the element is masked
    flat_B: Array  # bool, where coordinates are those of the drawing
    featured_B: Array  # bool, where features are shown


def add_noise(noise: Noise, batch: DenoisingRows, key: Key) -> Noised:
    """Molecules with noise that is a function of key and number of each row.

    Args:
        noise: what is done to how many.
        batch: the molecules; their padding is 0.
        key: of all random numbers.
    """
    rows = batch.molecules
    real_BN = rows.species_BN > 0
    keys_B = jax.vmap(jax.random.fold_in, (None, 0))(key, batch.number_B)
    # Random numbers of a molecule do not depend on the places it is padded to: those of
    # an array are the same for each larger one (jax_threefry_partitionable).
    keys_4B = jax.vmap(lambda key: jax.random.split(key, 4), out_axes=1)(keys_B)
    masked_BN = _masked(noise.mask_fraction, real_BN, keys_4B[0])
    share_B2 = jax.vmap(lambda key: jax.random.uniform(key, (2,)))(keys_4B[1])
    # Molecules whose bonds are unknown have no features to begin with.
    known_B = rows.atom_BN8[:, 0, 0] != DROPPED
    featured_B = known_B & (share_B2[:, 0] >= noise.drop_features)
    flat_B = featured_B & (share_B2[:, 1] < noise.flat_share)
    clean_BN3 = jnp.where(flat_B[:, None, None], batch.flat_BN3, rows.positions_BN3)
    clean_BN3 = centred(clean_BN3, real_BN)
    shape = clean_BN3.shape[1:]
    added_BN3 = jax.vmap(lambda key: jax.random.normal(key, shape))(keys_4B[2])
    noised_BN3 = clean_BN3 + noise.noise_ang * added_BN3
    if noise.align:
        noised_BN3 = aligned(noised_BN3, clean_BN3, real_BN)
    shown = _withheld(rows, featured_B, real_BN)._replace(
        species_BN=jnp.where(masked_BN, MASK, rows.species_BN).astype(jnp.uint8),
        positions_BN3=jnp.where(real_BN[..., None], noised_BN3, 0.0),
    )
    return Noised(shown, rows.species_BN, clean_BN3, masked_BN, flat_B, featured_B)


def _masked(fraction: float, real_BN: Array, keys_B: Key) -> Array:
    """``int(fraction N + U)`` atoms of each molecule, U uniform in [0, 1)."""

    def of_molecule(key: Key, real_N: Array) -> Array:
        count_key, order_key = jax.random.split(key)
        atoms = jnp.sum(real_N, dtype=jnp.float32)
        count = jnp.floor(fraction * atoms + jax.random.uniform(count_key))
        score_N = jnp.where(
            real_N, jax.random.uniform(order_key, real_N.shape), jnp.inf
        )
        rank_N = jnp.argsort(jnp.argsort(score_N))
        return real_N & (rank_N < count)

    return jax.vmap(of_molecule)(keys_B, real_BN)


def _withheld(rows: MoleculeRows, featured_B: Array, real_BN: Array) -> MoleculeRows:
    """Rows without features where there shall be none; padding stays 0."""
    pair_BNN = real_BN[:, :, None] & real_BN[:, None, :]

    def of(ids: Array, dropped: int, real: Array) -> Array:
        shown = featured_B.reshape((-1,) + (1,) * (ids.ndim - 1))
        return jnp.where(shown, ids, jnp.where(real, dropped, 0).astype(ids.dtype))

    return rows._replace(
        atom_BN8=of(rows.atom_BN8, DROPPED, real_BN[..., None]),
        bond_BNN3=of(rows.bond_BNN3, DROPPED, pair_BNN[..., None]),
        path_BNN=of(rows.path_BNN, DROPPED_PATH, pair_BNN),
        degree_BN=of(rows.degree_BN, DROPPED, real_BN),
    )


def centred(positions_BN3: Array, real_BN: Array) -> Array:
    """Positions with the mean of each molecule at the origin; padding is 0."""
    mask_BN1 = real_BN[..., None]
    count_B11 = jnp.maximum(jnp.sum(mask_BN1, axis=1, keepdims=True), 1)
    total_B13 = jnp.sum(jnp.where(mask_BN1, positions_BN3, 0), axis=1, keepdims=True)
    return jnp.where(mask_BN1, positions_BN3 - total_B13 / count_B11, 0)


def aligned(moved_BN3: Array, fixed_BN3: Array, real_BN: Array) -> Array:
    """Positions shifted and turned, not mirrored, to be nearest to others.

    The rotation of least square distance (Kabsch 1976), from the quaternion that is
    the eigenvector of the largest eigenvalue of a 4 x 4 matrix (Horn 1987). Where
    several are equally good (one atom, atoms on a line), any of them is taken. There
    is no gradient.

    Args:
        moved_BN3: what is turned.
        fixed_BN3: onto what; its padding is 0, and its molecules are centred.
        real_BN: True for atoms; padding is 0 in the result.
    """
    moved_BN3 = centred(jax.lax.stop_gradient(moved_BN3), real_BN)
    fixed_BN3 = jax.lax.stop_gradient(fixed_BN3)
    s_B33 = jnp.sum(moved_BN3[:, :, :, None] * fixed_BN3[:, :, None, :], axis=1)
    xx, xy, xz, yx, yy, yz, zx, zy, zz = jnp.moveaxis(s_B33.reshape(-1, 9), 1, 0)
    matrix = (
        (xx + yy + zz, yz - zy, zx - xz, xy - yx),
        (yz - zy, xx - yy - zz, xy + yx, zx + xz),
        (zx - xz, xy + yx, yy - xx - zz, yz + zy),
        (xy - yx, zx + xz, yz + zy, zz - xx - yy),
    )
    matrix_B44 = jnp.stack([jnp.stack(row, axis=-1) for row in matrix], axis=-2)
    quaternion_B4 = jnp.linalg.eigh(matrix_B44)[1][..., -1]
    return _rotated(moved_BN3, quaternion_B4)


def _rotated(positions_BN3: Array, quaternion_B4: Array) -> Array:
    """``v + 2 w (u x v) + 2 u x (u x v)`` for the unit quaternion (w, u)."""
    w_B11 = quaternion_B4[:, None, :1]
    u_BN3 = jnp.broadcast_to(quaternion_B4[:, None, 1:], positions_BN3.shape)
    cross_BN3 = jnp.cross(u_BN3, positions_BN3)
    return positions_BN3 + 2 * (w_B11 * cross_BN3 + jnp.cross(u_BN3, cross_BN3))
