"""QM-22 (Bowman et al. 2022): zip archives of XYZ files with gradients.

A frame is the number of atoms, the energy, and lines ``El x y z [gx gy gz]`` in
angstrom and hartree/bohr; the last three columns are gradients, so the forces are their
negatives. Energies are total ones in hartree, except for the alkanes, which have them
in cm^-1 above a minimum; "auto" tells one from the other and refuses what it cannot.
"""

import contextlib
import io
import pathlib
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO, Any

import numpy as np

from chemscale_jax.core.errors import UserError
from chemscale_jax.data.frames.converted import ConvertedSource
from chemscale_jax.data.frames.extxyz import (
    BadFrameError,
    Block,
    blocks,
    columns,
    species_of,
)
from chemscale_jax.data.frames.frames import (
    AUTO_UNITS,
    Bad,
    Frames,
    UnitNames,
    existing_file,
    same_parts,
)
from chemscale_jax.data.frames.source import TEST, TRAIN

_WHAT = "a .zip of QM-22 or the .xyz file in it"
_PLAIN = "species:S:1:pos:R:3"
# Above this no energy relative to a minimum can be meant in hartree.
_LARGEST_RELATIVE_HARTREE = 50.0


def open_qm22(
    path: str | pathlib.Path,
    test_path: str | pathlib.Path = "",
    unit_names: UnitNames = AUTO_UNITS,
) -> ConvertedSource:
    """Records of one archive; a group is one molecule, named by its file.

    Args:
        path: the .zip, or the .xyz file in it.
        test_path: a second file, whose records are the test set; may be empty.
        unit_names: units of the file; "force" is that of the gradients.

    Raises:
        UserError: a file is missing, damaged, or not in this layout; the unit of the
            energies cannot be told; no frame is usable.
    """
    paths = {TRAIN: existing_file(path, _WHAT)}
    if test_path:
        paths[TEST] = existing_file(test_path, _WHAT)

    def read_one(file: pathlib.Path, facts: dict[str, Any]) -> Iterator[Frames | Bad]:
        names = unit_names
        if names.energy == "auto":
            names = names._replace(energy=_energy_unit(file))
        names = names.filled("hartree", "hartree/bohr", "angstrom")
        facts["units"] = names._asdict()
        energy, force, length = names.factors()
        for frame in _frames(file):
            if isinstance(frame, Frames):
                assert frame.energy is not None
                frame = frame._replace(
                    positions=frame.positions * length,
                    energy=frame.energy * energy,
                    forces=None if frame.forces is None else -frame.forces * force,
                )
            yield frame

    return ConvertedSource(
        same_parts(paths, read_one),
        list(paths.values()),
        {"reader": "qm22", "units": unit_names},
        {"method": "as named in the README of QM-22"},
    )


def _energy_unit(path: pathlib.Path) -> str:
    """Hartree for total energies, cm^-1 for large relative ones; reads all of them.

    A neutral atom has about -0.5 Z^2.4 hartree, which total energies of molecules meet
    within a tenth.

    Raises:
        UserError: they might be either.
    """
    energies, estimate = [], 0.0
    with _opened(path) as files:
        for molecule, lines in files:
            for block in blocks(lines, f"{path}:{molecule}"):
                if not energies:
                    symbols = [atom.split()[0] for atom in block.atoms if atom.split()]
                    z = species_of(symbols).astype(np.float64)
                    estimate = -0.5 * float(np.sum(z**2.4))
                with contextlib.suppress(BadFrameError):
                    energies.append(_energy(block))
    energy = np.array(energies)
    energy = energy[np.isfinite(energy)]
    if not len(energy) or abs(np.median(energy) / estimate - 1) < 0.3:
        return "hartree"
    if np.abs(energy).max() > _LARGEST_RELATIVE_HARTREE:
        return "cm^-1"
    raise UserError(
        f"{path}: energies of {energy.min():g} to {energy.max():g} are not total "
        f"energies in hartree (about {estimate:.0f}), and too small to be surely in "
        "cm^-1: name their unit with config.data.energy_unit"
    )


def _energy(block: Block) -> float:
    """The energy in the second line of a frame."""
    try:
        return float(block.comment.split()[0])
    except (ValueError, IndexError) as error:
        raise BadFrameError("no energy in the second line") from error


@contextlib.contextmanager
def _opened(path: pathlib.Path) -> Iterator[list[tuple[str, IO[bytes]]]]:
    """The XYZ files of an archive, or the file itself, with their names."""
    if path.suffix != ".zip":
        with open(path, "rb") as file:
            yield [(path.stem, file)]
        return
    try:
        with zipfile.ZipFile(path) as archive:
            names = [
                name
                for name in archive.namelist()
                if name.endswith(".xyz") and "__MACOSX" not in name
            ]
            # Held in memory: the largest of the set unpacks to a few hundred MB.
            contents = [io.BytesIO(archive.read(name)) for name in names]
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(
            f"{path} cannot be read as a zip archive ({error}): it is damaged or cut "
            "short; get a fresh copy"
        ) from error
    if not names:
        raise UserError(f"{path} has no .xyz file in it: name {_WHAT}")
    stems = [pathlib.PurePosixPath(name).stem for name in names]
    yield list(zip(stems, contents, strict=True))


def _frames(path: pathlib.Path) -> Iterator[Frames | Bad]:
    """Frames as they are in the file, gradients in place of forces."""
    with _opened(path) as files:
        for molecule, lines in files:
            for block in blocks(lines, f"{path}:{molecule}"):
                name = f"{molecule}, line {block.line}"
                layout = _PLAIN
                if block.atoms and len(block.atoms[0].split()) >= 7:
                    layout += ":gradient:R:3"
                try:
                    arrays = columns(block, layout)
                    energy = _energy(block)
                except BadFrameError as error:
                    yield Bad(str(error), name)
                    continue
                gradient = arrays.get("gradient")
                yield Frames(
                    name=molecule,
                    rows=np.array([block.number]),
                    species=species_of(arrays["species"].ravel().tolist()),
                    positions=arrays["pos"][None],
                    energy=np.array([energy]),
                    forces=None if gradient is None else gradient[None],
                )
