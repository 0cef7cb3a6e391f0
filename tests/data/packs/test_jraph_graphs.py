"""Conversion to jraph, and which of its functions still work."""

from typing import Any

import jax
import jax.numpy as jnp
import jraph
import numpy as np
import pytest

from chemscale_jax.data.frames.source import ArraySource
from chemscale_jax.data.frames.splits import split_records
from chemscale_jax.data.packs import jraph_graphs
from chemscale_jax.data.packs.stream import GraphStream
from tests.data.ani_files import array_source


def _stream(source):
    split = split_records(source, seed=0)
    return GraphStream(source, split, cutoff_ang=3.0, molecules=5)


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    stream = _stream(array_source(40))
    batch = stream.train_epoch(0)[len(stream.train_epoch(0)) - 1]
    pack = jax.tree.map(lambda leaf: leaf[0], batch)
    # At least two empty molecules, which jraph treats differently from us.
    budget = stream.budget._replace(molecules=int(pack.molecule_mask_M.sum()) + 3)
    return jraph_graphs.from_graphs_tuple(
        jraph_graphs.to_graphs_tuple(pack), budget
    ), budget


def _assert_equal(left, right):
    jax.tree.map(np.testing.assert_array_equal, left, right)


def test_there_and_back(example):
    pack, budget = example
    graph = jraph_graphs.to_graphs_tuple(pack)
    assert graph.n_node.sum() == budget.nodes
    assert graph.n_edge.sum() == budget.edges
    _assert_equal(jraph_graphs.from_graphs_tuple(graph, budget), pack)


def test_periodic_packs_there_and_back():
    rng = np.random.default_rng(0)
    x = [rng.uniform(0, 4, (3, 3)) for _ in range(12)]
    f = [np.ones((3, 3))] * 12
    cells = [np.eye(3) * 4.0] * 12
    stream = _stream(ArraySource([[8, 1, 1]] * 12, x, [1.0] * 12, f, cells=cells))
    pack = jax.tree.map(lambda leaf: leaf[0], stream.train_epoch(0)[0])
    assert pack.shifts_E3.any()
    graph = jraph_graphs.to_graphs_tuple(pack)
    _assert_equal(jraph_graphs.from_graphs_tuple(graph, stream.budget), pack)


def test_jraph_sees_our_padding(example):
    pack, _ = example
    graph = jax.tree.map(jnp.asarray, jraph_graphs.to_graphs_tuple(pack))
    last = len(pack.species_N) - 1
    nodes = jraph.get_node_padding_mask(graph)
    np.testing.assert_array_equal(nodes, pack.species_N > 0)
    edges = jraph.get_edge_padding_mask(graph)
    np.testing.assert_array_equal(edges, pack.receivers_E < last)
    graphs = jraph.get_graph_padding_mask(graph)
    np.testing.assert_array_equal(graphs, pack.molecule_mask_M)


def test_working_parts_of_jraph(example):
    """Unpad, take apart, put together, pad again: the same pack."""
    pack, budget = example
    graph = jraph_graphs.to_graphs_tuple(pack)
    real = jraph.unpad_with_graphs(jax.tree.map(jnp.asarray, graph))
    parts = jraph.unbatch(real)
    assert len(parts) == pack.molecule_mask_M.sum()
    parts_np = jraph.unbatch_np(jax.tree.map(np.array, real))
    sizes = (budget.nodes + 5, budget.edges + 7, budget.molecules + 2)
    for whole in (
        jraph.pad_with_graphs(jraph.batch(parts), *sizes),
        jraph.pad_with_graphs(jraph.batch_np(parts_np), *sizes),
        next(jraph.dynamically_batch(iter(parts_np), *sizes)),
    ):
        _assert_equal(jraph_graphs.from_graphs_tuple(whole, budget), pack)
    data, ids = jnp.arange(5.0), jnp.array([0, 0, 1, 1, 2])
    for name in (
        *("sum", "mean", "max", "min", "variance", "normalize", "softmax"),
        *("max_or_constant", "min_or_constant"),
    ):
        assert np.isfinite(getattr(jraph, f"segment_{name}")(data, ids, 3)).all()
    shares: Any = jraph.partition_softmax(data, jnp.array([2, 3]), 5)
    np.testing.assert_allclose(shares[:2].sum(), 1, rtol=1e-6)
    network = jraph.GraphNetwork(
        lambda edges, senders, receivers, globals_: senders,
        lambda nodes, sent, received, globals_: received,
    )
    simple = graph._replace(
        nodes=jnp.ones(budget.nodes),
        edges=jnp.ones(budget.edges),
        globals=jnp.ones(budget.molecules),
    )
    assert graph.receivers is not None
    counts = np.bincount(graph.receivers, minlength=budget.nodes)
    np.testing.assert_array_equal(network(simple).nodes, counts)


def test_broken_parts_of_jraph(example):
    """When one of these passes, the docstring of jraph_graphs.py can be shortened."""
    pack, _ = example
    graph = jax.tree.map(jnp.asarray, jraph_graphs.to_graphs_tuple(pack))
    with pytest.raises(AttributeError, match="tree_map"):
        jraph.zero_out_padding(graph)
    with pytest.raises(AttributeError, match="tree_"):
        jraph.get_fully_connected_graph(3, 2, jnp.ones((6, 2)))


def test_graphs_that_do_not_fit(example):
    pack, budget = example
    graph = jraph_graphs.to_graphs_tuple(pack)
    with pytest.raises(ValueError, match="do not fit"):
        jraph_graphs.from_graphs_tuple(graph, budget._replace(molecules=2))


def test_labels_are_optional(example):
    pack, budget = example
    graph = jraph_graphs.to_graphs_tuple(pack)
    nodes: Any = graph.nodes
    bare = graph._replace(
        nodes={k: nodes[k] for k in ("positions", "species")}, globals=None
    )
    plain = jraph_graphs.from_graphs_tuple(bare, budget)
    np.testing.assert_array_equal(plain.senders_E, pack.senders_E)
    assert not plain.energy_mask_M.any()
    assert not plain.forces_mask_N.any()
