"""The other HDF5 layouts of the ANI family: ANI-1 (pyanitools) and ANI-2x (by size).

ANI-1: groups with ``species`` (N,) as symbols, ``coordinates`` (F, N, 3) in angstrom
and ``energies`` (F,) in hartree; there are no forces. ANI-2x: a group for each number
of atoms with ``species`` (F, N) as atomic numbers, ``coordinates``, ``energies`` and
``forces`` (F, N, 3) in hartree/angstrom. ANI-1x has a layout of its own, see
`chemscale_jax.data.frames.ani1x`.
"""

import pathlib
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np

from chemscale_jax.chem import elements
from chemscale_jax.core.errors import UserError
from chemscale_jax.data.frames import h5_groups
from chemscale_jax.data.frames.converted import ConvertedSource
from chemscale_jax.data.frames.frames import AUTO_UNITS, Bad, Frames, UnitNames

_NEEDED = ("species", "coordinates", "energies")
_WHAT = "an HDF5 file of ANI-1 or ANI-2x with species, coordinates and energies"
# Frames of a large group that are in memory at once.
_AT_ONCE = 100_000


def open_ani(
    path: str | pathlib.Path, unit_names: UnitNames = AUTO_UNITS
) -> ConvertedSource:
    """Records of a file in the layout of ANI-1 or ANI-2x; neutral singlets.

    Args:
        path: the HDF5 file.
        unit_names: units of the file, if not hartree and angstrom.

    Raises:
        UserError: the file is missing, damaged or of another layout; no frame is
            usable.
    """
    with h5_groups.open_hdf5(path, _WHAT) as file:
        path = pathlib.Path(file.filename)
    names = unit_names.filled("hartree", "hartree/angstrom", "angstrom")

    def read(facts: dict[str, Any]) -> Iterator[Frames | Bad]:
        with h5_groups.open_hdf5(path, _WHAT) as file:
            for name, group in h5_groups.groups_with(file, _NEEDED):
                yield from _frames(name, group, names)

    return ConvertedSource(
        read,
        [path],
        {"reader": "ani", "units": names},
        {"method": "wB97X/6-31G(d)", "units": names._asdict()},
    )


def _frames(name: str, group: h5py.Group, unit_names: UnitNames) -> Iterator[Frames]:
    """The frames of a group; where species are by frame, named by their formula."""
    energy_factor, force_factor, length = unit_names.factors()
    sets = {
        key: h5_groups.dataset(group, key)
        for key in (*_NEEDED, "forces")
        if key in group
    }
    shape = sets["coordinates"].shape
    species = h5_groups.values(group, "species", object)
    F, N = (*shape, 0, 0)[:2]
    expected = {"coordinates": (F, N, 3), "energies": (F,), "forces": (F, N, 3)}
    expected["species"] = (F, N) if species.ndim == 2 else (N,)
    for key, dataset in sets.items():
        if dataset.shape != expected[key]:
            raise UserError(
                f"{group.file.filename}: {key} of group {name!r} has shape "
                f"{dataset.shape}, but its coordinates {shape} need {expected[key]}"
            )
    numbers = _numbers(group, species)
    for start in range(0, F, _AT_ONCE):
        rows = np.arange(start, min(F, start + _AT_ONCE))
        try:
            block = {
                key: np.asarray(dataset[rows[0] : rows[-1] + 1], np.float64)
                for key, dataset in sets.items()
                if key != "species"
            }
        except (OSError, RuntimeError) as error:
            raise h5_groups.unreadable(group.file, name, error) from error
        kinds, kind = numbers[None], np.zeros(len(rows), int)
        if numbers.ndim == 2:
            kinds, kind = np.unique(numbers[rows], axis=0, return_inverse=True)
        for k, z in enumerate(kinds):
            mine = np.flatnonzero(np.ravel(kind) == k)
            by_formula = numbers.ndim == 2 and len(z) and z.min() > 0
            yield Frames(
                # The group tells files that hold one formula in several groups apart.
                name=f"{name}/{elements.formula_of(z)}" if by_formula else name,
                rows=rows[mine],
                species=z,
                positions=block["coordinates"][mine] * length,
                energy=block["energies"][mine] * energy_factor,
                forces=(
                    block["forces"][mine] * force_factor if "forces" in block else None
                ),
            )


def _numbers(group: h5py.Group, species: np.ndarray) -> np.ndarray:
    """Atomic numbers from numbers or symbols; 0 for what is neither."""

    def number(value: Any) -> int:
        if isinstance(value, bytes):
            value = value.decode(errors="replace")
        if isinstance(value, str):
            return elements.SYMBOLS.index(value) if value in elements.SYMBOLS else 0
        return int(value) if 0 < int(value) <= elements.MAX_ATOMIC_NUMBER else 0

    known = {value: number(value) for value in np.unique(species.ravel())}
    flat = np.array([known[value] for value in species.ravel()], np.int64)
    return flat.reshape(species.shape)
