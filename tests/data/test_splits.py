"""Splits: sizes, nesting, held-out molecules, errors."""

import numpy as np
import pytest

from chemscale_jax.core.errors import UserError
from chemscale_jax.data.source import ArraySource
from chemscale_jax.data.splits import held_out_by_hash, split_records
from tests.data.ani_files import array_source


@pytest.fixture(scope="module")
def source():
    return array_source(200)


def test_parts_are_disjoint_and_complete(source):
    split = split_records(source, seed=0)
    assert len(split.valid) == 20
    together = np.concatenate([split.train, split.valid, split.heldout])
    assert sorted(together) == list(range(200))
    assert split.summary["train_frames_also_evaluated"] == 0


def test_training_sets_are_nested_and_share_the_validation_set(source):
    small = split_records(source, seed=3, train_size=10)
    large = split_records(source, seed=3, train_size=100)
    np.testing.assert_array_equal(small.train, large.train[:10])
    np.testing.assert_array_equal(small.valid, large.valid)
    other = split_records(source, seed=4, train_size=10)
    assert set(other.valid) != set(small.valid)


def test_validation_is_capped(monkeypatch, source):
    monkeypatch.setattr("chemscale_jax.data.splits.VALID_CAP", 7)
    assert len(split_records(source, seed=0).valid) == 7
    assert len(split_records(source, seed=0, valid_size=30).valid) == 30


def test_molecules_that_the_source_holds_out():
    source = array_source(40)
    source.held_out = source.group == 2
    split = split_records(source, seed=0)
    assert len(split.heldout) == 10
    assert set(source.group[split.heldout]) == {2}
    assert 2 not in source.group[np.concatenate([split.train, split.valid])]
    everything = split_records(source, seed=0, heldout="none")
    assert len(everything.heldout) == 0
    assert len(everything.train) + len(everything.valid) == 40


def test_held_out_by_hash(source):
    names = tuple(f"molecule {i}" for i in range(2000))
    chosen = held_out_by_hash(names, 0.2)
    assert 0.17 < chosen.mean() < 0.23
    # One name does not depend on the others.
    np.testing.assert_array_equal(held_out_by_hash(names[7:], 0.2), chosen[7:])
    fraction = next(
        f
        for f in (0.3, 0.5, 0.7)
        if 0 < held_out_by_hash(source.group_names, f).sum() < 4
    )
    split = split_records(source, seed=0, heldout=str(fraction))
    assert split.summary["heldout_groups"] >= 1
    seen = source.group[np.concatenate([split.train, split.valid])]
    assert not set(seen) & set(source.group[split.heldout])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_size": 181}, "train_size=181 cannot be had: 180 frames"),
        ({"train_size": -1}, "cannot be had"),
        ({"valid_size": 200}, "200 of 200 frames for validation leave none"),
        ({"heldout": "some"}, "use 'auto', 'none', or a fraction"),
        ({"heldout": 1.5}, "use 'auto', 'none', or a fraction"),
        ({"heldout": 1e-12}, "sets apart 0 of 200 frames"),
    ],
)
def test_impossible_splits(source, options, message):
    with pytest.raises(UserError, match=message):
        split_records(source, seed=0, **options)


def test_repeated_frames_are_counted():
    x = [np.array([[0.0, 0, 0], [0, 0, 1 + (i % 25) / 100]]) for i in range(50)]
    source = ArraySource([[1, 1]] * 50, x, [0.0] * 50, [np.zeros((2, 3))] * 50)
    split = split_records(source, seed=0)
    valid = {i % 25 for i in split.valid}
    expected = sum(i % 25 in valid for i in split.train)
    assert split.summary["train_frames_also_evaluated"] == expected > 0


def test_a_quick_look_takes_random_frames_and_a_quarter_held_out(source):
    few = split_records(source, seed=0, max_frames=40)
    assert len(few.train) + len(few.valid) == 40
    assert len(few.heldout) <= 10
