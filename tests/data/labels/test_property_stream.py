"""The stream of labelled molecules: a function of seed and epoch, labels in place."""

import json
import pickle

import jax
import numpy as np
import pytest

from chemscale_jax.chem.molecule_features import DROPPED
from chemscale_jax.chem.molecule_record import record_of_smiles
from chemscale_jax.core.batches import PropertyRows
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.target_scaling import unscale
from chemscale_jax.data import STREAMS
from chemscale_jax.data.feeding import Feeding
from chemscale_jax.data.inputs import conformed_rows
from chemscale_jax.data.labels.property_stream import PropertyStream
from tests.data.labelled_files import SMILES, make_config, write_table

Y = np.linspace(-1, 3, len(SMILES)) ** 3
Z = [str(value) if i % 3 else "" for i, value in enumerate(Y * 10)]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("labelled")
    return write_table(folder / "m.csv", y=Y, z=Z)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """One cache for all tests here: the file is the same."""
    monkeypatch.setenv("CHEMSCALE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setattr(conformed_rows, "usable_processes", lambda: 0)


def stream_of(path, process=(0, 1), **changes) -> PropertyStream:
    changes = {"data.split": "random", **changes}
    stream = STREAMS["properties"](make_config(path, **changes), *process)
    assert isinstance(stream, PropertyStream)
    return stream


def rows_of(epoch):
    """Number, labels and mask of every molecule of an epoch."""
    found = []
    for index in range(len(epoch)):
        batch, numbers = epoch[index], epoch.record_indices(index)
        assert not batch.target_mask_BT[len(numbers) :].any()
        assert not batch.molecules.species_BN[len(numbers) :].any()
        labels = zip(batch.targets_BT, batch.target_mask_BT, strict=True)
        found += [(int(n), *row) for n, row in zip(numbers, labels, strict=False)]
    return found


def test_labels_stand_beside_their_molecules(path):
    stream = stream_of(path)
    scaling = stream.artifacts["targets"]["scaling"]
    found = rows_of(stream.train_epoch(0))
    assert sorted(n for n, *_ in found) == sorted(stream.split.train)
    for number, labels, mask in found:
        row = stream.molecules.row[number]
        (record,) = stream.molecules.records([number])
        assert record.name == stream.molecules.where[number] == f"m.csv line {row + 2}"
        assert record.smiles == record_of_smiles(SMILES[row]).smiles
        truth = np.array([Y[row], float(Z[row] or "nan")])
        np.testing.assert_array_equal(mask, np.isfinite(truth))
        values = np.where(mask, unscale(labels, scaling), np.nan)
        np.testing.assert_allclose(values, truth, rtol=1e-5, atol=1e-5)
        assert not labels[~mask].any()
    trained = np.array([labels for _, labels, mask in found if mask.all()])
    everything = np.array([labels[0] for _, labels, _ in found])
    assert abs(everything.mean()) < 1e-6
    assert abs(everything.std() - 1) < 1e-6
    assert len(trained) < len(found)


def test_batches_have_the_promised_shapes(path):
    stream = stream_of(path)
    for index in range(len(stream.train_epoch(3))):
        batch = stream.train_epoch(3)[index]
        assert isinstance(batch, PropertyRows)
        shapes = [
            jax.tree.map(lambda s: (s.shape, s.dtype), spec)
            for spec in stream.batch_specs
        ]
        assert jax.tree.map(lambda x: (x.shape, x.dtype), batch) in shapes


def test_epochs_are_a_function_of_seed_and_epoch(path):
    first, again = stream_of(path), stream_of(path)
    for epoch in (0, 1):
        for left, right in zip(
            rows_of(first.train_epoch(epoch)),
            rows_of(again.train_epoch(epoch)),
            strict=True,
        ):
            jax.tree.map(np.testing.assert_array_equal, left, right)
    orders = [first.train_epoch(epoch).order.tolist() for epoch in (0, 1)]
    assert orders[0] != orders[1]
    other = stream_of(path, seed=1)
    assert sorted(other.split.heldout) == sorted(first.split.heldout)
    assert other.train_epoch(0).order.tolist() != orders[0]


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_share_each_batch(path, processes):
    whole = stream_of(path)
    shares = [stream_of(path, (index, processes)) for index in range(processes)]
    for index in range(len(whole.evals["valid"])):
        parts = [share.evals["valid"][index] for share in shares]
        joined = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
        jax.tree.map(np.testing.assert_array_equal, joined, whole.evals["valid"][index])


def test_all_conformers_are_met_once(path):
    stream = stream_of(path)
    made = stream.molecules.store.records
    extra = np.arange(len(stream.molecules.store)) % 3 + 1

    def records(indices):
        return [
            record._replace(
                positions_KN3=np.stack(
                    [record.flat_N3 + 10 * k for k in range(extra[i])]
                )
            )
            for i, record in zip(indices, made(indices), strict=True)
        ]

    object.__setattr__(stream.molecules, "store", Conformers(stream, extra, records))
    feeding = Feeding(seed=3)
    stream = PropertyStream(
        stream.molecules, stream.split, stream.shapes, feeding=feeding
    )
    epoch = stream.conformer_epoch("heldout")
    met = []
    for index in range(len(epoch)):
        batch = epoch[index]
        for row, number in enumerate(epoch.record_indices(index)):
            lowest = batch.molecules.positions_BN3[row, :, 2].max()
            met.append((int(number), round(float(lowest) / 10)))
        assert len(set(batch.number_B[: row + 1].tolist())) == row + 1
    chosen = stream.molecules.chosen
    expected = [(n, k) for n in stream.split.heldout for k in range(extra[chosen[n]])]
    assert sorted(met) == sorted((int(n), k) for n, k in expected)
    assert sorted(rows_of(stream.evals["heldout"]))[0][0] == min(stream.split.heldout)
    assert len(rows_of(stream.conformer_epoch("heldout", 2))) == sum(
        min(2, extra[chosen[n]]) for n in stream.split.heldout
    )
    drawn = {
        (int(n), int(k))
        for e in range(40)
        for n, k in zip(
            stream.train_epoch(e).order, stream.train_epoch(e)._conformers, strict=True
        )
    }
    assert drawn == {
        (int(n), k) for n in stream.split.train for k in range(extra[chosen[n]])
    }


class Conformers:
    """A store whose molecules have other conformers."""

    def __init__(self, stream, conformers, records):
        self._store = stream.molecules.store
        self.conformers = conformers
        self.records = records

    def __getattr__(self, name):
        return getattr(self._store, name)


def test_features_can_be_withheld(path):
    keep, drop = (stream_of(path, **{"data.features": f}) for f in ("keep", "drop"))
    kept, dropped = (s.evals["valid"][0].molecules for s in (keep, drop))
    real = kept.species_BN > 0
    np.testing.assert_array_equal(kept.species_BN, dropped.species_BN)
    assert (dropped.atom_BN8[real] == DROPPED).all()
    assert (kept.atom_BN8[real] > DROPPED).any()
    epoch = pickle.loads(pickle.dumps(drop.evals["valid"]))
    np.testing.assert_array_equal(epoch[0].molecules.atom_BN8, dropped.atom_BN8)


def test_artifacts_say_what_the_targets_are(path, tmp_path):
    stream = stream_of(path, **{"data.units": ("eV", "")})
    facts = json.loads(json.dumps(dict(stream.artifacts)))
    targets = facts["targets"]
    assert (targets["names"], targets["units"]) == (["y", "z"], ["eV", ""])
    assert (targets["kind"], targets["positive_weight"]) == ("regression", [])
    assert facts["geometry"]["geometry"] == "flat"
    rows = facts["split"]["rows"]
    together = [*rows["train"], *rows["valid"], *rows["heldout"]]
    assert sorted(together) == list(range(len(SMILES)))
    for part in ("y (eV), z", "every row is used", "split random"):
        assert part in stream.summary
    stream.write_split(tmp_path / "split.csv")
    changes = {"data.split": "file", "data.split_file": str(tmp_path / "split.csv")}
    again = stream_of(path, **changes)
    assert sorted(again.split.train) == sorted(stream.split.train)
    assert sorted(again.split.heldout) == sorted(stream.split.heldout)


def test_classes_are_not_scaled(tmp_path):
    active = np.arange(len(SMILES)) % 4 == 0
    table = write_table(tmp_path / "b.csv", active=active.astype(int))
    stream = stream_of(table)
    targets = stream.artifacts["targets"]
    train = active[stream.molecules.row[stream.split.train]]
    assert targets["kind"] == "binary"
    assert targets["positive_weight"] == [pytest.approx((~train).sum() / train.sum())]
    assert {float(row[1][0]) for row in rows_of(stream.train_epoch(0))} == {0.0, 1.0}
    table = write_table(
        tmp_path / "c.csv", c=["abc"[i % 3] for i in range(len(SMILES))]
    )
    stream = stream_of(table, **{"data.targets": ("c",)})
    assert stream.artifacts["targets"]["classes"] == ["a", "b", "c"]
    for number, labels, _ in rows_of(stream.train_epoch(0)):
        assert labels[0] == stream.molecules.row[number] % 3


def test_what_cannot_be_used_is_refused(path, tmp_path):
    with pytest.raises(UserError, match="features='some'"):
        stream_of(path, **{"data.features": "some"})
    with pytest.raises(UserError, match="cannot be shared by 3 processes"):
        stream_of(path, (0, 3))
    with pytest.raises(UserError, match="config.data.scaling='log1p'"):
        stream_of(path, **{"data.scaling": "log1p"})
    sparse = write_table(tmp_path / "s.csv", y=Y, z=["1", *[""] * (len(SMILES) - 1)])
    words = [*["test"] * 9, *["train"] * (len(SMILES) - 9)]
    sparse = write_table(
        tmp_path / "s.csv", y=Y, z=[*"12", *[""] * 45][: len(Y)], p=words
    )
    with pytest.raises(UserError, match="has a label of z"):
        stream_of(sparse, **{"data.split": "column", "data.split_col": "p"})
