"""Indexes of embeddings: exact answers, recall, rows accounted for, kills."""

import json
import shutil

import numpy as np
import pytest

from chemscale_jax.analysis.search import approximate_neighbours, vector_sources
from chemscale_jax.analysis.search.exact_neighbours import METRICS, exact_neighbours
from chemscale_jax.analysis.search.index_build import IndexSettings, build_index
from chemscale_jax.analysis.search.own_neighbours import recall_of
from chemscale_jax.analysis.search.principal_components import fit_projection
from chemscale_jax.analysis.search.vector_index import VectorIndex
from chemscale_jax.analysis.search.vector_sources import array_source, file_source
from chemscale_jax.core.embedding_table import EmbeddingTable
from chemscale_jax.core.errors import UserError

M, D = 1500, 24
SPECTRUM = np.arange(1, D + 1) ** -0.5
ALKANES = ["C" * n for n in range(1, 9)]


@pytest.fixture(autouse=True)
def one_thread():
    """Threads that wait for each other on busy cores take long."""
    faiss = approximate_neighbours.faiss_or_none()
    if faiss is not None:
        faiss.omp_set_num_threads(1)


def vectors(rows, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((rows, D)) * SPECTRUM).astype(np.float32)


def build(folder, values, *, smiles=None, about=None, **settings):
    chosen = {"pca": 0, "fingerprints": False, "k": 10} | settings
    source = array_source(values, smiles, about=about)
    return build_index([source], folder, IndexSettings(**chosen), progress=False)


def brute_force(index, queries, k):
    """Every distance in float64, sorted."""
    known = np.asarray(index.store.vectors, np.float64)
    asked = queries.astype(np.float64)
    if index.metric == "cosine":
        away = 1 - asked @ known.T
    else:
        power = 1 if index.metric == "l1" else 2
        apart = np.abs(asked[:, None] - known) ** power
        away = apart.sum(-1) ** (1 / power)
    ids = np.argsort(away, axis=1, kind="stable")[:, :k]
    return ids, np.take_along_axis(away, ids, axis=1)


@pytest.mark.parametrize("metric", METRICS)
def test_exact_answers_equal_brute_force(metric, tmp_path):
    index = build(tmp_path / "index", vectors(M), metric=metric, pca=10)
    queries = index.project(vectors(40, seed=1))
    ids, away = brute_force(index, queries, 10)
    found = index.search(queries, 10)
    assert np.array_equal(found.ids, ids)
    # Distances are of float32 vectors; 1 - cos of unit vectors is off by their lengths.
    assert np.abs(found.distances - away).max() < 1e-6


@pytest.mark.parametrize("metric", METRICS)
def test_numpy_gives_what_faiss_gives(metric):
    faiss = pytest.importorskip("faiss")
    values, queries = vectors(70_000), vectors(9, seed=1)
    if metric == "cosine":
        values, queries = (
            x / np.linalg.norm(x, axis=1, keepdims=True) for x in (values, queries)
        )
    ours = exact_neighbours(values, queries, metric, 20)
    theirs = exact_neighbours(values, queries, metric, 20, faiss)
    assert np.array_equal(ours.ids, theirs.ids)
    assert np.array_equal(ours.distances, theirs.distances)


@pytest.mark.parametrize(
    ("kind", "metric"),
    [("ivf", "cosine"), ("ivf", "l1"), ("hnsw", "l2"), ("hnsw", "l1")],
)
def test_approximate_search_reaches_the_recall_it_was_built_for(kind, metric, tmp_path):
    pytest.importorskip("faiss")
    folder = tmp_path / "index"
    build(folder, vectors(M), kind=kind, metric=metric, recall=0.9)
    index = VectorIndex.open(folder)
    queries = index.project(vectors(100, seed=1))
    exact = index.search(queries, 10, exact=True)
    found = index.search(queries, 10)
    assert index.facts["recall_reached"]
    # 1000 neighbours: three standard deviations of a share of 0.9 are 0.03.
    assert recall_of(found.ids, exact.ids) > 0.87
    same = found.ids == exact.ids
    assert np.array_equal(found.distances[same], exact.distances[same])
    most = index.search(queries, 10, effort=4096)
    assert recall_of(most.ids, exact.ids) > 0.999
    least = recall_of(index.search(queries, 10, effort=1).ids, exact.ids)
    assert least < 0.9 or kind == "hnsw"


def test_index_is_memory_mapped_and_says_whose_the_vectors_are(tmp_path):
    values = vectors(8)
    values[2] = np.nan
    build(tmp_path / "index", values, smiles=ALKANES, fingerprints=True, metric="l2")
    index = VectorIndex.open(tmp_path / "index")
    assert isinstance(index.store.vectors, np.memmap)
    assert len(index) == 7
    assert index.store.rows.tolist() == [0, 1, 3, 4, 5, 6, 7]
    assert index.smiles(range(7)).tolist() == ALKANES[:2] + ALKANES[3:]
    assert index.smiles([-1]).tolist() == [""]
    found = index.search(index.project(values[3:4]), 9)
    assert found.ids[0, 0] == 2
    assert found.distances[0, 0] == 0
    assert found.ids[0, 7:].tolist() == [-1, -1]
    assert np.isnan(found.distances[0, 7:]).all()
    ids, similar = index.similar(index.store.fingerprints[4:5], 3)
    assert ids[0, 0] == 4
    assert similar[0, 0] == 1
    left_out = (tmp_path / "index" / "left_out.csv").read_text().splitlines()
    assert left_out == [
        "source,row,where,status,reason",
        "0,2,array row 2,failed,the vector is not finite",
    ]


def test_vector_without_a_direction_is_left_out_of_cosine(tmp_path):
    values = vectors(5)
    values[1] = 0
    index = build(tmp_path / "index", values)
    assert index.store.rows.tolist() == [0, 2, 3, 4]
    assert "no direction" in (tmp_path / "index" / "left_out.csv").read_text()
    with pytest.raises(UserError, match="not finite"):
        index.search(index.project(values[1:2]))


def broken(source, after):
    """A source whose reading is cut off, as by a kill."""

    def blocks():
        for number, block in enumerate(source.blocks()):
            if number == after:
                raise KeyboardInterrupt
            yield block

    return source._replace(blocks=blocks)


@pytest.mark.parametrize("kind", ["flat", "ivf"])
def test_build_that_was_killed_goes_on(kind, tmp_path, monkeypatch):
    if kind != "flat":
        pytest.importorskip("faiss")
    monkeypatch.setattr(vector_sources, "BLOCK_ROWS", 100)
    monkeypatch.setattr(approximate_neighbours, "_CHUNK", 128)
    values = vectors(M)
    values[::7] = np.nan
    smiles = [ALKANES[i % 8] for i in range(M)]
    settings = IndexSettings(kind=kind, pca=8, k=10)
    whole = array_source(values, smiles)
    parts = [whole, array_source(values[:50], smiles[:50])]

    def built(folder, first):
        return build_index(
            [first, parts[1]], folder, settings, save_s=0, progress=False
        )

    built(tmp_path / "unbroken", whole)
    folder = tmp_path / "killed"
    with pytest.raises(KeyboardInterrupt):
        built(folder, broken(whole, 7))  # while components are found
    assert not (folder / "projection.npz").exists()
    shutil.copy(tmp_path / "unbroken" / "projection.npz", folder)
    with pytest.raises(KeyboardInterrupt):
        built(folder, broken(whole, 9))  # while vectors are stored
    assert json.loads((folder / "stored.json").read_text())["rows"] == 900
    # What was written after the last saving is cut off.
    with (folder / "smiles.txt").open("a") as file:
        file.write("half a li")
    with pytest.raises(UserError, match="was not finished"):
        VectorIndex.open(folder)
    built(folder, whole)
    for file in (tmp_path / "unbroken").iterdir():
        if file.suffix not in (".json", ".npz", ".faiss"):
            assert (folder / file.name).read_bytes() == file.read_bytes(), file.name
    queries = vectors(5, seed=1)
    one, other = (VectorIndex.open(tmp_path / n) for n in ("unbroken", "killed"))
    assert one.facts["left_out"] == other.facts["left_out"] == 215 + 8
    first, second = (x.search(x.project(queries), 10) for x in (one, other))
    assert np.array_equal(first.ids, second.ids)


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_lists_and_graphs_that_were_begun_go_on(kind, tmp_path, monkeypatch):
    pytest.importorskip("faiss")
    monkeypatch.setattr(approximate_neighbours, "_CHUNK", 400)
    values, save = vectors(1200), approximate_neighbours._save
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    approximate_neighbours.build(values, whole, kind, "l2")

    def cut(module, index, path):
        save(module, index, path)
        if index.ntotal == 800:
            raise KeyboardInterrupt

    monkeypatch.setattr(approximate_neighbours, "_save", cut)
    with pytest.raises(KeyboardInterrupt):
        approximate_neighbours.build(values, killed, kind, "l2", save_s=0)
    assert not (killed / "neighbours.faiss").exists()
    approximate_neighbours.build(values, killed, kind, "l2", save_s=1e9)
    one, other = (approximate_neighbours.load(folder) for folder in (whole, killed))
    assert one.ntotal == other.ntotal == 1200
    queries = vectors(20, seed=1)
    first, second = (
        approximate_neighbours.search(index, values, queries, "l2", 10, 8)
        for index in (one, other)
    )
    same = np.mean(first.ids == second.ids)
    assert same == 1 if kind == "ivf" else same > 0.9


def test_files_are_indexed_in_their_order(tmp_path):
    values = vectors(6)
    about = {"task": "causal_lm", "model": "a", "layer": -1}
    for name, rows in (("one", slice(0, 4)), ("two", slice(4, 6))):
        some = values[rows]
        table = EmbeddingTable(
            index=np.arange(len(some)),
            where=np.array([f"{name}.csv line {i + 2}" for i in range(len(some))]),
            smiles=np.array(ALKANES[rows]),
            status=np.array(["2d"] * len(some)),
            reason=np.array([""] * len(some)),
            values=some,
            about=about,
        )
        table.save(tmp_path / f"{name}.npz")
    sources = [file_source(tmp_path / f"{name}.npz") for name in ("one", "two")]
    assert [source.rows for source in sources] == [4, 2]
    settings = IndexSettings(pca=3)
    index = build_index(sources, tmp_path / "index", settings, progress=False)
    assert index.store.sources.tolist() == [0, 0, 0, 0, 1, 1]
    assert index.store.rows.tolist() == [0, 1, 2, 3, 0, 1]
    assert index.smiles(range(6)).tolist() == ALKANES[:6]
    assert index.about == about
    again = build_index(sources, tmp_path / "index", settings, progress=False)
    assert len(again) == 6
    with pytest.raises(UserError, match="other settings"):
        build_index(sources, tmp_path / "index", progress=False)
    other = array_source(values, ALKANES[:6], about=about | {"model": "b"})
    with pytest.raises(UserError, match="must come from one model"):
        build_index([sources[0], other], tmp_path / "new", settings, progress=False)


def test_what_cannot_be_indexed_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"kind is 'tree', expected one of"):
        IndexSettings(kind="tree")
    with pytest.raises(UserError, match="holds no index"):
        VectorIndex.open(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="holds other files"):
        build(tmp_path, vectors(3))
    nothing = np.full((3, D), np.nan, np.float32)
    with pytest.raises(UserError, match="no row of array has an embedding"):
        build(tmp_path / "nothing", nothing)
    index = build(tmp_path / "index", vectors(3))
    with pytest.raises(UserError, match=f"embeddings of width {D}"):
        index.project(np.zeros((2, 5), np.float32))


def test_search_without_faiss_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(approximate_neighbours, "faiss_or_none", lambda: None)
    with pytest.raises(UserError, match=r"chemscale_jax\[search\]"):
        build(tmp_path / "ivf", vectors(50), kind="ivf")
    index = build(tmp_path / "flat", vectors(50), metric="l2")
    queries = vectors(4, seed=1)
    assert np.array_equal(
        index.search(queries, 5).ids, brute_force(index, queries, 5)[0]
    )


def test_projection_equals_that_of_the_whole_matrix():
    values = vectors(900) + 5.0
    blocks = [values[:1], values[1:300], values[300:300], values[300:]]
    found = fit_projection(blocks, 6)
    centred = values.astype(np.float64) - values.mean(0, dtype=np.float64)
    _, singular, axes = np.linalg.svd(centred, full_matrices=False)
    # Products are float32.
    assert np.allclose(found.variances, singular[:6] ** 2 / 899, rtol=1e-5)
    assert np.abs(np.abs(np.sum(found.axes * axes[:6], axis=1)) - 1).max() < 1e-6
    assert np.abs(found.apply(values) - centred @ found.axes.T).max() < 1e-5
    assert found.kept == pytest.approx((singular[:6] ** 2).sum() / (singular**2).sum())
