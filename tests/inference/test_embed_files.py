"""Files of embeddings: their forms, and what a kill leaves."""

import csv

import numpy as np
import pytest
from pyarrow import parquet

from chemscale_jax.__main__ import main
from chemscale_jax.core.errors import UserError
from chemscale_jax.data.inputs.open_input import open_input
from chemscale_jax.inference import molecule_embeddings
from chemscale_jax.inference.embed import Embeddings, EmbedSettings
from chemscale_jax.inference.embed_files import write_embeddings
from chemscale_jax.inference.molecule_batches import Batching
from chemscale_jax.inference.molecule_model import open_molecule_model
from tests.inference.tiny_unimol2 import make_workdir

SMALL = Batching(pairs=600)
ROWS = ["CCO", "CC", "", "OCC", "CO", "C=O", "N"]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return make_workdir(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def model(workdir):
    return open_molecule_model(workdir)


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "mols.csv"
    lines = [f"m{i},{smiles}" for i, smiles in enumerate(ROWS)]
    path.write_text("\n".join(["status,smiles", *lines, ""]))
    return path


def write(model, source, out, **settings):
    return write_embeddings(
        model,
        open_input(source),
        out,
        EmbedSettings(geometry="flat", **settings),
        batching=SMALL,
        progress=False,
    )


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_files_agree(model, source, tmp_path):
    statuses = write(model, source, tmp_path / "a.npz")
    assert statuses == {"2d": 6, "failed": 1}
    whole = Embeddings.load(tmp_path / "a.npz")
    assert whole.values.shape == (7, 16)
    assert whole.std is None
    write(model, source, tmp_path / "a.csv")
    rows = table(tmp_path / "a.csv")
    # A column of the input that has one of our names.
    assert [row["input_status"] for row in rows] == [f"m{i}" for i in range(7)]
    assert [row["status"] for row in rows] == whole.status.tolist()
    assert [row["where"] for row in rows][1] == "mols.csv line 3"
    numbers = [[row[f"embedding_{d}"] for d in range(16)] for row in rows]
    assert numbers[2] == [""] * 16
    del numbers[2]
    np.testing.assert_array_equal(
        np.array(numbers, np.float32), np.delete(whole.values, 2, axis=0)
    )
    write(model, source, tmp_path / "a.parquet")
    lists = parquet.read_table(tmp_path / "a.parquet")["embedding"].to_pylist()
    assert lists[2] is None
    np.testing.assert_array_equal(np.float32(lists[3]), whole.values[3])
    assert not list(tmp_path.glob("*.parts"))


def test_tables_of_atoms_and_of_all_layers(model, source, tmp_path):
    write(model, source, tmp_path / "a.csv", level="atom", layer="all")
    rows = table(tmp_path / "a.csv")
    assert [row["row"] for row in rows] == list("0001123334455" + "6")
    assert [row["element"] for row in rows] == [*"CCOCC", "", *"CCOCOCON"]
    assert [row["atom"] for row in rows[:6]] == ["0", "1", "2", "0", "1", ""]
    assert rows[0]["embedding_layer2_15"]
    assert rows[0]["embedding_layer0_0"]
    assert not rows[5]["embedding_layer0_0"]
    assert rows[5]["reason"]
    write(model, source, tmp_path / "a.parquet", level="atom", layer="all")
    found = parquet.read_table(tmp_path / "a.parquet")
    assert found["atom"].to_pylist()[4:7] == [1, None, 0]


class KilledError(Exception):
    pass


def make_noting(work, done):
    """The same work, which notes the first row of each part."""
    return lambda rows: [done.append(rows[0].index), work(rows)][1]


def test_a_killed_run_goes_on(model, source, tmp_path, monkeypatch):
    monkeypatch.setitem(molecule_embeddings._PART_ROWS, "molecule", 2)
    write(model, source, tmp_path / "unbroken.csv")
    embedder = molecule_embeddings.MoleculeEmbedder
    make = embedder.make_work

    def dying(*args):
        work = make(*args)

        def one(rows):
            if rows[0].index == 4:
                raise KilledError
            return work(rows)

        return one

    monkeypatch.setattr(embedder, "make_work", dying)
    with pytest.raises(KilledError):
        write(model, source, tmp_path / "a.csv")
    monkeypatch.setattr(embedder, "make_work", make)
    assert not (tmp_path / "a.csv").exists()
    # The end of the last part is torn off: it is made again.
    torn = tmp_path / "a.csv.parts" / "results.part"
    torn.write_bytes(torn.read_bytes()[:-7])
    with pytest.raises(UserError, match="other settings"):
        write(model, source, tmp_path / "a.csv", pool="mean")
    done = []
    monkeypatch.setattr(
        embedder, "make_work", lambda *args: make_noting(make(*args), done)
    )
    write(model, source, tmp_path / "a.csv")
    assert done == [2, 4, 6]
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "unbroken.csv").read_bytes()
    assert not list(tmp_path.glob("*.parts"))


def test_the_command(workdir, source, tmp_path, monkeypatch, capsys):
    out = tmp_path / "b.npz"
    given = [f"--workdir={workdir}", f"--input={source}", f"--out={out}"]
    monkeypatch.setattr(
        "sys.argv",
        ["chemscale", "embed", *given, "--geometry=flat", "--batch-pairs=600"],
    )
    assert main() == 0
    assert "7 rows: 6 2d, 1 failed" in capsys.readouterr().out
    assert Embeddings.load(out).values.shape == (7, 16)


def test_what_is_refused(model, source, tmp_path):
    for name, message in (
        ("a.txt", "must end in .npz or .csv or .parquet or .zarr"),
        ("none/a.csv", "is not a folder"),
    ):
        with pytest.raises(UserError, match=message):
            write(model, source, tmp_path / name)
    empty = tmp_path / "empty.csv"
    empty.write_text("smiles\n")
    for ending in ("npz", "csv"):
        with pytest.raises(UserError, match="no row"):
            write(model, empty, tmp_path / f"a.{ending}")
