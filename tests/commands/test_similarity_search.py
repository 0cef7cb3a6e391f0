"""``index``, ``search`` and ``neighbours``, from files to files."""

import csv
import json
import pathlib

import pytest

from chemscale_jax.analysis.search import neighbour_report
from chemscale_jax.api import embed
from chemscale_jax.commands import index, neighbours, search
from chemscale_jax.core.errors import UserError
from tests.analysis.embedded_molecules import smiles_of_drugs, table_of

LIBRARY = smiles_of_drugs(80)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An index of two files, one row of which failed."""
    path = tmp_path_factory.mktemp("search")
    table_of([*LIBRARY[:50], ""], name="a.csv").save(path / "a.npz")
    table_of(LIBRARY[50:], name="b.csv").save(path / "b.npz")
    files = f"--embeddings={path / 'a.npz'},{path / 'b.npz'}"
    assert index.main([files, f"--out={path / 'index'}", "--pca=30"]) == 0
    return path


def read(path):
    with pathlib.Path(path).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_index_says_what_it_holds(folder, capsys):
    files = f"--embeddings={folder / 'a.npz'},{folder / 'b.npz'}"
    assert index.main([files, f"--out={folder / 'index'}", "--pca=30"]) == 0
    printed = capsys.readouterr().out
    assert "80 vectors of width 30, 1 rows left out" in printed
    assert "of the variance" in printed
    (left_out,) = read(folder / "index" / "left_out.csv")
    assert left_out["row"] == "50"
    assert left_out["where"] == "a.csv line 52"
    assert left_out["reason"] == "parse: no molecule"


def test_embeddings_are_searched_for_hits_and_distances(folder, tmp_path, capsys):
    table_of([LIBRARY[60], "", LIBRARY[2]]).save(tmp_path / "asked.npz")
    arguments = [
        f"--index={folder / 'index'}",
        f"--embeddings={tmp_path / 'asked.npz'}",
        "--k=3",
        f"--out={tmp_path / 'hits.csv'}",
        f"--applicability={tmp_path / 'far.csv'}",
    ]
    assert search.main(arguments) == 0
    assert "2 queries answered, 1 failed" in capsys.readouterr().out
    hits = read(tmp_path / "hits.csv")
    assert [hit["query_row"] for hit in hits] == [*"000", "1", *"222"]
    assert hits[0]["smiles"] == LIBRARY[60]
    assert hits[0]["row"] == "10"
    assert pathlib.Path(hits[0]["source"]).name == "b.npz"
    assert [row["row"] for row in read(tmp_path / "far.csv")] == list("012")


def test_one_query_is_searched_by_fingerprint_without_a_model(folder, tmp_path, capsys):
    arguments = [
        f"--index={folder / 'index'}",
        f"--query={LIBRARY[7]}",
        "--by=fingerprint",
        f"--out={tmp_path / 'hits.csv'}",
    ]
    assert search.main(arguments) == 0
    printed = capsys.readouterr().out
    assert LIBRARY[7] in printed
    assert "1 queries answered, 0 failed" in printed
    hits = read(tmp_path / "hits.csv")
    assert len(hits) == 80
    assert hits[0]["smiles"] == LIBRARY[7]
    with pytest.raises(UserError, match="C1CC cannot be read"):
        search.main([*arguments[:1], "--query=C1CC", *arguments[2:]])


LINES = (
    b"name,smiles",
    b"a,CCO",
    b"b,",
    b"c,caf\xe9",
    b"d,C1CC",
    b"a,CCO",
    b"e",
    b"f,OCC",
)


def test_every_row_of_a_hostile_file_is_in_the_hits(folder, tmp_path):
    (tmp_path / "asked.csv").write_bytes(b"\r\n".join(LINES))
    arguments = [
        f"--index={folder / 'index'}",
        f"--input={tmp_path / 'asked.csv'}",
        "--by=fingerprint",
        "--k=2",
        f"--out={tmp_path / 'hits.csv'}",
    ]
    assert search.main(arguments) == 0
    hits = read(tmp_path / "hits.csv")
    assert [hit["query_row"] for hit in hits] == [*"00", *"123", *"44", "5", *"66"]
    failed = [hit for hit in hits if not hit["rank"]]
    assert [hit["query_row"] for hit in failed] == list("1235")
    assert all(hit["reason"] for hit in failed)
    # Other spellings of one molecule have the same hits.
    answers = [[h["smiles"] for h in hits if h["query_row"] == row] for row in "046"]
    assert answers[0] == answers[1] == answers[2]


def test_neighbours_of_several_indexes_are_compared(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(neighbour_report, "REPLICATES", 100)
    for name, start in (("one", 0), ("two", 5)):
        some = LIBRARY[start:]
        table_of(some).save(tmp_path / f"{name}.npz")
        files = f"--embeddings={tmp_path / name}.npz"
        assert index.main([files, f"--out={tmp_path / name}", "--pca=0"]) == 0
    arguments = [
        f"--index={tmp_path / 'one'},{tmp_path / 'two'}",
        f"--out={tmp_path / 'report'}",
        "--queries=12",
        "--k=4",
        "--processes=1",
    ]
    assert neighbours.main(arguments) == 0
    assert "## What wins" in capsys.readouterr().out
    results = json.loads((tmp_path / "report" / "results.json").read_text())
    assert results["molecules"] == 75
    assert set(results["results"]) == {"one", "two", "fingerprint", "random"}
    assert results["results"]["one"] == results["results"]["two"]
    with pytest.raises(UserError, match="give each a name of its own"):
        neighbours.main([*arguments, "--names=same,same"])
    with pytest.raises(UserError, match="random is taken"):
        neighbours.main([*arguments, "--names=random,two"])


def test_queries_are_embedded_like_the_index(tmp_path, capsys):
    (tmp_path / "library.smi").write_text("\n".join(LIBRARY[:40]) + "\n")
    embed(tmp_path / "library.smi", "morgan", out=tmp_path / "library.npz")
    files = f"--embeddings={tmp_path / 'library.npz'}"
    assert index.main([files, f"--out={tmp_path / 'index'}", "--pca=10"]) == 0
    (tmp_path / "asked.csv").write_text("smiles\nC(C)(=O)Nc1ccc(O)cc1\nC1CC\n")
    arguments = [
        f"--index={tmp_path / 'index'}",
        f"--input={tmp_path / 'asked.csv'}",
        "--k=1",
        f"--out={tmp_path / 'hits.csv'}",
        f"--applicability={tmp_path / 'far.csv'}",
    ]
    assert search.main(arguments) == 0
    hit, failed = read(tmp_path / "hits.csv")
    assert hit["smiles"] == "CC(=O)Nc1ccc(O)cc1"
    assert float(hit["distance"]) == pytest.approx(0, abs=1e-6)
    assert failed["status"] == "failed"
    assert [row["inside"] for row in read(tmp_path / "far.csv")] == ["yes", ""]
    query = ["--query=C(C)(=O)Nc1ccc(O)cc1", *arguments[2:]]
    assert search.main([arguments[0], *query]) == 0
    assert "CC(=O)Nc1ccc(O)cc1" in capsys.readouterr().out


def test_index_that_is_not_there_says_how_to_build_it(tmp_path):
    with pytest.raises(UserError, match="build it with chemscale index --out"):
        search.main([f"--index={tmp_path / 'no'}", "--query=CCO"])
