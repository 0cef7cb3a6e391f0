"""Revised MD-17: the official splits from folders, halves and archives."""

import pathlib
import shutil

import numpy as np
import pytest

from chemscale_jax.core.errors import UserError
from chemscale_jax.data.frames.rmd17 import open_rmd17
from chemscale_jax.data.frames.source import TEST, TRAIN, UNUSED
from tests.data.reader_files import FRAMES, assert_frames, write_rmd17


@pytest.fixture
def release(tmp_path):
    write_rmd17(tmp_path)
    return tmp_path / "rmd17"


def _check(source):
    expected = np.full(FRAMES, UNUSED)
    expected[FRAMES // 2 :] = TRAIN
    expected[FRAMES // 2 - 5 : FRAMES // 2] = TEST
    assert source.given_split.tolist() == expected.tolist()
    assert_frames(source)


def test_the_release_in_a_folder(release):
    source = open_rmd17(release, "water")
    _check(source)
    assert source.group_names == ("water",)
    assert source.train_warning(1000) == ""
    assert "1,001 training frames" in source.train_warning(1001)
    assert "autocorrelation" in source.train_warning(1001)
    # The same rows without a split, and a file by its own name.
    assert open_rmd17(release, "water", 0).given_split is None
    _check(open_rmd17(release / "npz_data/rmd17_water.npz", ""))
    shutil.copy(release / "npz_data/rmd17_water.npz", release)
    _check(open_rmd17(release / "rmd17_water.npz", ""))
    _check(open_rmd17(release.parent, "water"))


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_several_molecules(release, kind):
    shutil.copy(
        release / "npz_data/rmd17_water.npz", release / "npz_data/rmd17_steam.npz"
    )
    root, path = release.parent, release
    if kind == "zip":
        path = shutil.make_archive(str(root / "rmd17"), kind, root, "rmd17")
    one, both = open_rmd17(path, "water"), open_rmd17(path, "steam, water")
    assert both.group_names == ("steam", "water")
    assert both.given_split is not None
    assert one.given_split is not None
    assert both.given_split.tolist() == 2 * one.given_split.tolist()
    assert both.record_id(FRAMES) == "water/0"
    np.testing.assert_array_equal(both[FRAMES].positions, one[0].positions)
    assert both.train_warning(2000) == ""
    assert "2,001 training frames" in both.train_warning(2001)
    with pytest.raises(UserError, match="names a molecule twice"):
        open_rmd17(path, "water,water")
    with pytest.raises(UserError, match="'wine' is not in"):
        open_rmd17(path, "water,wine")


@pytest.mark.parametrize("kind", ["bztar", "gztar", "zip"])
def test_the_release_in_an_archive(release, kind, cache):
    root = release.parent
    path = shutil.make_archive(str(root / "rmd17"), kind, root, "rmd17")
    _check(open_rmd17(path, "water"))
    made = set(cache.iterdir())
    _check(open_rmd17(path, "water"))
    assert set(cache.iterdir()) == made
    with pytest.raises(UserError, match=r"'wine' is not in .*, which has water"):
        open_rmd17(path, "wine")
    whole = pathlib.Path(path).read_bytes()
    pathlib.Path(path).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"rmd17\.(tar|zip).*damaged or cut short"):
        open_rmd17(path, "water")


def test_halves_that_are_ready_made(release):
    with np.load(release / "npz_data/rmd17_water.npz") as arrays:
        halves = {"train": slice(0, 16), "test": slice(16, FRAMES)}
        for half, rows in halves.items():
            part = {
                k: a if a.ndim == 1 and len(a) == 3 else a[rows]
                for k, a in arrays.items()
            }
            np.savez(release.parent / f"rmd17_water_{half}_03.npz", **part)
    shutil.rmtree(release)
    source = open_rmd17(release.parent, "water", 3)
    assert source.given_split is not None
    assert source.given_split.tolist() == [TRAIN] * 16 + [TEST] * 8
    assert_frames(source)
    assert source.record_id(FRAMES - 1) == f"water/{FRAMES - 1}"
    with pytest.raises(UserError, match=r"no pair rmd17_water_train_02\.npz"):
        open_rmd17(release.parent, "water", 2)


def test_mistakes(release, tmp_path):
    with pytest.raises(UserError, match=r"split_index=6: use 1 to 5"):
        open_rmd17(release, "water", 6)
    with pytest.raises(UserError, match=r"has no splits/index_train_02\.csv"):
        open_rmd17(release, "water", 2)
    with pytest.raises(UserError, match=r"molecule='' is not in .*has water"):
        open_rmd17(release, "")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no rmd17_MOLECULE\.npz: unpack rmd17"):
        open_rmd17(tmp_path / "empty", "water")
    index = release / "splits/index_test_01.csv"
    for content, message in (
        ("1\n99\n", r"index_test_01\.csv has 2 row numbers up to 99.*24 frames"),
        ("one\n", "is not a list of row numbers"),
        ("", "has 0 row numbers"),
        (f"{FRAMES - 1}\n", "cannot be in both halves"),
    ):
        index.write_text(content)
        with pytest.raises(UserError, match=message):
            open_rmd17(release, "water")
    (tmp_path / "a.tar.gz").write_bytes(b"")
    with pytest.raises(UserError, match=r"a\.tar\.gz cannot be read as an archive"):
        open_rmd17(tmp_path / "a.tar.gz", "water")
