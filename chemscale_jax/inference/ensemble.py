"""Force fields that answer together: opened, grouped by network, run as one program."""

import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import chemscale_jax
from chemscale_jax.chem.elements import MAX_ATOMIC_NUMBER, atomic_number
from chemscale_jax.core.batches import GraphPack
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.types import Array, Params
from chemscale_jax.core.workdir import Workdir
from chemscale_jax.inference.force_field import ForceField, open_force_field
from chemscale_jax.models.energy import (
    EnergyModel,
    energy_and_forces,
    energy_forces_stress,
)

PACKAGED = pathlib.Path(chemscale_jax.__file__).parent / "data/embedded/force_field"
Source = str | pathlib.Path | Workdir | ForceField
# Results of one member; the calculator's programs have this form.
Program = Callable[[EnergyModel, Params, Params, GraphPack], dict[str, Array]]


class Group(NamedTuple):
    """Members of an ensemble that share one network."""

    model: EnergyModel
    variables: tuple[Params, Params]  # with a leading axis of members, unless alone
    members: list[ForceField]


def open_members(source: Source | Sequence[Source]) -> list[ForceField]:
    """The force fields of a workdir, of its ``lanes``, or of several workdirs.

    Args:
        source: the folder of a run; a folder whose subfolders ``lanes/0``, ``lanes/1``,
            ... are such folders; an open force field; or several of these.

    Raises:
        UserError: if there is none, or a folder is no run of a force field.
    """
    if isinstance(source, ForceField):
        return [source]
    if isinstance(source, Workdir | str | pathlib.Path):
        path = source.path if isinstance(source, Workdir) else pathlib.Path(source)
        lanes = [lane for lane in path.glob("lanes/*") if lane.is_dir()]
        lanes.sort(key=lambda lane: (len(lane.name), lane.name))
        return [open_force_field(Workdir(folder)) for folder in lanes or [path]]
    members = [member for one in source for member in open_members(one)]
    if not members:
        raise UserError("an ensemble needs at least one workdir, found none")
    return members


def reference_energies(artifacts: Mapping[str, Any]) -> np.ndarray:
    """Energies of the elements in eV by atomic number; NaN for those never seen.

    What was subtracted before training, plus what calibration found after it.
    """
    energy_Z = np.full(MAX_ATOMIC_NUMBER + 1, np.nan)
    calibration = artifacts.get("calibration_ev") or {}
    for symbol in artifacts["elements"]:
        energy_Z[atomic_number(symbol)] = artifacts["reference_energies_ev"].get(
            symbol, 0.0
        ) + calibration.get(symbol, 0.0)
    return energy_Z


def default_workdir() -> pathlib.Path:
    """The folder of the force field that comes with the package.

    Raises:
        UserError: this version has none.
    """
    if not PACKAGED.is_dir():
        raise UserError("this version comes with no force field; give --workdir=DIR")
    return PACKAGED


def grouped(members: Sequence[ForceField], dtype: str) -> list[Group]:
    """Members by network, with their weights stacked, on the device."""
    alike: dict[str, list[ForceField]] = {}
    for member in members:
        spec = [member.config.model.to_dict(), member.artifacts.get("statistics", {})]
        key = json.dumps(spec, sort_keys=True, default=list)
        alike.setdefault(key, []).append(member)

    def stacked(*leaves: Array) -> np.ndarray:
        together = np.stack([np.asarray(leaf) for leaf in leaves])
        if np.issubdtype(together.dtype, np.floating):
            together = together.astype(dtype)
        return together[0] if len(leaves) == 1 else together

    groups = []
    for same in alike.values():
        variables = [(member.params, member.constants) for member in same]
        placed = jax.device_put(jax.tree.map(stacked, *variables))
        groups.append(Group(same[0].model, placed, same))
    return groups


def of_all(
    program: Program,
    groups: Sequence[Group],
    variables: Sequence[tuple[Params, Params]],
    pack: GraphPack,
) -> dict[str, Array]:
    """Results of a program for every member, group after group, along a new axis K.

    Args:
        program: gives the results of one member.
        groups: see `grouped`.
        variables: of each group; an argument, so that it is no part of the program.
        pack: one molecule or cell.
    """

    def of_group(group: Group, given: tuple[Params, Params]) -> dict[str, Array]:
        if len(group.members) > 1:
            return jax.vmap(lambda p, c: program(group.model, p, c, pack))(*given)
        # A member alone is not batched: a CPU takes that faster.
        alone = program(group.model, *given, pack)
        return jax.tree.map(lambda x: x[None], alone)

    # Else an accelerator may round factors of products to fewer digits, and molecular
    # dynamics would not conserve energy.
    with jax.default_matmul_precision("highest"):
        parts = [of_group(*pair) for pair in zip(groups, variables, strict=True)]
    return jax.tree.map(lambda *x: jnp.concatenate(x), *parts)


def forces(
    model: EnergyModel, params: Params, constants: Params, pack: GraphPack
) -> dict[str, Array]:
    """Energy in eV and forces in eV/angstrom."""
    energy_M, forces_N3 = energy_and_forces(model, params, constants, pack)
    return {"energy_K": energy_M[0], "forces_KN3": forces_N3}


def stress(
    model: EnergyModel, params: Params, constants: Params, pack: GraphPack
) -> dict[str, Array]:
    """The same with stress in eV/angstrom^3."""
    energy_M, forces_N3, stress_M33 = energy_forces_stress(
        model, params, constants, pack
    )
    return {
        "energy_K": energy_M[0],
        "forces_KN3": forces_N3,
        "stress_K33": stress_M33[0],
    }


def energies(
    model: EnergyModel, params: Params, constants: Params, pack: GraphPack
) -> dict[str, Array]:
    """The energy of each atom in eV."""
    return {"energies_KN": model.energy(params, constants, pack)}


def hessian(
    model: EnergyModel, params: Params, constants: Params, pack: GraphPack
) -> dict[str, Array]:
    """Second derivatives in eV/angstrom^2, one row after another."""

    def gradient(positions_N3: Array) -> Array:
        moved = pack._replace(positions_N3=positions_N3)
        return -energy_and_forces(model, params, constants, moved)[1]

    x_N3 = pack.positions_N3
    basis_IN3 = jnp.eye(x_N3.size, dtype=x_N3.dtype).reshape(-1, *x_N3.shape)

    def along(direction_N3: Array) -> Array:
        return jax.jvp(gradient, (x_N3,), (direction_N3,))[1]

    rows_IN3 = jax.lax.map(along, basis_IN3)
    return {"hessian_KN3N3": rows_IN3.reshape(*x_N3.shape, *x_N3.shape)}
