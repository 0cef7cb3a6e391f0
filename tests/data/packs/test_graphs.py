"""Packs keep every promise of `core/batches.py`."""

import jax
import numpy as np
import pytest

from chemscale_jax.data.frames.source import ArraySource
from chemscale_jax.data.packs import graphs
from chemscale_jax.data.packs.neighbor_table import NeighborTable
from chemscale_jax.data.packs.packing import PackBudget
from tests.data.ani_files import array_source

BUDGET = PackBudget(nodes=40, edges=300, molecules=6, pairs=320)


def _pack(source, budget=BUDGET, cutoff=3.0):
    """All records of a source in the second of two rows."""
    edges, pairs = NeighborTable(source, cutoff), NeighborTable(source, 4.0)
    batch = graphs.empty_pack(2, budget, source.periodic)
    everything = range(len(source))
    graphs.fill_row(
        batch,
        1,
        [source[i] for i in everything],
        [edges[i] for i in everything],
        np.round(np.nan_to_num(source.total_energy)) + 10,
        [pairs[i] for i in everything] if budget.pairs else None,
    )
    return batch, jax.tree.map(lambda leaf: leaf[1], batch)


def _check_promises(pack):
    N, M = len(pack.species_N), len(pack.molecule_mask_M)
    assert pack.species_N[-1] == 0
    assert not pack.molecule_mask_M[-1]
    padding_N = pack.species_N == 0
    assert (pack.molecule_N[padding_N] == M - 1).all()
    assert (np.diff(pack.molecule_N) >= 0).all()
    assert not pack.forces_mask_N[padding_N].any()
    assert not (pack.energy_mask_M & ~pack.molecule_mask_M).any()
    for receivers, senders in (
        (pack.receivers_E, pack.senders_E),
        (pack.pair_receivers_P, pack.pair_senders_P),
    ):
        assert (np.diff(receivers) >= 0).all()
        real = receivers < N - 1
        assert (senders[~real] == N - 1).all()
        pairs = list(zip(receivers[real], senders[real], strict=True))
        assert {(j, i) for i, j in pairs} == set(pairs)
        assert (pack.molecule_N[receivers] == pack.molecule_N[senders]).all()
        assert (pack.species_N[receivers[real]] > 0).all()
    for leaf in jax.tree.leaves(pack):
        assert np.isfinite(leaf).all()


def test_molecules_follow_one_another():
    source = array_source(4)
    batch, pack = _pack(source)
    _check_promises(pack)
    assert not batch.molecule_mask_M[0].any()
    assert not batch.species_N[0].any()
    assert (batch.receivers_E[0] == BUDGET.nodes - 1).all()
    start = 0
    for m in range(4):
        record = source[m]
        atoms = slice(start, start + len(record.species))
        np.testing.assert_array_equal(pack.positions_N3[atoms], record.positions)
        np.testing.assert_array_equal(pack.forces_N3[atoms], record.forces)
        np.testing.assert_array_equal(pack.species_N[atoms], record.species)
        assert (pack.molecule_N[atoms] == m).all()
        # The reference energy is subtracted before rounding to float32.
        expected = record.energy - np.round(record.energy) - 10
        assert pack.energy_M[m] == np.float32(expected)
        start = atoms.stop
    assert pack.molecule_mask_M.tolist() == [True] * 4 + [False] * 2


def test_edges_are_the_near_atoms_of_a_molecule():
    _, pack = _pack(array_source(4))
    real = pack.species_N > 0
    x = pack.positions_N3.astype(np.float64)
    distance = np.linalg.norm(x[:, None] - x[None], axis=-1)
    same = pack.molecule_N[:, None] == pack.molecule_N[None]
    near = same & real[:, None] & real[None] & ~np.eye(len(x), dtype=bool)
    expected = set(zip(*np.nonzero(near & (distance <= 3.0)), strict=True))
    edge = pack.receivers_E < len(x) - 1
    found = zip(pack.receivers_E[edge], pack.senders_E[edge], strict=True)
    assert set(found) == expected
    assert edge.sum() == len(expected)


def test_masked_labels_charge_and_spin():
    x = np.array([[0.0, 0, 0], [0, 0, 1]])
    source = ArraySource(
        [[1, 1], [8, 1]],
        [x, x],
        [None, -3.0],
        [np.ones((2, 3)), None],
        charges=[0, -1],
        spins=[2, 0],
    )
    _, pack = _pack(source)
    _check_promises(pack)
    assert pack.energy_mask_M[:2].tolist() == [False, True]
    assert pack.energy_M[:2].tolist() == [0.0, -10.0]
    assert pack.forces_mask_N[:4].tolist() == [True, True, False, False]
    assert pack.charge_M[:2].tolist() == [0.0, -1.0]
    assert pack.spin_M[:2].tolist() == [2.0, 0.0]


def test_periodic_edges_have_the_documented_displacement():
    cell = np.array([[3.0, 0, 0], [0.4, 3.2, 0], [0, 0.3, 3.5]])
    x = np.array([[0.1, 0.2, 0.3], [7.9, 1.5, -1.2]])
    source = ArraySource([[6, 8]], [x], [0.0], [np.zeros((2, 3))], cells=[cell])
    _, pack = _pack(source)
    assert pack.cell_M33 is not None
    assert pack.shifts_E3 is not None
    edge = pack.receivers_E < BUDGET.nodes - 1
    shift = pack.shifts_E3[edge] @ pack.cell_M33[0]
    x_N3 = pack.positions_N3
    displacement = x_N3[pack.senders_E[edge]] + shift - x_N3[pack.receivers_E[edge]]
    distance = np.linalg.norm(displacement, axis=1)
    assert len(distance) > 10
    assert distance.max() <= 3.0 + 1e-5
    assert (np.diff(pack.receivers_E) >= 0).all()


def test_what_does_not_fit_is_an_error():
    with pytest.raises(ValueError, match="broadcast"):
        _pack(array_source(4), BUDGET._replace(edges=20))


def test_spec_has_the_shapes_of_a_batch():
    for periodic in (False, True):
        for budget in (BUDGET, BUDGET._replace(pairs=0)):
            spec = graphs.pack_spec(3, budget, periodic)
            batch = graphs.empty_pack(3, budget, periodic)
            as_pairs = jax.tree.map(lambda a: (a.shape, a.dtype), batch)
            assert jax.tree.map(lambda a: (a.shape, a.dtype), spec) == as_pairs
