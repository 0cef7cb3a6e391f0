"""What an energy model is, and how totals, forces and stress follow from it."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from chemscale_jax.core.batches import GraphPack
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.types import Array, Key, Params

if TYPE_CHECKING:
    # Of models only, which import it: language models need not wait for it.
    import e3nn_jax as e3nn


@dataclasses.dataclass(frozen=True, kw_only=True)
class EnergyModel:
    """A network as pure functions. It gives energies; derivatives are taken here."""

    name: str
    cutoff_ang: float  # edges up to this length must be in the pack
    # Length of the second pair list of the pack, for models that ask for one.
    pair_cutoff_ang: float | None = None
    # True where the energy of an atom follows from atoms that edges join to it, so that
    # far fragments of a molecule add up and periodic cells need nothing else.
    local: bool = True
    # key -> {"params": trained, "constants": saved and sharded, never updated}
    init: Callable[[Key], dict[str, Params]]
    # params, constants, pack -> energy_N in eV, 0 for padding
    energy: Callable[[Params, Params, GraphPack], Array]
    # params, constants, pack -> final features of each atom
    features: "Callable[[Params, Params, GraphPack], e3nn.IrrepsArray]"
    feature_irreps: "e3nn.Irreps"
    # (path regex, logical axes) pairs over "params/..." and "constants/..."
    param_axes: tuple[tuple[str, tuple[str | None, ...]], ...]


def energy_per_molecule(energy_N: Array, pack: GraphPack) -> Array:
    """Sums energies of atoms to molecules, in float32 or wider."""
    return jax.ops.segment_sum(
        energy_N.astype(jnp.promote_types(energy_N.dtype, jnp.float32)),
        pack.molecule_N,
        pack.molecule_mask_M.shape[0],
        indices_are_sorted=True,
        mode="promise_in_bounds",
    )


def energy_and_forces(
    model: EnergyModel, params: Params, constants: Params, pack: GraphPack
) -> tuple[Array, Array]:
    """Energies in eV and forces ``F = -dE/dr`` in eV/angstrom (Eq. 3, Frey et al.).

    Returns:
        energy_M and forces_N3, both 0 for padding.
    """

    def total(positions_N3: Array) -> tuple[Array, Array]:
        moved = pack._replace(positions_N3=positions_N3)
        energy_M = energy_per_molecule(model.energy(params, constants, moved), pack)
        return jnp.sum(energy_M), energy_M

    gradient_N3, energy_M = jax.grad(total, has_aux=True)(pack.positions_N3)
    return energy_M, -gradient_N3


def energy_forces_stress(
    model: EnergyModel, params: Params, constants: Params, pack: GraphPack
) -> tuple[Array, Array, Array]:
    """Energies, forces and stress ``1/V dE/d strain`` of periodic molecules.

    The strain is symmetric and acts on positions and cell alike,
    ``r -> r (1 + strain)``. Stress is in eV/angstrom^3, positive under tension.

    Returns:
        energy_M, forces_N3 and stress_M33; stress is 0 where a cell has no volume.

    Raises:
        UserError: if the pack has no cells.
    """
    if pack.cell_M33 is None:
        raise UserError("stress needs a periodic pack, found one without cells")
    cell_M33 = pack.cell_M33

    def total(positions_N3: Array, strain_M33: Array) -> tuple[Array, Array]:
        symmetric_M33 = 0.5 * (strain_M33 + jnp.swapaxes(strain_M33, 1, 2))
        stretch_N33 = symmetric_M33[pack.molecule_N]
        moved = pack._replace(
            positions_N3=positions_N3
            + jnp.einsum("ni,nij->nj", positions_N3, stretch_N33),
            cell_M33=cell_M33 + cell_M33 @ symmetric_M33,
        )
        energy_M = energy_per_molecule(model.energy(params, constants, moved), pack)
        return jnp.sum(energy_M), energy_M

    (gradient_N3, virial_M33), energy_M = jax.grad(total, argnums=(0, 1), has_aux=True)(
        pack.positions_N3, jnp.zeros_like(cell_M33)
    )
    a_M3, b_M3, c_M3 = cell_M33[:, 0], cell_M33[:, 1], cell_M33[:, 2]
    volume_M = jnp.abs(jnp.sum(a_M3 * jnp.cross(b_M3, c_M3), axis=-1))
    filled_M = volume_M > 0
    volume_M11 = jnp.where(filled_M, volume_M, 1.0)[:, None, None]
    stress_M33 = jnp.where(filled_M[:, None, None], virial_M33 / volume_M11, 0.0)
    return energy_M, -gradient_N3, stress_M33


def smallest_pack() -> GraphPack:
    """One padding atom with both pair lists, from which a network learns its shapes."""
    zeros_1 = jnp.zeros(1)
    index_1 = jnp.zeros(1, jnp.int32)
    no_1 = jnp.zeros(1, bool)
    return GraphPack(
        positions_N3=jnp.zeros((1, 3)),
        species_N=index_1,
        molecule_N=index_1,
        senders_E=index_1,
        receivers_E=index_1,
        molecule_mask_M=no_1,
        charge_M=zeros_1,
        spin_M=zeros_1,
        energy_M=zeros_1,
        energy_mask_M=no_1,
        forces_N3=jnp.zeros((1, 3)),
        forces_mask_N=no_1,
        pair_senders_P=index_1,
        pair_receivers_P=index_1,
    )
