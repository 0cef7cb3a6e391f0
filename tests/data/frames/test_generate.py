import importlib.resources
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections import Counter

import h5py
import numpy as np
import pytest

from chemscale_jax.chem.geometries import GeometryError
from chemscale_jax.chem.molecule_list import (
    Molecule,
    is_held_out,
    load_molecules,
    smiles_hash,
)
from chemscale_jax.chem.units import BOHR_ANG, HARTREE_EV
from chemscale_jax.chem.xtb import ScfError, energy_and_forces
from chemscale_jax.commands import generate as command
from chemscale_jax.core.errors import UserError
from chemscale_jax.data.frames import generate as module
from chemscale_jax.data.frames.data_card import data_card
from chemscale_jax.data.frames.generate import (
    Settings,
    generate,
    sample_frames,
    slug_of,
)
from chemscale_jax.data.frames.generated_file import Cost

EMBEDDED = importlib.resources.files("chemscale_jax.data") / "embedded"
EMBEDDED_H5 = pathlib.Path(str(EMBEDDED / "gfn2_small.h5"))
MOLECULES = [Molecule("water", "O"), Molecule("toluene", "Cc1ccccc1")]
SETTINGS = Settings(seed=0, frames_per_molecule=4, versions={})


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> pathlib.Path:
    out = tmp_path_factory.mktemp("two") / "two.h5"
    summary = generate(out, MOLECULES, frames_per_molecule=4, workers=2)
    assert not summary.drops
    assert {n: cost.labels for n, cost in summary.costs.items()} == {3: 4, 15: 4}
    assert [path.name for path in out.parent.iterdir()] == ["two.h5"]
    return out


def test_layout(made):
    with h5py.File(made) as file:
        assert list(file) == ["toluene", "water"]
        group = file["toluene"]
        assert isinstance(group, h5py.Group)
        found = {key: (array.shape, array.dtype) for key, array in group.items()}
        assert found == {
            "atomic_numbers": ((15,), np.uint8),
            "coordinates": ((4, 15, 3), np.float32),
            "gfn2_xtb.energy": ((4,), np.float64),
            "gfn2_xtb.forces": ((4, 15, 3), np.float32),
            "frame_kind": ((4,), np.uint8),
        }
        assert group.attrs["smiles"] == "Cc1ccccc1"
        assert group.attrs["held_out"] == is_held_out("Cc1ccccc1")
        assert file.attrs["schema_version"] == 1
        # The label is that of the float32 positions, far closer than they resolve.
        energy, _ = energy_and_forces(
            np.asarray(group["atomic_numbers"]), np.asarray(group["coordinates"])[0]
        )
        stored = np.asarray(group["gfn2_xtb.energy"])[0] * HARTREE_EV
        assert energy == pytest.approx(stored, abs=1e-9, rel=0)


def test_one_worker_makes_the_same_bytes(made, tmp_path):
    out = tmp_path / "one.h5"
    generate(out, MOLECULES, frames_per_molecule=4, workers=1)
    assert out.read_bytes() == made.read_bytes()


def test_killed_run_goes_on_to_the_same_bytes(made, tmp_path):
    out = tmp_path / "killed.h5"
    listed = tmp_path / "list.csv"
    rows = "".join(f"{m.name},{m.smiles}\n" for m in MOLECULES)
    listed.write_text("name,smiles\n" + rows)
    arguments = [f"--out={out}", f"--molecules={listed}", "--frames-per-molecule=4"]
    code = (
        "import sys; from chemscale_jax.commands.generate import main; "
        "sys.exit(main(sys.argv[1:]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments, "--workers=1"],
        start_new_session=True,
        stderr=subprocess.DEVNULL,
    )
    name = f"water.{smiles_hash('O'):016x}.0.npz"
    first = tmp_path / "killed.h5.parts" / name
    deadline = time.monotonic() + 60
    while not first.exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert first.exists()
    assert not out.exists()
    written = first.stat().st_mtime_ns
    stamps = []
    keep = module.join_parts

    def spy(*args):
        stamps.append(first.stat().st_mtime_ns)
        return keep(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "join_parts", spy)
        assert command.main([*arguments, f"--card={tmp_path / 'CARD.md'}"]) == 0
    assert stamps == [written]  # the finished molecule was not made again
    assert out.read_bytes() == made.read_bytes()
    assert (tmp_path / "CARD.md").read_text() == data_card(out)


def test_small_parts_make_the_same_bytes(made, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "FRAMES_PER_PART", 3)

    def in_this_process(jobs, workers):
        assert [(job.start, job.stop) for job in jobs] == [(0, 3), (3, 4)] * 2
        # Last part first: no part may need what another did.
        return [module._make_part(job) for job in reversed(jobs)]

    monkeypatch.setattr(module, "_run", in_this_process)
    out = tmp_path / "small.h5"
    generate(out, MOLECULES, frames_per_molecule=4)
    assert out.read_bytes() == made.read_bytes()


def test_labels_are_those_of_tblite_called_directly(made):
    interface = pytest.importorskip("tblite.interface")
    with h5py.File(made) as file:
        for name in ("water", "toluene"):
            datasets = file[name]
            assert isinstance(datasets, h5py.Group)
            numbers = np.asarray(datasets["atomic_numbers"])
            energies = np.asarray(datasets[module.ENERGY_KEY])
            forces = np.asarray(datasets[module.FORCES_KEY])
            # In an order that is not the file's.
            for index in (2, 0, 3, 1):
                frame = np.asarray(datasets["coordinates"])[index].astype(np.float64)
                calculator = interface.Calculator("GFN2-xTB", numbers, frame / BOHR_ANG)
                calculator.set("verbosity", 0)
                calculator.set("accuracy", 0.1)
                result = calculator.singlepoint()
                # Only the last digit may differ: the label went through eV.
                assert result.get("energy") == pytest.approx(energies[index], rel=1e-15)
                direct = -result.get("gradient") / BOHR_ANG
                np.testing.assert_allclose(forces[index], direct, rtol=1e-6, atol=1e-9)


def test_command_line_sizes(tmp_path, capsys, monkeypatch):
    asked = {}

    def made_up(out, molecules, **options):
        asked.update(options, names=[molecule.name for molecule in molecules])
        pathlib.Path(out).write_bytes(b"")
        return module.Summary(Counter(), {3: Cost(8, 0.008, 0.016)})

    monkeypatch.setattr(command, "generate", made_up)
    listed = tmp_path / "list.csv"
    listed.write_text("name,smiles\nwater,O\ntoluene,Cc1ccccc1\nmethane,C\n")
    arguments = [f"--out={tmp_path / 'x.h5'}", f"--molecules={listed}"]
    chosen = ["--max-atoms=5", "--frames=7", "--thermal-share=0.05"]
    assert command.main([*arguments, *chosen]) == 0
    assert asked["names"] == ["water", "methane"]
    assert asked["frames_per_molecule"] == 4
    assert asked["thermal_share"] == 0.05
    table = capsys.readouterr().out
    assert "    3        8      1.00      2.00                500" in table
    with pytest.raises(UserError, match="no molecule has at most 2 atoms"):
        command.main([*arguments, "--max-atoms=2"])


def test_thermal_share_is_kept_where_it_is_not_the_usual(tmp_path, monkeypatch):
    monkeypatch.setattr(
        module, "_run", lambda jobs, workers: map(module._make_part, jobs)
    )
    out = tmp_path / "x.h5"
    generate(out, MOLECULES[:1], frames_per_molecule=30, thermal_share=0.0)
    with h5py.File(out) as file:
        assert file.attrs["thermal_share"] == 0.0
        assert 1 not in np.asarray(file["water/frame_kind"])


def test_parts_of_other_settings_are_refused(tmp_path):
    out = tmp_path / "out.h5"
    module._open_parts(out, SETTINGS)
    with pytest.raises(UserError, match="made with other settings"):
        generate(out, MOLECULES, frames_per_molecule=5)


def test_drops_are_counted_by_reason(monkeypatch):
    def failing(*args):
        raise ScfError

    def impossible(*args):
        raise GeometryError

    arrays, drops, _ = sample_frames(MOLECULES[0], SETTINGS, range(4))
    assert len(arrays["coordinates"]) == 4
    assert not drops
    for name, value, reason in (
        ("MAX_FORCE_EV_PER_ANG", 1e-6, "absurd forces"),
        ("MIN_DISTANCE_ANG", 5.0, "fused atoms"),
        ("energy_and_forces", failing, "failed SCF"),
        ("_prepared", impossible, "no equilibrium geometry"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, value)
            arrays, drops, _ = sample_frames(MOLECULES[0], SETTINGS, range(4))
        assert drops == {reason: 4}
        assert not len(arrays.get("coordinates", ()))


@pytest.mark.parametrize(
    ("molecules", "options", "message"),
    [
        (MOLECULES, {"frames_per_molecule": 0}, "frames per molecule is 0"),
        (MOLECULES, {"workers": 0}, "workers is 0"),
        (MOLECULES, {"seed": -1}, "seed is -1"),
        (MOLECULES, {"thermal_share": 0.96}, "thermal share is 0.96"),
        (MOLECULES, {"thermal_share": -0.1}, "thermal share is -0.1"),
        ([MOLECULES[0], MOLECULES[0]], {}, "share the group 'water'"),
        ([Molecule("a b", "O"), Molecule("A-b", "C")], {}, "share the group 'a-b'"),
    ],
)
def test_bad_requests(tmp_path, molecules, options, message):
    with pytest.raises(UserError, match=message):
        generate(tmp_path / "out.h5", molecules, **options)


def test_unwritable_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="choose another --out"):
        generate(tmp_path / "file" / "out.h5", MOLECULES)


def test_output_that_is_a_folder(tmp_path):
    with pytest.raises(UserError, match="is a folder"):
        generate(tmp_path, MOLECULES)


def test_missing_list_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        command.main([f"--out={tmp_path / 'o.h5'}", "--molecules=none.csv"])


def test_slug():
    assert slug_of("2,2'-Bipyridine (planar)") == "2-2-bipyridine-planar"


def test_embedded_file_keeps_its_promises():
    assert EMBEDDED_H5.stat().st_size <= 8e6
    n_frames, kinds = 0, np.zeros(3, int)
    listed = {slug_of(m.name): m for m in load_molecules()}
    with h5py.File(EMBEDDED_H5) as file:
        assert set(file) == set(listed)
        for slug, group in file.items():
            assert group.attrs["name"] == listed[slug].name
            assert group.attrs["smiles"] == listed[slug].smiles
            assert group.attrs["held_out"] == is_held_out(listed[slug].smiles)
            energies = group["gfn2_xtb.energy"][()]
            forces = group["gfn2_xtb.forces"][()] * HARTREE_EV
            assert np.isfinite(energies).all()
            assert np.abs(forces).max() <= 30.0
            # A molecule in vacuum pulls on nothing.
            assert np.abs(forces.sum(axis=1)).max() < 1e-3
            n_frames += len(energies)
            kinds += np.bincount(group["frame_kind"][()], minlength=3)
    assert n_frames >= 16000
    assert 0.03 < kinds[2] / n_frames < 0.07


def test_embedded_card_is_that_of_the_file():
    card = (EMBEDDED / "CARD.md").read_text(encoding="utf-8")
    assert card == data_card(EMBEDDED_H5)


def test_relabelled_frames_agree():
    rng = np.random.default_rng(0)
    with h5py.File(EMBEDDED_H5) as file:
        for slug in rng.choice(sorted(file), 100, replace=False):
            group = file[slug]
            assert isinstance(group, h5py.Group)
            frames = group["coordinates"]
            assert isinstance(frames, h5py.Dataset)
            index = int(rng.integers(len(frames)))
            energy, forces = energy_and_forces(
                np.asarray(group["atomic_numbers"]), frames[index]
            )
            stored = np.asarray(group["gfn2_xtb.energy"])[index] * HARTREE_EV
            stored_forces = np.asarray(group["gfn2_xtb.forces"])[index] * HARTREE_EV
            assert energy == pytest.approx(stored, abs=1e-4), slug
            # float32 storage and the convergence of the SCF.
            np.testing.assert_allclose(forces, stored_forces, atol=1e-3)
