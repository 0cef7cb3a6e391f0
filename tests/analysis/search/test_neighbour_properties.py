"""Delta_p of neighbours: by hand, planted winners, and what the report says."""

import csv
import json

import numpy as np
import pytest

from chemscale_jax.analysis.search import neighbour_properties as study
from chemscale_jax.analysis.search import neighbour_report
from chemscale_jax.analysis.search.index_build import IndexSettings, build_index
from chemscale_jax.analysis.search.neighbour_report import (
    paired_results,
    verdict,
    write_neighbour_report,
)
from chemscale_jax.analysis.search.vector_sources import array_source
from chemscale_jax.chem.descriptor_table import described
from chemscale_jax.chem.descriptors import PROPERTIES
from chemscale_jax.core.errors import UserError
from tests.analysis.embedded_molecules import ABOUT, smiles_of_drugs

SMILES = smiles_of_drugs(150)
PROPERTY = dict(zip(SMILES, described(SMILES, processes=1), strict=True))
K, QUERIES = 8, 40


@pytest.fixture(autouse=True)
def few_replicates(monkeypatch):
    monkeypatch.setattr(neighbour_report, "REPLICATES", 200)


@pytest.fixture(scope="module")
def indexes(tmp_path_factory):
    """Vectors that are properties, and vectors that are noise; some occur twice."""
    folder = tmp_path_factory.mktemp("indexes")
    rows = [*SMILES, *SMILES[:30]]
    values = np.array([PROPERTY[text] for text in rows])
    values = (values - values.mean(0)) / values.std(0)
    noise = np.random.default_rng(0).standard_normal((150, 4))
    noise = np.concatenate([noise, noise[:30]])
    settings = IndexSettings(metric="l2", pca=0)
    return {
        name: build_index(
            [array_source(x.astype(np.float32), rows, name, ABOUT)],
            folder / name,
            settings,
            progress=False,
        )
        for name, x in (("oracle", values), ("noise", noise))
    }


@pytest.fixture(scope="module")
def found(indexes):
    corpus = study.shared_corpus(indexes)
    places = study.random_queries(corpus, QUERIES, seed=0)
    queries = [corpus.smiles[place] for place in places]
    vectors = study.stored_vectors(indexes, corpus, places)
    near = study.find_neighbourhoods(indexes, corpus, queries, vectors, K, seed=0)
    deltas = study.compare_properties(
        near, corpus, lambda texts: np.array([PROPERTY[text] for text in texts])
    )
    return corpus, near, deltas


def test_neighbours_are_distinct_molecules_other_than_the_query(found):
    corpus, near, _ = found
    assert corpus.smiles == sorted(SMILES)
    assert set(near.members) == {"oracle", "noise", "fingerprint", "random"}
    for members in near.members.values():
        assert members.shape == (QUERIES, K)
        for query, row in zip(near.queries, members, strict=True):
            texts = {corpus.smiles[i] for i in row}
            assert len(texts) == K
            assert query not in texts


def test_neighbours_and_their_deltas_equal_those_by_hand(found):
    corpus, near, deltas = found
    values = np.array([PROPERTY[text] for text in corpus.smiles])
    # Of every row of the index, as the vectors are scaled by those.
    rows = np.array([PROPERTY[text] for text in [*SMILES, *SMILES[:30]]])
    scaled = values / rows.std(0)
    for q, text in enumerate(near.queries.tolist()):
        place = corpus.smiles.index(text)
        away = np.linalg.norm(scaled - scaled[place], axis=1)
        away[place] = np.inf
        nearest = np.argsort(away)[:K]
        assert set(near.members["oracle"][q]) == set(nearest)
        by_hand = values[nearest].mean(0) - values[place]
        assert deltas.signed["oracle"][q, :, 0] == pytest.approx(by_hand)
        by_hand = np.median(values[nearest], axis=0) - values[place]
        assert deltas.signed["oracle"][q, :, 1] == pytest.approx(by_hand)


def test_a_planted_winner_wins_and_noise_loses(found):
    results = paired_results(found[2])
    assert set(results["noise"]) == {
        f"{p} {s}" for p in PROPERTIES for s in study.STATISTICS
    }
    oracle = [verdict(x["less_fingerprint"]) for x in results["oracle"].values()]
    noise = [verdict(x["less_fingerprint"]) for x in results["noise"].values()]
    assert oracle.count("nearer") >= 6
    assert "farther" not in oracle
    assert "nearer" not in noise
    chance = [verdict(x["less_fingerprint"]) for x in results["random"].values()]
    assert "nearer" not in chance
    assert "less_fingerprint" not in results["fingerprint"]
    delta = results["oracle"]["MW mean"]["delta"]
    assert delta.interval is not None
    low, high = delta.interval
    assert low < delta.mean < high


def test_report_says_which_wins(found, tmp_path):
    corpus, near, deltas = found
    facts = {"k": K, "molecules": len(corpus.smiles), "indexes": {"oracle": "planted"}}
    one = study.first_query(near)
    alone = study.compare_properties(
        one, corpus, lambda texts: np.array([PROPERTY[text] for text in texts])
    )
    text = write_neighbour_report(
        tmp_path / "out", facts, corpus, (one, alone), (near, deltas), seed=0
    )
    out = tmp_path / "out"
    assert text == (out / "report.md").read_text()
    assert "**oracle** against fingerprint over 40 queries: wins " in text
    assert "of 8, loses 0, undecided" in text
    results = json.loads((out / "results.json").read_text())
    assert results["queries"] == QUERIES
    assert results["query"]["delta"]["oracle"]["MW mean"] == pytest.approx(
        abs(deltas.signed["oracle"][0, 3, 0])
    )
    with (out / "queries.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == QUERIES * 4 * len(PROPERTIES)
    with (out / "neighbours.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 4 * K
    assert (out / "query.png").stat().st_size > 10_000
    assert (out / "differences.png").stat().st_size > 10_000


def test_a_query_from_outside_keeps_all_its_neighbours(indexes):
    corpus = study.shared_corpus(indexes)
    vectors = {name: np.zeros((1, 4), np.float32) for name in indexes}
    near = study.find_neighbourhoods(indexes, corpus, ["CCCCCC"], vectors, 5, seed=0)
    assert all((members >= 0).all() for members in near.members.values())


def test_too_small_a_corpus_is_refused(indexes):
    corpus = study.shared_corpus(indexes)
    with pytest.raises(UserError, match="ask for fewer"):
        study.random_queries(corpus, 151, seed=0)
    vectors = {name: np.zeros((1, 4), np.float32) for name in indexes}
    with pytest.raises(UserError, match="150 neighbours of 150 distinct"):
        study.find_neighbourhoods(indexes, corpus, ["CCO"], vectors, 150, seed=0)


def test_indexes_of_other_molecules_are_refused(indexes, tmp_path):
    other = build_index(
        [array_source(np.eye(2, dtype=np.float32), ["[He]", "[Ne]"])],
        tmp_path / "other",
        IndexSettings(pca=0),
        progress=False,
    )
    with pytest.raises(UserError, match="no molecule in common"):
        study.shared_corpus({"one": indexes["noise"], "other": other})


def test_properties_are_kept_and_not_computed_twice(tmp_path, monkeypatch):
    kept = tmp_path / "descriptors.csv"
    some = SMILES[:5]
    first = described([*some, "no molecule"], kept, processes=1)
    assert np.isnan(first[5]).all()
    with kept.open("a") as file:
        file.write("CCC,0.1")  # torn by a kill
    monkeypatch.setattr("chemscale_jax.chem.descriptor_table.describe", None)
    assert np.array_equal(described(some[::-1], kept, processes=1), first[:5][::-1])
    monkeypatch.undo()
    described(["CCC"], kept, processes=1)
    assert len(kept.read_text().splitlines()) == 8
    kept.write_text("name,logP\nx,1\n")
    with pytest.raises(UserError, match="is not a table of smiles, logP"):
        described(some, kept, processes=1)
