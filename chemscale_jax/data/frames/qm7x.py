"""QM7-X (Hoja et al. 2021): the official HDF5 files, and padded npz samples of it.

In the HDF5 files ``MOLECULE/CONFORMATION/`` holds ``atNUM`` (N,), ``atXYZ`` (N, 3),
``ePBE0+MBD`` (1,) and ``totFOR`` (N, 3), in eV and angstrom. The release is eight
files; a folder of them is read as one source.
"""

import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from chemscale_jax.core.errors import UserError
from chemscale_jax.data.frames import h5_groups
from chemscale_jax.data.frames.converted import ConvertedSource
from chemscale_jax.data.frames.frames import (
    AUTO_UNITS,
    Bad,
    Frames,
    UnitNames,
    existing_file,
)
from chemscale_jax.data.frames.md17 import open_md17

_KEYS = ("atNUM", "atXYZ", "ePBE0+MBD", "totFOR")
_WHAT = "a QM7-X file (1000.hdf5 to 8000.hdf5), a folder of them, or an .npz sample"


def open_qm7x(
    path: str | pathlib.Path, unit_names: UnitNames = AUTO_UNITS
) -> ConvertedSource:
    """Records of QM7-X; neutral closed-shell molecules.

    Args:
        path: an HDF5 file, a folder of HDF5 files, or an .npz file with zero-padded
            arrays z, R, E and F.
        unit_names: units of the file, if not eV and angstrom.

    Raises:
        UserError: a file is missing, damaged or of another layout; no frame is usable.
    """
    path = pathlib.Path(path).expanduser()
    if path.suffix == ".npz":
        return open_md17(path, "", unit_names, ("eV", "angstrom"), "PBE0+MBD")
    files = [path]
    if path.is_dir() and path != pathlib.Path():
        files = sorted([*path.glob("*.hdf5"), *path.glob("*.h5")])
        if not files:
            raise UserError(f"{path} has no *.hdf5 file: name {_WHAT}")
    else:
        # An empty path has become the current folder.
        existing_file("" if path == pathlib.Path() else path, _WHAT)
    names = unit_names.filled("eV", "eV/angstrom", "angstrom")

    def read(facts: dict[str, Any]) -> Iterator[Frames | Bad]:
        for file_path in files:
            with h5_groups.open_hdf5(file_path, _WHAT) as file:
                yield from _conformations(file, names)

    return ConvertedSource(
        read,
        files,
        {"reader": "qm7x", "units": names},
        {"method": "PBE0+MBD", "units": names._asdict()},
    )


def _conformations(file: Any, unit_names: UnitNames) -> Iterator[Frames | Bad]:
    """The frames of one file, numbered within each molecule."""
    energy_factor, force_factor, length = unit_names.factors()
    molecule, row = "", -1
    for name, group in h5_groups.groups_with(file, _KEYS):
        parent = name.rpartition("/")[0] or name
        row = row + 1 if parent == molecule else 0
        molecule = parent
        z, x, e, f = (h5_groups.values(group, key) for key in _KEYS)
        # One frame of wrong shape is a bad frame, not a bad file.
        if x.shape != (z.size, 3) or f.shape != x.shape or e.size != 1:
            yield Bad("datasets that do not fit together", name)
            continue
        yield Frames(
            name=molecule,
            rows=np.array([row]),
            species=z.ravel().astype(np.int64),
            positions=x[None] * length,
            energy=e.ravel() * energy_factor,
            forces=f[None] * force_factor,
        )
