"""The HDF5 reader: values, what it skips, and what it says about bad files."""

import pickle

import h5py
import numpy as np
import pytest

from chemscale_jax.chem.units import BOHR_ANG, HARTREE_EV
from chemscale_jax.core.errors import UserError
from chemscale_jax.data.frames import ani1x
from chemscale_jax.data.frames.ani1x import Ani1xSource
from tests.data.ani_files import FORMULAS, edit, values, write_ani1x


@pytest.mark.parametrize("chunked", [False, True])
def test_records_are_the_rows_in_our_units(tmp_path, chunked):
    path = write_ani1x(tmp_path / "a.h5", chunked=chunked)
    source = Ani1xSource(path)
    assert len(source) == 80
    with h5py.File(path) as file:
        for index in (0, 19, 20, 79):
            record = source[index]
            name, _, row = record.id.partition("/")
            assert record.species.tolist() == FORMULAS[name]
            np.testing.assert_array_equal(
                record.positions, values(file, f"{name}/coordinates")[int(row)]
            )
            np.testing.assert_allclose(
                record.forces,
                values(file, f"{name}/wb97x_dz.forces")[int(row)] * HARTREE_EV,
                rtol=1e-6,
            )
            expected = values(file, f"{name}/wb97x_dz.energy")[int(row)] * HARTREE_EV
            assert record.energy == pytest.approx(expected, rel=1e-15)
    assert source.report["rows"] == source.report["used"] == 80
    assert source.report["units"]["energy"] == "hartree"
    assert source.element_symbols == ["H", "C", "N", "O"]
    first = source.composition(np.array([0]))
    assert first.tolist() == [[4, 1, 0, 0]]


def test_large_files_are_read_in_place(tmp_path, monkeypatch):
    """The same records when nothing may be held in memory."""
    plain = write_ani1x(tmp_path / "plain.h5")
    chunked = write_ani1x(tmp_path / "chunked.h5", chunked=True)
    held = [Ani1xSource(path)[33] for path in (plain, chunked)]
    monkeypatch.setattr("chemscale_jax.data.frames.flat._HELD_BYTES", 0)
    for path, expected in zip((plain, chunked), held, strict=True):
        source = pickle.loads(pickle.dumps(Ani1xSource(path)))
        np.testing.assert_array_equal(source[33].positions, expected.positions)
        np.testing.assert_array_equal(source[33].forces, expected.forces)


def test_stacks_are_all_positions_in_order(tmp_path):
    path = write_ani1x(tmp_path / "a.h5")
    edit(path, {("C1H4/wb97x_dz.energy", 3): np.nan})
    source = Ani1xSource(path)
    stacks = list(source.stacks(max_atoms=50))
    starts = np.cumsum([0] + [len(s.positions) for s in stacks])
    assert [s.start for s in stacks] == starts[:-1].tolist()
    assert starts[-1] == len(source) == 79
    for stack in stacks:
        for k, x in enumerate(stack.positions):
            np.testing.assert_array_equal(x, source[stack.start + k].positions)


def test_units_are_arguments(tmp_path):
    path = write_ani1x(tmp_path / "a.h5")
    ours = Ani1xSource(path)
    other = Ani1xSource(
        path, energy_unit="eV", force_unit="hartree/bohr", length_unit="bohr"
    )
    assert other[5].energy == pytest.approx(ours[5].energy / HARTREE_EV)
    np.testing.assert_allclose(other[5].forces, ours[5].forces / BOHR_ANG, rtol=1e-6)
    np.testing.assert_allclose(
        other[5].positions, ours[5].positions * BOHR_ANG, rtol=1e-6
    )
    with pytest.raises(UserError, match="hartee.*did you mean 'hartree'"):
        Ani1xSource(path, energy_unit="hartee")


def test_bad_rows_are_skipped_counted_and_named(tmp_path):
    path = write_ani1x(tmp_path / "a.h5")
    edit(
        path,
        {
            ("C1H4/wb97x_dz.energy", 3): np.nan,
            ("C1H4/wb97x_dz.forces", (4, 0, 0)): np.nan,
            ("C2H6O1/coordinates", (0, 2, 1)): np.nan,
            ("C2H6O1/coordinates", (1, 2, 1)): np.inf,
            ("C2H6O1/coordinates", 7): 1.0,
            ("H2O1/wb97x_dz.forces", 5): 1e5,
            ("C3H5N1O2/atomic_numbers", 0): 0,
        },
    )
    source = Ani1xSource(path)
    report = source.report
    assert report["rows"] == 80
    assert report["nan_rows"] == 3
    counts = list(report["skipped"].values())
    assert counts == [3, 1, 20, 1, 1]
    assert report["used"] == len(source) == 80 - sum(counts)
    examples = {e for names in report["skipped_examples"].values() for e in names}
    assert {"C1H4/3", "C1H4/4", "C2H6O1/0", "C2H6O1/7", "H2O1/5"} <= examples
    ids = {source.record_id(i) for i in range(len(source))}
    assert not ids & examples
    assert "N" not in source.element_symbols


def test_nothing_usable_is_an_error(tmp_path):
    path = write_ani1x(tmp_path / "a.h5", formulas={"X1": [119, 1]})
    with pytest.raises(UserError, match=r"none of the 20 frames.*unknown element"):
        Ani1xSource(path)


def test_label_sets(tmp_path):
    path = write_ani1x(tmp_path / "a.h5", labels=("b3lyp", "wb97x_dz", "xtb"))
    with h5py.File(path, "r+") as file:
        for name in FORMULAS:
            file[f"{name}/ccsd(t)_cbs.energy"] = np.zeros(20)
        del file["H2O1/xtb.forces"]
    assert Ani1xSource(path).report["method"] == "wb97x_dz"
    some = Ani1xSource(path, "xtb")
    assert (len(some), some.report["groups_without_labels"]) == (60, 1)
    with pytest.raises(UserError, match=r"pbe.*forces: b3lyp, wb97x_dz, xtb"):
        Ani1xSource(path, "pbe")
    single = write_ani1x(tmp_path / "b.h5", labels=("pbe0_mbd",))
    assert Ani1xSource(single).report["method"] == "pbe0_mbd"
    with h5py.File(single, "r+") as file:
        for name in FORMULAS:
            del file[f"{name}/pbe0_mbd.forces"]
    with pytest.raises(UserError, match="it has no forces; energies only: pbe0_mbd"):
        Ani1xSource(single)


def test_label_sets_with_energies_only(tmp_path):
    path = write_ani1x(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        for k, name in enumerate(FORMULAS):
            cbs = np.full(20, -2.0)
            cbs[5:] = np.nan
            file[f"{name}/ccsd(t)_cbs.energy"] = cbs
            file[f"{name}/hf_tz.energy"] = np.full(20, -1.0 - k)
            file[f"{name}/mp2_tz.corr_energy"] = np.full(20, -0.25)
            # Without the Hartree-Fock energy of its basis it is of no use.
            file[f"{name}/mp2_qz.corr_energy"] = np.full(20, -0.25)
    source = Ani1xSource(path, "ccsd(t)_cbs")
    assert (len(source), source.report["nan_rows"]) == (20, 60)
    record = source[7]
    assert (record.energy_mask, record.forces_mask) == (True, False)
    assert record.energy == pytest.approx(-2 * HARTREE_EV)
    assert record.forces.shape == record.positions.shape
    assert not record.forces.any()
    total = Ani1xSource(path, "mp2_tz")
    assert total[45].energy == pytest.approx(-3.25 * HARTREE_EV)
    with pytest.raises(UserError, match=r"mp2_qz.*only: ccsd\(t\)_cbs, hf_tz, mp2_tz$"):
        Ani1xSource(path, "mp2_qz")


def test_extras_of_the_embedded_set(tmp_path):
    path = write_ani1x(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        for name in FORMULAS:
            file[name].attrs["held_out"] = name == "H2O1"
            file[f"{name}/frame_kind"] = np.arange(20, dtype=np.uint8) % 3
    source = Ani1xSource(path)
    assert source.kind_names[2] == "stretched"
    assert source.kind is not None
    assert source.held_out is not None
    assert source.kind[:4].tolist() == [0, 1, 2, 0]
    held = {source.record_id(int(i))[:4] for i in np.flatnonzero(source.held_out)}
    assert held == {"H2O1"}


def test_other_layouts_are_explained(tmp_path):
    with h5py.File(tmp_path / "ani1.h5", "w") as file:
        file["gdb/s01/coordinates"] = np.zeros((2, 3, 3))
        file["gdb/s01/energies"] = np.zeros(2)
    with pytest.raises(UserError, match=r"no forces.*'gdb/s01'.*METHOD.energy"):
        Ani1xSource(tmp_path / "ani1.h5")
    with h5py.File(tmp_path / "none.h5", "w") as file:
        file["x"] = np.zeros(2)
    with pytest.raises(UserError, match="no group with coordinates"):
        Ani1xSource(tmp_path / "none.h5")
    path = write_ani1x(tmp_path / "shape.h5")
    with h5py.File(path, "r+") as file:
        del file["C1H4/wb97x_dz.forces"]
        file["C1H4/wb97x_dz.forces"] = np.zeros((20, 4, 3))
    with pytest.raises(UserError, match=r"forces of group 'C1H4' has shape"):
        Ani1xSource(path)


def test_missing_files_say_what_to_download(tmp_path):
    with pytest.raises(UserError, match=r"5.6 GB.*figshare.*--config.data.path"):
        Ani1xSource(tmp_path / "ani1x-release.h5")
    with pytest.raises(UserError, match="data.path is empty"):
        Ani1xSource("")
    with pytest.raises(UserError, match="is a folder"):
        Ani1xSource(tmp_path)


def test_truncated_and_corrupt_files(tmp_path):
    path = write_ani1x(tmp_path / "a.h5")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"a\.h5 .*not a whole HDF5 file"):
        Ani1xSource(path)
    path.write_bytes(b"PK" * 100)
    with pytest.raises(UserError, match="not a whole HDF5 file"):
        Ani1xSource(path)
    # Damage inside one compressed chunk is found in the group it belongs to.
    path = write_ani1x(tmp_path / "b.h5", chunked=True)
    with h5py.File(path) as file:
        dataset = file["C2H6O1/coordinates"]
        assert isinstance(dataset, h5py.Dataset)
        chunk = dataset.id.get_chunk_info(0)
    raw = bytearray(path.read_bytes())
    raw[chunk.byte_offset : chunk.byte_offset + chunk.size] = b"\xff" * chunk.size
    path.write_bytes(bytes(raw))
    with pytest.raises(UserError, match=r"b\.h5: group 'C2H6O1' cannot be read"):
        Ani1xSource(path)


def test_the_index_is_made_once(tmp_path, monkeypatch):
    path = write_ani1x(tmp_path / "a.h5")
    Ani1xSource(path)
    calls = []
    original = ani1x._index
    monkeypatch.setattr(ani1x, "_index", lambda *a: (calls.append(1), original(*a)))
    assert len(Ani1xSource(path)) == 80
    assert not calls
    write_ani1x(path, frames=10)
    assert len(Ani1xSource(path)) == 40
    assert len(calls) == 1


def test_the_embedded_set():
    source = Ani1xSource(ani1x.embedded_path())
    assert source.report["method"] == "gfn2_xtb"
    assert source.report["nan_rows"] == 0
    assert len(source) >= 10_000
    assert len(source.group_names) >= 200
    assert source.held_out is not None
    assert source.kind is not None
    held = len(np.unique(source.group[source.held_out]))
    assert held >= 0.1 * len(source.group_names)
    assert set(source.element_symbols) == {"H", "C", "N", "O"}
