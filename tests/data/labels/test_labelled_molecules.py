"""Labelled molecules: each row is used or listed, and conformers are made once."""

import numpy as np
import pytest

from chemscale_jax.core.errors import UserError
from chemscale_jax.data.inputs import conformed_rows
from chemscale_jax.data.labels import labelled_molecules
from chemscale_jax.data.labels.label_columns import read_labels
from chemscale_jax.data.labels.labelled_molecules import open_labelled
from tests.data.inputs.test_molecule_input import BLOCK
from tests.data.labelled_files import SMILES, make_config, write_table


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch):
    monkeypatch.setattr(conformed_rows, "usable_processes", lambda: 0)


def opened(path, **changes):
    changes = {f"data.{name}": value for name, value in changes.items()}
    return open_labelled(make_config(path, **changes).data)


def test_every_row_is_used_or_listed(tmp_path):
    smiles = ["CCO", "C(", "CC", "CCC", "CCCC", "OCC", "C" * 30]
    path = write_table(
        tmp_path / "m.csv", smiles, y=[1, 2, "", ">5", "nan", 2.5, 3], z=[1] * 7
    )
    found = opened(path, targets=("y",), max_atoms=20, units=("eV",))
    assert found.where.tolist() == ["m.csv line 2", "m.csv line 7"]
    assert found.row.tolist() == [0, 5]
    assert found.targets_MT.tolist() == [[1.0], [2.5]]
    assert (found.target_names, found.units, found.kind) == (
        ("y",),
        ("eV",),
        "regression",
    )
    assert found.keys[0] == found.keys[1]
    assert [record.smiles for record in found.records([1, 0])] == ["CCO", "CCO"]
    assert found.statuses == {"2d": 2}
    assert len(found) + len(found.rejected) == len(smiles)
    reasons = dict(found.rejected)
    assert list(reasons) == [f"m.csv line {n}" for n in (3, 4, 5, 6, 8)]
    assert "1 ( but 0 )" in reasons["m.csv line 3"]
    assert "there is no value of y" in reasons["m.csv line 4"]
    assert "'>5', no finite number" in reasons["m.csv line 5"]
    assert "30 heavy atoms; the limit is 20" in reasons["m.csv line 8"]
    assert "5 rows left out (m.csv line 3:" in found.reasons


def test_conformers_are_made_once(tmp_path, monkeypatch):
    path = write_table(tmp_path / "m.csv", SMILES[:6], y=range(6), z=range(0, 12, 2))
    first = opened(path, targets=("y",), geometry="conformers")
    assert first.statuses == {"3d": 6}
    monkeypatch.delattr(labelled_molecules, "conformed")
    again = opened(path, targets=("z",), geometry="conformers", split="random")
    assert again.targets_MT.ravel().tolist() == list(range(0, 12, 2))
    np.testing.assert_array_equal(
        first.records([3])[0].positions_KN3, again.records([3])[0].positions_KN3
    )
    with pytest.raises(NameError):  # other settings, so they are made
        opened(path, targets=("y",), geometry="conformers", conformer_seed=1)


def test_a_test_file_comes_after(tmp_path):
    path = write_table(tmp_path / "train.csv", ["C", "CC", "CCC"], y=[1, 2, 3])
    test = write_table(tmp_path / "test.csv", ["x", "CCCC"], y=[4, 5])
    found = opened(path, test_path=test, targets=("y",))
    assert found.is_test.tolist() == [False, False, False, True]
    assert found.where[-1] == "test.csv line 3"
    assert found.row.tolist() == [0, 1, 2, 1]
    assert found.targets_MT.ravel().tolist() == [1, 2, 3, 5]
    fewer = opened(path, test_path=test, targets=("y",), max_rows=1)
    assert fewer.is_test.tolist() == [False, True]


def test_rows_are_drawn_at_random_and_nested(tmp_path):
    path = write_table(tmp_path / "m.csv")
    few, more = (set(opened(path, max_rows=n).row.tolist()) for n in (5, 20))
    assert (len(few), len(more)) == (5, 20)
    assert few < more
    assert few != set(range(5))
    assert few != set(opened(path, max_rows=5, split_seed=1).row.tolist())


def test_geometries_of_another_file(tmp_path):
    blocks = [BLOCK.format(name="a", z="0.5000", y=n) for n in range(3)]
    (tmp_path / "m.sdf").write_text("".join(blocks))
    options = {"geometries": str(tmp_path / "m.sdf"), "geometry": "given"}
    path = write_table(tmp_path / "m.csv", ["CO", "CN", "OC"], y=[1, 2, 3])
    found = opened(path, **options)
    assert found.statuses == {"given": 2}
    assert found.row.tolist() == [0, 2]
    assert "its geometry is of CO, its SMILES CN" in found.rejected[0][1]
    # A table without SMILES, as that of GDB-9.
    (tmp_path / "n.csv").write_text("mol_id,y\na,1\nb,2\nc,3\nd,4\n")
    found = opened(str(tmp_path / "n.csv"), **options)
    assert found.row.tolist() == [0, 1, 2]
    assert "has no record for it" in found.rejected[0][1]
    (tmp_path / "n.csv").write_text("mol_id,y\na,1\n")
    with pytest.raises(UserError, match="more records than"):
        opened(str(tmp_path / "n.csv"), **options)


def test_molecules_without_bonds_are_equal_to_none(tmp_path):
    frame = "2\n\nC 0 0 {z}\nO 0 0 0\n"
    (tmp_path / "m.xyz").write_text("".join(frame.format(z=z) for z in (1.2, 1.3)))
    (tmp_path / "y.csv").write_text("name,y\na,1\nb,2.5\n")
    found = opened(
        str(tmp_path / "y.csv"), geometries=str(tmp_path / "m.xyz"), geometry="given"
    )
    assert len(set(found.keys.tolist())) == 2
    assert not any(record.has_bonds for record in found.records([0, 1]))


@pytest.mark.parametrize(
    ("table", "options", "expected"),
    [
        ({"a": ["0", "1", ""]}, {}, ("binary", [0, 1, np.nan])),
        ({"a": ["Yes", "no", "na"]}, {"targets": ["a"]}, ("binary", [1, 0, np.nan])),
        ({"a": ["0", "2", "1"]}, {"kind": "multiclass"}, ("multiclass", [0, 2, 1])),
        ({"a": ["0", "1.5", "2"]}, {}, ("regression", [0, 1.5, 2])),
        ({"a": ["0", "1", "1"]}, {"kind": "regression"}, ("regression", [0, 1, 1])),
        (
            {"a": ["low", "high", "low"]},
            {"targets": ["a"]},
            ("multiclass", [1, 0, 1]),
        ),
        ({"a": ["10", "9.0", "9"]}, {"kind": "multiclass"}, ("multiclass", [1, 0, 0])),
    ],
)
def test_the_kind_is_told_from_the_labels(table, options, expected):
    labels = read_labels(table, **options)
    assert labels.kind == expected[0]
    np.testing.assert_array_equal(labels.values_RT[:, 0], expected[1])


def test_columns_of_numbers_are_the_targets():
    table = {
        "index": ["3", "4", "5"],
        "smiles": ["1", "2", "9"],
        "name": ["a", "1", "2"],
        "y": ["1", "", "3"],
        "empty": ["", "", ""],
        "z": ["1", "0", "1e3"],
    }
    assert read_labels(table, besides=["smiles"]).names == ("y", "z")
    assert read_labels(table, targets=["index"]).names == ("index",)


@pytest.mark.parametrize(
    ("table", "options", "message"),
    [
        ({"a": ["x"]}, {}, "no column holds numbers"),
        ({"mass": ["1"]}, {"targets": ["mas"]}, "did you mean 'mass'"),
        ({"a": ["1"]}, {"targets": ["a", "a"]}, "twice"),
        ({"a": ["1"]}, {"kind": "count"}, "kind='count'"),
        ({"a": ["1"], "b": ["2"]}, {"kind": "multiclass"}, "for one target, not 2"),
        ({"a": ["1", "1"]}, {"kind": "multiclass"}, "has 1 classes"),
    ],
)
def test_labels_that_cannot_be_learned_are_refused(table, options, message):
    with pytest.raises(UserError, match=message):
        read_labels(table, **options)


def test_binary_labels_have_no_third_value():
    labels = read_labels({"a": ["1", "0", "2"]}, kind="binary")
    assert labels.faults == ["", "", "a is '2', neither 0 nor 1"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"path": ""}, "give source 'file'"),
        ({"source": "store"}, "give source 'file'"),
        ({"geometry": "best"}, "geometry='best'"),
        ({"geometries": "a.sdf"}, "neither config.data.test_path nor"),
        ({"max_atoms": 0}, "max_atoms=0"),
        ({"units": ("a", "b")}, "2 units for 1 targets"),
        ({"split_col": "part"}, "no column config.data.split_col='part'"),
        ({"max_atoms": 1}, "no molecule of"),
        ({"path": "no.csv"}, "does not exist"),
    ],
)
def test_fields_that_make_no_sense_are_refused(tmp_path, changes, message):
    changes = {"path": write_table(tmp_path / "m.csv"), **changes}
    with pytest.raises(UserError, match=message):
        opened(**changes)
