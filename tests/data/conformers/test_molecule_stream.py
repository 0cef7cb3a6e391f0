"""The stream of molecules: a function of seed and epoch, the same for any processes."""

import functools
import json
import pickle

import jax
import numpy as np
import pytest

from chemscale_jax.core.errors import UserError
from chemscale_jax.data.conformers import (
    molecule_sources,
    molecule_split,
    molecule_stream,
)
from chemscale_jax.data.conformers.conform import conform_source
from chemscale_jax.data.conformers.molecule_split import split_molecules
from chemscale_jax.data.conformers.molecule_stream import (
    MoleculeStream,
    make_molecule_stream,
)
from tests.data.memory_molecules import MemoryMolecules, record
from tests.toy import common

SIZE = 300
MOLECULES = MemoryMolecules(SIZE)


@pytest.fixture(autouse=True)
def _in_memory(monkeypatch):
    monkeypatch.setattr(molecule_stream, "open_molecules", lambda data: MOLECULES)


def make_config(**changes):
    config = common.base()
    config.data = common.molecules()
    config.batch = common.molecule_rows()
    config.batch.update({"rows": 4, "budget": 8 * 16**2, "prefetch": 0})
    config.batch.buckets = (7, 15)
    config.update_from_flattened_dict(changes)
    return config


def make_stream(process=(0, 1), **changes) -> MoleculeStream:
    return make_molecule_stream(make_config(**changes), *process)


def batches(epoch):
    return [epoch[i] for i in range(len(epoch))]


def assert_equal(left, right):
    jax.tree.map(np.testing.assert_array_equal, left, right)


def held(epoch):
    """Numbers of the molecules of all batches, in order."""
    return np.concatenate([epoch.record_indices(i) for i in range(len(epoch))])


def test_an_epoch_has_each_molecule_once_with_its_own_arrays():
    stream = make_stream()
    epoch = stream.train_epoch(2)
    assert sorted(held(epoch)) == sorted(stream.split.train)
    assert len({shape.atoms for shape in stream.shapes}) == 2
    for index, batch in enumerate(batches(epoch)):
        numbers = epoch.record_indices(index)
        names = epoch.record_ids(index)
        assert len(set(batch.number_B[: len(numbers)])) == len(numbers)
        for row, number in enumerate(numbers):
            one, N = record(int(number)), len(record(int(number)).species_N)
            assert names[row] == f"{one.name} {one.smiles}"
            found = batch.molecules.positions_BN3[row, :N]
            assert any((found == xyz).all() for xyz in one.positions_KN3)
            np.testing.assert_array_equal(batch.flat_BN3[row, :N], one.flat_N3)
            np.testing.assert_array_equal(
                batch.molecules.species_BN[row, :N], one.species_N
            )
        assert not batch.molecules.species_BN[len(numbers) :].any()
        spec = stream.batch_specs[[7, 15].index(batch.flat_BN3.shape[1])]
        jax.tree.map(
            lambda x, s: np.testing.assert_equal(
                (x.shape, x.dtype), (s.shape, s.dtype)
            ),
            batch,
            spec,
        )
    with pytest.raises(IndexError):
        epoch[len(epoch)]


def test_epochs_are_functions_of_the_seed_and_their_number():
    first, again = make_stream(), pickle.loads(pickle.dumps(make_stream().evals))
    assert_equal(batches(first.train_epoch(5)), batches(make_stream().train_epoch(5)))
    assert_equal(batches(first.evals["valid"]), batches(again["valid"]))
    other = make_stream(seed=1)
    for changed in (first.train_epoch(6), other.train_epoch(5)):
        assert held(changed).tolist() != held(first.train_epoch(5)).tolist()
    # Validation does not depend on it.
    assert_equal(batches(first.evals["valid"]), batches(other.evals["valid"]))
    ahead = first.iterate(first.train_epoch(5), 3)
    assert_equal(next(ahead), first.train_epoch(5)[3])


def test_conformers_are_drawn_uniformly():
    stream = make_stream()
    seen = np.zeros((SIZE, 3), int)
    for number in range(60):
        epoch = stream.train_epoch(number)
        np.add.at(seen, (epoch.order, epoch._conformers), 1)
    for number in stream.split.train:
        K = 1 + number % 3
        assert seen[number].sum() == 60
        # Binomial; 5.5 standard deviations.
        assert (np.abs(seen[number][:K] - 60 / K) < 20).all()
        assert not seen[number][K:].any()


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_share_each_batch(processes):
    whole = make_stream().train_epoch(1)
    parts = [make_stream((k, processes)).train_epoch(1) for k in range(processes)]
    for index in range(len(whole)):
        joined = jax.tree.map(
            lambda *x: np.concatenate(x), *(part[index] for part in parts)
        )
        assert_equal(joined, whole[index])
    with pytest.raises(UserError, match="cannot be shared by 3 processes"):
        make_stream((0, 3))


@pytest.mark.parametrize("kind", ["softmax", "natural", "tempered"])
def test_draws_come_from_the_training_set(kind):
    stream = make_stream(**{"data.sampling": kind, "data.epoch_molecules": 900})
    epoch = stream.train_epoch(0)
    assert len(epoch.order) == len(held(epoch)) == 900
    assert set(epoch.order) <= set(stream.split.train)
    # A molecule that comes twice is noised differently.
    assert len(set(epoch._numbers)) == 900
    scaffold = MOLECULES.scaffold
    in_train = np.bincount(scaffold[stream.split.train])
    drawn = np.bincount(scaffold[epoch.order], minlength=len(in_train))
    large, small = in_train.argmax(), np.flatnonzero(in_train > 0)[0]
    # Natural draws follow the sizes of scaffolds; the others favour small ones.
    natural = in_train[large] / in_train[small]
    ratio = drawn[large] / max(drawn[small], 1)
    assert ratio < natural if kind == "tempered" else ratio > 0.5 * natural


def test_only_wanted_statuses_and_sizes_are_used():
    stream = make_stream()
    used = {record(int(i)).status for i in held(stream.train_epoch(0))}
    assert used == {"3d", "unconverged"}
    small = make_stream(**{"data.max_atoms": 9, "data.statuses": ("2d",)})
    numbers = held(small.train_epoch(0))
    assert {record(int(i)).status for i in numbers} == {"2d"}
    assert MOLECULES.atoms[numbers].max() <= 9
    facts = small.artifacts
    assert facts["molecules"] == SIZE
    parts = (facts["training_set"], facts["validation_set"])
    assert facts["left_out"] + sum(part["molecules"] for part in parts) == SIZE
    with pytest.raises(
        UserError, match=r"none of 300 molecules.*statuses=\('given',\)"
    ):
        make_stream(**{"data.statuses": ("given",)})


def test_artifacts_count_elements_and_are_json():
    stream = make_stream()
    facts = json.loads(json.dumps(stream.artifacts))
    counts = {}
    for number in stream.split.train:
        for z in record(int(number)).species_N:
            counts[str(z)] = counts.get(str(z), 0) + 1
    assert facts["elements"] == counts
    assert facts["training_set"]["heavy_atoms"] == sum(counts.values())
    assert "scaffolds of their own" in stream.summary
    assert f"{len(stream.split.train)} to train on" in stream.summary


@pytest.mark.parametrize("kind", molecule_split.KINDS)
def test_validation_shares_nothing_with_training(kind):
    rng = np.random.default_rng(0)
    keys = rng.integers(0, 1500, 2000).astype(np.uint64)
    scaffold = (300 * rng.random(2000) ** 4).astype(np.int32)
    members = np.arange(2000)[50:]
    found = split_molecules(members, keys, scaffold, kind=kind, valid_fraction=0.1)
    together = np.concatenate([found.train, found.valid])
    assert len(set(together)) == len(together)
    assert set(together) <= set(members)
    assert not np.isin(keys[found.train], keys[found.valid]).any()
    missing = len(members) - len(together)
    assert missing == found.summary["train_in_valid"] > 0
    if kind == "scaffold":
        assert not np.isin(scaffold[found.train], scaffold[found.valid]).any()
        assert 195 <= len(found.valid) <= 215
        # The largest scaffold stays in training.
        assert scaffold[found.valid].min() > 0
    else:
        assert len(found.valid) == 195
    smaller = split_molecules(
        members, keys, scaffold, kind=kind, valid_fraction=0.1, train_max=100
    )
    np.testing.assert_array_equal(smaller.train, found.train[:100])
    np.testing.assert_array_equal(smaller.valid, found.valid)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.split": "time"}, "split='time' is unknown"),
        ({"data.valid_fraction": 1.0}, "give a fraction between 0 and 1"),
        ({"data.train_molecules": 1000}, "train_molecules=1000 cannot be had"),
        ({"data.sampling": "twice"}, "sampling='twice' is unknown"),
        ({"data.epoch_molecules": 9}, "is for epochs of draws"),
    ],
)
def test_what_makes_no_sense_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        make_stream(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": "web"}, "source='web' is unknown"),
        ({"source": "store"}, "'file' and 'store' need one"),
        ({"path": "x"}, "'embedded' has no path"),
        ({"source": "store", "path": "no-such"}, "no-such"),
    ],
)
def test_sources_that_make_no_sense_are_refused(changes, message):
    data = common.molecules()
    data.update(changes)
    with pytest.raises(UserError, match=message):
        molecule_sources.open_molecules(data)


def test_a_file_of_smiles_becomes_a_store_once(tmp_path, monkeypatch):
    monkeypatch.setenv("CHEMSCALE_CACHE", str(tmp_path / "cache"))
    # Processes would take longer to start than all else.
    here = functools.partial(conform_source, workers=0)
    monkeypatch.setattr(molecule_sources, "conform_source", here)
    path = tmp_path / "mine.smi"
    path.write_text("CCO\nCCN\nc1ccccc1\nnonsense\n")
    data = common.molecules()
    data.update({"source": "file", "path": str(path), "conformers": 2})
    store = molecule_sources.open_molecules(data)
    assert sorted(store.atoms) == [3, 3, 6]
    assert store.conformers.max() == 2
    assert molecule_sources.open_molecules(data).folder == store.folder
