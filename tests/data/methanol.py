"""Frames of a molecule whose energies and forces are known in closed form."""

import numpy as np

from chemscale_jax.chem.units import HARTREE_EV

# Methanol, roughly.
SPECIES = np.array([6, 8, 1, 1, 1, 1])
REST = np.array(
    [
        [0.0, 0.0, 0.0],
        [1.42, 0.0, 0.0],
        [-0.36, 1.03, 0.0],
        [-0.36, -0.52, 0.89],
        [-0.36, -0.52, -0.89],
        [1.74, 0.91, 0.1],
    ]
)
# Of neutral atoms together, as total energies of molecules are.
DEEP_EV = -115.6 * HARTREE_EV


def frames(count=120, jitter=0.05, seed=0):
    """Morse bonds between all atoms: positions, energies (eV), forces (eV/angstrom)."""
    rng = np.random.default_rng(seed)
    x = REST + jitter * rng.normal(size=(count, *REST.shape))
    turn, _ = np.linalg.qr(rng.normal(size=(count, 3, 3)))
    turn *= np.sign(np.linalg.det(turn))[:, None, None]
    x = x @ turn
    step = x[:, :, None] - x[:, None]
    distance = np.linalg.norm(step, axis=-1) + np.eye(6)
    rest = np.linalg.norm(REST[:, None] - REST[None], axis=-1) + np.eye(6)
    gap = 1 - np.exp(-1.8 * (distance - rest))
    energy = DEEP_EV + 0.5 * np.sum(2.0 * gap**2, (1, 2))
    slope = 4.0 * gap * (1 - gap) * 1.8
    forces = -np.sum((slope / distance)[..., None] * step, 2)
    return x, energy, forces
