"""Rows with conformers: in order, whatever crashes, and found again on disk."""

import functools
import os
import sqlite3

import numpy as np
import pytest

from chemscale_jax.chem.conformers import ConformerSettings
from chemscale_jax.chem.molecule_record import MoleculeRecord
from chemscale_jax.core.errors import UserError
from chemscale_jax.data.inputs import conformed_rows
from chemscale_jax.data.inputs.conformed_rows import conformed
from chemscale_jax.data.inputs.molecule_input import UnreadRow
from chemscale_jax.data.inputs.open_input import open_input

SETTINGS = ConformerSettings(count=2, relax_iterations=50)
SMILES = ["CCO", "not one", "C1CCCCC1", "C", "OCC", "[Na+].[Cl-]"]

METHANOL = np.array(
    [
        [-0.36, 0.00, 0.02],
        [0.98, 0.41, -0.13],
        [-0.86, 0.70, 0.71],
        [-0.88, 0.06, -0.95],
        [-0.40, -1.02, 0.42],
        [1.52, -0.15, -0.74],
    ]
)


def crash(place: str) -> MoleculeRecord:
    os._exit(7)


def rows_of(smiles):
    return list(open_input(smiles).unread_rows())


def quiet(rows, **options):
    options = {"cache": None, "progress": False, **options}
    return list(conformed(rows, SETTINGS, **options))


def test_rows_stay_in_order_and_none_is_lost(cache):
    found = quiet(rows_of(SMILES), workers=0, cache="")
    assert [row.index for row in found] == list(range(len(SMILES)))
    statuses = [row.record.status for row in found]
    assert statuses[1] == "failed"
    assert {statuses[i] for i in (0, 2, 3, 4)} <= {"3d", "unconverged"}
    # The same molecule, however it is written.
    np.testing.assert_array_equal(
        found[0].record.positions_KN3, found[4].record.positions_KN3
    )
    assert found[0].record.positions_KN3.shape == (2, 3, 3)
    assert found[0].columns == {"smiles": "CCO"}
    file = sqlite3.connect(cache / "conformers.sqlite")
    (count,) = file.execute("SELECT count(*) FROM conformers").fetchone()
    file.close()
    assert count == 4  # distinct molecules


def test_rows_that_were_read_already_are_taken_too():
    rows = list(open_input(SMILES).rows())
    for left, right in zip(quiet(rows), quiet(rows_of(SMILES)), strict=True):
        np.testing.assert_array_equal(
            left.record.positions_KN3, right.record.positions_KN3
        )


def test_a_molecule_that_kills_its_process_gets_a_status(monkeypatch):
    rows = rows_of(["C", "CC", "CCC"])
    rows.insert(1, UnreadRow(9, "bad", {"a": "b"}, functools.partial(crash, "x")))
    found = quiet(rows, workers=1)
    assert [row.index for row in found] == [0, 9, 1, 2]
    assert found[1].record.status == "failed"
    assert "crashed" in found[1].record.reason
    assert found[1].columns == {"a": "b"}
    assert [row.record.smiles for row in found] == ["C", "", "CC", "CCC"]
    assert all(row.record.status == "3d" for row in found if row.index != 9)


def test_a_conformer_that_cannot_be_made_leaves_the_drawing():
    rows = rows_of(["CC", "CCC", "bad"])
    done = conformed_rows._work(
        rows,
        {1: "too_slow", 5: "too_slow"},
        lambda place: None,
        settings=SETTINGS,
        geometry="given",
        cache=None,
    )
    assert [row.record.status for row in done] == ["2d", "3d", "failed"]
    assert "too_slow" in done[0].record.reason


def test_where_coordinates_come_from():
    given = {"atoms": ["C", "O", *"HHHH"], "coordinates": METHANOL}
    for geometry, status in (("given", "given"), ("conformers", "3d"), ("flat", "2d")):
        (row,) = quiet(open_input(given).unread_rows(), geometry=geometry)
        assert (row.record.status, row.record.smiles) == (status, "CO")
    (flat,) = quiet(open_input("CO").unread_rows(), geometry="flat")
    np.testing.assert_array_equal(flat.record.positions_KN3[0], flat.record.flat_N3)
    # Without bonds there is nothing to make conformers from.
    bare = {"atoms": ["C", "O"], "coordinates": METHANOL[:2]}
    (row,) = quiet(open_input(bare).unread_rows(), geometry="conformers")
    assert row.record.status == "given"


def test_arguments_that_make_no_sense():
    with pytest.raises(UserError, match="geometry='best'"):
        quiet(rows_of("C"), geometry="best")
    with pytest.raises(UserError, match="workers is -1"):
        quiet(rows_of("C"), workers=-1)


def test_the_input_is_read_only_as_far_as_needed():
    taken = []

    def endless():
        for row in rows_of(["C"] * 400):
            taken.append(row.index)
            yield row

    stream = conformed(endless(), SETTINGS, workers=0, cache=None, progress=False)
    assert next(stream).record.status == "3d"
    assert len(taken) < 40
