"""A trained force field, or an ensemble of them, as a calculator of ASE.

    from chemscale_jax.inference.calculator import ForceFieldCalculator

    atoms.calc = ForceFieldCalculator("runs/my-run")
    atoms.get_potential_energy(), atoms.get_forces()

Energies and forces come from one program, compiled once for as long as the neighbour
list has room. Reference energies of the elements are added in float64 on the host.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from chemscale_jax.chem.elements import symbol_of
from chemscale_jax.core.batches import GraphPack
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.types import Params
from chemscale_jax.inference import ensemble, neighbor_list
from chemscale_jax.inference.neighbor_list import NeighborList, Reach, System
from chemscale_jax.inference.training_range import TrainingRangeWarning, remarks

try:
    from ase import Atoms
    from ase.calculators.calculator import (
        Calculator,
        PropertyNotImplementedError,
        all_changes,
    )
    from ase.stress import full_3x3_to_voigt_6_stress
except ImportError:
    raise UserError(
        "the calculator needs ASE, which is not installed: "
        "pip install 'chemscale_jax[ase]'"
    ) from None

DTYPES = ("float32", "float64")


class ForceFieldCalculator(Calculator):
    """Energies, forces and stress of a trained force field, for ASE.

    ``energy`` is the total energy in eV and ``energies`` its share of each atom, both
    with the reference energies of the elements. ``stress`` exists for cells that
    repeat in three directions. With several members results are means over them, and
    ``results["energy_std"]`` and ``results["forces_std"]`` their sample standard
    deviations.

    Charge and number of unpaired electrons are those of ``atoms.info["charge"]`` and
    ``atoms.info["spin"]``, where these exist. A calculator belongs to one thread; two
    calculators share nothing.
    """

    def __init__(
        self,
        source: ensemble.Source | Sequence[ensemble.Source],
        *,
        charge: float = 0.0,
        spin: float = 0.0,
        skin_ang: float = 0.5,
        dtype: str = "float32",
        **kwargs: Any,
    ) -> None:
        """Opens the force fields; compiles at the first calculation.

        Args:
            source: see `ensemble.open_members`.
            charge: in elementary charges, where the atoms do not say.
            spin: unpaired electrons, where the atoms do not say.
            skin_ang: how much further than the cutoff neighbours are listed.
            dtype: "float32", or "float64" for weights and all arithmetic.
            **kwargs: of ASE's ``Calculator``.

        Raises:
            UserError: the source cannot be used, or an option is out of range.
        """
        super().__init__(**kwargs)
        if dtype not in DTYPES:
            raise UserError(f"dtype is {dtype!r}, expected one of {DTYPES}")
        if not skin_ang >= 0:
            raise UserError(f"skin_ang is {skin_ang}, must be >= 0")
        members = ensemble.open_members(source)
        with jax.enable_x64(dtype == "float64"):
            self._groups = ensemble.grouped(members, dtype)
        # In the order in which the groups give their results.
        self.members = [member for group in self._groups for member in group.members]
        models = [member.model for member in self.members]
        pair_cutoffs = [m.pair_cutoff_ang for m in models if m.pair_cutoff_ang]
        self.reach = Reach(
            max(model.cutoff_ang for model in models),
            max(pair_cutoffs) if pair_cutoffs else None,
            skin_ang,
        )
        self.implemented_properties = ["energy", "free_energy", "energies", "forces"]
        self._local = all(m.local and not m.pair_cutoff_ang for m in models)
        if self._local:
            self.implemented_properties.append("stress")
        if len(models) > 1:
            self.implemented_properties += ["energy_std", "forces_std"]
        self.dtype = dtype
        self.compilations = 0  # of any program
        self.list_builds = 0  # how often neighbours were searched
        self._charge, self._spin = float(charge), float(spin)
        self._references = np.stack(
            [ensemble.reference_energies(member.artifacts) for member in self.members]
        )
        self._listed: NeighborList | None = None
        self._placed: GraphPack | None = None  # the list's pack, on the device
        self._warned: set[str] = set()
        self._programs = {
            name: jax.jit(self._counted(program))
            for name, program in (
                ("forces", ensemble.forces),
                ("stress", ensemble.stress),
                ("energies", ensemble.energies),
                ("hessian", ensemble.hessian),
            )
        }

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Fills ``results``; ASE calls this when something has changed.

        Raises:
            UserError: elements that were never trained on, a periodic cell for a model
                that takes none, or results that are not finite.
        """
        if atoms is None:
            atoms = self.atoms
        assert atoms is not None, "a calculator without atoms has nothing to calculate"
        super().calculate(atoms, list(properties), list(system_changes))
        # Else a failure would leave the results of other positions behind.
        self.results = {}
        system = self._system(atoms)
        n_atoms = len(atoms)
        solid = all(system.periodic_3)
        if "stress" in properties and not solid:
            raise PropertyNotImplementedError(
                "stress needs a cell that repeats in three directions"
            )
        found = self._run("stress" if solid else "forces", system)
        forces_KN3 = found["forces_KN3"][:, :n_atoms].astype(np.float64)
        references_KN = self._references[:, system.species_N]
        energy_K = found["energy_K"].astype(np.float64) + references_KN.sum(axis=1)
        assert self._listed is not None
        if not (np.isfinite(energy_K).all() and np.isfinite(forces_KN3).all()):
            raise UserError(
                f"the force field gives energy {energy_K.mean()} eV for "
                f"{atoms.get_chemical_formula()}, whose closest atoms are "
                f"{neighbor_list.closest(self._listed, system.positions_N3):.2f} "
                "angstrom apart; check the geometry, or take a smaller time step"
            )
        results: dict[str, Any] = {
            "energy": float(energy_K.mean()),
            "free_energy": float(energy_K.mean()),
            "forces": forces_KN3.mean(axis=0),
        }
        if len(self.members) > 1:
            results["energy_std"] = float(energy_K.std(ddof=1))
            results["forces_std"] = forces_KN3.std(axis=0, ddof=1)
        if solid:
            stress_33 = found["stress_K33"].astype(np.float64).mean(axis=0)
            results["stress"] = full_3x3_to_voigt_6_stress(stress_33)
        if "energies" in properties:
            energies_KN = self._run("energies", system)["energies_KN"][:, :n_atoms]
            results["energies"] = (energies_KN + references_KN).mean(axis=0)
        self._warn_once(system, results)
        self.results = results

    def hessian(self, atoms: Atoms) -> np.ndarray:
        """Second derivatives (3N, 3N) of the energy in eV/angstrom^2, by JAX."""
        system = self._system(atoms)
        size = 3 * len(atoms)
        found = self._run("hessian", system)["hessian_KN3N3"]
        N3 = 3 * found.shape[1]
        hessian_KII = found.reshape(len(found), N3, N3)[:, :size, :size]
        hessian = hessian_KII.astype(np.float64).mean(axis=0)
        return 0.5 * (hessian + hessian.T)

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """What has changed since the last calculation, charge and spin included."""
        changes = super().check_state(atoms, tol)
        if self.atoms is not None and self._state(atoms) != self._state(self.atoms):
            changes.append("initial_charges")
        return changes

    def _state(self, atoms: Atoms) -> tuple[float, float]:
        info = atoms.info
        charge, spin = info.get("charge", self._charge), info.get("spin", self._spin)
        return float(charge), float(spin)

    def _system(self, atoms: Atoms) -> System:
        """What the force field has to know of the atoms, checked."""
        numbers_N = atoms.numbers
        if not len(numbers_N):
            raise UserError("there are no atoms to calculate")
        if not np.isfinite(atoms.positions).all():
            raise UserError(
                f"positions of {atoms.get_chemical_formula()} are not finite; check "
                "the geometry"
            )
        known_Z = ~np.isnan(self._references.sum(axis=0))
        if not known_Z[numbers_N].all():
            unseen = sorted({symbol_of(int(z)) for z in numbers_N[~known_Z[numbers_N]]})
            seen = [symbol_of(int(z)) for z in np.flatnonzero(known_Z)]
            raise UserError(
                f"{atoms.get_chemical_formula()} has {', '.join(unseen)}, which the "
                f"force field was never trained on (it knows {', '.join(seen)}); train "
                "on data with these elements"
            )
        charge, spin = self._state(atoms)
        cell_33 = None
        if atoms.pbc.any():
            if not self._local:
                raise UserError(
                    f"{self.members[0].model.name} with these options takes no "
                    "periodic cell, because an atom feels others beyond the cutoff; "
                    "set atoms.pbc = False or use a local model"
                )
            cell_33 = _full_cell(atoms, 2 * self.reach.cutoff_ang)
        return System(
            numbers_N.copy(),
            atoms.positions.copy(),
            charge,
            spin,
            cell_33,
            (bool(atoms.pbc[0]), bool(atoms.pbc[1]), bool(atoms.pbc[2])),
        )

    def _run(self, name: str, system: System) -> dict[str, np.ndarray]:
        """Results of a program for the system, as NumPy arrays."""
        listed = self._listed
        skin_ang = self.reach.skin_ang
        with jax.enable_x64(self.dtype == "float64"):
            if listed is None or not neighbor_list.still_holds(
                listed, system, skin_ang
            ):
                room = neighbor_list.Capacity() if listed is None else listed.capacity
                listed = neighbor_list.make_list(system, self.reach, room, self.dtype)
                self._listed = listed
                self._placed = jax.device_put(listed.pack)
                self.list_builds += 1
            assert self._placed is not None
            pack = self._placed._replace(
                positions_N3=neighbor_list.padded_positions(listed, system.positions_N3)
            )
            variables = tuple(group.variables for group in self._groups)
            return jax.device_get(self._programs[name](variables, pack))

    def _counted(self, program: ensemble.Program) -> Any:
        """A program over all members that counts how often it is compiled."""

        def run(variables: Sequence[tuple[Params, Params]], pack: GraphPack) -> Any:
            self.compilations += 1
            return ensemble.of_all(program, self._groups, variables, pack)

        return run

    def _warn_once(self, system: System, results: Mapping[str, Any]) -> None:
        """Warns once of each way in which a geometry is outside the training set."""
        assert self._listed is not None
        for fact, sentence in remarks(
            self.members[0].artifacts,
            self._listed,
            system,
            results,
            self.reach.cutoff_ang,
            self._warned,
        ):
            if fact not in self._warned:
                self._warned.add(fact)
                warnings.warn(
                    f"outside the training range: {sentence} ({fact} in "
                    "artifacts.json; said once)",
                    TrainingRangeWarning,
                    stacklevel=2,
                )


def _full_cell(atoms: Atoms, least_ang: float) -> np.ndarray:
    """The cell, with vectors put in where an axis that does not repeat has none."""
    cell_33 = np.array(atoms.cell.complete())
    missing_3 = ~np.any(np.asarray(atoms.cell), axis=1)
    if (missing_3 & atoms.pbc).any():
        raise UserError(
            f"the cell {np.asarray(atoms.cell).tolist()} has no vector along an axis "
            f"that repeats (pbc {atoms.pbc.tolist()}); set atoms.cell or atoms.pbc"
        )
    # Longer than the cutoff, so that few images are searched.
    cell_33[missing_3] *= least_ang
    return cell_33
