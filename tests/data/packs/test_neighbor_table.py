"""Neighbour lists of whole sources, in memory and on disk."""

import math
import pickle

import numpy as np
import pytest

from chemscale_jax.chem import neighbors
from chemscale_jax.data.frames.ani1x import Ani1xSource
from chemscale_jax.data.frames.source import ArraySource
from chemscale_jax.data.packs import neighbor_table
from chemscale_jax.data.packs.neighbor_table import NeighborTable
from tests.data.ani_files import array_source, write_ani1x


@pytest.mark.parametrize("held", [True, False])
def test_pairs_of_each_record(tmp_path, monkeypatch, held):
    if not held:
        monkeypatch.setattr("chemscale_jax.data.frames.flat._HELD_BYTES", 0)
    source = Ani1xSource(write_ani1x(tmp_path / "a.h5"))
    table = pickle.loads(pickle.dumps(NeighborTable(source, 2.5)))
    assert len(np.unique(table.counts)) > 5
    for i in range(len(source)):
        expected = neighbors.radius_pairs(source[i].positions[None], 2.5)
        pairs = table[i]
        np.testing.assert_array_equal(pairs.receivers_E, expected.receivers_E)
        np.testing.assert_array_equal(pairs.senders_E, expected.senders_E)
        assert pairs.shifts_E3 is None
        assert table.counts[i] == len(pairs.receivers_E)


def test_computed_once_per_file_and_cutoff(tmp_path, monkeypatch):
    source = Ani1xSource(write_ani1x(tmp_path / "a.h5"))
    NeighborTable(source, 2.5)
    monkeypatch.setattr(neighbor_table, "_compute", None)
    NeighborTable(Ani1xSource(tmp_path / "a.h5"), 2.5)
    with pytest.raises(TypeError):
        NeighborTable(source, 2.6)


def test_all_pairs():
    source = array_source(4)
    table = NeighborTable(source, math.inf)
    assert table.counts.tolist() == [20, 72, 110, 6]
    assert len(table[3].receivers_E) == 6


def test_periodic_records_have_shifts():
    """A chain along x, and a molecule without a cell beside it."""
    cell = np.diag([3.0, 50.0, 50.0])
    source = ArraySource(
        [[6], [6, 6]],
        [np.zeros((1, 3)), np.array([[0.0, 0, 0], [1.0, 0, 0]])],
        [0.0, 0.0],
        [None, None],
        cells=[cell, None],
    )
    table = NeighborTable(source, 3.5)
    assert table[0].shifts_E3 is not None
    assert table[0].shifts_E3.tolist() == [[-1, 0, 0], [1, 0, 0]]
    assert table[1].shifts_E3 is not None
    assert table[1].shifts_E3.tolist() == [[0, 0, 0]] * 2
    assert table[1].senders_E.tolist() == [1, 0]
