"""What users hand over, one row after the other: files, tables, lists, coordinates.

==========================  ==========================================================
csv, tsv, smi, txt          one row in a line; also as .gz, .bz2, .xz, .zip. Empty
                            lines are rows too, but not those at the end
parquet                     with the extra ``parquet``
sdf, mol                    also as .gz; fields are columns, coordinates are kept
xyz                         also as .gz; bonds are told from coordinates and charge
SMILES                      one, or a list of them
DataFrame                   of pandas or the like, with a column of SMILES
dictionary                  "smiles", or "atoms" and "coordinates" (N, 3) or (K, N, 3)
                            of each molecule, or all three; "charges"; other lists are
                            columns
==========================  ==========================================================
"""

import os
import pathlib
from typing import Any

from chemscale_jax.chem.molecule_record import MAX_ATOMS
from chemscale_jax.data.inputs import geometry_input, memory_input, table_input
from chemscale_jax.data.inputs.molecule_input import MoleculeInput

_PACKED = (".gz", ".bz2", ".xz", ".zip")
_TABLES = (".csv", ".tsv", ".tab", ".smi", ".smiles", ".ism", ".txt", ".parquet", ".pq")
_GEOMETRIES = (".sdf", ".sd", ".mol", ".xyz")


def open_input(
    source: Any,
    *,
    smiles_col: str = "",
    max_atoms: int = MAX_ATOMS,
    charge: int | None = None,
) -> MoleculeInput:
    """Opens what a user hands over; see the top of this module.

    Args:
        source: path, SMILES, list, DataFrame or dictionary. A string that names no
            file, and does not end like one, is taken for a SMILES string.
        smiles_col: name of the column, or its number from 1; empty: the one that is
            called smiles or the like.
        max_atoms: larger molecules, by heavy atoms, are refused.
        charge: of the molecules of an xyz file that does not say.

    Raises:
        UserError: a file is missing or of another kind, there is no column of SMILES,
            or the source is nothing that is known.
    """
    if isinstance(source, str) and not _is_file(source):
        source = [source]
    if isinstance(source, str | os.PathLike):
        return _open_file(
            pathlib.Path(source).expanduser(), smiles_col, max_atoms, charge
        )
    return memory_input.open_memory(source, smiles_col, max_atoms)


def _kind(path: pathlib.Path) -> str:
    """The ending of a file that tells its format."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    while suffixes and suffixes[-1] in _PACKED:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def _is_file(text: str) -> bool:
    if _kind(pathlib.Path(text)) in (*_TABLES, *_GEOMETRIES):
        return True
    try:
        return pathlib.Path(text).expanduser().exists()
    except (OSError, ValueError, RuntimeError):  # too long, or no path at all
        return False


def _open_file(
    path: pathlib.Path, smiles_col: str, max_atoms: int, charge: int | None
) -> MoleculeInput:
    if _kind(path) in _GEOMETRIES:
        return geometry_input.open_geometries(path, _kind(path), max_atoms, charge)
    return table_input.open_table(path, smiles_col, max_atoms)
