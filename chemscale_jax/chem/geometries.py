"""Molecular geometries away from equilibrium, drawn the way ANI's were.

Conformers by RDKit's ETKDG are relaxed with GFN2-xTB; then each frame is one of

- a normal-mode sample (Smith, Isayev, Roitberg, Chem. Sci. 2017, 8, 3192, section 2):
  a random share of ``3/2 N kT`` goes into each mode, with a random sign;
- a thermal sample: a Boltzmann draw on the quadratic surface, followed by 20 fs of
  Langevin dynamics on the GFN2-xTB surface;
- a stretched bond: a gentle normal-mode sample in which one bond that is in no ring is
  up to 1 angstrom longer.

A frame is a function of (seed, molecule, frame index), so any one can be made alone.
"""

import dataclasses
import enum

import numpy as np
import scipy.optimize
from rdkit import Chem
from rdkit.Chem import rdDistGeom, rdMolDescriptors

from chemscale_jax.chem.elements import masses_of
from chemscale_jax.chem.molecule_list import smiles_hash
from chemscale_jax.chem.units import BOLTZMANN_EV, DALTON_EV_FS2_PER_ANG2
from chemscale_jax.chem.xtb import ScfError, Surface

MAX_CONFORMERS = 3
RELAXED_FORCE_EV_PER_ANG = 0.01
HESSIAN_STEP_ANG = 0.005
STRETCHED_SHARE = 0.05
THERMAL_SHARE = 0.20
NORMAL_MODE_KELVIN = (100.0, 900.0)
THERMAL_KELVIN = (300.0, 1000.0)
STRETCHED_KELVIN = (50.0, 300.0)
STRETCH_ANG = (0.1, 1.0)
# A mode moves no atom further than this: along a straight line, floppy modes such as
# the turning of a methyl group would tear bonds. Differs from the paper: no such cap.
MODE_CAP_ANG = 0.4
LANGEVIN_STEPS = 20
LANGEVIN_STEP_FS = 1.0
LANGEVIN_FRICTION_PER_FS = 0.02


class FrameKind(enum.IntEnum):
    """How a geometry was made."""

    NORMAL_MODE = 0
    THERMAL = 1
    STRETCHED = 2


class GeometryError(RuntimeError):
    """No usable equilibrium geometry was found for a molecule."""


@dataclasses.dataclass(frozen=True)
class Minimum:
    """A relaxed conformer and its vibrations."""

    positions_ang: np.ndarray  # (N, 3)
    energy_ev: float
    omega_per_fs: np.ndarray  # (n_modes,), angular frequencies
    modes: np.ndarray  # (n_modes, N, 3), orthonormal in mass-weighted coordinates


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A molecule ready to be sampled."""

    smiles: str
    numbers: np.ndarray  # (N,) uint8
    root_masses: np.ndarray  # (N,), square roots of masses in eV fs^2 / angstrom^2
    minima: tuple[Minimum, ...]
    # Per bond in no ring: one atom, the other, and the atoms on the other's side.
    open_bonds: tuple[tuple[int, int, tuple[int, ...]], ...]


def prepare(smiles: str, seed: int) -> Prepared:
    """Conformers of a molecule, relaxed, with their normal modes.

    Args:
        smiles: canonical SMILES of a neutral closed-shell molecule.
        seed: of the whole data set; the molecule's own seed is made from both.

    Raises:
        GeometryError: no conformer could be embedded and relaxed to the molecule that
            the SMILES describes.
    """
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    numbers = np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()], np.uint8)
    root_masses = np.sqrt(masses_of(numbers) * DALTON_EV_FS2_PER_ANG2)
    n_rotatable = rdMolDescriptors.CalcNumRotatableBonds(mol)
    params = rdDistGeom.ETKDGv3()
    params.randomSeed = (smiles_hash(smiles) + seed) % (2**31 - 1)
    ids = rdDistGeom.EmbedMultipleConfs(
        mol, min(MAX_CONFORMERS, 1 + n_rotatable), params
    )
    minima: list[Minimum] = []
    for conformer in ids:
        start = mol.GetConformer(conformer).GetPositions()
        try:
            positions, energy = _relax(numbers, start)
            known = any(abs(energy - other.energy_ev) < 2e-3 for other in minima)
            if known or not _same_bonds(mol, positions):
                continue
            omega, modes = _normal_modes(numbers, root_masses, positions)
        except ScfError:
            continue
        minima.append(Minimum(positions, energy, omega, modes))
    if not minima:
        raise GeometryError(
            f"{smiles}: none of {len(ids)} embedded conformers relaxed to this molecule"
        )
    return Prepared(smiles, numbers, root_masses, tuple(minima), _open_bonds(mol))


def atom_count(smiles: str) -> int:
    """How many atoms a molecule has, with its hydrogens."""
    return Chem.AddHs(Chem.MolFromSmiles(smiles)).GetNumAtoms()


def draw_frame(
    prepared: Prepared, seed: int, index: int, thermal_share: float | None = None
) -> tuple[np.ndarray, FrameKind]:
    """Geometry number ``index`` of a molecule: positions in angstrom and how it came.

    The minima take turns. Equal (seed, molecule, index) give equal geometries.

    Args:
        prepared: the molecule.
        seed: of the whole data set.
        index: from 0.
        thermal_share: how many of all frames come from dynamics; ``THERMAL_SHARE``
            if not given.

    Raises:
        ScfError: the dynamics of a thermal frame met a geometry without a
            self-consistent field.
    """
    if thermal_share is None:
        thermal_share = THERMAL_SHARE
    rng = np.random.default_rng([seed, smiles_hash(prepared.smiles), index])
    minimum = prepared.minima[index % len(prepared.minima)]
    dice = rng.random()
    if dice < STRETCHED_SHARE and prepared.open_bonds:
        kelvin = rng.uniform(*STRETCHED_KELVIN)
        positions = _normal_mode_sample(prepared, minimum, kelvin, rng)
        return _stretch(prepared, positions, rng), FrameKind.STRETCHED
    if dice < STRETCHED_SHARE + thermal_share:
        kelvin = rng.uniform(*THERMAL_KELVIN)
        return _thermal_sample(prepared, minimum, kelvin, rng), FrameKind.THERMAL
    kelvin = rng.uniform(*NORMAL_MODE_KELVIN)
    positions = _normal_mode_sample(prepared, minimum, kelvin, rng)
    return positions, FrameKind.NORMAL_MODE


def _relax(numbers: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, float]:
    """The minimum near ``start`` (loosely converged) and its energy in eV."""
    surface = Surface(numbers)

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        energy, forces = surface(flat.reshape(-1, 3))
        return energy, -forces.ravel()

    found = scipy.optimize.minimize(
        objective,
        start.ravel(),
        jac=True,
        method="L-BFGS-B",
        options={"gtol": RELAXED_FORCE_EV_PER_ANG, "ftol": 1e-10, "maxiter": 300},
    )
    return found.x.reshape(-1, 3), float(found.fun)


def _normal_modes(
    numbers: np.ndarray, root_masses: np.ndarray, positions: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Angular frequencies (1/fs) and mass-weighted modes at a minimum.

    The Hessian is made of central differences of forces; translations and rotations
    are projected out, so that 3N - 6 modes are left (3N - 5 for a linear molecule).
    """
    n_atoms = len(numbers)
    surface = Surface(numbers, accuracy=0.3)
    surface(positions)
    hessian = np.empty((3 * n_atoms, 3 * n_atoms))
    for row in range(3 * n_atoms):
        step = np.zeros(3 * n_atoms)
        step[row] = HESSIAN_STEP_ANG
        _, ahead = surface(positions + step.reshape(-1, 3))
        _, behind = surface(positions - step.reshape(-1, 3))
        hessian[row] = (behind - ahead).ravel() / (2 * HESSIAN_STEP_ANG)
    weights = np.repeat(root_masses, 3)
    weighted = (hessian + hessian.T) / (2 * np.outer(weights, weights))

    masses = root_masses**2
    centred = positions - masses @ positions / masses.sum()
    rigid = [np.tile(axis, (n_atoms, 1)) for axis in np.eye(3)]
    rigid += [np.cross(axis, centred) for axis in np.eye(3)]
    rigid = np.stack([(root_masses[:, None] * field).ravel() for field in rigid])
    rigid /= np.linalg.norm(rigid, axis=1).max()
    _, sizes, basis = np.linalg.svd(rigid, full_matrices=False)
    # A linear molecule has no rotation about its axis; bent by less than this, the
    # third rotation is taken for one of its bends.
    basis = basis[sizes > 0.02]
    project = np.eye(3 * n_atoms) - basis.T @ basis
    # Rigid motions are shifted below every vibration, so eigh lists them first.
    values, vectors = np.linalg.eigh(
        project @ weighted @ project - 10.0 * basis.T @ basis
    )
    values, vectors = values[len(basis) :], vectors[:, len(basis) :]
    # A loose minimum may leave a weak negative curvature; its size is what matters.
    omega = np.sqrt(np.maximum(np.abs(values), 1e-8))
    return omega, vectors.T.reshape(-1, n_atoms, 3)


def _displaced(
    prepared: Prepared, minimum: Minimum, amplitudes: np.ndarray
) -> np.ndarray:
    """Positions with each mode displaced by its mass-weighted amplitude, capped."""
    moves = amplitudes[:, None, None] * minimum.modes / prepared.root_masses[:, None]
    largest = np.linalg.norm(moves, axis=-1).max(axis=-1)
    capped = (
        moves * np.minimum(1, MODE_CAP_ANG / np.maximum(largest, 1e-12))[:, None, None]
    )
    return minimum.positions_ang + capped.sum(axis=0)


def _normal_mode_sample(
    prepared: Prepared, minimum: Minimum, kelvin: float, rng: np.random.Generator
) -> np.ndarray:
    """Normal-mode sampling: mode i gets the energy ``3/2 c_i N kT``, ``sum c_i <= 1``.

    The shares ``c_i`` are uniform on the simplex, times a uniform total.
    """
    n_modes = len(minimum.omega_per_fs)
    shares = rng.dirichlet(np.ones(n_modes)) * rng.random()
    signs = rng.choice([-1.0, 1.0], n_modes)
    thermal_ev = BOLTZMANN_EV * kelvin * len(prepared.numbers)
    amplitudes = signs * np.sqrt(3 * shares * thermal_ev) / minimum.omega_per_fs
    return _displaced(prepared, minimum, amplitudes)


def _thermal_sample(
    prepared: Prepared, minimum: Minimum, kelvin: float, rng: np.random.Generator
) -> np.ndarray:
    """A harmonic Boltzmann draw, then Langevin dynamics (BAOAB) with GFN2-xTB forces.

    BAOAB: Leimkuhler, Matthews, Appl. Math. Res. Express 2013, 34.
    """
    root_kt = np.sqrt(BOLTZMANN_EV * kelvin)
    noise = rng.standard_normal(len(minimum.omega_per_fs))
    positions = _displaced(prepared, minimum, noise * root_kt / minimum.omega_per_fs)
    masses = prepared.root_masses[:, None] ** 2
    spread = root_kt / prepared.root_masses[:, None]
    velocities = spread * rng.standard_normal(positions.shape)
    surface = Surface(prepared.numbers)
    half = LANGEVIN_STEP_FS / 2
    damp = np.exp(-LANGEVIN_FRICTION_PER_FS * LANGEVIN_STEP_FS)
    forces = surface(positions)[1]
    for _ in range(LANGEVIN_STEPS):
        velocities = velocities + half * forces / masses
        positions = positions + half * velocities
        kick = spread * rng.standard_normal(positions.shape)
        velocities = damp * velocities + np.sqrt(1 - damp**2) * kick
        positions = positions + half * velocities
        forces = surface(positions)[1]
        velocities = velocities + half * forces / masses
    return positions


def _stretch(
    prepared: Prepared, positions: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Moves all that hangs on one bond away from the rest, along the bond."""
    near, far, side = prepared.open_bonds[rng.integers(len(prepared.open_bonds))]
    bond = positions[far] - positions[near]
    moved = positions.copy()
    moved[list(side)] += rng.uniform(*STRETCH_ANG) * bond / np.linalg.norm(bond)
    return moved


def _open_bonds(mol: Chem.Mol) -> tuple[tuple[int, int, tuple[int, ...]], ...]:
    bonds = []
    for bond in mol.GetBonds():
        if bond.IsInRing():
            continue
        near, far = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        side, queue = {far}, [far]
        while queue:
            for neighbour in mol.GetAtomWithIdx(queue.pop()).GetNeighbors():
                index = neighbour.GetIdx()
                if index != near and index not in side:
                    side.add(index)
                    queue.append(index)
        bonds.append((near, far, tuple(sorted(side))))
    return tuple(bonds)


def _same_bonds(mol: Chem.Mol, positions: np.ndarray) -> bool:
    """Whether distances still describe the bonds of the SMILES and no others."""
    table = Chem.GetPeriodicTable()
    radii = np.array([table.GetRcovalent(a.GetAtomicNum()) for a in mol.GetAtoms()])
    distances = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
    ratio = distances / (radii[:, None] + radii[None])
    bonded = Chem.GetAdjacencyMatrix(mol).astype(bool)
    apart = ~bonded & ~np.eye(len(radii), dtype=bool)
    return bool((ratio[bonded] < 1.3).all() and (ratio[apart] > 1.15).all())
