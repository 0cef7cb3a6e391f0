"""Duplicates: found however they lie, counted by part, and nothing else is."""

import numpy as np
import pytest

from chemscale_jax.data.frames import duplicates
from chemscale_jax.data.frames.duplicates import find_duplicates, summary_of
from chemscale_jax.data.frames.source import ArraySource
from chemscale_jax.data.frames.splits import Split
from tests.data.ani_files import geometry

SPECIES = np.array([6, 8, 1, 1, 1, 1])


def source_of(positions, species=None, **options):
    n = len(positions)
    species = [SPECIES] * n if species is None else species
    forces = [np.zeros_like(x) for x in positions]
    return ArraySource(species, positions, [0.0] * n, forces, **options)


def parts(train, valid, heldout=()):
    a, b, c = (np.array(part, np.int64) for part in (train, valid, heldout))
    return Split(a, b, c, np.zeros(0, np.int64), {})


@pytest.fixture
def frames():
    rng = np.random.default_rng(0)
    return [geometry(rng, 6) for _ in range(40)]


def moved(x, seed=0, mirror=False):
    """Turned, shifted, and its hydrogens in another order."""
    rng = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    turn *= np.linalg.det(turn) * (-1 if mirror else 1)
    return (x @ turn + rng.normal(size=3))[[0, 1, 5, 4, 2, 3]].astype(np.float32)


def test_copies_are_found_however_they_lie(frames):
    copies = [
        frames[0],
        moved(frames[1]),
        moved(frames[2], mirror=True),
        frames[3] + 1e-4 * np.random.default_rng(1).normal(size=(6, 3)),
        frames[4] + 1e-2 * np.random.default_rng(1).normal(size=(6, 3)),
    ]
    source = source_of(frames + copies)
    found = find_duplicates(source, parts(range(40), range(40, 45)))
    assert found["in_train"] == {"valid": 4}
    assert found["within_train"] == 0
    assert found["complete"]
    assert "4 of valid" in summary_of(found)
    none = find_duplicates(source, parts(range(5, 40), range(40, 45)))
    assert none["in_train"] == {"valid": 0}
    assert "none evaluated" in summary_of(none)


def test_repeats_in_training_and_in_each_part(frames):
    x = frames[:5] + [moved(frames[0], seed) for seed in range(20)]
    found = find_duplicates(source_of(x), parts(range(15), (15, 16, 17), range(18, 25)))
    assert found["in_train"] == {"valid": 3, "heldout": 7}
    assert found["within_train"] == 10
    assert "10 in training itself" in summary_of(found)


def test_small_differences_at_every_offset_of_the_grid(frames):
    rng = np.random.default_rng(2)
    x = [frames[0] * scale for scale in np.linspace(1, 1.3, 200)]
    near = [a + 1e-4 * rng.normal(size=a.shape) for a in x]
    found = find_duplicates(source_of(x + near), parts(range(200), range(200, 400)))
    assert found["in_train"] == {"valid": 200}


def test_other_atoms_or_charges_are_other_frames(frames):
    swapped = SPECIES[[1, 0, 2, 3, 4, 5]]
    source = source_of(frames[:1] * 3, [SPECIES, swapped, SPECIES], charges=[0, 0, 1])
    assert find_duplicates(source, parts([0], [1, 2]))["in_train"] == {"valid": 0}
    # The same atoms in another order are the same frame.
    order = [5, 4, 3, 2, 1, 0]
    source = source_of([frames[0], frames[0][order]], [SPECIES, SPECIES[order]])
    assert find_duplicates(source, parts([0], [1]))["in_train"] == {"valid": 1}


def test_cost_is_bounded_and_the_result_kept(frames, monkeypatch):
    source = source_of(frames * 2, identity={"made": "here"})
    split = parts(range(40), range(40, 80))
    monkeypatch.setattr(duplicates, "_MOST_FRAMES", 60)
    found = find_duplicates(source, split)
    assert (found["looked_at"], found["complete"]) == (60, False)
    assert 10 < found["in_train"]["valid"] < 40
    assert "among 60 frames" in summary_of(found)
    monkeypatch.setattr(duplicates, "_find", lambda *_: 1 / 0)
    assert find_duplicates(source, split) == found
