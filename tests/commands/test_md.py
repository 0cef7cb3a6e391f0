import csv
import json

import ase.build
import ase.io
import pytest

from chemscale_jax.commands import export, md
from chemscale_jax.core.errors import UserError
from tests.inference.force_fields import write_workdir

ETHANOL = "CCO"


def samples(out):
    return list(csv.reader((out / md.SAMPLES).read_text().splitlines()))


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    path = tmp_path_factory.mktemp("run")
    write_workdir(path)
    return str(path)


def test_dynamics_from_smiles_and_on_from_its_last_frame(workdir, tmp_path, capsys):
    out = tmp_path / "nve"
    common = [f"--workdir={workdir}", f"--out={out}", "--timestep-fs=0.1"]
    short = ["--steps=12", "--interval=5", "--equilibration-steps=3"]
    assert md.main(["nve", ETHANOL, *common, *short]) == 0
    shown = capsys.readouterr()
    assert "drift mev per atom" in shown.out
    assert "step/s" in shown.err
    summary = json.loads((out / md.SUMMARY).read_text())
    assert (summary["state"], summary["steps"], summary["atoms"]) == ("finished", 12, 9)
    assert summary["compilations"] == 1
    rows = samples(out)
    assert rows[0] == ["time_fs", "potential_ev", "kinetic_ev", "temperature_k"]
    assert len(rows) == 14
    frames = ase.io.iread(out / md.TRAJECTORY)
    assert [frame.info["step"] for frame in frames] == [0, 5, 10, 12]

    onward = [f"--workdir={workdir}", f"--out={tmp_path / 'on'}", "--timestep-fs=0.1"]
    last = str(out / md.TRAJECTORY)
    assert md.main(["nve", last, *onward, "--steps=1", "--keep-velocities"]) == 0
    kinetic = samples(tmp_path / "on")[1][2]
    assert float(kinetic) == pytest.approx(float(rows[-1][2]), rel=1e-5)


def test_other_tasks_on_a_file(workdir, tmp_path, capsys):
    path = tmp_path / "water.xyz"
    ase.build.molecule("H2O").write(path)
    common = [str(path), f"--workdir={workdir}", f"--out={tmp_path / 'out'}"]
    for task, wanted in (
        ("nvt", "mean_temperature_k"),
        ("relax", "converged"),
        ("vibrations", "largest_difference_cm1"),
    ):
        assert md.main([task, *common, "--steps=3", "--charge=0"]) == 0
        summary = json.loads((tmp_path / "out" / md.SUMMARY).read_text())
        assert wanted in summary
        assert summary["task"] == task
    assert len(summary["wavenumber_cm1"]) == 3
    assert "zero point ev" in capsys.readouterr().out


def test_the_package_has_a_force_field_or_says_so(monkeypatch, tmp_path):
    from chemscale_jax.inference import ensemble

    monkeypatch.setattr(ensemble, "PACKAGED", tmp_path / "none")
    with pytest.raises(UserError, match="give --workdir"):
        md.main(["relax", ETHANOL])


def test_molecules_that_cannot_be_read(workdir, tmp_path):
    bad = tmp_path / "bad.xyz"
    bad.write_text("three\n\nO 0 0 0\n")
    for text, message in (
        (str(bad), "cannot be read as a molecule"),
        (str(tmp_path / "missing.xyz"), "cannot be read as a molecule"),
        ("C(C", "is not a SMILES string"),
    ):
        with pytest.raises(UserError, match=message):
            md.main(["relax", text, f"--workdir={workdir}"])


def test_charge_and_electrons_come_from_smiles():
    acetate, methyl = md.read_molecule("CC(=O)[O-]", 0), md.read_molecule("[CH3]", 0)
    assert (acetate.info["charge"], acetate.info["spin"]) == (-1, 0)
    assert (methyl.info["charge"], methyl.info["spin"]) == (0, 1)
    assert len(acetate) == 7
    again = md.read_molecule("CC(=O)[O-]", 0)
    assert (again.positions == acetate.positions).all()


def test_export_writes_program_and_description(workdir, tmp_path, capsys):
    out = tmp_path / "exported"
    arguments = [
        f"--workdir={workdir}",
        f"--out={out}",
        "--periodic",
    ]
    assert export.main(arguments) == 0
    assert "force_field.stablehlo" in capsys.readouterr().out
    description = json.loads((out / "force_field.json").read_text())
    assert [entry["name"] for entry in description["inputs"]][-2:] == ["cell", "shifts"]
    assert "stress" in description["outputs"]
