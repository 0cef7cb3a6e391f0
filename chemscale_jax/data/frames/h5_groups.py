"""Walks and reads HDF5 files of any layout, with errors that name file and group."""

import contextlib
import pathlib
from collections.abc import Iterator

import h5py
import numpy as np
import numpy.typing as npt

from chemscale_jax.core.errors import UserError
from chemscale_jax.data.frames.frames import existing_file


@contextlib.contextmanager
def open_hdf5(path: str | pathlib.Path, what: str) -> Iterator[h5py.File]:
    """Opens an HDF5 file for reading.

    Args:
        path: the file.
        what: what it should be, for the messages.

    Raises:
        UserError: it is missing, not HDF5, or cut short.
    """
    path = existing_file(path, what)
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise UserError(
            f"{path} ({path.stat().st_size} bytes) is not a whole HDF5 file ({error}): "
            "get it again, or check that the copy was complete"
        ) from error
    with file:
        yield file


def groups_with(
    file: h5py.File, needed: tuple[str, ...]
) -> Iterator[tuple[str, h5py.Group]]:
    """Groups that hold all ``needed`` datasets, with their names, in order of names.

    Raises:
        UserError: there is none, or a group cannot be read.
    """
    pending, found, other = ["/"], False, ""
    while pending:
        name = pending.pop()
        try:
            node = file[name]
            if not isinstance(node, h5py.Group):
                continue
            children = list(node.keys())
        except (OSError, RuntimeError, KeyError) as error:
            raise unreadable(file, name, error) from error
        if set(needed) <= set(children):
            found = True
            yield name.strip("/"), node
            continue
        subgroups = [c for c in children if node.get(c, getclass=True) is h5py.Group]
        if children and not subgroups and not other:
            other = f"its group {name.strip('/')!r} holds {', '.join(sorted(children))}"
        pending += [f"{name.rstrip('/')}/{child}" for child in sorted(subgroups)[::-1]]
    if not found:
        raise UserError(
            f"{file.filename} has no group with {', '.join(needed)}"
            f"{f': {other}' if other else ''}; check config.data.source"
        )


def dataset(group: h5py.Group, name: str) -> h5py.Dataset:
    """The dataset of this name in a group.

    Raises:
        UserError: there is something else of this name.
    """
    found = group[name]
    if not isinstance(found, h5py.Dataset):
        raise UserError(f"{group.file.filename}: {group.name}/{name} is not a dataset")
    return found


def values(
    group: h5py.Group, name: str, dtype: npt.DTypeLike = np.float64
) -> np.ndarray:
    """A whole dataset of a group.

    Raises:
        UserError: it cannot be read, or holds something else.
    """
    try:
        return np.asarray(dataset(group, name)[()], dtype)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise unreadable(group.file, f"{group.name}/{name}", error) from error


def unit_of(group: h5py.Group, name: str, default: str) -> str:
    """The attribute ``units`` of a dataset, where it has one."""
    unit = group[name].attrs.get("units", default)
    return unit.decode() if isinstance(unit, bytes) else str(unit)


def unreadable(file: h5py.File, name: str, error: Exception) -> UserError:
    """The error for data that cannot be read."""
    return UserError(
        f"{file.filename}: {name.strip('/') or '/'!r} cannot be read ({error}): the "
        "file is damaged or cut short; get a fresh copy"
    )


def check_shape(
    group: h5py.Group, name: str, array: np.ndarray, needed: tuple[int, ...]
) -> None:
    """Compares a shape with what the coordinates need.

    Raises:
        UserError: they differ.
    """
    if array.shape != needed:
        raise UserError(
            f"{group.file.filename}: {name} of group {str(group.name)[1:]!r} has shape "
            f"{array.shape}, but its coordinates need {needed}"
        )
