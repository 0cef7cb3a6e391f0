"""Small files in the layouts of public data sets, in the units of those sets.

Every writer takes a folder and returns the fields of ``config.data`` that name what it
wrote. The frames are those of `frames`, so any reader must give them back.
"""

import zipfile
from typing import Any

import h5py
import numpy as np

from chemscale_jax.chem.elements import SYMBOLS
from chemscale_jax.chem.units import (
    BOHR_ANG,
    CM1_EV,
    HARTREE_EV,
    KCAL_PER_MOL_EV,
)
from tests.data.ani_files import geometry

WATER = np.array([8, 1, 1])
FRAMES = 24


def frames(species=WATER, n=FRAMES, seed=0):
    """Positions in angstrom, energies in eV, forces in eV/angstrom."""
    rng = np.random.default_rng(seed)
    x = np.stack([geometry(rng, len(species)) for _ in range(n)]).astype(np.float64)
    energy = -HARTREE_EV * 0.5 * (species**2.4).sum() + rng.normal(0, 0.1, n)
    return x, energy, rng.normal(0, 1, x.shape)


def write_md17(folder, name="water.npz", **extra):
    x, e, f = frames()
    arrays = {
        "z": WATER,
        "R": x,
        "E": e[:, None] / KCAL_PER_MOL_EV,
        "F": f / KCAL_PER_MOL_EV,
        **extra,
    }
    kept = {key: array for key, array in arrays.items() if array is not None}
    np.savez(folder / name, **kept)
    return {"source": "md17", "path": str(folder / name)}


def write_rmd17(folder, n=FRAMES):
    """The unpacked release with one split, of the first frames backwards."""
    x, e, f = frames(n=n)
    data, splits = folder / "rmd17/npz_data", folder / "rmd17/splits"
    data.mkdir(parents=True)
    splits.mkdir()
    np.savez(
        data / "rmd17_water.npz",
        nuclear_charges=WATER.astype(np.uint8),
        coords=x,
        energies=e / KCAL_PER_MOL_EV,
        forces=f / KCAL_PER_MOL_EV,
        old_indices=np.arange(n),
    )
    order = np.arange(n)[::-1]
    np.savetxt(splits / "index_train_01.csv", order[: n // 2], "%d")
    np.savetxt(splits / "index_test_01.csv", order[n // 2 : n // 2 + 5], "%d")
    return {"source": "rmd17", "path": str(folder / "rmd17"), "molecule": "water"}


def write_spice(folder):
    x, e, f = frames()
    with h5py.File(folder / "spice.hdf5", "w") as file:
        for name, smiles in (("water", "[O:1]([H:2])[H:3]"), ("odd", "[O+:1][H:2]")):
            group = file.create_group(name)
            group["atomic_numbers"] = WATER.astype(np.int16)
            group["conformations"] = (x / BOHR_ANG).astype(np.float32)
            group["dft_total_energy"] = e / HARTREE_EV
            gradient = -f / HARTREE_EV * BOHR_ANG
            group["dft_total_gradient"] = gradient.astype(np.float32)
            group["formation_energy"] = np.zeros(FRAMES)
            group["smiles"] = [smiles]
    return {"source": "spice", "path": str(folder / "spice.hdf5")}


def write_qm7x(folder):
    x, e, f = frames()
    with h5py.File(folder / "1000.hdf5", "w") as file:
        for i in range(FRAMES):
            group = file.create_group(f"1/Geom-m1-i1-c1-{i:03}")
            group["atNUM"] = WATER
            group["atXYZ"] = x[i]
            group["ePBE0+MBD"] = e[i : i + 1]
            group["totFOR"] = f[i]
    return {"source": "qm7x", "path": str(folder / "1000.hdf5")}


def xyz_text(species, x, comment, columns=None):
    columns = x if columns is None else np.hstack([x, columns])
    atoms = (
        f"{SYMBOLS[z]} " + " ".join(f"{value:.10f}" for value in row)
        for z, row in zip(species, columns, strict=True)
    )
    return "\n".join([str(len(species)), comment, *atoms]) + "\n"


PROPERTIES = "Properties=species:S:1:pos:R:3:forces:R:3"


def write_extxyz(folder, name="water.xyz"):
    text = "".join(
        xyz_text(WATER, x, f'{PROPERTIES} energy={e:.8f} pbc="F F F"', f)
        for x, e, f in zip(*frames(), strict=True)
    )
    (folder / name).write_text(text)
    return {"source": "extxyz", "path": str(folder / name)}


def write_ase_db(folder, with_calculator=True):
    from ase import Atoms
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.db import connect

    # ASE gives no type that a type checker could follow.
    connected: Any = connect(str(folder / "water.db"), use_lock_file=False)
    with connected as database:
        if not with_calculator:
            database.metadata = {
                "_property_unit_dict": {"energy": "Hartree", "forces": "Ha/Bohr"},
                "_distance_unit": "Bohr",
            }
        for x, e, f in zip(*frames(), strict=True):
            if with_calculator:
                atoms = Atoms(WATER, x)
                atoms.calc = SinglePointCalculator(atoms, energy=e, forces=f)
                database.write(atoms)
                continue
            labels = {
                "energy": np.array([e / HARTREE_EV]),
                "forces": f / HARTREE_EV * BOHR_ANG,
                "total_charge": np.array([-2.0]),
                "spin_multiplicity": np.array([3.0]),
            }
            database.write(Atoms(WATER, x / BOHR_ANG), data=labels)
    return {"source": "ase_db", "path": str(folder / "water.db")}


def write_qm22(folder, relative=False):
    x, e, f = frames()
    e = (e - e.min()) / CM1_EV if relative else e / HARTREE_EV
    gradient = -f / HARTREE_EV * BOHR_ANG
    text = "".join(
        xyz_text(WATER, *frame)
        for frame in zip(x, [f"  {value:.10f}" for value in e], gradient, strict=True)
    )
    with zipfile.ZipFile(folder / "water.zip", "w") as archive:
        archive.writestr("__MACOSX/._water.xyz", "junk")
        archive.writestr("water.xyz", text)
    return {"source": "qm22", "path": str(folder / "water.zip")}


def write_ani1(folder):
    x, e, _ = frames()
    with h5py.File(folder / "ani1.h5", "w") as file:
        group = file.create_group("gdb11_s01/gdb11_s01-2")
        group["species"] = np.array([SYMBOLS[z] for z in WATER], "S1")
        group["coordinates"] = x.astype(np.float32)
        group["energies"] = e / HARTREE_EV
    return {"source": "ani", "path": str(folder / "ani1.h5")}


WRITERS = {
    "md17": write_md17,
    "rmd17": write_rmd17,
    "spice": write_spice,
    "qm7x": write_qm7x,
    "extxyz": write_extxyz,
    "ase_db": write_ase_db,
    "qm22": write_qm22,
    "ani": write_ani1,
}


def assert_frames(source, n=FRAMES, first=0, with_forces=True):
    """The first ``n`` records are those of `frames`, in the units of the package."""
    x, e, f = frames()
    for i in range(n):
        record = source[first + i]
        assert record.species.tolist() == WATER.tolist()
        np.testing.assert_allclose(record.positions, x[i], atol=2e-6)
        np.testing.assert_allclose(record.energy, e[i], rtol=1e-9)
        assert (record.energy_mask, record.forces_mask) == (True, with_forces)
        expected = f[i] if with_forces else 0 * f[i]
        np.testing.assert_allclose(record.forces, expected, atol=3e-6)
