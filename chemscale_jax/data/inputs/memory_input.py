"""Rows of molecules in memory: lists of SMILES, DataFrames, dictionaries."""

import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from chemscale_jax.chem.given_geometries import record_of_geometries
from chemscale_jax.chem.molecule_record import MoleculeRecord, record_of_smiles
from chemscale_jax.core.errors import UserError
from chemscale_jax.data.inputs.molecule_input import MoleculeInput, UnreadRow
from chemscale_jax.data.text.text_layout import SMILES_NAMES, choose_column

_SMILES = "smiles"
_ATOMS, _COORDINATES = "atoms", "coordinates"
_CHARGES = ("charges", "charge")
Columns = Mapping[str, Sequence[Any]]


def open_memory(source: Any, smiles_col: str, max_atoms: int) -> MoleculeInput:
    """The rows of what is in memory; see `open_input.open_input`."""
    if isinstance(source, Mapping):
        return _open_columns("the dictionary", source, smiles_col, max_atoms)
    if hasattr(source, "columns"):
        table = {str(name): source[name].to_numpy() for name in source.columns}
        return _open_columns("the table", table, smiles_col, max_atoms)
    if hasattr(source, "tolist"):
        source = source.tolist()
    if isinstance(source, Sequence) and not isinstance(source, bytes):
        return _open_columns("the list", {_SMILES: source}, _SMILES, max_atoms)
    raise UserError(
        f"molecules are given as {type(source).__name__}: give the path of a file, "
        "SMILES, a list of them, a DataFrame, or a dictionary with 'smiles' or 'atoms' "
        "and 'coordinates'"
    )


def _open_columns(
    name: str, source: Mapping[Any, Any], smiles_col: str, max_atoms: int
) -> MoleculeInput:
    has_atoms = _ATOMS in source and _COORDINATES in source
    columns = _whole_columns(name, source, has_atoms)
    smiles = ""
    lowered = [column.lower() for column in columns]
    if not has_atoms or smiles_col or any(n in SMILES_NAMES for n in lowered):
        names = list(columns)
        smiles = names[choose_column(names, smiles_col, name)[0]]
    make = _smiles_makers(columns[smiles], max_atoms) if smiles else None
    if has_atoms:
        make = _geometry_makers(columns, smiles, max_atoms)
    assert make is not None
    shown = {
        column: values
        for column, values in columns.items()
        if not has_atoms or column not in (_ATOMS, _COORDINATES)
    }
    length = len(columns[_ATOMS if has_atoms else smiles])
    return MoleculeInput(
        name=name,
        columns=tuple(shown),
        smiles_col=smiles,
        begin=functools.partial(_rows, shown, length, make),
        count=lambda: length,
        facts=functools.partial(_facts, columns),
    )


def _whole_columns(
    name: str, source: Mapping[Any, Any], has_atoms: bool
) -> dict[str, Sequence[Any]]:
    """Lists of one item for each molecule, tables of numbers taken apart."""
    # One molecule may stand without lists around it.
    atoms = source.get(_ATOMS) if has_atoms else None
    if atoms is not None and len(atoms) and np.ndim(atoms[0]) == 0:
        source = {key: [value] for key, value in source.items()}
    columns: dict[str, Sequence[Any]] = {}
    for key, values in source.items():
        if isinstance(values, str) or not hasattr(values, "__len__"):
            values = [values]
        if getattr(values, "ndim", 1) == 2 and key not in (_ATOMS, _COORDINATES):
            parts = enumerate(np.asarray(values).T, 1)
            columns |= {f"{key} {number}": list(part) for number, part in parts}
        else:
            columns[str(key)] = list(values)
    if len({len(values) for values in columns.values()}) > 1:
        found = ", ".join(f"{key!r} of {len(v)}" for key, v in columns.items())
        raise UserError(f"{name} has {found}: give one item for each molecule")
    return columns


def _facts(columns: Columns) -> dict[str, Any]:
    digest = hashlib.sha256()
    for name, values in columns.items():
        digest.update(f"\n{name}\n".encode())
        for value in values:
            text = value if isinstance(value, str) else _shown(value)
            digest.update(text.encode(errors="backslashreplace") + b"\n")
    return {"memory": digest.hexdigest()}


def _shown(value: Any) -> str:
    if np.ndim(value) > 1:
        return hashlib.sha256(np.asarray(value, np.float64).tobytes()).hexdigest()
    return " ".join(map(str, value)) if np.ndim(value) else cell_text(value)


def _smiles_makers(
    values: Sequence[Any], max_atoms: int
) -> Callable[[int, str], Callable[[], MoleculeRecord]]:
    def make(index: int, where: str) -> Callable[[], MoleculeRecord]:
        text = cell_text(values[index])
        return functools.partial(record_of_smiles, text, where, max_atoms=max_atoms)

    return make


def _geometry_makers(
    columns: Columns, smiles: str, max_atoms: int
) -> Callable[[int, str], Callable[[], MoleculeRecord]]:
    charges = next((columns[key] for key in _CHARGES if key in columns), None)

    def make(index: int, where: str) -> Callable[[], MoleculeRecord]:
        charge = "" if charges is None else cell_text(charges[index])
        return functools.partial(
            record_of_geometries,
            columns[_ATOMS][index],
            columns[_COORDINATES][index],
            where,
            smiles=cell_text(columns[smiles][index]) if smiles else "",
            charge=charge,
            max_atoms=max_atoms,
        )

    return make


def _rows(
    columns: Columns,
    length: int,
    make: Callable[[int, str], Callable[[], MoleculeRecord]],
) -> Iterator[UnreadRow]:
    for index in range(length):
        where = f"molecule {index + 1}"
        cells = {name: cell_text(values[index]) for name, values in columns.items()}
        yield UnreadRow(index, where, cells, make(index, where))


def cell_text(value: Any) -> str:
    """A cell as text that gives the same number; "" where it is missing."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return ""
    if isinstance(value, str):
        return value.strip()
    if hasattr(value, "item") and getattr(value, "size", 1) == 1:
        value = value.item()
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float):
        return "" if value != value else repr(value)
    return str(value)
