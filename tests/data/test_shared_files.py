"""Public samples in the official file format, where they are at hand."""

import os
import pathlib

import h5py
import numpy as np
import pytest

from chemscale_jax.chem.units import HARTREE_EV
from chemscale_jax.core.errors import UserError
from chemscale_jax.data.ani1x import Ani1xSource
from chemscale_jax.data.splits import split_records
from chemscale_jax.data.stream import GraphStream
from tests.data.ani_files import values

pytestmark = pytest.mark.shared


@pytest.fixture
def folder():
    return pathlib.Path(os.environ["CHEMSCALE_SHARED"]) / "data/ff/ani"


@pytest.mark.parametrize(
    ("name", "frames", "groups", "method"),
    [
        ("ani1x_sample_official_layout.h5", 8, 5, "wb97x_dz"),
        ("qm7x_250_ani1x_layout.h5", 2500, 75, "pbe0_mbd"),
        ("3bpa_ani1x_layout.h5", 1000, 1, "wb97x_dz"),
    ],
)
def test_samples_are_read_and_streamed(folder, name, frames, groups, method):
    source = Ani1xSource(folder / name)
    report = source.report
    assert (report["rows"], report["used"], report["nan_rows"]) == (frames, frames, 0)
    assert (report["groups"], report["method"]) == (groups, method)
    with h5py.File(folder / name) as file:
        group, _, row = source[frames - 1].id.partition("/")
        energy = values(file, f"{group}/{method}.energy")[int(row)] * HARTREE_EV
        forces = values(file, f"{group}/{method}.forces")[int(row)] * HARTREE_EV
    assert source[frames - 1].energy == pytest.approx(energy, rel=1e-15)
    np.testing.assert_allclose(source[frames - 1].forces, forces, rtol=1e-6)
    split = split_records(source, seed=0)
    stream = GraphStream(source, split, seed=0, cutoff_ang=5.0, molecules=32)
    epoch = stream.train_epoch(0)
    batch = epoch[0]
    assert np.isfinite(batch.forces_N3).all()
    assert np.abs(batch.energy_M).max() < 50
    if frames > 1000:
        assert min(epoch.fill()["nodes"], epoch.fill()["edges"]) > 0.9


def test_the_other_label_set_of_the_release(folder):
    source = Ani1xSource(folder / "ani1x_sample_official_layout.h5", "wb97x_tz")
    assert source.report["method"] == "wb97x_tz"
    assert source.report["used"] + source.report["nan_rows"] == 8


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ani_gdb_s01.h5", r"has no forces.*energies, species, expected groups"),
        ("ani2x_diatomics.h5", r"not in the ANI-1x layout.*'002'.*METHOD.forces"),
    ],
)
def test_other_layouts_are_explained(folder, name, message):
    with pytest.raises(UserError, match=message):
        Ani1xSource(folder / name)
