"""Molecules in memory as files, for what reads them again and again."""

import csv
import io
import os
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from chemscale_jax.chem.elements import symbol_of
from chemscale_jax.core.errors import UserError
from chemscale_jax.data.inputs.open_input import open_input

_CHARGES = ("charges", "charge")


class InputFiles(NamedTuple):
    """A table, and where there are any, the geometries of its rows."""

    table: pathlib.Path
    geometries: pathlib.Path | None  # frame i of an xyz file is that of row i


def as_files(data: Any, folder: pathlib.Path, smiles_col: str = "") -> InputFiles:
    """The file of the data, or files that are written for what is in memory.

    Files that are there already with this content are left alone, since others know
    them by their date.

    Args:
        data: see `open_input.open_input`; of several geometries of a molecule the
            first one is written.
        folder: for data.csv and data.xyz.
        smiles_col: see `open_input.open_input`.

    Raises:
        UserError: there are no molecules in it.
    """
    if isinstance(data, str | os.PathLike):
        return InputFiles(pathlib.Path(data).expanduser(), None)
    source = open_input(data, smiles_col=smiles_col)
    folder.mkdir(parents=True, exist_ok=True)
    has_geometries = isinstance(data, Mapping) and "coordinates" in data
    # Charges go with the geometries: they are no labels.
    left_out = _CHARGES if has_geometries else ()
    columns = [name for name in source.columns if name not in left_out]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in source.unread_rows():
        writer.writerow([row.columns.get(name, "") for name in columns])
    table = _written(folder / "data.csv", text.getvalue())
    if not has_geometries:
        return InputFiles(table, None)
    return InputFiles(table, _written(folder / "data.xyz", _xyz(data)))


def _xyz(data: Mapping[str, Any]) -> str:
    """Frames of the first geometry of each molecule."""
    frames = []
    known = (data[name] for name in _CHARGES if name in data)
    charges = next(known, [None] * len(data["atoms"]))
    parts = zip(data["atoms"], data["coordinates"], charges, strict=True)
    for number, (atoms, given, charge) in enumerate(parts, start=1):
        xyz = np.asarray(given, np.float64)
        xyz = xyz[0] if xyz.ndim == 3 else xyz
        if xyz.shape != (len(atoms), 3):
            raise UserError(
                f"molecule {number} has {len(atoms)} atoms and coordinates of shape "
                f"{np.shape(given)}: give (N, 3) or (K, N, 3)"
            )
        lines = [str(len(atoms)), "" if charge is None else f"charge={int(charge)}"]
        for atom, (x, y, z) in zip(atoms, xyz, strict=True):
            symbol = atom if isinstance(atom, str) else symbol_of(int(atom))
            lines.append(f"{symbol} {x:.6f} {y:.6f} {z:.6f}")
        frames.append("\n".join([*lines, ""]))
    return "".join(frames)


def _written(path: pathlib.Path, text: str) -> pathlib.Path:
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")
    return path
