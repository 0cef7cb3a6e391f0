"""ASE databases: labels of calculators and in row.data, units in the metadata."""

import sqlite3
import sys
from typing import Any

import numpy as np
import pytest

from chemscale_jax.core.errors import UserError
from chemscale_jax.data.frames.ase_db import open_ase_db
from chemscale_jax.data.frames.extxyz import Keys
from tests.data.reader_files import WATER, assert_frames, write_ase_db


def test_labels_in_data_with_units(tmp_path):
    path = write_ase_db(tmp_path, with_calculator=False)["path"]
    source = open_ase_db(path)
    assert_frames(source)
    assert source.report["units"]["force"] == "hartree/bohr"
    # 12 electrons: 3 can only be the multiplicity of a triplet.
    assert (source[0].charge, source[0].spin) == (-2, 2)
    assert source[0].id == "H2O/1"


def test_periodic_rows_and_bad_rows(tmp_path):
    from ase import Atoms
    from ase.db import connect

    path = tmp_path / "a.db"
    x = np.array([[0.0, 0, 0], [0, 0, 1], [0, 1, 0]])
    good = {"energy": -2.0, "forces": x}
    connected: Any = connect(str(path), use_lock_file=False)
    with connected as database:
        database.write(Atoms(WATER, x, cell=[5, 6, 7], pbc=True), data=good)
        database.write(Atoms(WATER, x), data={"energy": -2.0, "forces": x[:2]})
        database.write(Atoms(WATER, x, cell=[5, 6, 7], pbc=[1, 1, 0]), data=good)
        database.write(Atoms(WATER, x), data={"energy": "low", "forces": x})
        database.write(Atoms(WATER, x), key_value_pairs={"E0": -3.0})
        database.write(Atoms(WATER, x), key_value_pairs={"E0": -3.0}, data=good)
    source = open_ase_db(path)
    assert len(source) == 2
    cell = source[0].cell
    assert cell is not None
    np.testing.assert_array_equal(cell, np.diag([5, 6, 7]))
    assert source[1].cell is None
    assert len(source.report["skipped"]) == 4
    assert source.report["rows"] == 6
    other = open_ase_db(path, keys=Keys("E0", "forces"))
    assert other[other.report["used"] - 1].energy == -3.0
    with pytest.raises(UserError, match=r"neither energies.*E0, energy, forces: name"):
        open_ase_db(path, keys=Keys("dft", "gradient"))


def test_other_files(tmp_path, monkeypatch):
    with sqlite3.connect(tmp_path / "other.db") as raw:
        raw.execute("CREATE TABLE things (a)")
    raw.close()
    before = (tmp_path / "other.db").read_bytes()
    with pytest.raises(UserError, match=r"other\.db has no table of systems"):
        open_ase_db(tmp_path / "other.db")
    assert (tmp_path / "other.db").read_bytes() == before
    path = write_ase_db(tmp_path)["path"]
    monkeypatch.setitem(sys.modules, "ase.db", None)
    with pytest.raises(UserError, match=r"pip install 'chemscale_jax\[ase\]'"):
        open_ase_db(path)
