"""Streams: pure functions of (seed, epoch, index), shared by processes, prefetched."""

import json
import math
from typing import Any

import jax
import numpy as np
import pytest

from chemscale_jax.core import config_files
from chemscale_jax.core.errors import UserError
from chemscale_jax.data.frames.splits import split_records
from chemscale_jax.data.packs import stream as streams
from chemscale_jax.data.packs.stream import GraphStream, make_stream
from tests.data.ani_files import array_source, write_ani1x


def _config(path, **changes):
    config = config_files.load("configs/painn_ani1x.py:full")
    config.model.cutoff_ang = 3.0
    config.data.path = str(path)
    config.batch.update({"rows": 2, "molecules": 4})
    config.update_from_flattened_dict(changes)
    return config


@pytest.fixture
def path(tmp_path):
    return write_ani1x(tmp_path / "a.h5", frames=30)


def _assert_equal(left, right):
    jax.tree.map(np.testing.assert_array_equal, left, right)


def test_an_epoch_is_every_record_once(path):
    stream = make_stream(_config(path))
    epoch = stream.train_epoch(0)
    seen = np.concatenate([epoch.record_indices(i) for i in range(len(epoch))])
    assert sorted(seen) == sorted(stream.split.train)
    assert len(stream.split.train) == 108
    for i in range(len(epoch)):
        batch = epoch[i]
        spec = jax.tree.map(lambda a: (a.shape, a.dtype), stream.batch_specs[0])
        assert jax.tree.map(lambda a: (a.shape, a.dtype), batch) == spec
        ids = [stream.source.record_id(int(r)) for r in epoch.record_indices(i)]
        assert epoch.record_ids(i) == ids
        # Molecules are in the order of the ids, row after row.
        energies = batch.energy_M[batch.molecule_mask_M]
        records = epoch.record_indices(i)
        expected = stream.source.total_energy[records] - stream.reference.total(
            stream.source.composition(records)
        )
        np.testing.assert_allclose(energies, expected, atol=1e-4)
    with pytest.raises(IndexError):
        epoch[len(epoch)]


def test_batches_are_a_function_of_seed_epoch_and_index(path):
    first, second = make_stream(_config(path)), make_stream(_config(path))
    _assert_equal(first.train_epoch(5)[3], second.train_epoch(5)[3])
    order = [first.train_epoch(e).record_ids(0) for e in (0, 1)]
    assert order[0] != order[1]
    other = make_stream(_config(path, seed=1))
    assert other.train_epoch(0).record_ids(0) != order[0]


def test_evaluation_sets(path):
    stream = make_stream(_config(path, **{"data.heldout": "0.5"}))
    assert list(stream.evals) == ["valid", "heldout"]
    for name in ("valid", "heldout"):
        epoch = stream.evals[name]
        ids = [name for i in range(len(epoch)) for name in epoch.record_ids(i)]
        members = getattr(stream.split, name)
        assert sorted(ids) == sorted(stream.source.record_id(i) for i in members)
    assert list(make_stream(_config(path)).evals) == ["valid"]


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_share_the_rows(path, processes):
    config = _config(path, **{"batch.rows": 4})
    whole = make_stream(config).train_epoch(2)
    parts = [
        make_stream(config, process_index=p, process_count=processes).train_epoch(2)
        for p in range(processes)
    ]
    for i in range(len(whole)):
        joined = jax.tree.map(lambda *x: np.concatenate(x), *(p[i] for p in parts))
        _assert_equal(joined, whole[i])
        assert whole.record_ids(i) == [x for p in parts for x in p.record_ids(i)]
    with pytest.raises(UserError, match=r"batch.rows=4 cannot be shared by 3"):
        make_stream(config, process_index=0, process_count=3)


def test_prefetching_changes_nothing(path):
    stream = make_stream(_config(path))
    epoch = stream.train_epoch(1)
    for start in (0, 5, len(epoch) - 1, len(epoch)):
        batches = list(stream.iterate(epoch, start))
        assert len(batches) == len(epoch) - start
        for i, batch in enumerate(batches):
            _assert_equal(batch, epoch[start + i])


@pytest.mark.slow
def test_worker_processes_change_nothing(path):
    stream = make_stream(_config(path, **{"batch.workers": 2}))
    epoch = stream.train_epoch(1)
    batches = list(stream.iterate(epoch, 3))
    assert len(batches) == len(epoch) - 3
    for i, batch in enumerate(batches):
        _assert_equal(batch, epoch[3 + i])


def test_artifacts_are_json_and_tell_what_was_removed(path):
    stream = make_stream(_config(path))
    facts = json.loads(json.dumps(stream.artifacts))
    assert list(facts["reference_energies_ev"]) == ["H", "C", "N", "O"]
    assert facts["units"]["force"] == "eV/angstrom"
    assert facts["split"]["train"] == 108
    assert facts["source"]["method"] == "wb97x_dz"
    assert 0.5 < facts["fill"]["nodes"] <= 1
    batch = stream.train_epoch(0)[0]
    assert np.abs(batch.energy_M).max() < 5


def test_a_second_pair_list(path):
    stream = make_stream(_config(path, **{"data.long_range_ang": math.inf}))
    assert stream.budget.pairs > 0
    pack = stream.train_epoch(0)[0]
    sizes = stream.source.n_atoms[stream.train_epoch(0).record_indices(0)]
    assert pack.pair_receivers_P is not None
    real = pack.pair_receivers_P < stream.budget.nodes - 1
    assert real.sum() == (sizes * (sizes - 1)).sum()
    assert make_stream(_config(path)).train_epoch(0)[0].pair_senders_P is None


def test_budgets_from_the_config(path):
    config = _config(path, **{"batch.nodes": 50, "batch.edges": 500})
    stream = make_stream(config)
    assert stream.budget[:2] == (50, 500)
    assert stream.train_epoch(0)[0].positions_N3.shape == (2, 50, 3)
    with pytest.raises(UserError, match=r"C3H5N1O2/\d+ has 11 atoms.*batch.nodes"):
        make_stream(_config(path, **{"batch.nodes": 11}))


def test_held_out_molecules_may_be_the_largest():
    source = array_source(60)
    source.held_out = source.group == 2
    split = split_records(source, seed=0)
    stream = GraphStream(source, split, cutoff_ang=9.0, molecules=1)
    assert stream.budget.nodes == 12
    assert stream.budget.edges == 110
    assert len(stream.evals["heldout"]) == len(split.heldout)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data.source": "tfsd"}, "did you mean 'tfds'"),
        ({"model.cutoff_ang": -1.0}, r"cutoff_ang=-1\.0"),
        ({"batch.molecules": 0}, "needs at least 1"),
        ({"batch.rows": 0}, "batch.rows=0"),
        ({"data.train_size": 1000}, "train_size=1000 cannot be had"),
    ],
)
def test_mistakes_in_the_config(path, change, message):
    with pytest.raises(UserError, match=message):
        make_stream(_config(path, **change))


def test_a_path_replaces_the_embedded_set(path):
    config: Any = _config(path, **{"data.source": "embedded"})
    source = streams.open_source(config.data)
    assert len(source) == 120
