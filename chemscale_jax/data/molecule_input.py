"""What users hand over, one row after the other: files, tables, lists, coordinates.

Every row of the input gives one row here, in order. What cannot be read gives a record
with the status "failed" and its reason.

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

import dataclasses
import functools
import itertools
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from chemscale_jax.chem.molecule_record import MAX_ATOMS, MoleculeRecord

_PACKED = (".gz", ".bz2", ".xz", ".zip")
_TABLES = (".csv", ".tsv", ".tab", ".smi", ".smiles", ".ism", ".txt", ".parquet", ".pq")
_GEOMETRIES = (".sdf", ".sd", ".mol", ".xyz")


class InputRow(NamedTuple):
    """One row of the input.

    Attributes:
        index: of the row, from 0.
        where: it stands, such as "mols.csv line 7".
        record: of its molecule; of status "2d", "given" or "failed" until conformers
            are made.
        columns: all cells of the row by column, white space around them left out; that
            of the SMILES too. A cell that is missing is "", or not there.
    """

    index: int
    where: str
    record: MoleculeRecord
    columns: dict[str, str]


class UnreadRow(NamedTuple):
    """A row whose molecule nobody has looked at; cheap, and may go to other processes.

    Attributes:
        index: see `InputRow`.
        where: likewise.
        columns: likewise.
        make: gives the record; never raises, but RDKit may crash or hang.
    """

    index: int
    where: str
    columns: dict[str, str]
    make: Callable[[], MoleculeRecord]

    def read(self) -> InputRow:
        """The row with its record."""
        return InputRow(self.index, self.where, self.make(), self.columns)


@dataclasses.dataclass(frozen=True, eq=False)
class MoleculeInput:
    """Rows that can be read any number of times.

    Attributes:
        name: of the file, or what else it is.
        columns: names of the columns; of SD files, those of the first 100 records.
        smiles_col: the one with SMILES; "" where there is none.
        begin: starts to read.
        count: counts the rows; of files, that takes a pass over the text.
        facts: what tells this content from any other, JSON-able; see `identity`.
    """

    name: str
    columns: tuple[str, ...]
    smiles_col: str
    begin: Callable[[], Iterator[UnreadRow]]
    count: Callable[[], int]
    facts: Callable[[], Mapping[str, Any]]

    def rows(self, start: int = 0) -> Iterator[InputRow]:
        """Rows with their records, made one by one; without conformers.

        Args:
            start: index of the first one.
        """
        for row in self.unread_rows(start):
            yield row.read()

    def unread_rows(self, start: int = 0) -> Iterator[UnreadRow]:
        """Rows without records; see `conformed_rows` for reading them in parallel.

        Args:
            start: index of the first one.
        """
        return itertools.islice(self.begin(), start, None)

    @functools.cached_property
    def length(self) -> int:
        """Number of rows."""
        return self.count()

    def __len__(self) -> int:
        return self.length

    @functools.cached_property
    def identity(self) -> Mapping[str, Any]:
        """Path, size and date of a file, or a checksum of what is in memory."""
        return self.facts()


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
    from chemscale_jax.data import memory_input

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
        from chemscale_jax.data import geometry_input

        return geometry_input.open_geometries(path, _kind(path), max_atoms, charge)
    from chemscale_jax.data import table_input

    return table_input.open_table(path, smiles_col, max_atoms)
