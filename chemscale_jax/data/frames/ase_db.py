"""ASE databases: rows with a calculator's results, or arrays in ``row.data``.

SchNetPack writes the second kind, with units in the metadata of the file; they are
honoured. Needs the package ase, which nothing else in this room does.
"""

import contextlib
import pathlib
import sqlite3
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from chemscale_jax.chem import elements, units
from chemscale_jax.chem.electrons import unpaired_electrons
from chemscale_jax.core.errors import UserError
from chemscale_jax.data.frames.converted import ConvertedSource
from chemscale_jax.data.frames.extxyz import AUTO_KEYS, Keys
from chemscale_jax.data.frames.frames import (
    AUTO_UNITS,
    Bad,
    Frames,
    UnitNames,
    existing_file,
    same_parts,
)
from chemscale_jax.data.frames.source import TEST, TRAIN

_WHAT = "an ASE database (.db)"
_CHARGE_KEYS = ("total_charge", "charge")
_SPIN_KEYS = ("spin_multiplicity", "multiplicity", "total_spin", "spin")


def open_ase_db(
    path: str | pathlib.Path,
    test_path: str | pathlib.Path = "",
    keys: Keys = AUTO_KEYS,
    unit_names: UnitNames = AUTO_UNITS,
    method: str = "auto",
) -> ConvertedSource:
    """Records of an ASE database; a group is named by its formula.

    Args:
        path: the file.
        test_path: a second file, whose records are the test set; may be empty.
        keys: names of energy and forces; "auto" takes ``energy`` and ``forces``.
        unit_names: units of the file, where they are not what its metadata say.
        method: of the labels, for the report.

    Raises:
        UserError: ase is missing; a file is missing, damaged or no database; the labels
            are not there; no row is usable.
    """
    paths = {TRAIN: existing_file(path, _WHAT)}
    if test_path:
        paths[TEST] = existing_file(test_path, _WHAT)

    def read_one(file: pathlib.Path, facts: dict[str, Any]) -> Iterator[Frames | Bad]:
        return _rows(file, facts, keys, unit_names)

    return ConvertedSource(
        same_parts(paths, read_one),
        list(paths.values()),
        {"reader": "ase_db", "units": unit_names, "keys": keys, "method": method},
        {"method": "unknown" if method == "auto" else method},
    )


def _rows(
    file: pathlib.Path, facts: dict[str, Any], keys: Keys, unit_names: UnitNames
) -> Iterator[Frames | Bad]:
    """The rows of a database as frames."""
    try:
        from ase.db import connect
    except ImportError as error:
        raise UserError(
            f"{file} is an ASE database, which needs the package ase: "
            "pip install 'chemscale_jax[ase]'"
        ) from error
    names_seen: set[str] = set()
    any_label = False
    try:
        # ASE would add its tables to a database of another program.
        with contextlib.closing(sqlite3.connect(file)) as raw:
            tables = {name for (name,) in raw.execute("SELECT name FROM sqlite_master")}
        if "systems" not in tables:
            raise UserError(f"{file} has no table of systems: name {_WHAT}")
        database = connect(str(file), type="db", use_lock_file=False)
        names = _units(database.metadata, keys, unit_names)
        facts["units"] = names._asdict()
        for row in database.select():
            frame, names_here = _frame(row, keys, names)
            names_seen |= names_here
            if isinstance(frame, Frames):
                any_label |= frame.energy is not None or frame.forces is not None
            yield frame
    except sqlite3.Error as error:
        raise UserError(
            f"{file} cannot be read as an SQLite database ({error}): it is damaged, "
            "cut short or of another kind; get a fresh copy"
        ) from error
    if names_seen and not any_label:
        raise UserError(
            f"{file} has neither energies nor forces under a name that is known; its "
            f"rows have {', '.join(sorted(names_seen))}: name them with "
            "config.data.energy_key and config.data.forces_key"
        )


def _units(metadata: Mapping[Any, Any], keys: Keys, names: UnitNames) -> UnitNames:
    """Units as the user names them, else as SchNetPack does in the metadata."""
    listed = metadata.get("_property_unit_dict", {})
    energy_key, forces_key = _label_names(keys)
    energy = units.spelled_out(str(listed.get(energy_key, "eV")))
    length = units.spelled_out(str(metadata.get("_distance_unit", "angstrom")))
    force = str(listed.get(forces_key, f"{energy}/{length}"))
    return names.filled(energy, force, length)


def _label_names(keys: Keys) -> tuple[str, str]:
    return (
        "energy" if keys.energy == "auto" else keys.energy,
        "forces" if keys.forces == "auto" else keys.forces,
    )


def _frame(
    row: Any, keys: Keys, unit_names: UnitNames
) -> tuple[Frames | Bad, set[str]]:
    """A row as a frame, and the names of what it holds."""
    energy_factor, force_factor, length = unit_names.factors()
    species = np.asarray(row.numbers, np.int64)
    known = len(species) and species.min() > 0
    formula = elements.formula_of(species) if known else "molecule"
    values: dict[str, Any] = {}
    try:
        # A calculator's results are in columns of their own.
        values |= {n: row.get(n) for n in ("energy", "forces") if n in row}
        values |= {**row.key_value_pairs, **row.data}
        energy_key, forces_key = _label_names(keys)
        charge = _number(values, _CHARGE_KEYS)
        positions = np.asarray(row.positions, np.float64)
        energy = forces = None
        if values.get(energy_key) is not None:
            energy = np.asarray(values[energy_key], np.float64).ravel()
            if energy.size != 1:
                raise ValueError(f"{energy_key} that is not one number")
        if values.get(forces_key) is not None:
            forces = np.asarray(values[forces_key], np.float64)
            if forces.shape != positions.shape:
                raise ValueError(f"{forces_key} of another shape than the positions")
        pbc = np.broadcast_to(row.pbc, 3)
        if pbc.any() and not pbc.all():
            raise ValueError("a cell that is periodic along some axes only")
        cell = np.asarray(row.cell, np.float64).reshape(3, 3) if pbc.all() else None
        if cell is not None and not abs(np.linalg.det(cell)) > 1e-9:
            raise ValueError("a cell that spans no volume")
        spin = unpaired_electrons(_number(values, _SPIN_KEYS), species, charge)
    except (ValueError, TypeError, KeyError) as error:
        return Bad(str(error), f"{formula}/{row.id}"), set(values)
    frame = Frames(
        name=formula,
        rows=np.array([row.id]),
        species=species,
        positions=positions[None] * length,
        energy=None if energy is None else energy * energy_factor,
        forces=None if forces is None else forces[None] * force_factor,
        charge=charge,
        spin=spin,
        cell=None if cell is None else cell[None] * length,
    )
    return frame, set(values)


def _number(values: Mapping[str, Any], keys: tuple[str, ...]) -> float:
    """The first of several names that a row has, else 0."""
    for key in keys:
        if values.get(key) is not None:
            return float(np.asarray(values[key], np.float64).ravel()[0])
    return 0.0
