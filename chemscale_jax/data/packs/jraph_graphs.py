"""Packs as `jraph.GraphsTuple`, and back.

jraph 0.0.6.dev0 is no longer maintained. On current JAX these work: ``batch``,
``batch_np``, ``unbatch``, ``unbatch_np`` (of writable arrays), ``pad_with_graphs``,
``unpad_with_graphs``, ``dynamically_batch``, ``get_node_padding_mask``,
``get_edge_padding_mask``, ``get_graph_padding_mask``, the ``segment_*`` functions,
``partition_softmax`` and ``GraphNetwork``. Two call functions that JAX has removed, and
raise: ``zero_out_padding`` and ``get_fully_connected_graph``. A test runs them all.
"""

from typing import Any

import jax
import jraph
import numpy as np

from chemscale_jax.core.batches import GraphPack
from chemscale_jax.data.packs.graphs import empty_pack
from chemscale_jax.data.packs.packing import PackBudget

_NODES = ("positions_N3", "species_N", "forces_N3", "forces_mask_N")
_GLOBALS = (
    *("molecule_mask_M", "charge_M", "spin_M", "energy_M", "energy_mask_M"),
    "cell_M33",
)


def _plain(name: str) -> str:
    """A field's name without its axes: ``positions_N3`` -> ``positions``."""
    return name.rpartition("_")[0]


def to_graphs_tuple(pack: GraphPack) -> jraph.GraphsTuple:
    """One row of a pack as graphs, padded the way jraph recognises.

    Nodes, edges and globals are dictionaries of NumPy arrays by field name without
    axes: nodes have ``positions``, ``species``, ``forces`` and ``forces_mask``, edges
    ``shifts`` if periodic (else None), globals ``molecule_mask``, ``charge``,
    ``spin``, ``energy``, ``energy_mask`` and, if periodic, ``cell``. The second pair
    list has no place in a graph and is left out.

    Args:
        pack: one row, without the leading row axis.
    """
    mask_M = np.asarray(pack.molecule_mask_M)
    M, n_real = len(mask_M), int(mask_M.sum())
    molecule_N = np.asarray(pack.molecule_N)
    receivers_E: Any = np.asarray(pack.receivers_E)
    # jraph takes the first padding graph to hold all padding, the rest to be empty.
    graph_N = np.minimum(molecule_N, n_real)
    n_node: Any = np.bincount(graph_N, minlength=M).astype(np.int32)
    n_edge: Any = np.bincount(graph_N[receivers_E], minlength=M).astype(np.int32)
    senders: Any = np.asarray(pack.senders_E)
    return jraph.GraphsTuple(
        nodes={_plain(name): np.asarray(getattr(pack, name)) for name in _NODES},
        edges=(
            None if pack.shifts_E3 is None else {"shifts": np.asarray(pack.shifts_E3)}
        ),
        senders=senders,
        receivers=receivers_E,
        n_node=n_node,
        n_edge=n_edge,
        globals={
            _plain(name): np.asarray(getattr(pack, name))
            for name in _GLOBALS
            if getattr(pack, name) is not None
        },
    )


def from_graphs_tuple(graph: jraph.GraphsTuple, budget: PackBudget) -> GraphPack:
    """Graphs as one row of a pack, without the leading row axis.

    Nodes need ``positions`` and ``species``; other entries named in
    `to_graphs_tuple` are used where present, and labels that are absent are masked.
    Nodes of species 0, and the edges between them, are taken for padding; edges are
    sorted by receiver.

    Args:
        graph: atoms of a graph must follow one another.
        budget: sizes of the row.

    Raises:
        ValueError: the real atoms, edges or molecules do not fit the budget.
    """
    # jraph leaves the types of features open; ours are dictionaries.
    nodes: Any = graph.nodes
    facts: Any = graph.globals or {}
    edge_facts: Any = graph.edges
    n_node = np.asarray(graph.n_node)
    real_N = np.asarray(nodes["species"]) > 0
    graph_N = np.repeat(np.arange(len(n_node)), n_node)
    used_M, molecule_N = np.unique(graph_N[real_N], return_inverse=True)
    new_N = np.cumsum(real_N) - 1
    senders, receivers = np.asarray(graph.senders), np.asarray(graph.receivers)
    real_E = real_N[receivers]
    senders, receivers = new_N[senders[real_E]], new_N[receivers[real_E]]
    order = np.lexsort((senders, receivers))
    N, E, M = int(real_N.sum()), len(receivers), len(used_M)
    if N >= budget.nodes or E > budget.edges or M >= budget.molecules:
        raise ValueError(
            f"{N} atoms, {E} edges and {M} molecules do not fit {budget}, in which one "
            "atom and one molecule are padding"
        )
    periodic = "cell" in facts
    batch = empty_pack(1, budget._replace(pairs=0), periodic)
    batch.positions_N3[0, :N] = np.asarray(nodes["positions"])[real_N]
    batch.species_N[0, :N] = np.asarray(nodes["species"])[real_N]
    batch.molecule_N[0, :N] = molecule_N
    batch.senders_E[0, :E] = senders[order]
    batch.receivers_E[0, :E] = receivers[order]
    batch.molecule_mask_M[0, :M] = True
    if "forces" in nodes:
        batch.forces_N3[0, :N] = np.asarray(nodes["forces"])[real_N]
        mask = np.asarray(nodes.get("forces_mask", real_N))
        batch.forces_mask_N[0, :N] = mask[real_N]
    for name in ("charge", "spin", "energy"):
        if name in facts:
            getattr(batch, f"{name}_M")[0, :M] = np.asarray(facts[name])[used_M]
    if "energy" in facts:
        mask = np.asarray(facts.get("energy_mask", np.ones(len(n_node), bool)))
        batch.energy_mask_M[0, :M] = mask[used_M]
    if batch.cell_M33 is not None and batch.shifts_E3 is not None:
        batch.cell_M33[0, :M] = np.asarray(facts["cell"])[used_M]
        shifts = np.asarray(edge_facts["shifts"])[real_E]
        batch.shifts_E3[0, :E] = shifts[order]
    return jax.tree.map(lambda leaf: leaf[0], batch)
