"""What the motion of atoms amounts to: temperature, drift of energy, broken bonds."""

import math
from typing import NamedTuple

import numpy as np
from ase import Atoms, units
from ase.data import covalent_radii

# Two atoms are bonded at the start when they are closer than the sum of their covalent
# radii times the first factor; the bond is broken beyond the second.
BONDED_RATIO, BROKEN_RATIO = 1.3, 1.75


class Drift(NamedTuple):
    """How total energy changes in a run that should keep it.

    The slope is that of a straight line through all samples, so the fluctuation of
    the integrator has little part in it.
    """

    mev_per_atom_per_ps: float
    mev_per_atom: float  # the slope times the length of the run
    fluctuation_mev_per_atom: float  # root mean square about the line


def energy_drift(time_fs: np.ndarray, total_ev: np.ndarray, n_atoms: int) -> Drift:
    """The drift of total energies (samples,) at given times.

    Fewer than two samples have no slope; they give 0.
    """
    if len(time_fs) < 2:
        return Drift(0.0, 0.0, 0.0)
    time_ps = np.asarray(time_fs, np.float64) / 1e3
    energy = 1e3 * (np.asarray(total_ev, np.float64) - total_ev[0]) / n_atoms
    centred = time_ps - time_ps.mean()
    slope = float(centred @ energy / (centred @ centred))
    residual = energy - energy.mean() - slope * centred
    length_ps = float(time_ps[-1] - time_ps[0])
    return Drift(slope, slope * length_ps, float(np.sqrt(np.mean(residual**2))))


def draw_velocities(atoms: Atoms, temperature_k: float, seed: int) -> None:
    """Sets Maxwell-Boltzmann momenta without overall motion, exactly at a temperature.

    The total momentum and, for a molecule, the angular momentum are zero. At a minimum
    of energy half of what they bring soon goes into potential energy, so a run from
    there ends at about half the temperature; equilibrate first to avoid that.
    """
    rng = np.random.default_rng(seed)
    masses_N1 = atoms.get_masses()[:, None]
    spread_N1 = np.sqrt(units.kB * temperature_k * masses_N1)
    atoms.set_momenta(spread_N1 * rng.standard_normal((len(atoms), 3)))
    remove_rigid_motion(atoms)
    found_k = kinetic_temperature(atoms)
    if found_k > 0:
        scale = math.sqrt(temperature_k / found_k)
        atoms.set_momenta(scale * atoms.get_momenta())


def rigid_motions(atoms: Atoms) -> np.ndarray:
    """Orthonormal overall motions (5 or 6 for a molecule, 3N) in mass-weighted form.

    A periodic cell has no rotations, a linear molecule two, one atom none.
    """
    root_N1 = np.sqrt(atoms.get_masses())[:, None]
    r_N3 = atoms.positions - atoms.get_center_of_mass()
    fields = [root_N1 * np.tile(axis, (len(atoms), 1)) for axis in np.eye(3)]
    if not atoms.pbc.any():
        fields += [root_N1 * np.cross(axis, r_N3) for axis in np.eye(3)]
    stacked = np.stack([field.ravel() for field in fields])
    _, size, basis = np.linalg.svd(stacked, full_matrices=False)
    return basis[size > 1e-3 * size.max()]


def remove_rigid_motion(atoms: Atoms) -> None:
    """Takes the total momentum and, without a cell, the angular momentum away."""
    root_N1 = np.sqrt(atoms.get_masses())[:, None]
    rigid = rigid_motions(atoms)
    flat = (atoms.get_momenta() / root_N1).ravel()
    flat -= rigid.T @ (rigid @ flat)
    atoms.set_momenta(root_N1 * flat.reshape(-1, 3))


def internal_freedom(atoms: Atoms) -> int:
    """How many coordinates are left without overall motion; at least 1."""
    return max(3 * len(atoms) - len(rigid_motions(atoms)), 1)


def kinetic_temperature(atoms: Atoms, freedom: int | None = None) -> float:
    """Temperature in kelvin of so many coordinates, of the internal ones by default."""
    freedom = internal_freedom(atoms) if freedom is None else freedom
    return float(2 * atoms.get_kinetic_energy() / (freedom * units.kB))


class Bonds:
    """The bonds of a molecule at the start, watched."""

    def __init__(self, atoms: Atoms) -> None:
        """Takes atoms that are close by their covalent radii as bonded."""
        radius_N = covalent_radii[atoms.numbers]
        limit_NN = radius_N[:, None] + radius_N[None]
        near_NN = np.triu(self._distances(atoms) < BONDED_RATIO * limit_NN, k=1)
        self.first, self.second = np.nonzero(near_NN)
        self._limit = BROKEN_RATIO * limit_NN[near_NN]
        self._periodic = bool(atoms.pbc.any())
        self.broken: dict[str, float] = {}  # name -> time in fs

    def look(self, atoms: Atoms, time_fs: float) -> None:
        """Notes bonds that are broken now and were not before."""
        if self._periodic:
            length = self._distances(atoms)[self.first, self.second]
        else:
            x_N3 = atoms.positions
            apart = x_N3[self.first] - x_N3[self.second]
            length = np.sqrt(np.einsum("bi,bi->b", apart, apart))
        for bond in np.flatnonzero(length > self._limit):
            names = [
                f"{atoms[i].symbol}{i}" for i in (self.first[bond], self.second[bond])
            ]
            self.broken.setdefault("-".join(names), time_fs)

    @staticmethod
    def _distances(atoms: Atoms) -> np.ndarray:
        return atoms.get_all_distances(mic=bool(atoms.pbc.any()))
