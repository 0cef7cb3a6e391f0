import json
import pickle

import numpy as np
import pytest

from chemscale_jax.chem.molecule_record import (
    failed_record,
    record_of_smiles,
)
from chemscale_jax.chem.smiles import molecule_key
from chemscale_jax.core.errors import UserError
from chemscale_jax.data.conformers.codec import ERROR_ANG, STATUS_CODES
from chemscale_jax.data.conformers.shards import store_records
from chemscale_jax.data.conformers.store import COLUMNS, ConformerStore

SMILES = ("Oc1ccccc1", "CCO", "c1ccc2ccccc2c1", "Cc1ccccc1", "CC(C)=O")


def some_records():
    rng = np.random.default_rng(1)
    for i, smiles in enumerate(SMILES):
        record = record_of_smiles(smiles, f"m{i}")
        shape = (i + 1, len(record.species_N), 3)
        positions = rng.normal(scale=3, size=shape).astype(np.float32)
        yield record._replace(positions_KN3=positions, status="given", reason="")
    yield failed_record("broken", "no SMILES", "C(")
    yield record_of_smiles("CCO", "again")


@pytest.fixture
def store(tmp_path):
    return store_records(some_records(), tmp_path / "store", facts={"what": "test"})


def test_records_come_back_in_their_order(store):
    good = [record for record in some_records() if record.status != "failed"]
    assert len(store) == 6
    for i, record in enumerate(good):
        for one, other in zip(store.record(i), record, strict=True):
            assert np.array_equal(one, other)
    assert [r.name for r in store.records([4, 0, 4])] == ["m4", "m0", "m4"]
    assert store.records([]) == []
    for index in (-1, 6):
        with pytest.raises(IndexError, match=f"molecule {index} of 6"):
            store.record(index)


def test_columns_are_known_without_records(store, monkeypatch):
    monkeypatch.setattr(ConformerStore, "records", lambda *_: pytest.fail("decoded"))
    assert store.atoms.tolist() == [7, 3, 10, 7, 4, 3]
    assert store.conformers.tolist() == [1, 2, 3, 4, 5, 1]
    assert [STATUS_CODES[i] for i in store.status] == ["given"] * 5 + ["2d"]
    assert store.has_status("2d", "3d").tolist() == [False] * 5 + [True]
    keys = [molecule_key(smiles) for smiles in (*SMILES, "CCO")]
    assert store.keys.tolist() == keys
    assert store.lines.tolist() == [1, 2, 3, 4, 5, 7]
    assert store.scaffolds == ["c1ccccc1", "", "c1ccc2ccccc2c1"]
    assert store.scaffold.tolist() == [0, 1, 2, 0, 1, 1]
    assert store.scaffold_counts.tolist() == [2, 3, 1]
    assert {name: getattr(store, name).dtype.type for name in COLUMNS} == COLUMNS
    assert [tuple(f) for f in store.ledger()] == [(6, "unusable", "C(", "no SMILES")]
    assert store.failed() == {"unusable": 1}
    info = store.info
    assert (info["lines"], info["molecules"], info["conformers"]) == (7, 6, 16)
    assert info["statuses"] == {"2d": 1, "given": 5}
    assert (info["what"], info["coordinates"]) == ("test", "float32")
    assert info["error_ang"] == 0


def test_a_store_can_be_sent_to_another_process(store):
    store.record(0)
    data = pickle.dumps(store)
    assert len(data) < 500
    again = pickle.loads(data)
    assert again.record(3).smiles == "Cc1ccccc1"
    assert np.array_equal(again.keys, store.keys)


def test_sixteen_bits(tmp_path, store):
    small = store_records(some_records(), tmp_path / "small", float32=False)
    assert small.info["coordinates"] == "int16"
    moved = np.abs(small.record(4).positions_KN3 - store.record(4).positions_KN3)
    assert 0 < moved.max() <= small.info["error_ang"] == ERROR_ANG
    assert np.array_equal(small.keys, store.keys)


def test_a_store_of_nothing(tmp_path):
    store = store_records([failed_record("x", "why")], tmp_path / "none")
    assert len(store) == 0
    assert store.scaffolds == []
    assert store.failed() == {"unusable": 1}
    assert len(store.scaffold_counts) == 0


def test_folders_that_are_no_stores(tmp_path, store):
    with pytest.raises(UserError, match="is no conformer store .*; make one with"):
        ConformerStore.open(tmp_path)
    with pytest.raises(UserError, match="is there already"):
        store_records([], store.folder)
    info = json.loads((store.folder / "store.json").read_text())
    (store.folder / "store.json").write_text(json.dumps({**info, "codec_version": 9}))
    with pytest.raises(UserError, match=r"has version \(1, 9\) .*reads \(1, 1\)"):
        ConformerStore.open(store.folder)
    (store.folder / "store.json").write_text(json.dumps(info))
    np.save(store.folder / "atoms.npy", np.zeros(5, np.uint16))
    with pytest.raises(UserError, match=r"atoms.npy holds uint16 \(5,\), but"):
        ConformerStore.open(store.folder)
    np.save(store.folder / "atoms.npy", np.zeros(6, np.uint16))
    (shard,) = store.folder.glob("*.array_record")
    data = shard.read_bytes()
    shard.write_bytes(data[:-3000])
    with pytest.raises(UserError, match="a shard of the conformer store .* is damaged"):
        ConformerStore.open(store.folder).record(0)
    shard.unlink()
    with pytest.raises(UserError, match="array_record is missing"):
        ConformerStore.open(store.folder)
