"""Whatever users hand over: one row for each of its rows, in order, nothing lost."""

import gzip
import pathlib
import pickle

import numpy as np
import pytest

from chemscale_jax.chem.conformers import embed
from chemscale_jax.core.errors import UserError
from chemscale_jax.data.inputs.molecule_input import MoleculeInput
from chemscale_jax.data.inputs.open_input import open_input
from tests.chem.hostile_molecules import hostile_blocks, hostile_smiles

BLOCK = """{name}
made up

  2  1  0  0  0  0  0  0  0  0999 V2000
    0.0000    0.0000    0.0000 C   0  0
    1.4000    0.0000    {z} O   0  0
  1  2  1  0
M  END
> <y>
{y}

$$$$
"""


def facts(opened: MoleculeInput, start=0):
    rows = list(opened.rows(start))
    assert [row.index for row in rows] == list(range(start, opened.length))
    return [(row.where, row.record.smiles, row.record.status) for row in rows]


def test_a_table_keeps_its_cells_and_bad_lines(tmp_path):
    path = tmp_path / "mols.csv"
    path.write_text('id,SMILES,y\n1,OCC, 2.5\n2,C(,1\n\n"a,b",C,\n4\n\n\n')
    opened = open_input(path)
    assert opened.columns == ("id", "SMILES", "y")
    assert (opened.name, opened.smiles_col, len(opened)) == ("mols.csv", "SMILES", 5)
    assert facts(opened) == [
        ("mols.csv line 2", "CCO", "2d"),
        ("mols.csv line 3", "", "failed"),
        ("mols.csv line 4", "", "failed"),
        ("mols.csv line 5", "C", "2d"),
        ("mols.csv line 6", "", "failed"),
    ]
    rows = list(opened.rows())
    assert rows[0].columns == {"id": "1", "SMILES": "OCC", "y": "2.5"}
    assert rows[3].columns == {"id": "a,b", "SMILES": "C", "y": ""}
    assert facts(opened, 3) == facts(opened)[3:]
    before = dict(opened.identity)
    path.write_text("SMILES\nC\n")
    assert dict(open_input(path).identity) != before


def test_files_without_a_header(tmp_path):
    path = tmp_path / "mols.smi.gz"
    with gzip.open(path, "wt") as stream:
        stream.write("CCO ethanol\nC\n")
    opened = open_input(str(path))
    assert opened.columns == ("1", "2")
    assert [row.columns for row in opened.rows()] == [
        {"1": "CCO", "2": "ethanol"},
        {"1": "C"},
    ]


def test_the_column_of_smiles_is_chosen_or_asked_for(tmp_path):
    path = tmp_path / "mols.csv"
    path.write_text("a,b\nC,CC\n")
    with pytest.raises(UserError, match="none is called SMILES"):
        open_input(path)
    assert next(open_input(path, smiles_col="b").rows()).record.smiles == "CC"
    frame = {"a": ["C"], "b": ["CC"]}
    assert next(open_input(frame, smiles_col="a").rows()).record.smiles == "C"
    with pytest.raises(UserError, match="no column 'c'"):
        open_input(frame, smiles_col="c")


def test_parquet_has_all_columns(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pa.table({"smiles": ["CO", None], "y": [0.1, float("nan")]})
    parquet.write_table(table, tmp_path / "m.parquet")
    opened = open_input(tmp_path / "m.parquet")
    assert facts(opened) == [
        ("m.parquet row 1", "CO", "2d"),
        ("m.parquet row 2", "", "failed"),
    ]
    assert [row.columns["y"] for row in opened.rows()] == ["0.1", ""]


@pytest.mark.parametrize("packed", [False, True])
def test_sd_files_keep_fields_and_coordinates(tmp_path, packed):
    text = BLOCK.format(name="a", z="0.5000", y=1) + "nonsense\n$$$$\n"
    text += BLOCK.format(name="b", z="0.0000", y=3)
    path = tmp_path / ("m.sdf.gz" if packed else "m.sdf")
    with gzip.open(path, "wt") if packed else path.open("w") as stream:
        stream.write(text)
    opened = open_input(path)
    assert (opened.columns, opened.smiles_col) == (("y",), "")
    found = facts(opened)
    assert [status for *_, status in found] == ["given", "failed", "2d"]
    assert found[0][0] == f"{path.name} record 1"
    assert [row.columns.get("y") for row in opened.rows()] == ["1", None, "3"]


def test_xyz_files_take_a_charge(tmp_path):
    made = embed("C[NH3+]")
    symbols = {1: "H", 6: "C", 7: "N"}
    lines = [
        f"{symbols[int(z)]} {x[0]} {x[1]} {x[2]}"
        for z, x in zip(made.numbers, made.positions_ang, strict=True)
    ]
    path = tmp_path / "m.xyz"
    path.write_text(f"{len(lines)}\n\n" + "\n".join(lines) + "\n")
    assert facts(open_input(path, charge=1)) == [("m.xyz frame 1", "C[NH3+]", "given")]
    assert facts(open_input(path))[0][1] != "C[NH3+]"


def test_smiles_and_lists_of_them():
    assert facts(open_input("OCC")) == [("molecule 1", "CCO", "2d")]
    opened = open_input(np.array(["C", None, 3, "CC "], object))
    assert [status for *_, status in facts(opened)] == ["2d", "failed", "failed", "2d"]
    assert opened.identity != open_input(["C"]).identity
    assert open_input(["C"]).identity == open_input(("C",)).identity


def test_data_frames_and_dictionaries():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"smiles": ["C", "CC"], "y": [0.1, None], "n": [1, 2]})
    frame.index = frame.index + 7
    opened = open_input(frame)
    assert opened.columns == ("smiles", "y", "n")
    cells = [row.columns for row in opened.rows()]
    assert cells[0] == {"smiles": "C", "y": "0.1", "n": "1"}
    assert cells[1]["y"] == ""
    same = open_input({"smiles": ["C", "CC"], "y": [0.1, np.nan], "n": [True, 2]})
    assert [row.columns for row in same.rows()] == cells


def test_atoms_and_coordinates():
    made = embed("CO")
    one = {"atoms": ["C", "O", *"HHHH"], "coordinates": made.positions_ang, "target": 2}
    several = {
        "atoms": [one["atoms"]] * 2,
        "coordinates": [made.positions_ang, np.stack([made.positions_ang] * 3)],
        "target": np.array([[1.0, 2.0], [3.0, np.nan]]),
    }
    assert facts(open_input(one)) == [("molecule 1", "CO", "given")]
    assert open_input(one).columns == ("target",)
    opened = open_input(several)
    assert opened.columns == ("target 1", "target 2")
    shapes = [row.record.positions_KN3.shape for row in opened.rows()]
    assert shapes == [(1, 2, 3), (3, 2, 3)]
    assert [row.columns["target 2"] for row in opened.rows()] == ["2.0", ""]
    moved = {**one, "coordinates": made.positions_ang + 1}
    assert open_input(moved).identity != open_input(one).identity
    with pytest.raises(UserError, match="'target' of 3"):
        open_input({**several, "target": [1, 2, 3]})


@pytest.mark.parametrize("source", [5, None, b"CC", 2.5])
def test_what_is_no_input_is_refused(source):
    with pytest.raises(UserError, match="give the path of a file"):
        open_input(source)


def test_missing_and_damaged_files_are_refused(tmp_path):
    for name in ("no.csv", "no.sdf", "no.xyz"):
        with pytest.raises(UserError, match="does not exist"):
            open_input(str(tmp_path / name))
    with pytest.raises(UserError, match="says no format"):
        open_input(pathlib.Path(__file__))
    damaged = tmp_path / "m.sdf.gz"
    whole = gzip.compress(BLOCK.format(name="a", z="0.5", y=1).encode() * 50)
    damaged.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="cut short"):
        open_input(damaged).length  # noqa: B018


def test_hostile_molecules_all_get_a_row(tmp_path):
    smiles = hostile_smiles(150)
    rows = list(open_input(smiles, max_atoms=100).unread_rows())
    again = pickle.loads(pickle.dumps(rows))
    assert len(rows) == len(smiles)
    for row in again:
        record = row.read().record
        assert (record.status == "failed") == (not len(record.positions_KN3))
        assert record.status == "2d" or record.reason
    blocks = hostile_blocks(30)
    (tmp_path / "m.sdf").write_text("\n$$$$\n".join(blocks), encoding="utf-8")
    found = list(open_input(tmp_path / "m.sdf").rows())
    assert len(found) == 30
    assert {"2d", "failed"} <= {row.record.status for row in found}
