"""Which part of a line of a molecule file is the SMILES.

A line is a line of the file: a quoted cell may not go on in the next one. Separators
are told from the first line.
"""

import contextlib
import csv
import dataclasses
from collections.abc import Sequence

from chemscale_jax.core.errors import UserError

# Header cells that name the SMILES column when nobody chose one, best first.
SMILES_NAMES = (
    *("smiles", "canonical_smiles", "isomeric_smiles", "canonicalsmiles"),
    *("isomericsmiles", "standard_smiles", "rdkit_smiles", "smile", "structure"),
)
# None of them occurs in a SMILES string.
_SEPARATORS = (",", ";", "\t")
# Longer lines fail; a row of a table may have many cells beside the SMILES.
MAX_LINE_BYTES = 65_536


@dataclasses.dataclass(frozen=True)
class Layout:
    """How to find the SMILES of a line.

    Attributes:
        separator: between cells; "" for any white space; None where the whole line is
            the SMILES.
        column: which cell, from 0.
        columns: names in the header; empty where there is none.
    """

    separator: str | None = ""
    column: int = 0
    columns: tuple[str, ...] = ()

    @property
    def header(self) -> bool:
        """Whether the first line names the columns."""
        return bool(self.columns)

    def read(self, line: bytes) -> tuple[str, str, str]:
        """SMILES of a line, or what is left of it with a reason and a message."""
        if len(line) > MAX_LINE_BYTES:
            text = line[:200].decode(errors="backslashreplace")
            return text, "line_too_long", f"more than {MAX_LINE_BYTES} bytes"
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            return line.decode(errors="backslashreplace"), "not_utf8", str(error)
        text = text.strip("\r\n")
        if not text.strip():
            return "", "empty", "the line is empty"
        if self.separator is None:
            return text.strip(), "", ""
        try:
            cells = (
                _cells(text, self.separator)
                if self.separator
                else text.split(maxsplit=self.column + 1)
            )
        except csv.Error as error:
            return text, "bad_row", str(error)
        if self.column >= len(cells):
            return text, "bad_row", f"{len(cells)} cells, need {self.column + 1}"
        smiles = cells[self.column].strip()
        return (smiles, "", "") if smiles else ("", "empty", "the cell is empty")

    def cell(self, line: bytes, column: int) -> str:
        """Another cell of a line; empty where there is none."""
        cells = self.cells(line)
        return cells[column] if column < len(cells) else ""

    def cells(self, line: bytes) -> list[str]:
        """All cells of a line; none where it cannot be taken apart."""
        text = line[:MAX_LINE_BYTES].decode(errors="backslashreplace")
        if self.separator is None:
            return [text.strip()]
        with contextlib.suppress(csv.Error):
            cells = _cells(text, self.separator) if self.separator else text.split()
            return [cell.strip() for cell in cells]
        return []


WHOLE_LINE = Layout(separator=None)


def _cells(text: str, separator: str) -> list[str]:
    if '"' not in text:
        return text.split(separator)
    return next(csv.reader([text], delimiter=separator, strict=True), [])


def find_layout(
    first: bytes, *, table: bool, column: str = "", separator: str = "", name: str = ""
) -> Layout:
    """The layout of a file, from its first line.

    Args:
        first: the first line.
        table: whether cells are separated by commas or the like (csv), not by white
            space (smi).
        column: name in the header, or a number from 1; empty to take the column that
            is called SMILES or the like, or the only one.
        separator: between cells of a table, where it is known.
        name: of the file, for messages.

    Raises:
        UserError: there is no such column, or it is not clear which one to take.
    """
    text = first[:MAX_LINE_BYTES].decode(errors="replace").strip()
    if table:
        separator = separator or max(_SEPARATORS, key=text.count)
        try:
            cells = _cells(text, separator)
        except csv.Error:
            cells = text.split(separator)
        cells = [cell.strip() for cell in cells]
    else:
        separator, cells = "", text.split()
    place, header = choose_column(cells, column, name, only_or_first=not table)
    return Layout(separator, place, tuple(cells) if header else ())


def choose_column(
    cells: Sequence[str], column: str, name: str, only_or_first: bool = False
) -> tuple[int, bool]:
    """Number of the SMILES column, and whether ``cells`` are names.

    Args:
        cells: the first row.
        column: name or number from 1; may be empty.
        name: of the file, for messages.
        only_or_first: without a name, take the first of several columns.

    Raises:
        UserError: see `find_layout`.
    """
    lowered = [cell.lower().replace(" ", "_") for cell in cells]
    named = next((n for n in SMILES_NAMES if n in lowered), None)
    found = ", ".join(repr(cell[:40]) for cell in cells[:30]) or "none"
    if column:
        if column in cells:
            return cells.index(column), True
        if column.lower() in lowered:
            return lowered.index(column.lower()), True
        if column.isdecimal() and 1 <= int(column) <= max(len(cells), 1):
            return int(column) - 1, named is not None
        raise UserError(
            f"{name} has no column {column!r}: its first line holds {found}; name one "
            "of them, or give the number of a column, the first being 1"
        )
    if named is not None:
        return lowered.index(named), True
    if len(cells) <= 1 or only_or_first:
        return 0, False
    raise UserError(
        f"{name} has {len(cells)} columns and none is called SMILES: its first line "
        f"holds {found}; name the one that holds them, or give its number"
    )
