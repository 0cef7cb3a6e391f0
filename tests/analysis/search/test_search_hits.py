"""Files of hits and of distances to a training set; every query is accounted for."""

import csv

import numpy as np
import pytest

from chemscale_jax.analysis.search.applicability import applicability
from chemscale_jax.analysis.search.index_build import IndexSettings, build_index
from chemscale_jax.analysis.search.search_hits import (
    Asked,
    write_applicability,
    write_hits,
)
from chemscale_jax.analysis.search.vector_sources import array_source, file_source
from chemscale_jax.core.errors import UserError
from tests.analysis.embedded_molecules import smiles_of_drugs, table_of

KNOWN = smiles_of_drugs(60)
QUERIES = [KNOWN[3], "", "CCCCCCCCO", KNOWN[3]]


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hits")
    table_of([*KNOWN[:20], "", *KNOWN[20:]]).save(folder / "known.npz")
    settings = IndexSettings(pca=20)
    source = file_source(folder / "known.npz")
    return build_index([source], folder / "index", settings, progress=False)


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("by", ["embedding", "fingerprint"])
def test_every_query_has_its_rows(by, index, tmp_path):
    table = table_of(QUERIES, name="asked.csv")
    blocks = [table.take(slice(0, 2)), table.take(slice(2, 4))]
    written = write_hits(tmp_path / "hits.csv", index, blocks, Asked(k=5, by=by))
    assert written == (3, 1)
    rows = read(tmp_path / "hits.csv")
    assert [row["query_row"] for row in rows] == [*"00000", "1", *"22222", *"33333"]
    first, failed = rows[0], rows[5]
    assert first["smiles"] == KNOWN[3] == first["query_smiles"]
    assert (first["row"], first["rank"], first["tanimoto"]) == ("3", "1", "1")
    assert first["source"].endswith("known.npz")
    assert first["query_where"] == "asked.csv line 2"
    assert failed["reason"] == "parse: no molecule"
    assert failed["status"] == "failed"
    assert failed["rank"] == failed["smiles"] == ""
    hits = [{k: v for k, v in row.items() if "query" not in k} for row in rows]
    assert hits[:5] == hits[-5:]
    if by == "embedding":
        away = [float(row["distance"]) for row in rows[:5]]
        assert away == sorted(away)
        assert away[0] == pytest.approx(0, abs=1e-6)
    else:
        alike = [float(row["tanimoto"]) for row in rows[:5]]
        assert alike == sorted(alike, reverse=True)
        assert first["distance"] == ""
    # Rows after the one that was left out keep their number.
    late = next(row for row in rows if int(row["row"] or 0) > 20)
    assert late["smiles"] == KNOWN[int(late["row"]) - 1]


def test_distances_are_compared_with_those_within_the_training_set(tmp_path):
    # On a line with gaps of 1: the nearest other one is 1 away for each.
    line = np.zeros((50, 2), np.float32)
    line[:, 0] = np.arange(50)
    settings = IndexSettings(metric="l2", pca=0, fingerprints=False)
    source = array_source(line, [f"[{i + 1}H]" for i in range(50)])
    index = build_index([source], tmp_path / "line", settings, progress=False)
    asked = np.array([[7, 0], [7.25, 0.5], [7, 3], [np.nan, 0]], np.float32)
    found = applicability(index, asked)
    assert found.nearest.tolist() == [7, 7, 7, -1]
    assert found.distance[:3] == pytest.approx([0, np.hypot(0.25, 0.5), 3])
    assert found.quantile[:3].tolist() == [0, 0, 1]
    assert found.inside().tolist() == [True, True, False, False]


def test_molecules_that_occur_twice_are_not_their_own_neighbours(tmp_path):
    values = np.array([[0, 0], [0, 0], [2, 0], [2, 0]], np.float32)
    settings = IndexSettings(metric="l2", pca=0, fingerprints=False)
    index = build_index(
        [array_source(values, ["C", "C", "N", "N"])],
        tmp_path / "twice",
        settings,
        progress=False,
    )
    found = applicability(index, np.array([[3, 0], [5, 0]], np.float32))
    assert found.quantile.tolist() == [0, 1]
    one = build_index(
        [array_source(values[:2], ["C", "C"])],
        tmp_path / "one",
        settings,
        progress=False,
    )
    with pytest.raises(UserError, match="no two distinct molecules"):
        applicability(one, values[:1])


def test_file_of_distances_has_every_query(index, tmp_path):
    path = tmp_path / "far.csv"
    assert write_applicability(path, index, [table_of(QUERIES)]) == (3, 1)
    rows = read(path)
    assert [row["row"] for row in rows] == list("0123")
    assert rows[0]["nearest_smiles"] == KNOWN[3]
    assert [row["inside"] for row in rows] == ["yes", "", rows[2]["inside"], "yes"]
    assert float(rows[2]["distance"]) > float(rows[0]["distance"])
    assert rows[1]["reason"] == "parse: no molecule"


def test_what_cannot_be_searched_is_refused(index, tmp_path):
    table = table_of(QUERIES)
    with pytest.raises(UserError, match="by is 'name'"):
        write_hits(tmp_path / "x.csv", index, [table], Asked(by="name"))
    with pytest.raises(UserError, match="k is 0"):
        write_hits(tmp_path / "x.csv", index, [table], Asked(k=0))
    with pytest.raises(UserError, match="cannot be written"):
        write_hits(tmp_path / "no" / "x.csv", index, [table], Asked())
    narrow = table_of(QUERIES, values=np.ones((4, 3)))
    with pytest.raises(UserError, match="embed the queries with the model"):
        write_hits(tmp_path / "x.csv", index, [narrow], Asked())
    assert not list(tmp_path.iterdir())
