"""QM7-X: the official groups, folders of files, bad conformations."""

import h5py
import numpy as np
import pytest

from chemscale_jax.core.errors import UserError
from chemscale_jax.data.frames.qm7x import open_qm7x
from tests.data.reader_files import FRAMES, assert_frames, frames, write_qm7x


def test_a_folder_of_files(tmp_path):
    write_qm7x(tmp_path)
    with h5py.File(tmp_path / "2000.hdf5", "w") as file:
        group = file.create_group("1001/Geom-m1001-i1-c1-opt")
        group["atNUM"] = [7, 1, 1, 1]
        group["atXYZ"] = np.eye(4)[:, :3]
        group["ePBE0+MBD"] = [-1538.0]
        group["totFOR"] = np.ones((4, 3))
    source = open_qm7x(tmp_path)
    assert_frames(source)
    assert source.group_names == ("1", "1001")
    last = source[FRAMES]
    assert (last.id, last.energy) == ("1001/0", -1538.0)
    np.testing.assert_array_equal(last.forces, np.ones((4, 3)))


def test_one_bad_conformation_is_left_out(tmp_path):
    path = write_qm7x(tmp_path)["path"]
    with h5py.File(path, "r+") as file:
        group = file["1/Geom-m1-i1-c1-003"]
        assert isinstance(group, h5py.Group)
        del group["totFOR"]
        group["totFOR"] = np.zeros((2, 3))
    source = open_qm7x(path)
    reason = "datasets that do not fit together"
    assert source.report["skipped"] == {reason: 1}
    assert source.report["skipped_examples"][reason] == ["1/Geom-m1-i1-c1-003"]
    assert source._row.tolist() == [i for i in range(FRAMES) if i != 3]


def test_a_padded_sample(tmp_path):
    x, e, f = frames()
    z = np.tile([8, 1, 1], (FRAMES, 1))
    np.savez(tmp_path / "a.npz", z=z, R=x, E=e[:, None], F=f)
    source = open_qm7x(tmp_path / "a.npz")
    assert_frames(source)
    assert source.report["method"] == "PBE0+MBD"
    assert source.report["units"]["energy"] == "eV"


def test_other_files(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["1/opt/atNUM"] = np.ones(3)
    with pytest.raises(UserError, match=r"no group with atNUM.*'1/opt' holds atNUM"):
        open_qm7x(tmp_path / "a.h5")
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match=r"none has no \*\.hdf5 file"):
        open_qm7x(tmp_path / "none")
