"""NumPy archives of molecular dynamics in the layout of sGDML: MD17, MD22 and others.

Arrays ``z`` (N,), ``R`` (F, N, 3), ``E`` (F,) or (F, 1) and ``F`` (F, N, 3), in
kcal/mol and angstrom unless ``e_unit`` and ``r_unit`` in the file say otherwise. A
``z`` of (F, N) gives each frame its own atoms, those with 0 being padding.
"""

import itertools
import pathlib
import zipfile
from collections.abc import Iterator, Mapping
from typing import IO, Any

import numpy as np

from chemscale_jax.chem import elements, units
from chemscale_jax.core.errors import UserError
from chemscale_jax.data.frames.converted import ConvertedSource
from chemscale_jax.data.frames.frames import (
    AUTO_UNITS,
    Bad,
    Frames,
    UnitNames,
    existing_file,
    same_parts,
)
from chemscale_jax.data.frames.source import TEST, TRAIN

# Names of the arrays of species, coordinates, energies and forces.
SGDML_KEYS = ("z", "R", "E", "F")


def open_md17(
    path: str | pathlib.Path,
    test_path: str | pathlib.Path = "",
    unit_names: UnitNames = AUTO_UNITS,
    energy_and_length: tuple[str, str] = ("kcal/mol", "angstrom"),
    method: str = "unknown",
) -> ConvertedSource:
    """Records of an npz file in the layout of sGDML.

    Args:
        path: the file.
        test_path: a second file, whose records are the test set; may be empty.
        unit_names: units of the file, where they are not what the file says.
        energy_and_length: units where neither the user nor the file names them.
        method: of the labels, for the report.

    Raises:
        UserError: a file is missing, cut short or of another layout; no frame is
            usable.
    """
    what = "an .npz file with the arrays z, R, E and F"
    paths = {TRAIN: existing_file(path, what)}
    if test_path:
        paths[TEST] = existing_file(test_path, what)

    def read_one(file: pathlib.Path, facts: dict[str, Any]) -> Iterator[Frames | Bad]:
        arrays = read_npz(file, SGDML_KEYS, ("e_unit", "r_unit"))
        energy, length = (
            units.spelled_out(_text(arrays[key])) if key in arrays else default
            for key, default in zip(
                ("e_unit", "r_unit"), energy_and_length, strict=True
            )
        )
        names = unit_names.filled(energy, f"{energy}/{length}", length)
        facts["units"] = names._asdict()
        yield from frames_of(
            *checked_arrays(arrays, SGDML_KEYS, str(file)), file.stem, names
        )

    return ConvertedSource(
        same_parts(paths, read_one),
        list(paths.values()),
        {"reader": "md17", "units": (unit_names, energy_and_length)},
        {"method": method},
    )


def read_npz(
    file: pathlib.Path | IO[bytes],
    needed: tuple[str, ...],
    optional: tuple[str, ...] = (),
    name: str = "",
) -> dict[str, np.ndarray]:
    """Some arrays of an npz file; labels may be missing, species and coordinates not.

    Args:
        file: a path or an open file.
        needed: keys of species, coordinates, energies and forces.
        optional: other keys that are read where they exist.
        name: stands for an open file in messages.

    Raises:
        UserError: the file cannot be read or lacks an array.
    """
    name = name or str(file)
    try:
        # Opened here, because NumPy leaves a file open that it cannot read.
        with open(file, "rb") if isinstance(file, pathlib.Path) else file as stream:
            archive = np.load(stream, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise UserError(f"{name} is a single array, not an .npz archive")
            keys = set(archive.files)
            arrays = {k: archive[k] for k in (*needed, *optional) if k in keys}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, KeyError) as error:
        raise UserError(
            f"{name} cannot be read as an .npz file ({error}): it is damaged, cut "
            "short or of another kind; get a fresh copy"
        ) from error
    species, coordinates, energies, forces = needed
    lacking = {species, coordinates} - set(arrays)
    if lacking or not {energies, forces} & set(arrays):
        raise UserError(
            f"{name} holds the arrays {', '.join(sorted(keys)) or '(none)'}, but "
            f"{species}, {coordinates}, and {energies} or {forces} are needed"
        )
    return arrays


def checked_arrays(
    arrays: Mapping[str, np.ndarray], keys: tuple[str, ...], name: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Species (N,) or (F, N), coordinates (F, N, 3), energies (F,) and forces.

    Raises:
        UserError: their shapes do not fit together.
    """
    z, x, e, f = (arrays.get(key) for key in keys)
    assert z is not None
    assert x is not None
    if e is not None and e.ndim == 2 and e.shape[1] == 1:
        e = e[:, 0]
    F, N = (*x.shape, 0, 0)[:2]
    shapes = {
        key: a.shape for key, a in zip(keys, (z, x, e, f), strict=True) if a is not None
    }
    expected = (((N,), (F, N)), ((F, N, 3),), ((F,),), ((F, N, 3),))
    if x.ndim != 3 or x.shape[2] != 3:
        raise UserError(
            f"{name}: array {keys[1]} has shape {x.shape}, but coordinates need "
            "(frames, atoms, 3)"
        )
    for key, allowed in zip(keys, expected, strict=True):
        if key in shapes and shapes[key] not in allowed:
            raise UserError(
                f"{name}: array {key} has shape {shapes[key]}, but the coordinates "
                f"{keys[1]} of shape {x.shape} need {' or '.join(map(str, allowed))}"
            )
        array = arrays.get(key)
        if array is not None and array.dtype.kind not in "fiu":
            raise UserError(f"{name}: array {key} holds {array.dtype}, not numbers")
    return z, x, e, f


def frames_of(
    z: np.ndarray,
    x: np.ndarray,
    e: np.ndarray | None,
    f: np.ndarray | None,
    name: str,
    unit_names: UnitNames,
    part: np.ndarray | None = None,
    first_row: int = 0,
) -> Iterator[Frames]:
    """Arrays of `checked_arrays` as frames in our units.

    Frames with species of their own are named by their formula.
    """
    energy, force, length = unit_names.factors()
    z_FN = np.broadcast_to(z, x.shape[:2]) if z.ndim == 1 else z
    changes = np.flatnonzero((z_FN[1:] != z_FN[:-1]).any(1)) + 1 if z.ndim == 2 else []
    bounds = [0, *changes, len(x)]
    for start, stop in itertools.pairwise(bounds):
        if start == stop:
            continue
        rows = slice(start, stop)
        real = z_FN[start] != 0 if z.ndim == 2 else np.ones(len(z), bool)
        species = z_FN[start][real]
        known = (
            len(species)
            and 1 <= species.min()
            and species.max() < len(elements.SYMBOLS)
        )
        yield Frames(
            name=elements.formula_of(species) if z.ndim == 2 and known else name,
            rows=first_row + np.arange(start, stop),
            species=species,
            positions=np.asarray(x[rows][:, real], np.float64) * length,
            energy=None if e is None else np.asarray(e[rows], np.float64) * energy,
            forces=None
            if f is None
            else np.asarray(f[rows][:, real], np.float64) * force,
            part=None if part is None else part[rows],
        )


def _text(value: np.ndarray) -> str:
    """A stored string, which may be of bytes."""
    item = value.ravel()[0] if value.size else ""
    return item.decode() if isinstance(item, bytes) else str(item)
