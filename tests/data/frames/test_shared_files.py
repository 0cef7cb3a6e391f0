"""Public samples in the official file formats, where they are at hand."""

import os
import pathlib

import h5py
import numpy as np
import pytest

from chemscale_jax.chem.units import HARTREE_EV
from chemscale_jax.core import config_files
from chemscale_jax.core.errors import UserError
from chemscale_jax.data.frames.ani1x import Ani1xSource
from chemscale_jax.data.frames.label_check import check_labels
from chemscale_jax.data.frames.sources import open_source
from chemscale_jax.data.frames.splits import split_records
from chemscale_jax.data.packs.stream import GraphStream, make_stream
from tests.data.ani_files import values

pytestmark = pytest.mark.shared


@pytest.fixture
def shared():
    return pathlib.Path(os.environ["CHEMSCALE_SHARED"]) / "data/ff"


@pytest.fixture
def folder(shared):
    return shared / "ani"


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
    stream = GraphStream(source, split, cutoff_ang=5.0, molecules=32)
    epoch = stream.train_epoch(0)
    batch = epoch[0]
    assert np.isfinite(batch.forces_N3).all()
    assert np.abs(batch.energy_M).max() < 50
    if frames > 1000:
        assert min(epoch.fill()["nodes"], epoch.fill()["edges"]) > 0.9


def test_the_other_label_sets_of_the_release(folder):
    path = folder / "ani1x_sample_official_layout.h5"
    source = Ani1xSource(path, "wb97x_tz")
    assert source.report["method"] == "wb97x_tz"
    assert source.report["used"] + source.report["nan_rows"] == 8
    totals = {}
    for labels in ("ccsd(t)_cbs", "hf_dz", "mp2_qz", "npno_ccsd(t)_tz"):
        source = Ani1xSource(path, labels)
        assert not source[0].forces_mask
        totals[labels] = source[0].energy
    # Correlation lowers the energy, by about a hundredth of it at most.
    hf = totals.pop("hf_dz")
    assert all(0 < 1 - hf / total < 0.01 for total in totals.values())


def _config(shared, source, path, **fields):
    config = config_files.load("configs/painn_ani1x.py:full")
    config.batch.update({"rows": 1, "molecules": 8})
    config.data.update({"source": source, "path": str(shared / path), **fields})
    config.data.label_check = "off"
    return config


@pytest.mark.parametrize(
    ("source", "path", "frames", "formulas"),
    [
        ("md17", "md17/ethanol_2000.npz", 2000, 1),
        ("spice", "spice/SPICE-1.1.4_n2.hdf5", 55, 2),
        ("qm7x", "qm7x/qm7x_250_small.npz", 2500, 75),
        ("extxyz", "3bpa/train_300K.xyz", 500, 1),
        ("extxyz", "3bpa/train_mixedT.xyz", 500, 1),
        # Three isolated atoms are set apart.
        ("extxyz", "solvents_xtb/solvent_xtb_train_200.xyz", 203 - 3, None),
        ("ase_db", "spookynet/ase_carbene_2200.db", 2200, 1),
        ("ani", "ani/ani_gdb_s01.h5", 10800, 3),
        ("ani", "ani/ani2x_diatomics.h5", 5706, 10),
        ("qm22", "qm22/Methane.zip", 9000, 1),
        ("qm22", "qm22/N-methylacetamide.zip", 6607, 1),
        ("qm22", "qm22/alkane_c04.zip", 1292, 1),
        ("qm22", "qm22/alkane_c05.zip", 1538, 1),
        ("qm22", "qm22/alkane_c06.zip", 1719, 1),
        ("qm22", "qm22/alkane_c07.zip", 1897, 1),
    ],
)
def test_every_file_is_read_whole_and_its_labels_fit(
    shared, source, path, frames, formulas
):
    """All frames, none left out; forces are minus the slope of the energies."""
    config = _config(shared, source, path)
    records = open_source(config.data)
    assert len(records) == frames
    assert not records.report["skipped"]
    if formulas:
        assert len(set(records.group_names)) == formulas
    outcome = check_labels(records, np.arange(frames))
    assert outcome["outcome"] != "disagrees", outcome
    if path != "ani/ani_gdb_s01.h5":
        assert outcome["outcome"] == "agrees", outcome
        forces = np.concatenate([records[i].forces for i in range(min(frames, 500))])
        assert np.abs(forces.sum(0)).max() < 0.01 * np.abs(forces).sum()
    stream = make_stream(config)
    batch = stream.train_epoch(0)[0]
    assert np.isfinite(batch.forces_N3).all()
    assert batch.molecule_mask_M.any()


def test_charges_and_spins(shared):
    carbenes = open_source(
        _config(shared, "ase_db", "spookynet/ase_carbene_2200.db").data
    )
    spins = [carbenes[i].spin for i in range(len(carbenes))]
    assert sorted(set(spins)) == [0, 2]
    spice = open_source(_config(shared, "spice", "spice/SPICE-1.1.4_n2.hdf5").data)
    assert {spice[i].charge for i in range(len(spice))} == {1}


@pytest.mark.parametrize(
    "molecule",
    ["aspirin", "ethanol", "malonaldehyde", "naphthalene", "salicylic", "toluene"],
)
def test_official_split_of_rmd17(shared, molecule):
    fields = {"molecule": molecule, "valid_size": 50}
    config = _config(shared, "rmd17", "rmd17", **fields)
    stream = make_stream(config)
    records = stream.source
    assert records.given_split is not None
    assert np.bincount(records.given_split).tolist() == [1000, 1000]
    split = stream.split
    assert (len(split.train), len(split.valid), len(split.test)) == (950, 50, 1000)
    assert set(stream.evals) == {"valid", "test"}
    assert not records.given_split[split.train].any()
    assert records.given_split[split.test].all()
    assert check_labels(records, np.arange(1000))["outcome"] == "agrees"


def test_3bpa_with_a_test_file_and_isolated_atoms(shared):
    fields = {
        "test_path": str(shared / "3bpa/train_mixedT.xyz"),
        "labels": "wb97x_dz",
        "reference": "atoms",
    }
    stream = make_stream(_config(shared, "extxyz", "3bpa/train_300K.xyz", **fields))
    assert len(stream.split.test) == 500
    atoms = open_source(_config(shared, "extxyz", "3bpa/iso_atoms.xyz").data)
    for i in range(4):
        symbol = atoms.group_names[i]
        ours = stream.reference.as_dict()[symbol]
        # Of the same method by another program.
        assert ours == pytest.approx(atoms[i].energy, rel=3e-5)


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
