"""The registry of sources: every entry gives a stream, and mistakes are named."""

import pickle

import jax
import numpy as np
import pytest

from chemscale_jax.core import config_files
from chemscale_jax.core.errors import UserError
from chemscale_jax.data.frames.sources import SOURCES, open_source
from chemscale_jax.data.packs.stream import make_stream
from tests.data.reader_files import FRAMES, WRITERS, assert_frames, write_extxyz


def _config(**data):
    config = config_files.load("configs/painn_ani1x.py:full")
    config.model.cutoff_ang = 3.0
    config.batch.update({"rows": 1, "molecules": 4})
    config.data.update(data)
    return config


def test_every_source_is_tested():
    assert set(WRITERS) == set(SOURCES) - {"embedded", "ani1x", "tfds"}


@pytest.mark.parametrize("name", WRITERS)
def test_a_stream_of_every_source(name, tmp_path, monkeypatch):
    config = _config(**WRITERS[name](tmp_path), split_index=0)
    source = open_source(config.data)
    with_forces = name != "ani"
    assert_frames(source, with_forces=with_forces)
    assert source.report["rows"] == source.report["used"] == len(source)
    assert len(source) == FRAMES * (2 if name == "spice" else 1)
    ids = {source.record_id(i) for i in range(len(source))}
    assert len(ids) == len(source)
    # Workers get a copy, and a large file is not held in memory.
    monkeypatch.setattr("chemscale_jax.data.frames.flat._HELD_BYTES", 0)
    assert_frames(
        pickle.loads(pickle.dumps(open_source(config.data))), 3, 0, with_forces
    )
    stream = make_stream(config)
    batch = stream.train_epoch(0)[0]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(batch))
    assert batch.forces_mask_N.any() == with_forces
    assert batch.energy_mask_M.any()
    assert np.abs(batch.energy_M).max() < 5
    for unit in source.report["units"].values():
        assert unit in stream.summary


def test_mistakes(tmp_path):
    with pytest.raises(UserError, match="'exyz' is unknown: did you mean 'extxyz'"):
        open_source(_config(source="exyz").data)
    wrong = _config(source="qm7x", test_path="b.hdf5").data
    with pytest.raises(UserError, match="test_path is for the sources md17"):
        open_source(wrong)
    for name in WRITERS:
        with pytest.raises(UserError, match=r"there is no file.*absent"):
            open_source(_config(source=name, path="absent", molecule="water").data)
        with pytest.raises(UserError, match="config.data.path is empty"):
            open_source(_config(source=name, molecule="water").data)
    fields = write_extxyz(tmp_path) | {"energy_unit": "hartee"}
    with pytest.raises(UserError, match=r"config.data: .*'hartee'.*mean 'hartree'"):
        open_source(_config(**fields).data)


@pytest.mark.parametrize("name", sorted(set(WRITERS) - {"rmd17"}))
def test_files_that_are_not_whole(name, tmp_path):
    """Empty, of another kind, or cut in the middle: one line that names the file."""
    fields = WRITERS[name](tmp_path)
    path = tmp_path / fields["path"].rpartition("/")[2]
    whole = path.read_bytes()
    for content in (b"", b"\x00\x01junk" * 300, whole[: len(whole) * 3 // 5]):
        path.write_bytes(content)
        with pytest.raises(UserError, match=path.name) as raised:
            open_source(_config(**fields).data)
        assert "\n" not in str(raised.value)


def test_the_cache_knows_the_file_and_the_settings(tmp_path, cache):
    fields = write_extxyz(tmp_path)
    first = open_source(_config(**fields).data)
    made = set(cache.iterdir())
    assert open_source(_config(**fields).data).identity == first.identity
    assert set(cache.iterdir()) == made
    other = open_source(_config(**fields, energy_unit="hartree").data)
    assert other.identity != first.identity
    assert other[0].energy == pytest.approx(first[0].energy * 27.211386245988)
