"""Splits of labelled molecules: whole blocks, no equal molecules on two sides."""

import types
from typing import Any

import numpy as np
import pytest

from chemscale_jax.chem.similarity_clusters import similarity_clusters
from chemscale_jax.core.errors import UserError
from chemscale_jax.data.labels.property_splits import split_properties
from chemscale_jax.data.labels.split_files import read_split, write_split
from tests.data.labelled_files import make_config

SIZE = 600
RNG = np.random.default_rng(0)
SCAFFOLDS = [
    "",
    *(f"C1{'C' * n}{m}1" for n in range(2, 8) for m in ("N", "O", "C", "S")),
]
# Few are alike.
SCAFFOLDS += [
    *("c1ccccc1", "c1ccncc1", "c1ccoc1", "c1cc[nH]c1", "c1cncnc1", "C1CC1", "C1CCC1"),
    *("c1ccc2ccccc2c1", "c1ccc2[nH]ccc2c1", "c1ccsc1", "C1=CCCC1", "O=C1CCCN1"),
    *("C1CC2CCC1C2", "c1nnn[nH]1", "c1ccc(-c2ccccc2)cc1", "C1COCCN1", "C1CNCCN1"),
]


def molecules(**changes) -> Any:
    """Molecules that exist as far as splits look at them, every tenth twice."""
    keys = np.arange(SIZE).astype(np.uint64)
    keys[9::10] = keys[::10]
    scaffold = (RNG.random(SIZE) ** 2 * len(SCAFFOLDS)).astype(np.int32)
    scaffold[9::10] = scaffold[::10]
    fields = {
        "keys": keys,
        "scaffold": scaffold,
        "scaffolds": SCAFFOLDS,
        "targets_MT": RNG.gamma(1.0, 1.0, (SIZE, 1)),
        "kind": "regression",
        "row": np.arange(SIZE) * 2,
        "where": np.array([f"line {i}" for i in range(SIZE)]),
        "is_test": np.zeros(SIZE, bool),
        "group": np.array([f"g{i % 23}" for i in keys.tolist()]),
    }
    return types.SimpleNamespace(**fields | changes)


MOLECULES = molecules()


def split(molecules=MOLECULES, **changes: Any):
    changes = {f"data.{name}": value for name, value in changes.items()}
    return split_properties(molecules, make_config("m.csv", **changes).data)


def parts(found):
    return [found.train, found.valid, found.heldout]


def blocks_of(kind):
    if kind in ("scaffold", "cluster"):
        return MOLECULES.scaffold
    return MOLECULES.group if kind == "group" else MOLECULES.keys


CUT = ("random", "scaffold", "cluster", "stratified", "group")


@pytest.mark.parametrize("kind", CUT)
def test_parts_share_no_block_and_hold_everything(kind):
    found = split(split=kind, split_col="x", valid_fraction=0.15, test_fraction=0.2)
    everyone = np.concatenate(parts(found))
    assert sorted(everyone) == list(range(SIZE))
    for name in ("keys", "scaffold" if kind == "cluster" else "keys"):
        assert not shared(getattr(MOLECULES, name), found)
    assert not shared(blocks_of(kind), found)
    sizes = [len(part) for part in parts(found)]
    assert abs(sizes[2] - 120) <= 60
    assert abs(sizes[1] - 90) <= 60
    assert found.summary["left_out_equal"] == 0
    again = split(split=kind, split_col="x", valid_fraction=0.15, test_fraction=0.2)
    for left, right in zip(parts(found), parts(again), strict=True):
        np.testing.assert_array_equal(left, right)


def shared(values, found):
    train, valid, heldout = (set(values[part].tolist()) for part in parts(found))
    return (train & valid) | (train & heldout) | (valid & heldout)


@pytest.mark.parametrize("kind", CUT)
def test_every_molecule_is_in_the_test_set_of_one_fold(kind):
    tested = []
    for fold in range(4):
        found = split(split=kind, split_col="x", folds=4, fold=fold)
        assert not shared(blocks_of(kind), found)
        assert sorted(np.concatenate(parts(found))) == list(range(SIZE))
        assert abs(len(found.heldout) - SIZE / 4) < SIZE / 8
        assert 10 < len(found.valid) < 120
        tested.append(found.heldout)
    assert sorted(np.concatenate(tested)) == list(range(SIZE))


def test_scaffolds_ignore_the_seed_and_the_largest_is_trained_on():
    first, second = (split(split="scaffold", split_seed=seed) for seed in (0, 1))
    assert sorted(first.heldout) == sorted(second.heldout)
    assert (first.train != second.train).any()  # an order of their own
    counts = np.bincount(MOLECULES.scaffold)
    assert counts.argmax() in MOLECULES.scaffold[first.train]
    smallest_train = counts[np.unique(MOLECULES.scaffold[first.train])].min()
    assert counts[np.unique(MOLECULES.scaffold[first.heldout])].max() <= smallest_train


@pytest.mark.parametrize("kind", ["random", "cluster", "stratified", "group"])
def test_another_seed_gives_another_split(kind):
    first, second = (
        split(split=kind, split_col="x", split_seed=seed) for seed in (0, 1)
    )
    assert set(first.heldout) != set(second.heldout)


def test_similar_scaffolds_stay_together():
    found = split(split="cluster", test_fraction=0.2)
    numbers, counts = np.unique(MOLECULES.scaffold, return_counts=True)
    clusters = similarity_clusters([SCAFFOLDS[n] for n in numbers], counts)
    assert 1 < len(set(clusters.number)) < len(numbers)
    assert not shared(
        clusters.number[np.searchsorted(numbers, MOLECULES.scaffold)], found
    )
    assert found.summary["similarity"] == clusters.similarity


def test_strata_are_shared_out_evenly():
    edges = np.quantile(MOLECULES.targets_MT, np.arange(1, 10) / 10)
    tenth = np.searchsorted(edges, MOLECULES.targets_MT[:, 0])
    for options in ({"test_fraction": 0.2}, {"folds": 5}):
        found = split(split="stratified", **options)
        counts = np.bincount(tenth[found.heldout], minlength=10)
        assert counts.min() >= 8, counts  # of 12; at random, some would have fewer
        assert counts.max() <= 17, counts
    rare = molecules(
        kind="binary", targets_MT=(np.arange(SIZE) % 40 == 3)[:, None] * 1.0
    )
    found = split(rare, split="stratified", test_fraction=0.2)
    assert rare.targets_MT[found.heldout].sum() == 3


def test_a_column_tells_the_parts():
    words = np.array(["Train", "valid", "test", ""])[np.arange(SIZE) % 4]
    found = split(molecules(group=words), split="column", split_col="x")
    for part, number in ((found.valid, 1), (found.heldout, 2)):
        assert set(part % 4) <= {number}
    # Of equal molecules, later parts keep theirs.
    assert found.summary["left_out_equal"] > 0
    assert not shared(MOLECULES.keys, found)
    without = np.where(words == "valid", "train", words)
    found = split(molecules(group=without), split="column", split_col="x")
    assert 20 < len(found.valid) < 40
    assert not shared(MOLECULES.keys, found)
    with pytest.raises(UserError, match="says 'holdout'"):
        split(molecules(group=np.full(SIZE, "holdout")), split="column", split_col="x")


def test_a_written_split_is_read_back(tmp_path):
    path = tmp_path / "run" / "split.csv"
    found = split(split="cluster", train_molecules=100)
    named = {"train": found.train, "valid": found.valid, "test": found.heldout}
    write_split(path, MOLECULES.row, MOLECULES.where, MOLECULES.is_test, named)
    assert path.read_text().splitlines()[:2] == [
        "row,where,part",
        f"0,line 0,{read_split(path).get(0, 'unused')}",
    ]
    again = split(split="file", split_file=str(path))
    for left, right in zip(parts(found), parts(again), strict=True):
        assert sorted(left) == sorted(right)
    path.write_text("row,part\n0,somewhere\n")
    with pytest.raises(UserError, match="'somewhere' is none of"):
        read_split(path)
    path.write_text("row,part\n1,train\n")
    with pytest.raises(UserError, match="names no row"):
        split(split="file", split_file=str(path))


def test_a_test_file_is_the_test_set():
    is_test = np.arange(SIZE) >= 500
    found = split(molecules(is_test=is_test), split="random")
    np.testing.assert_array_equal(found.heldout, np.arange(500, SIZE))
    equal = np.isin(MOLECULES.keys[:500], MOLECULES.keys[500:]).sum()
    assert len(found.train) + len(found.valid) + found.summary["left_out_equal"] == 500
    assert found.summary["left_out_equal"] == equal
    crossing = MOLECULES.keys.copy()
    crossing[:10] = crossing[500:510]
    found = split(molecules(is_test=is_test, keys=crossing), split="random")
    assert not shared(crossing, found)
    assert found.summary["left_out_equal"] >= 10


def test_smaller_training_sets_are_nested():
    few, more, all_of_them = (split(train_molecules=n).train for n in (50, 200, 0))
    np.testing.assert_array_equal(few, more[:50])
    np.testing.assert_array_equal(more, all_of_them[:200])


def test_no_test_set_is_wanted():
    found = split(test_fraction=0.0)
    assert len(found.heldout) == 0
    assert len(found.valid) >= 50


def test_groups_with_an_equal_molecule_are_joined():
    keys = np.arange(SIZE).astype(np.uint64)
    keys[1] = keys[0]  # of groups 0 and 1
    keys[25] = keys[2]  # of groups 2 and 2
    keys[24] = keys[3]  # of groups 1 and 3
    group = np.array([f"g{i % 23}" for i in range(SIZE)])
    found = split(molecules(keys=keys, group=group), split="group", split_col="x")
    assert not shared(keys, found)
    joined = np.where(np.isin(group, ("g0", "g1", "g3")), "joined", group)
    assert not shared(joined, found)
    assert found.summary["blocks"] == 21


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": "time"}, "split='time'"),
        ({"split": "group"}, "needs config.data.split_col"),
        ({"split": "file"}, "split 'file' needs one"),
        ({"split_file": "a"}, "split 'file' needs one"),
        ({"valid_fraction": 0.0}, "leave something to train on"),
        ({"valid_fraction": 0.6, "test_fraction": 0.5}, "leave something to train on"),
        ({"folds": 1}, "folds=1"),
        ({"folds": 3, "fold": 3}, "fold=3"),
        ({"folds": 60, "split": "scaffold"}, "use fewer folds"),
        ({"split": "column", "split_col": "x", "folds": 2}, "use folds=0"),
        ({"train_molecules": 599}, "cannot be had"),
        ({"split_file": "no.csv", "split": "file"}, "cannot be read as a split"),
    ],
)
def test_what_cannot_be_had_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        split(**changes)
