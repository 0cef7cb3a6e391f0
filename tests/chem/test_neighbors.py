"""Neighbour lists against loops over all pairs and images."""

import itertools

import numpy as np
import pytest

from chemscale_jax.chem import neighbors


def _loop(positions, cutoff):
    """Pairs of one frame by two loops, in the documented order."""
    n = len(positions)
    return [
        (i, j)
        for i in range(n)
        for j in range(n)
        if i != j and np.linalg.norm(positions[i] - positions[j]) <= cutoff
    ]


@pytest.mark.parametrize(("frames", "atoms"), [(1, 1), (3, 2), (40, 7), (500, 30)])
def test_radius_pairs_equal_the_loop(frames, atoms):
    rng = np.random.default_rng(atoms)
    x = rng.uniform(0, 6, (frames, atoms, 3)).astype(np.float32)
    found = neighbors.radius_pairs(x, 3.0)
    assert len(found.counts_F) == frames
    ends = np.cumsum(found.counts_F)
    # The last frames lie in another block than the first.
    for f in {0, frames // 2, frames - 1}:
        part = slice(ends[f] - found.counts_F[f], ends[f])
        pairs = zip(
            found.receivers_E[part].tolist(),
            found.senders_E[part].tolist(),
            strict=True,
        )
        assert list(pairs) == _loop(x[f].astype(np.float64), 3.0)


def test_the_cutoff_itself_counts():
    x = np.array([[[0, 0, 0], [0, 0, 5]]], np.float32)
    assert neighbors.radius_pairs(x, 5.0).counts_F.tolist() == [2]
    assert neighbors.radius_pairs(x, 4.999).counts_F.tolist() == [0]


def test_no_frames():
    assert neighbors.radius_pairs(np.zeros((0, 3, 3)), 5.0).counts_F.shape == (0,)


def test_closest_distances():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 5, 3)).astype(np.float32)
    expected = [
        min(np.linalg.norm(a - b) for a, b in itertools.combinations(frame, 2))
        for frame in x.astype(np.float64)
    ]
    np.testing.assert_allclose(neighbors.closest_distances(x), expected, rtol=1e-12)
    assert neighbors.closest_distances(x[:, :1]).tolist() == [np.inf] * 20


def test_all_pairs():
    receivers, senders = neighbors.all_pairs(3)
    assert receivers.tolist() == [0, 0, 1, 1, 2, 2]
    assert senders.tolist() == [1, 2, 0, 2, 0, 1]


@pytest.mark.parametrize("seed", range(4))
def test_periodic_pairs_equal_the_loop_over_images(seed):
    """Skewed cells smaller than the cutoff, atoms outside the cell."""
    rng = np.random.default_rng(seed)
    cell = np.diag(rng.uniform(2, 6, 3)) + rng.normal(0, 0.8, (3, 3))
    x = rng.uniform(-8, 8, (4, 3))
    cutoff = 3.5
    expected = set()
    # Atoms lie up to 8 angstrom outside, so images up to 16 + cutoff count.
    reach = range(-16, 17)
    shifts = np.array(list(itertools.product(reach, repeat=3)))
    for i, j in itertools.product(range(4), repeat=2):
        distance = np.linalg.norm(x[j] + shifts @ cell - x[i], axis=1)
        near = distance <= cutoff
        if i == j:
            near &= shifts.any(1)
        expected |= {(i, j, *shift) for shift in shifts[near].tolist()}
    receivers, senders, found = neighbors.periodic_pairs(x, cell, cutoff)
    rows = [
        (int(i), int(j), *shift)
        for i, j, shift in zip(receivers, senders, found.tolist(), strict=True)
    ]
    assert len(rows) > 30
    assert set(rows) == expected
    assert rows == sorted(rows)
    # Every pair has its reverse, with the opposite shift.
    assert {(j, i, -a, -b, -c) for i, j, a, b, c in rows} == set(rows)


def test_a_flat_cell_is_refused():
    with pytest.raises(ValueError, match="no volume"):
        neighbors.periodic_pairs(np.zeros((1, 3)), np.zeros((3, 3)), 3.0)
