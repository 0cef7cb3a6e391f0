"""The HDF5 layout of the ANI-1x release: what is in a file, and what it lacks.

Each group holds conformers of one composition: ``atomic_numbers`` (N,),
``coordinates`` (F, N, 3), and per method ``METHOD.energy`` (F,) and, for some,
``METHOD.forces`` (F, N, 3) (Smith et al., Sci. Data 7, 134, 2020). Correlated methods
have ``METHOD_BASIS.corr_energy``, to which ``hf_BASIS.energy`` belongs. A label that
was not calculated is NaN.
"""

import contextlib
import pathlib
from collections.abc import Iterator

import h5py

from chemscale_jax.core.errors import UserError

DOWNLOAD_URL = "https://ndownloader.figshare.com/files/18112775"
DOWNLOAD_HINT = (
    "download ani1x-release.h5 (5.6 GB) of the ANI-1x collection, "
    f"https://doi.org/10.6084/m9.figshare.c.4712477, from {DOWNLOAD_URL}, put it "
    "anywhere, and name it with --config.data.path=/where/it/is/ani1x-release.h5"
)
# The label set taken when several have forces and the user chose none.
PREFERRED_LABELS = "wb97x_dz"
_STRUCTURE = ("atomic_numbers", "coordinates")
_EXPECTED = (
    "expected groups with atomic_numbers, coordinates, METHOD.energy and METHOD.forces"
)


@contextlib.contextmanager
def open_hdf5(path: str | pathlib.Path) -> Iterator[h5py.File]:
    """Opens an HDF5 file for reading.

    Raises:
        UserError: no path, no file, not HDF5, or cut short.
    """
    if not str(path):
        raise UserError(f"data.path is empty: {DOWNLOAD_HINT}")
    path = pathlib.Path(path).expanduser()
    if path.is_dir():
        raise UserError(f"{path} is a folder: name the HDF5 file in it")
    if not path.exists():
        raise UserError(f"there is no file {path}: {DOWNLOAD_HINT}")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        size = path.stat().st_size
        raise UserError(
            f"{path} ({size} bytes) is not a whole HDF5 file, so no group can be read "
            f"({error}): download it again, or check that the copy was complete"
        ) from error
    with file:
        yield file


def find_groups(file: h5py.File) -> dict[str, set[str]]:
    """Names of the groups in the ANI-1x layout, and the datasets that each has.

    Raises:
        UserError: there is none, or a group cannot be read.
    """
    found: dict[str, set[str]] = {}
    other: dict[str, set[str]] = {}
    pending = ["/"]
    while pending:
        name = pending.pop()
        try:
            node = file[name]
            if not isinstance(node, h5py.Group):
                continue
            names = set(node.keys())
        except (OSError, RuntimeError, KeyError) as error:
            raise unreadable(file, name, error) from error
        if names.issuperset(_STRUCTURE):
            found[name.strip("/")] = names
            continue
        if "coordinates" in names:
            other[name.strip("/")] = names
        pending += [f"{name.rstrip('/')}/{child}" for child in sorted(names)[::-1]]
    if found:
        return found
    if not other:
        raise UserError(f"{file.filename} has no group with coordinates: {_EXPECTED}")
    name, names = next(iter(other.items()))
    lacks = "has no forces and " if "forces" not in names else ""
    raise UserError(
        f"{file.filename} {lacks}is not in the ANI-1x layout: its group {name!r} holds "
        f"{', '.join(sorted(names))}, {_EXPECTED}"
        + ("; try config.data.source=ani" if "species" in names else "")
    )


def energy_datasets(labels: str) -> tuple[tuple[str, ...], ...]:
    """Names of the datasets whose sum is the total energy: the choices, best first."""
    basis = labels.rpartition("_")[2]
    return (f"{labels}.energy",), (f"hf_{basis}.energy", f"{labels}.corr_energy")


def datasets_of(labels: str, names: set[str]) -> tuple[str, ...]:
    """Which of the ``names`` hold the energy of a label set, and last the forces.

    Empty where there is no energy.
    """
    for choice in energy_datasets(labels):
        if names.issuperset(choice):
            forces = f"{labels}.forces"
            return (*choice, forces) if forces in names else choice
    return ()


def label_sets(groups: dict[str, set[str]]) -> tuple[list[str], list[str]]:
    """Methods with energies and forces, and methods with energies only."""
    names = set().union(*groups.values())
    ends = (".energy", ".corr_energy")
    methods = {n.removesuffix(end) for n in names for end in ends if n.endswith(end)}
    found = {m: datasets_of(m, names) for m in methods}
    with_forces = {m for m, sets in found.items() if f"{m}.forces" in sets}
    energy_only = {m for m, sets in found.items() if sets} - with_forces
    return sorted(with_forces), sorted(energy_only)


def choose_labels(path: str, groups: dict[str, set[str]], wanted: str) -> str:
    """The method to read: ``wanted``, or for "auto" the preferred one with forces.

    Raises:
        UserError: the file does not offer it, or "auto" finds no forces.
    """
    usable, energy_only = label_sets(groups)
    if wanted == "auto" and usable:
        return PREFERRED_LABELS if PREFERRED_LABELS in usable else usable[0]
    if wanted in usable or wanted in energy_only:
        return wanted
    offer = (
        f"label sets with forces: {', '.join(usable)}" if usable else "it has no forces"
    )
    energies = f"; energies only: {', '.join(energy_only)}" if energy_only else ""
    if wanted != "auto":
        raise UserError(f"data.labels={wanted!r} is not in {path}; {offer}{energies}")
    hint = " (name one with config.data.labels)" if energy_only else ""
    raise UserError(f"{path} cannot train a force field: {offer}{energies}{hint}")


def dataset(group: h5py.Group, name: str) -> h5py.Dataset:
    """The dataset of this name in a group."""
    found = group[name]
    if not isinstance(found, h5py.Dataset):
        raise TypeError(f"{name} is not a dataset")
    return found


def check_shapes(group: h5py.Group, labels: tuple[str, ...]) -> tuple[int, int]:
    """Frames and atoms of a group.

    Args:
        group: the group.
        labels: its datasets of energies and forces.

    Raises:
        UserError: its datasets do not fit together.
    """
    parts = (*_STRUCTURE, *labels)
    shapes = {part: tuple(dataset(group, part).shape) for part in parts}
    F, N = (*shapes["coordinates"], 0, 0)[:2]
    for part, shape in shapes.items():
        is_energy = part.endswith("energy")
        needed = (F,) if is_energy else (F, N, 3)
        needed = (N,) if part == "atomic_numbers" else needed
        if shape != needed and not (is_energy and shape == (F, 1)):
            raise UserError(
                f"{group.file.filename}: {part} of group {str(group.name)[1:]!r} has "
                f"shape {shape}, but its coordinates {shapes['coordinates']} need "
                f"{needed}"
            )
    return F, N


def unreadable(file: h5py.File, name: str, error: Exception) -> UserError:
    """The error for a group whose data cannot be read."""
    return UserError(
        f"{file.filename}: group {name.strip('/') or '/'!r} cannot be read ({error}): "
        "the file is damaged or cut short; get a fresh copy"
    )
