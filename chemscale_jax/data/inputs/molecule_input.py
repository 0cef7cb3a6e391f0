"""Rows of molecules that a user hands over, as `open_input.open_input` gives them.

Every row of the input gives one row here, in order. What cannot be read gives a record
with the status "failed" and its reason.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from chemscale_jax.chem.molecule_record import MoleculeRecord


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
