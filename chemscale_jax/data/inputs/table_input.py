"""Rows of tables of molecules in files: csv and its kin, SMILES files, parquet."""

import functools
import pathlib
from collections.abc import Iterator
from typing import Any

from chemscale_jax.chem.molecule_record import failed_record, record_of_smiles
from chemscale_jax.data.cache import file_identity
from chemscale_jax.data.inputs.memory_input import cell_text
from chemscale_jax.data.inputs.molecule_input import MoleculeInput, UnreadRow
from chemscale_jax.data.text.molecule_text import ParquetText, TextFile, open_text
from chemscale_jax.data.text.text_layout import Layout


def open_table(path: pathlib.Path, smiles_col: str, max_atoms: int) -> MoleculeInput:
    """The rows of a table; see `open_input.open_input`."""
    source = open_text(path, smiles_col)
    if isinstance(source, ParquetText):
        return _open_parquet(source, max_atoms)
    names = source.layout.columns or _numbered(source)
    return MoleculeInput(
        name=path.name,
        columns=names,
        smiles_col=names[source.layout.column],
        begin=functools.partial(_text_rows, source, names, max_atoms),
        count=lambda: sum(1 for _ in _lines(source)),
        facts=functools.partial(_facts, path, smiles_col),
    )


def _facts(path: pathlib.Path, smiles_col: str) -> dict[str, Any]:
    return {**file_identity(path), "smiles_col": smiles_col}


def _numbered(source: TextFile) -> tuple[str, ...]:
    """Names of the columns of a table without a header: "1", "2", ..."""
    cells = max(len(_header(source)), source.layout.column + 1)
    return tuple(str(number) for number in range(1, cells + 1))


def _lines(source: TextFile) -> Iterator[tuple[int, bytes]]:
    """Lines with their numbers, but for empty ones at the end."""
    empty: list[tuple[int, bytes]] = []
    for chunk in source.chunks():
        for number, line in enumerate(chunk.lines, chunk.first):
            if not line.strip():
                empty.append((number, line))
                continue
            yield from empty
            empty.clear()
            yield number, line


def _text_rows(
    source: TextFile, names: tuple[str, ...], max_atoms: int
) -> Iterator[UnreadRow]:
    layout: Layout = source.layout
    for index, (number, line) in enumerate(_lines(source)):
        where = f"{source.path.name} line {number}"
        smiles, reason, message = layout.read(line)
        make = functools.partial(record_of_smiles, smiles, where, max_atoms=max_atoms)
        if reason:
            make = functools.partial(failed_record, where, message)
        # Cells beyond the last column have no name.
        columns = dict(zip(names, layout.cells(line), strict=False))
        yield UnreadRow(index, where, columns, make)


def _open_parquet(source: ParquetText, max_atoms: int) -> MoleculeInput:
    return MoleculeInput(
        name=source.path.name,
        columns=source.columns,
        smiles_col=source.column,
        begin=functools.partial(_parquet_rows, source, max_atoms),
        count=source.rows,
        facts=functools.partial(_facts, source.path, source.column),
    )


def _parquet_rows(source: ParquetText, max_atoms: int) -> Iterator[UnreadRow]:
    for index, values in enumerate(source.tables()):
        where = f"{source.path.name} row {index + 1}"
        cells = {name: cell_text(value) for name, value in values.items()}
        text = cells[source.column]
        make = functools.partial(record_of_smiles, text, where, max_atoms=max_atoms)
        yield UnreadRow(index, where, cells, make)


def first_column(path: pathlib.Path) -> str:
    """Name of the first column of a table with a header, of SMILES or not."""
    source = open_text(path, "1")
    if isinstance(source, ParquetText):
        return source.column
    return source.layout.columns[0] if source.layout.columns else _header(source)[0]


def _header(source: TextFile) -> list[str]:
    """Cells of the first line, whether it names the columns or not."""
    first = next((chunk.lines[0] for chunk in source.chunks()), b"")
    return source.layout.cells(first) or [""]
