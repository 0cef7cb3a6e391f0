"""Splits: sizes, nesting, held-out molecules, errors."""

import numpy as np
import pytest

from chemscale_jax.core.errors import UserError
from chemscale_jax.data.frames.source import TEST, TRAIN, UNUSED, ArraySource
from chemscale_jax.data.frames.splits import held_out_by_hash, split_records
from tests.data.ani_files import array_source


@pytest.fixture(scope="module")
def source():
    return array_source(200)


def test_parts_are_disjoint_and_complete(source):
    split = split_records(source, seed=0)
    assert len(split.valid) == 20
    together = np.concatenate([split.train, split.valid, split.heldout])
    assert sorted(together) == list(range(200))
    assert sorted(split.used) == list(range(200))
    assert list(split.evaluated) == ["valid"]


def test_training_sets_are_nested_and_share_the_validation_set(source):
    small = split_records(source, seed=3, train_size=10)
    large = split_records(source, seed=3, train_size=100)
    np.testing.assert_array_equal(small.train, large.train[:10])
    np.testing.assert_array_equal(small.valid, large.valid)
    other = split_records(source, seed=4, train_size=10)
    assert set(other.valid) != set(small.valid)


def test_validation_is_capped(monkeypatch, source):
    monkeypatch.setattr("chemscale_jax.data.frames.splits.VALID_CAP", 7)
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


def trajectories(lengths=(400, 300), correlation=8.0, **options):
    """Molecules of two atoms whose energies are slow random walks."""
    rng = np.random.default_rng(0)
    names, energies = [], []
    for number, length in enumerate(lengths):
        names += [f"run {number}"] * length
        energy, keep = 0.0, np.exp(-1 / correlation)
        for kick in rng.normal(size=length):
            energy = keep * energy + kick
            energies.append(energy)
    n = len(names)
    x = [np.array([[0.0, 0, 0], [0, 0, 1 + i / n]]) for i in range(n)]
    forces = [np.zeros((2, 3))] * n
    return ArraySource([[1, 1]] * n, x, energies, forces, names=names, **options)


def test_blocks_keep_neighbours_in_time_on_one_side():
    source = trajectories()
    split = split_records(source, seed=1, kind="blocks")
    facts = split.summary
    assert (len(split.valid), facts["block_frames"]) == (70, [15, 20])
    assert 4 <= facts["correlation_frames"] <= 16
    assert facts["gap_frames"] == facts["correlation_frames"]
    same = source.group[split.train][:, None] == source.group[split.valid]
    apart = np.abs(split.train[:, None] - split.valid)[same]
    assert apart.min() == facts["gap_frames"] + 1
    assert len(split.train) + len(split.valid) + facts["frames_in_gaps"] == 700
    # A few blocks, not scattered frames.
    assert (np.diff(np.sort(split.valid)) > 1).sum() < 5
    small = split_records(source, seed=1, kind="blocks", train_size=40)
    np.testing.assert_array_equal(small.train, split.train[:40])
    np.testing.assert_array_equal(small.valid, split.valid)
    chosen = {"kind": "blocks", "block_frames": 5, "gap_frames": 0, "valid_size": 12}
    fine = split_records(source, seed=1, **chosen)
    assert (len(fine.valid), len(fine.train)) == (12, 688)
    with pytest.raises(UserError, match=r"none to train on.*gap_frames"):
        split_records(source, seed=1, kind="blocks", gap_frames=400)


def test_molecules_and_formulas_are_held_out_whole():
    rng = np.random.default_rng(0)
    n = 400
    names = [f"isomer {i % 40}" for i in range(n)]
    species = [[6, 1, 1] if i % 40 < 20 else [1, 6, 1] for i in range(n)]
    species = [z if i % 2 else [*z, 8] for i, z in enumerate(species)]
    x = [5 * rng.normal(size=(len(z), 3)) for z in species]
    forces = [np.zeros((len(z), 3)) for z in species]
    source = ArraySource(species, x, [0.0] * n, forces, names=names)
    molecules = split_records(source, 0, kind="molecules", heldout=0.3)
    kept = {names[i] for i in (*molecules.train, *molecules.valid)}
    assert kept.isdisjoint({names[i] for i in molecules.heldout})
    assert 0 < len(molecules.heldout) < n
    assert len(split_records(source, 0, kind="molecules").heldout) > 0
    fraction = next(
        f
        for f in (0.2, 0.4, 0.6, 0.8)
        if 0 < held_out_by_hash(("H2C1", "H2C1O1"), f).sum() < 2
    )
    formulas = split_records(source, 0, kind="formulas", heldout=fraction)
    assert len(formulas.heldout) == n / 2
    assert len(np.unique(source.n_atoms[formulas.heldout])) == 1
    with pytest.raises(UserError, match="'auto' or a fraction"):
        split_records(source, 0, kind="molecules", heldout="none")


def test_small_molecules_train_and_large_ones_are_held_out(source):
    split = split_records(source, 0, kind="atoms")
    limit = split.summary["max_train_atoms"]
    assert limit == source.n_atoms[split.train].max() == 9
    assert set(source.n_atoms[split.heldout]) == {11}
    tiny = split_records(source, 0, kind="atoms", max_train_atoms=3)
    assert set(source.n_atoms[tiny.train]) == {3}
    assert len(tiny.heldout) == 150
    with pytest.raises(UserError, match="all molecules have 2 atoms"):
        split_records(trajectories((30,)), 0, kind="atoms")


def test_a_given_split_is_taken_and_its_test_part_stays_apart():
    source = trajectories((100,))
    source.given_split = np.repeat([TRAIN, TEST, UNUSED], [60, 30, 10])
    split = split_records(source, 0, valid_size=10)
    assert split.summary["kind"] == "given"
    assert sorted([*split.train, *split.valid]) == list(range(60))
    assert split.test.tolist() == list(range(60, 90))
    assert list(split.evaluated) == ["valid", "test"]
    small = split_records(source, 0, valid_size=10, train_size=20)
    np.testing.assert_array_equal(small.train, split.train[:20])
    own = split_records(source, 0, kind="frames")
    assert len(own.test) == 0
    assert len(own.used) == 100
    assert len(split_records(source, 0, max_frames=20).test) == 5


def test_unknown_kinds(source):
    with pytest.raises(UserError, match=r"split='blcks' is unknown.*'blocks'"):
        split_records(source, 0, kind="blcks")
    with pytest.raises(UserError, match=r"without a split.*test_path"):
        split_records(source, 0, kind="given")


def test_a_quick_look_takes_random_frames_and_a_quarter_held_out(source):
    few = split_records(source, seed=0, max_frames=40)
    assert len(few.train) + len(few.valid) == 40
    assert len(few.heldout) <= 10
