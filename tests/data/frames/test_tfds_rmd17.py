"""The TFDS builder of revised MD-17 on a small archive, without network."""

import shutil

import numpy as np
import pytest

from chemscale_jax.core.errors import UserError
from chemscale_jax.data.frames.rmd17 import open_rmd17
from chemscale_jax.data.frames.source import TEST, TRAIN, UNUSED
from chemscale_jax.data.frames.splits import split_records
from tests.data.reader_files import write_rmd17

tfds_rmd17 = pytest.importorskip("chemscale_jax.data.frames.tfds_rmd17")


def _config(archive, **changes):
    fields = {"name": "water_01", "molecule": "water", "path": str(archive)}
    return tfds_rmd17.Rmd17Config(**(fields | changes))


def test_an_archive_becomes_train_and_test(tmp_path):
    write_rmd17(tmp_path)
    archive = shutil.make_archive(str(tmp_path / "rmd17"), "bztar", tmp_path, "rmd17")
    tfds_rmd17.prepare(tmp_path / "tfds", "", config=_config(archive))
    source = tfds_rmd17.open_prepared(tmp_path / "tfds")
    direct = open_rmd17(archive, "water")
    assert direct.given_split is not None
    order = np.concatenate(
        [np.flatnonzero(direct.given_split == part) for part in (TRAIN, TEST)]
    )
    assert len(source) == len(order) < len(direct)
    assert UNUSED in direct.given_split
    np.testing.assert_array_equal(source.given_split, direct.given_split[order])
    for mine, theirs in enumerate(order):
        for left, right in zip(source[mine], direct[int(theirs)], strict=True):
            np.testing.assert_array_equal(left, right)
    split = split_records(source, 0, valid_size=2)
    assert split.summary["kind"] == "given"
    assert len(split.test) == (direct.given_split == TEST).sum()
    assert "autocorrelation" in source.train_warning(1001)
    # The second time nothing is read.
    shutil.rmtree(tmp_path / "rmd17")
    tfds_rmd17.prepare(tmp_path / "tfds", "", config=_config("gone"))


def test_what_is_not_there(tmp_path):
    with pytest.raises(UserError, match="no molecule 'wine' with split 1: use one of"):
        tfds_rmd17.prepare(tmp_path, "wine")
    with pytest.raises(UserError, match="'ethanol' with split 6"):
        tfds_rmd17.prepare(tmp_path, "ethanol", 6)
    with pytest.raises(UserError, match=r"no file or folder .*absent.tar.bz2"):
        tfds_rmd17.prepare(tmp_path, "ethanol", archive=tmp_path / "absent.tar.bz2")


def test_the_official_address():
    builder = tfds_rmd17.Rmd17Config(name="ethanol_01")
    assert builder.url.endswith("figshare.com/files/23950376")
    assert len(tfds_rmd17.Rmd17.BUILDER_CONFIGS) == 50
    assert "archive=FILE" in tfds_rmd17.Rmd17.hint
