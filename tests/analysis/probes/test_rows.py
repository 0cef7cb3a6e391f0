"""Rows of a user's table: each one is accounted for by its number."""

import csv
import os
import pathlib

import numpy as np
import pytest

from chemscale_jax.analysis.probes.rows import read_probe_rows, write_rows
from chemscale_jax.core.embedding_table import EmbeddingTable
from chemscale_jax.core.errors import UserError
from chemscale_jax.data.inputs.open_input import open_input
from chemscale_jax.data.labels.label_columns import read_labels
from chemscale_jax.data.labels.property_tables import PROPERTY_TABLES, columns_of

GOOD = [f"{'C' * n}O,{n}.5,note" for n in range(1, 12)]
HOSTILE = [
    "OCC,7,the same molecule as row 1",
    "not-a-molecule,1,x",
    ",2,no SMILES",
    "CCN,,no label",
    "CCS,abc,a word",
    "CCCl",  # cells are missing
    'c1ccccc1,3,"a quoted, comma"',
    "",
    "CCF,nan,x",
    "CCBr,inf,x",
    "C1CC1,-2e0,x,more cells,than columns",
]


def embedded(source, width=3):
    """What ``chemscale embed`` writes for a table."""
    rows = list(source.rows())
    failed = np.array([row.record.status == "failed" for row in rows])
    values = np.arange(len(rows) * width, dtype=np.float32).reshape(-1, width)
    values[failed] = np.nan
    return EmbeddingTable(
        index=np.arange(len(rows)),
        where=np.array([row.where for row in rows]),
        smiles=np.array(
            [row.record.smiles * (row.record.status != "failed") for row in rows]
        ),
        status=np.array([row.record.status for row in rows]),
        reason=np.where(failed, [row.record.reason for row in rows], ""),
        values=values,
    )


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "mols.csv"
    text = "\n".join(["smiles,y,note", *GOOD, *HOSTILE, *GOOD[:1]]) + "\n"
    # A byte of another encoding, in a cell that nobody needs.
    path.write_bytes(text.encode().replace(b"no label", b"caf\xe9"))
    return open_input(path)


def test_every_row_is_used_or_has_a_reason(source, tmp_path):
    found = read_probe_rows(
        {"emb": embedded(source)}, source, data_set="mols", targets=["y"]
    )
    write_rows(found, tmp_path / "rows.csv")
    with (tmp_path / "rows.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    count = len(GOOD) + len(HOSTILE) + 1
    assert [int(line["row"]) for line in lines] == list(range(count))
    used = [n for n, line in enumerate(lines) if line["status"] == "used"]
    assert used == found.row.tolist() == [*range(12), 17, 21, 22]
    assert found.true[:, 0].tolist()[-4:] == [7.0, 3.0, -2.0, 1.5]
    assert found.values["emb"][-1].tolist() == [66.0, 67.0, 68.0]
    reasons = {n: lines[n]["reason"] for n in range(count) if n not in used}
    assert all(reasons.values())
    assert lines[12]["status"] == lines[13]["status"] == "not embedded"
    assert lines[18]["status"] == "not embedded"  # the empty line
    assert reasons[15] == "y is 'abc', no finite number"
    assert reasons[16] == "there is no value of y"
    assert lines[11]["same_molecule_as_row"] == "1"
    assert lines[22]["same_molecule_as_row"] == "0"
    assert found.statuses == {"used": 15, "no label": 4, "not embedded": 4}


def test_rows_must_have_embeddings_in_all_files(source):
    one, two = embedded(source), embedded(source)
    two.values[4] = np.nan
    found = read_probe_rows(
        {"one": one, "two": two}, source, data_set="mols", targets=["y"]
    )
    assert 4 not in found.row
    assert found.reason[4] == "two: no finite embedding"
    assert (found.values["one"] == found.values["two"]).all()


def test_files_that_do_not_belong_together_are_refused(source, tmp_path):
    whole = embedded(source)

    def read(table, source=source, **more):
        return read_probe_rows(
            {"emb": table}, source, data_set="mols", **{"targets": ["y"], **more}
        )

    with pytest.raises(UserError, match="have 22 rows and mols.csv has 23"):
        read(whole.take(slice(22)))
    with pytest.raises(UserError, match="lack rows of what was embedded"):
        read(whole.take(np.arange(23)[::-1]))
    lines = ["smiles,y", *reversed([line.rpartition(",")[0] for line in GOOD])]
    path = tmp_path / "sorted.csv"
    path.write_text("\n".join([*lines, *["CCO,1"] * 12]))
    with pytest.raises(UserError, match=r"of other molecules than sorted\.csv"):
        read(whole, open_input(path))
    with pytest.raises(UserError, match="no column 'z'"):
        read(whole, targets=["z"])
    with pytest.raises(UserError, match="there are 2 units for 1 targets"):
        read(whole, units=["a", "b"])
    with pytest.raises(UserError, match="give it with --input"):
        read(whole, None)


def test_columns_that_were_kept_take_the_place_of_the_table(source):
    table = embedded(source)
    cells = [row.columns.get("y", "") for row in source.unread_rows()]
    own = EmbeddingTable(
        **{f: getattr(table, f) for f in ("index", "where", "smiles", "status")},
        reason=table.reason,
        values=table.values,
        columns={"y": np.array(cells)},
    )
    kept = read_probe_rows({"emb": own}, None, data_set="mols", targets=["y"])
    read = read_probe_rows({"emb": table}, source, data_set="mols", targets=["y"])
    assert (kept.true == read.true).all()


def test_targets_need_labels(tmp_path):
    path = tmp_path / "mols.csv"
    path.write_text(
        "smiles,few,same\n"
        + "".join(f"{'C' * n},{n if n < 5 else ''},1\n" for n in range(1, 15))
    )
    source = open_input(path)
    for target, message in (("few", "has 4 labels"), ("same", "of 1 different")):
        with pytest.raises(UserError, match=message):
            read_probe_rows(
                {"e": embedded(source)}, source, data_set="x", targets=[target]
            )


def test_official_files_are_known_by_their_columns():
    for name, known in PROPERTY_TABLES.items():
        for columns in known.files:
            asked = ("id", columns.smiles, *columns.targets)
            assert columns_of(name, asked) is columns
            assert len(columns.units) in (1, len(columns.targets))
    with pytest.raises(UserError, match=r"FreeSolv \(SAMPL.csv\) has 'expt', which"):
        columns_of("freesolv", ["smiles", "calc"])


@pytest.mark.shared
def test_official_files_have_the_columns_that_are_known():
    folder = pathlib.Path(os.environ["CHEMSCALE_SHARED"]) / "data" / "property"
    for name, file in (
        ("freesolv", "freesolv/freesolv_moleculenet.csv"),
        ("esol", "esol/delaney-processed.csv"),
        ("tox21", "tox21/tox21.csv.gz"),
        ("biogen", "biogen_adme/ADME_HLM_train.csv"),
    ):
        source = open_input(folder / file)
        known = columns_of(name, source.columns)
        rows = [row.columns for row in source.unread_rows()]
        cells = {c: [row.get(c, "") for row in rows] for c in known.targets}
        labels = read_labels(cells, targets=known.targets)
        assert labels.kind == PROPERTY_TABLES[name].kind
        assert labels.faults.count("") > 0.95 * len(rows)
