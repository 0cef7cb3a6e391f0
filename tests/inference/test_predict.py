import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from chemscale_jax.core.errors import UserError
from chemscale_jax.core.partition import make_mesh
from chemscale_jax.core.predictions import Predictions
from chemscale_jax.core.task import Task
from chemscale_jax.core.types import Params
from chemscale_jax.core.workdir import Workdir
from chemscale_jax.data.frames.source import ArraySource
from chemscale_jax.data.frames.splits import split_records
from chemscale_jax.data.packs.stream import GraphStream
from chemscale_jax.inference import predict

# Sums of a few float32 numbers of order one.
CLOSE = 1e-5
VARIABLES: dict[str, Params] = {
    "params": {"slope_3": jnp.array([0.5, -1.0, 2.0])},
    "constants": {"offset": jnp.array(0.25)},
}


def _linear_task() -> Task:
    """E = sum over atoms of slope . r + offset, so every force is -slope."""

    def predict_row(params, constants, pack):
        atom_N = pack.positions_N3 @ params["slope_3"] + constants["offset"]
        atom_N = jnp.where(pack.species_N > 0, atom_N, 1e6)  # padding must not show
        energy_M = jax.ops.segment_sum(atom_N, pack.molecule_N, len(pack.energy_M))
        forces_N3 = jnp.broadcast_to(-params["slope_3"][None], pack.positions_N3.shape)
        return {"energy_M": energy_M, "forces_N3": forces_N3}

    def predict_fn(params, constants, batch):
        return jax.vmap(lambda pack: predict_row(params, constants, pack))(batch)

    return Task(
        name="linear",
        init=lambda key: VARIABLES,
        loss_fn=lambda *_: {},
        eval_fn=lambda *_: {},
        predict_fn=predict_fn,
        loss_weights={},
        units={},
        headline=(),
        counter="frames",
        batch_specs=(),
        param_axes=(),
    )


def _records() -> dict:
    """30 records of 2 to 5 atoms; some labels are missing."""
    rng = np.random.default_rng(0)
    sizes = [2 + number % 4 for number in range(30)]
    return {
        "species": [rng.choice([1, 6, 8], size) for size in sizes],
        "positions": [
            np.arange(size)[:, None] + rng.uniform(0, 0.3, (size, 3)) for size in sizes
        ],
        "energies": [None if n == 3 else 5.0 + n for n in range(30)],
        "forces": [
            None if n == 4 else rng.normal(size=(size, 3))
            for n, size in enumerate(sizes)
        ],
        "names": [f"mol{number}" for number in range(30)],
    }


@pytest.fixture
def stream() -> GraphStream:
    source = ArraySource(**_records())
    source.kind = np.arange(30, dtype=np.uint8) % 3
    split = split_records(source, 0, valid_size=16, heldout="none")
    # Valid records in packs of different fill, the last batch with empty rows.
    return GraphStream(
        source,
        split,
        cutoff_ang=2.0,
        molecules=3,
        rows=4,
    )


@pytest.fixture
def predictions(stream) -> Predictions:
    return predict.predict_split(_linear_task(), VARIABLES, stream.evals["valid"])


def test_the_stream_has_full_and_empty_rows(stream):
    epoch = stream.evals["valid"]
    real_BM = np.concatenate([epoch[i].molecule_mask_M for i in range(len(epoch))])
    assert len(epoch) > 1
    assert {0, 3} <= set(real_BM.sum(1).tolist())


def test_every_record_comes_back_once_with_its_own_labels(stream, predictions):
    records = _records()
    assert sorted(predictions.index) == sorted(stream.split.valid)
    assert predictions.id.tolist() == [
        stream.source.record_id(int(i)) for i in predictions.index
    ]
    starts = np.concatenate([[0], np.cumsum(predictions.n_atoms)])
    for f, (index, (a, b)) in enumerate(
        zip(predictions.index, itertools.pairwise(starts), strict=True)
    ):
        assert (predictions.frame[a:b] == f).all()
        assert predictions.species[a:b].tolist() == list(records["species"][index])
        forces = records["forces"][index]
        assert predictions.forces_mask[a:b].tolist() == [forces is not None] * (b - a)
        if forces is not None:
            np.testing.assert_allclose(predictions.forces_true[a:b], forces, atol=CLOSE)
        assert predictions.energy_mask[f] == (records["energies"][index] is not None)
    assert starts[-1] == len(predictions.frame)


def test_predictions_are_those_of_the_model(predictions):
    records = _records()
    slope = np.array([0.5, -1.0, 2.0])
    expected = [
        (np.float32(records["positions"][i]) @ slope + 0.25).sum()
        for i in predictions.index
    ]
    np.testing.assert_allclose(predictions.energy_pred, expected, atol=1e-4)
    np.testing.assert_array_equal(
        predictions.forces_pred, np.tile(-slope, (len(predictions.frame), 1))
    )


def test_facts_restore_total_energies(stream, predictions):
    known = predict.with_facts(predictions, stream)
    assert known.reference is not None
    assert known.kind is not None
    assert known.molecule is not None
    total = known.energy_true + known.reference
    labelled = known.energy_mask
    np.testing.assert_allclose(total[labelled], 5.0 + known.index[labelled], atol=1e-4)
    assert (known.kind == known.index % 3).all()
    assert known.molecule.tolist() == [f"mol{i}" for i in known.index]


def test_rows_spread_over_devices_give_the_same(stream, predictions):
    mesh = make_mesh(data=2, devices=jax.local_devices())
    spread = predict.predict_split(
        _linear_task(), VARIABLES, stream.evals["valid"], mesh
    )
    for field in dataclasses.fields(spread):
        left, right = getattr(spread, field.name), getattr(predictions, field.name)
        np.testing.assert_array_equal(left, right)


def test_round_trip(stream, predictions, tmp_path):
    path = tmp_path / "predictions" / "valid.npz"
    for saved in (predictions, predict.with_facts(predictions, stream)):
        saved.save(path)
        loaded = Predictions.load(path)
        for field in dataclasses.fields(saved):
            before, after = getattr(saved, field.name), getattr(loaded, field.name)
            np.testing.assert_array_equal(before, after)
            if before is not None:
                assert before.dtype == after.dtype
    assert [p.name for p in path.parent.iterdir()] == ["valid.npz"]


def test_a_run_writes_each_of_its_splits(stream, predictions, tmp_path, monkeypatch):
    monkeypatch.setattr(predict, "STREAMS", {"graphs": lambda *_: stream})
    monkeypatch.setattr(predict, "load_variables", lambda _: VARIABLES)
    config = ConfigDict({"data": {"stream": "graphs"}})
    workdir = Workdir(tmp_path)
    predict.write_predictions(_linear_task(), config, workdir, lead=False)
    assert not workdir.predictions.exists()
    predict.write_predictions(_linear_task(), config, workdir, lead=True)
    assert [path.stem for path in workdir.predictions.iterdir()] == ["valid"]
    written = Predictions.load(workdir.predictions / "valid.npz")
    np.testing.assert_array_equal(written.energy_pred, predictions.energy_pred)
    assert written.kind is not None


def test_a_split_without_batches_is_refused(stream):
    class Empty:
        def __len__(self):
            return 0

        def __getitem__(self, index):
            raise IndexError(index)

        def record_ids(self, index):
            raise IndexError(index)

        record_indices = record_ids

    with pytest.raises(UserError, match="nothing to predict"):
        predict.predict_split(_linear_task(), VARIABLES, Empty())
