"""The control: fingerprints in files of embeddings, and what is told of a model."""

import json

import numpy as np
import pytest

from chemscale_jax.__main__ import main
from chemscale_jax.chem.count_fingerprints import count_fingerprints
from chemscale_jax.core.embedding_table import blocks, read_embeddings
from chemscale_jax.core.errors import UserError
from chemscale_jax.data.inputs.open_input import open_input
from chemscale_jax.inference.embed import EmbedSettings, embed
from chemscale_jax.inference.embed_files import write_embeddings
from chemscale_jax.inference.embedder import open_embedder, reopened

# Byte order mark, a name with a comma, a short line, an empty cell, a duplicate, an
# invalid SMILES, Latin-1, a blank line, more cells than columns, no atom at all.
HOSTILE = b"""\xef\xbb\xbfname,SMILES,logS
"a, b",CCO,1.5
short
empty,,2
twice,OCC,nan
broken,C1CC(,3
caf\xe9,CC,4

more,CN,5,6,7
hydrogen,[H][H],0
last,c1ccccc1O,-1
"""
GOOD = [0, 3, 7, 9]


@pytest.fixture
def hostile(tmp_path):
    path = tmp_path / "hostile.csv"
    path.write_bytes(HOSTILE)
    return path


def write(source, out):
    return write_embeddings(
        open_embedder("morgan"), open_input(source), out, workers=0, progress=False
    )


@pytest.mark.parametrize("ending", [".npz", ".csv", ".parquet", ".zarr"])
def test_every_row_of_a_hostile_table_has_its_number(ending, hostile, tmp_path):
    path = tmp_path / f"out{ending}"
    statuses = write(hostile, path)
    assert statuses == {"read": 4, "failed": 6}
    found = read_embeddings(path)
    assert found.index.tolist() == list(range(10))
    assert [int(text.split()[-1]) for text in found.where] == list(range(2, 12))
    np.testing.assert_array_equal(np.flatnonzero(found.usable), GOOD)
    assert all(found.reason[~found.usable])
    assert not any(found.reason[found.usable])
    expected = count_fingerprints(["CCO", "CCO", "CN", "Oc1ccccc1"])
    np.testing.assert_array_equal(found.values[GOOD], expected.astype(np.float32))
    assert found.columns["name"][[0, 1, 7]].tolist() == ["a, b", "short", "more"]
    assert found.columns["logS"][[0, 3, 9]].tolist() == ["1.5", "nan", "-1"]
    if ending != ".csv":
        assert found.about["model"] == "morgan"
        assert found.about["pool"] == "sum"
    assert [len(block) for block in blocks(path, 4)] == [4, 4, 2]
    assert not list(tmp_path.glob("*.parts"))
    assert not list(tmp_path.glob(".*"))


def test_a_missing_column_is_named(tmp_path):
    path = tmp_path / "none.csv"
    path.write_text("name,logS\na,1\n")
    with pytest.raises(UserError, match=r"none\.csv"):
        write(path, tmp_path / "out.npz")


def test_in_memory_equals_the_file(hostile, tmp_path):
    whole = embed(open_embedder("morgan"), open_input(hostile), workers=0)
    write(hostile, tmp_path / "out.npz")
    np.testing.assert_array_equal(
        whole.table().values, read_embeddings(tmp_path / "out.npz").values
    )
    np.testing.assert_array_equal(whole.of(0), whole.of(3))


def test_the_file_tells_how_to_make_more(hostile, tmp_path):
    write(hostile, tmp_path / "out.parquet")
    table = read_embeddings(tmp_path / "out.parquet")
    embedder, settings = reopened(table.about)
    query = embed(embedder, open_input("C(O)C"), settings, workers=0)
    np.testing.assert_array_equal(query.values[0], table.values[0])
    other = json.loads(json.dumps(dict(table.about))) | {"weights": "0"}
    with pytest.raises(UserError, match="other weights"):
        reopened(other)
    with pytest.raises(UserError, match="is not known"):
        reopened({})


def test_a_zarr_takes_the_place_of_the_one_before(hostile, tmp_path):
    path = tmp_path / "out.zarr"
    write(hostile, path)
    one = tmp_path / "one.csv"
    one.write_text("smiles\nC\n")
    write(one, path)
    assert len(read_embeddings(path)) == 1
    (tmp_path / "mine.zarr").mkdir()
    with pytest.raises(UserError, match="is no zarr"):
        write(one, tmp_path / "mine.zarr")
    empty = tmp_path / "empty.csv"
    empty.write_text("smiles\n")
    with pytest.raises(UserError, match="no row"):
        write(empty, tmp_path / "empty.zarr")
    assert not (tmp_path / "empty.zarr").exists()


def test_what_is_refused(tmp_path):
    embedder = open_embedder("morgan")
    for settings, message in (
        (EmbedSettings(level="atom"), "leave level and pool out"),
        (EmbedSettings(pool="mean"), "leave level and pool out"),
        (EmbedSettings(layer=1), "have no layers"),
    ):
        with pytest.raises(UserError, match=message):
            embed(embedder, open_input("C"), settings)
    with pytest.raises(UserError, match="nothing to train"):
        open_embedder("morgan", untrained=0)
    with pytest.raises(UserError, match="does not exist"):
        open_embedder(tmp_path / "none")
    (tmp_path / "config.json").write_text('{"task": "other"}')
    (tmp_path / "artifacts.json").write_text("{}")
    with pytest.raises(UserError, match="has no embeddings"):
        open_embedder(tmp_path)


def test_one_call(hostile, tmp_path):
    from chemscale_jax.api import embed as call

    found = call(hostile, "morgan", workers=0)
    assert found is not None
    assert call(hostile, "morgan", out=tmp_path / "a.npz", workers=0) is None
    np.testing.assert_array_equal(
        found.values, read_embeddings(tmp_path / "a.npz").values
    )


def test_the_command(hostile, tmp_path, monkeypatch, capsys):
    out = tmp_path / "a.parquet"
    given = [f"--input={hostile}", f"--out={out}", "--workers=0"]
    monkeypatch.setattr("sys.argv", ["chemscale", "embed", "--workdir=morgan", *given])
    assert main() == 0
    assert "10 rows: 6 failed, 4 read" in capsys.readouterr().out
    assert read_embeddings(out).usable.sum() == 4
