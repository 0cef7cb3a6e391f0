"""Small HDF5 files in the ANI-1x layout, and sources in memory, for the tests."""

import h5py
import numpy as np

from chemscale_jax.data.frames.source import ArraySource

# Hartree; made up, but of the size of real ones.
SELF_ENERGIES = {1: -0.6, 6: -38.1, 7: -54.7, 8: -75.2}
FORMULAS = {
    "C1H4": [6, 1, 1, 1, 1],
    "C2H6O1": [6, 6, 8, 1, 1, 1, 1, 1, 1],
    "C3H5N1O2": [6, 6, 6, 7, 8, 8, 1, 1, 1, 1, 1],
    "H2O1": [8, 1, 1],
}


def geometry(rng, n_atoms):
    """Jittered points of a lattice, so that no two atoms meet."""
    grid = np.stack(np.meshgrid(*[np.arange(4)] * 3, indexing="ij"), -1).reshape(-1, 3)
    points = grid[rng.choice(len(grid), n_atoms, replace=False)] * 1.3
    return (points + rng.normal(0, 0.1, points.shape)).astype(np.float32)


def write_ani1x(
    path, frames=20, labels=("wb97x_dz",), formulas=None, seed=0, chunked=False
):
    """Writes ``frames`` frames of each formula, with every label set."""
    rng = np.random.default_rng(seed)
    options = {"chunks": True, "compression": "gzip"} if chunked else {}
    with h5py.File(path, "w") as file:
        for name, species in (formulas or FORMULAS).items():
            group = file.create_group(name)
            group["atomic_numbers"] = np.array(species, np.uint8)
            x = np.stack([geometry(rng, len(species)) for _ in range(frames)])
            group.create_dataset("coordinates", data=x, **options)
            for method in labels:
                base = sum(SELF_ENERGIES.get(z, 0.0) for z in species)
                energy = base + rng.normal(0, 0.01, frames)
                group.create_dataset(f"{method}.energy", data=energy, **options)
                forces = rng.normal(0, 0.05, x.shape).astype(np.float32)
                group.create_dataset(f"{method}.forces", data=forces, **options)
    return path


def values(file, name):
    """A dataset of an open file as an array."""
    return np.asarray(file[name])


def edit(path, changes):
    """Writes ``{(dataset, row or rows): value}`` into a file."""
    with h5py.File(path, "r+") as file:
        for (name, rows), value in changes.items():
            dataset = file[name]
            assert isinstance(dataset, h5py.Dataset)
            dataset[rows] = value


def array_source(frames=60, seed=0, **options):
    """Frames of the formulas above in turn, in memory."""
    rng = np.random.default_rng(seed)
    names = list(FORMULAS)
    chosen = [names[i % len(names)] for i in range(frames)]
    species = [np.array(FORMULAS[name]) for name in chosen]
    positions = [geometry(rng, len(z)) for z in species]
    energies = [
        27.2 * sum(SELF_ENERGIES[int(a)] for a in z) + rng.normal(0, 0.1)
        for z in species
    ]
    forces = [rng.normal(0, 1, x.shape).astype(np.float32) for x in positions]
    return ArraySource(species, positions, energies, forces, names=chosen, **options)
