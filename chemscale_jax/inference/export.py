"""A force field for other programs: as StableHLO on disk, and as a function of JAX.

Both take plain arrays. Edges may come in any order and may be padded with the index
``n``, one more than that of the last of n atoms; each pair must be there both ways, and
pairs beyond the cutoff have no effect.
"""

import importlib.util
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

import chemscale_jax
from chemscale_jax.chem.elements import atomic_number, symbol_of
from chemscale_jax.chem.neighbors import all_pairs
from chemscale_jax.core.batches import GraphPack
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.types import Array, Params
from chemscale_jax.core.workdir import write_json
from chemscale_jax.inference.ensemble import reference_energies
from chemscale_jax.inference.force_field import ForceField
from chemscale_jax.models.energy import (
    energy_and_forces,
    energy_forces_stress,
    energy_per_molecule,
)

PROGRAM, DESCRIPTION = "force_field.stablehlo", "force_field.json"
PLATFORMS = ("cpu", "cuda", "tpu")


def make_energy_fn(
    force_field: ForceField,
    species: Sequence[int] | np.ndarray,
    box: float | Sequence[float] | np.ndarray | None = None,
    *,
    charge: float = 0.0,
    spin: float = 0.0,
) -> Callable[[Array, Array, Array], Array]:
    """The energy of a system as a pure function that can be jitted and differentiated.

    Made for jax_md: with a neighbour list of the format ``Sparse``, whose ``idx``
    holds two rows of indices padded with the number of atoms,
    ``energy_fn(R, *neighbor.idx)``. Its cutoff must be at least the model's.

    Args:
        force_field: gives weights and network.
        species: atomic numbers (N,).
        box: of a periodic system: an edge, three edges, or a matrix whose rows are the
            cell vectors, in angstrom. Pairs are taken at their nearest images.
        charge: elementary charges.
        spin: unpaired electrons.

    Returns:
        ``energy_fn(positions_N3, senders_E, receivers_E)``, in eV without the
        reference energies of the elements, which float32 could not hold.

    Raises:
        UserError: elements that were never trained on, or a box that is too small or
            that the model cannot use.
    """
    model = force_field.model
    species_N = np.asarray(species, np.int32)
    _check_species(force_field, species_N)
    cell_33 = None if box is None else _cell(box)
    if cell_33 is not None:
        _check_cell(force_field, cell_33)
    N = len(species_N)
    pairs = None if model.pair_cutoff_ang is None else all_pairs(N)

    def energy_fn(positions: Array, senders: Array, receivers: Array) -> Array:
        shifts_E3 = cell = None
        if cell_33 is not None:
            cell = jnp.asarray(cell_33, positions.dtype)
            shifts_E3 = _nearest_images(positions, cell, senders, receivers)
        pack = _make_pack(
            positions,
            jnp.asarray(species_N),
            senders,
            receivers,
            jnp.asarray(charge, positions.dtype),
            jnp.asarray(spin, positions.dtype),
            cell,
            shifts_E3,
            None if pairs is None else (jnp.asarray(pairs[1]), jnp.asarray(pairs[0])),
        )
        params, constants = _weights(force_field)
        energy_N = model.energy(params, constants, pack)
        return energy_per_molecule(energy_N, pack)[0]

    return energy_fn


def export_force_field(
    force_field: ForceField,
    folder: pathlib.Path,
    *,
    periodic: bool = False,
    platforms: Sequence[str] = PLATFORMS,
) -> dict[str, Any]:
    """Writes a program of any number of atoms and edges, weights included.

    ``force_field.stablehlo`` is what ``jax.export.deserialize`` reads;
    ``force_field.json`` says what it takes and gives.

    Args:
        force_field: what to write.
        folder: made if it is not there.
        periodic: takes a cell and shifts, and also gives stress.
        platforms: on which it will run.

    Returns:
        The contents of the description.

    Raises:
        UserError: periodic for a model that takes no cells, or a package is missing.
    """
    if importlib.util.find_spec("flatbuffers") is None:
        raise UserError(
            "jax.export writes files with flatbuffers, which is not installed: "
            "pip install 'chemscale_jax[export]'"
        )
    model = force_field.model
    if periodic:
        _check_local(force_field)
    paired = model.pair_cutoff_ang is not None
    # Models that halve a list must be sure that something is left of it.
    n, e, p = export.symbolic_shape("n, e, p", constraints=["n >= 1", "e >= 4"])
    real, index = np.dtype("float32"), np.dtype("int32")
    inputs: dict[str, tuple[tuple[Any, ...], np.dtype, str]] = {
        "positions": ((n, 3), real, "angstrom"),
        "species": ((n,), index, "atomic numbers"),
        "senders": ((e,), index, "atom j of each pair; n for padding; e >= 4"),
        "receivers": ((e,), index, "atom i of each pair; n for padding"),
        "charge": ((), real, "elementary charges"),
        "spin": ((), real, "unpaired electrons"),
    }
    if periodic:
        inputs["cell"] = ((3, 3), real, "cell vectors as rows, angstrom")
        inputs["shifts"] = (
            (e, 3),
            index,
            "cells that the sender is shifted by: r_j + shift @ cell - r_i",
        )
    if paired:
        inputs["pair_senders"] = ((p,), index, "as senders, of the longer list")
        inputs["pair_receivers"] = ((p,), index, "as receivers, of the longer list")

    def evaluate(*arrays: Array) -> dict[str, Array]:
        given = dict(zip(inputs, arrays, strict=True))
        pack = _make_pack(
            given["positions"],
            given["species"],
            given["senders"],
            given["receivers"],
            given["charge"],
            given["spin"],
            given.get("cell"),
            given.get("shifts"),
            (given["pair_senders"], given["pair_receivers"]) if paired else None,
        )
        params, constants = _weights(force_field)
        with jax.default_matmul_precision("highest"):
            if periodic:
                energy_M, forces_N3, stress = energy_forces_stress(
                    model, params, constants, pack
                )
                found = {"stress": stress[0]}
            else:
                energy_M, forces_N3 = energy_and_forces(model, params, constants, pack)
                found = {}
        return {"energy": energy_M[0], "forces": forces_N3[:-1], **found}

    shapes = [jax.ShapeDtypeStruct(shape, kind) for shape, kind, _ in inputs.values()]
    exported = export.export(jax.jit(evaluate), platforms=list(platforms))(*shapes)
    energy_Z = reference_energies(force_field.artifacts)
    seen = np.flatnonzero(np.isfinite(energy_Z))
    description = {
        "program": PROGRAM,
        "model": model.name,
        "inputs": [
            {"name": name, "shape": str(shape), "dtype": str(kind), "meaning": meaning}
            for name, (shape, kind, meaning) in inputs.items()
        ],
        "outputs": {
            "energy": "eV, without reference_energies_ev",
            "forces": "(n, 3), eV/angstrom",
            **({"stress": "(3, 3), eV/angstrom^3"} if periodic else {}),
        },
        "cutoff_ang": model.cutoff_ang,
        # JSON has no infinity.
        "pair_cutoff": str(model.pair_cutoff_ang) if paired else None,
        "reference_energies_ev": {symbol_of(int(z)): float(energy_Z[z]) for z in seen},
        "platforms": list(exported.platforms),
        "calling_convention_version": exported.calling_convention_version,
        "versions": {
            "chemscale_jax": chemscale_jax.__version__,
            "jax": jax.__version__,
        },
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PROGRAM).write_bytes(exported.serialize())
    write_json(folder / DESCRIPTION, description)
    return description


def _weights(force_field: ForceField) -> tuple[Params, Params]:
    """Parameters and constants as arrays of JAX, whose indexing models rely on."""
    both = (force_field.params, force_field.constants)
    return jax.tree.map(jnp.asarray, both)


def _make_pack(
    positions_n3: Array,
    species_n: Array,
    senders_E: Array,
    receivers_E: Array,
    charge: Array,
    spin: Array,
    cell_33: Array | None,
    shifts_E3: Array | None,
    pairs: tuple[Array, Array] | None,
) -> GraphPack:
    """A pack of one molecule with one atom of padding, its edges sorted."""
    n = positions_n3.shape[0]
    order_E = jnp.argsort(receivers_E)
    dtype = positions_n3.dtype
    pack = GraphPack(
        positions_N3=jnp.concatenate([positions_n3, jnp.zeros((1, 3), dtype)]),
        species_N=jnp.concatenate([species_n, jnp.zeros(1, species_n.dtype)]),
        molecule_N=(jnp.arange(n + 1) == n).astype(jnp.int32),
        senders_E=senders_E[order_E],
        receivers_E=receivers_E[order_E],
        molecule_mask_M=jnp.array([True, False]),
        charge_M=jnp.stack([charge, jnp.zeros_like(charge)]),
        spin_M=jnp.stack([spin, jnp.zeros_like(spin)]),
        energy_M=jnp.zeros(2, dtype),
        energy_mask_M=jnp.zeros(2, bool),
        forces_N3=jnp.zeros((n + 1, 3), dtype),
        forces_mask_N=jnp.zeros(n + 1, bool),
    )
    if cell_33 is not None and shifts_E3 is not None:
        pack = pack._replace(
            cell_M33=jnp.stack([cell_33, jnp.zeros_like(cell_33)]),
            shifts_E3=shifts_E3[order_E],
        )
    if pairs is not None:
        order_P = jnp.argsort(pairs[1])
        pack = pack._replace(
            pair_senders_P=pairs[0][order_P], pair_receivers_P=pairs[1][order_P]
        )
    return pack


def _nearest_images(
    positions_n3: Array, cell_33: Array, senders_E: Array, receivers_E: Array
) -> Array:
    """Shifts (E, 3) that bring each sender next to its receiver."""
    padded_N3 = jnp.concatenate([positions_n3, jnp.zeros_like(positions_n3[:1])])
    apart_E3 = padded_N3[senders_E] - padded_N3[receivers_E]
    cells_E3 = jnp.round(apart_E3 @ jnp.linalg.inv(cell_33))
    return -jax.lax.stop_gradient(cells_E3).astype(jnp.int32)


def _cell(box: float | Sequence[float] | np.ndarray) -> np.ndarray:
    """Cell vectors as rows from an edge, three edges or a matrix."""
    array = np.asarray(box, np.float64)
    if array.shape not in ((), (3,), (3, 3)):
        raise UserError(
            f"box has shape {array.shape}; give an edge, three edges or a 3x3 matrix"
        )
    return array if array.ndim == 2 else np.diag(np.broadcast_to(array, 3))


def _check_species(force_field: ForceField, species_N: np.ndarray) -> None:
    known = {atomic_number(symbol) for symbol in force_field.artifacts["elements"]}
    if unseen := sorted(set(species_N.tolist()) - known):
        raise UserError(
            f"species has atomic numbers {unseen}, which the force field was never "
            f"trained on; it knows {sorted(known)}"
        )


def _check_local(force_field: ForceField) -> None:
    model = force_field.model
    if not model.local or model.pair_cutoff_ang is not None:
        raise UserError(
            f"{model.name} with these options takes no periodic cell, because an atom "
            "feels others beyond the cutoff"
        )


def _check_cell(force_field: ForceField, cell_33: np.ndarray) -> None:
    _check_local(force_field)
    # The planes of a cell are 1 / |column of the inverse| apart.
    least = 1 / np.linalg.norm(np.linalg.inv(cell_33), axis=0).max()
    if least < 2 * force_field.model.cutoff_ang:
        raise UserError(
            f"the box is {least:.2f} angstrom across, nearest images need twice the "
            f"cutoff, {2 * force_field.model.cutoff_ang:.2f}; repeat the system"
        )
