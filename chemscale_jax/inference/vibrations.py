"""Harmonic vibrations of a molecule, from second derivatives of its energy."""

import dataclasses
import math
import tempfile

import numpy as np
from ase import Atoms
from ase import vibrations as ase_vibrations
from ase.calculators.calculator import Calculator

from chemscale_jax.chem.units import CM1_EV, DALTON_EV_FS2_PER_ANG2
from chemscale_jax.core.errors import UserError
from chemscale_jax.inference.calculator import ForceFieldCalculator
from chemscale_jax.inference.motion import rigid_motions

METHODS = ("jax", "differences")
_LIGHT_CM_PER_FS = 2.99792458e-5


@dataclasses.dataclass(frozen=True)
class Vibrations:
    """Frequencies and modes without translations and rotations."""

    wavenumber_cm1: np.ndarray  # (modes,), ascending; negative for an imaginary one
    modes_N3: np.ndarray  # (modes, N, 3), orthonormal in mass-weighted coordinates
    hessian_ev_per_ang2: np.ndarray  # (3N, 3N)

    @property
    def zero_point_ev(self) -> float:
        """Half a quantum of each real vibration."""
        real = self.wavenumber_cm1[self.wavenumber_cm1 > 0]
        return float(0.5 * CM1_EV * real.sum())


def vibrations(
    atoms: Atoms,
    calculator: Calculator,
    *,
    method: str = "jax",
    step_ang: float = 0.01,
) -> Vibrations:
    """Vibrations at a geometry, which should be relaxed.

    Args:
        atoms: a molecule; not changed.
        calculator: gives forces.
        method: "jax" differentiates twice and needs a `ForceFieldCalculator`;
            "differences" takes central differences of forces through ASE.
        step_ang: of the differences.

    Raises:
        UserError: for an unknown method or a periodic cell.
    """
    if method not in METHODS:
        raise UserError(f"method is {method!r}, expected one of {METHODS}")
    if atoms.pbc.any():
        raise UserError(
            f"{atoms.get_chemical_formula()} is periodic, but vibrations are for "
            "molecules; set atoms.pbc = False"
        )
    atoms = atoms.copy()
    if method == "differences":
        atoms.calc = calculator
        with tempfile.TemporaryDirectory() as folder:
            search = ase_vibrations.Vibrations(atoms, name=folder, delta=step_ang)
            search.run()
            hessian = np.asarray(search.get_vibrations().get_hessian_2d())
    elif isinstance(calculator, ForceFieldCalculator):
        hessian = calculator.hessian(atoms)
    else:
        raise UserError(
            f"method 'jax' needs a ForceFieldCalculator, found {type(calculator)}; "
            "take method 'differences'"
        )
    return harmonic(atoms, hessian)


def harmonic(atoms: Atoms, hessian_ev_per_ang2: np.ndarray) -> Vibrations:
    """Vibrations of a Hessian (3N, 3N), from which overall motion is projected out."""
    masses = np.repeat(atoms.get_masses() * DALTON_EV_FS2_PER_ANG2, 3)
    weighted = hessian_ev_per_ang2 / np.sqrt(np.outer(masses, masses))
    rigid = rigid_motions(atoms)
    project = np.eye(len(masses)) - rigid.T @ rigid
    # Overall motions go below every vibration, so eigh lists them first.
    lowest = 2 * np.abs(weighted).sum(axis=1).max() + 1.0
    values, vectors = np.linalg.eigh(
        project @ weighted @ project - lowest * rigid.T @ rigid
    )
    values, vectors = values[len(rigid) :], vectors[:, len(rigid) :]
    omega_per_fs = np.sign(values) * np.sqrt(np.abs(values))
    return Vibrations(
        wavenumber_cm1=omega_per_fs / (2 * math.pi * _LIGHT_CM_PER_FS),
        modes_N3=vectors.T.reshape(-1, len(atoms), 3),
        hessian_ev_per_ang2=hessian_ev_per_ang2,
    )
