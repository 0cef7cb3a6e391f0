"""Table A.2 over 200 queries on FreeSolv, and the exactness of its searches."""

import csv
import os
import pathlib

import numpy as np
import pytest

from chemscale_jax.analysis.search import neighbour_properties as study
from chemscale_jax.analysis.search.index_build import IndexSettings, build_index
from chemscale_jax.analysis.search.neighbour_report import paired_results, verdict
from chemscale_jax.analysis.search.vector_sources import array_source
from chemscale_jax.chem.canonical_smiles import canonical_smiles
from chemscale_jax.chem.count_fingerprints import count_fingerprints
from chemscale_jax.chem.descriptor_table import described

pytestmark = pytest.mark.shared


def test_neighbours_of_200_queries_are_more_alike_than_chance(tmp_path):
    data = pathlib.Path(os.environ["CHEMSCALE_SHARED"]) / "data" / "property"
    path = data / "freesolv" / "freesolv_moleculenet.csv"
    with path.open(newline="") as file:
        rows = [canonical_smiles(row["smiles"], 256) for row in csv.DictReader(file)]
    smiles = [row.canonical for row in rows]
    assert len(smiles) == 642
    values = count_fingerprints(smiles).astype(np.float32)
    source = array_source(values, smiles)
    index = build_index([source], tmp_path / "i", IndexSettings(), progress=False)
    corpus = study.shared_corpus({"counts": index})
    places = study.random_queries(corpus, 200, seed=0)
    queries = [corpus.smiles[place] for place in places]
    vectors = study.stored_vectors({"counts": index}, corpus, places)
    found = study.find_neighbourhoods(
        {"counts": index}, corpus, queries, vectors, k=100, seed=0
    )
    deltas = study.compare_properties(found, corpus, described)
    results = paired_results(deltas)
    # 100 of 642 molecules are many, and still more alike than those drawn at random.
    for cell in ("logP mean", "MW mean", "MW median"):
        assert verdict(results["random"][cell]["less_fingerprint"]) == "farther"
        drawn, near = results["random"][cell], results["counts"][cell]
        assert near["delta"].mean < drawn["delta"].mean
    for cell in results["counts"].values():
        assert cell["less_fingerprint"].interval is not None
