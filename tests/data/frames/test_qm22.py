"""QM-22: gradients become forces, and the unit of the energies is told or asked for."""

import zipfile

import pytest

from chemscale_jax.core.errors import UserError
from chemscale_jax.data.frames.frames import UnitNames
from chemscale_jax.data.frames.qm22 import open_qm22
from tests.data.reader_files import (
    FRAMES,
    WATER,
    assert_frames,
    frames,
    write_qm22,
    xyz_text,
)

X, E, F = frames()


def test_total_and_relative_energies(tmp_path):
    path = write_qm22(tmp_path)["path"]
    source = open_qm22(path)
    assert_frames(source)
    assert source.group_names == ("water",)
    assert source.report["units"]["energy"] == "hartree"
    relative = open_qm22(write_qm22(tmp_path, relative=True)["path"])
    assert relative.report["units"]["energy"] == "cm^-1"
    assert relative[5].energy == pytest.approx(E[5] - E.min(), abs=1e-9)


def test_the_plain_file_with_energies_only(tmp_path):
    path = tmp_path / "water.xyz"
    path.write_text(
        "".join(
            xyz_text(WATER, x, f"{e / 27.211386245988:.10f}")
            for x, e in zip(X, E, strict=True)
        )
    )
    assert_frames(open_qm22(path), with_forces=False)
    path.write_text("".join(xyz_text(WATER, x, f"{i}.0") for i, x in enumerate(X)))
    with pytest.raises(
        UserError, match=r"0 to 23 are not total.*config.data.energy_unit"
    ):
        open_qm22(path)
    source = open_qm22(path, unit_names=UnitNames(energy="meV"))
    assert source[3].energy == pytest.approx(0.003)


def test_bad_frames_and_archives(tmp_path):
    write_qm22(tmp_path)
    with zipfile.ZipFile(tmp_path / "water.zip") as archive:
        lines = archive.read("water.xyz").decode().splitlines()
    lines[1] = "no energy"
    lines[7] = "O 0.0 0.0"
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr("water.xyz", "\n".join(lines) + "\n")
    source = open_qm22(tmp_path / "bad.zip")
    assert source.report["skipped_examples"] == {
        "no energy in the second line": ["water, line 1"],
        "too few columns for an atom": ["water, line 6"],
    }
    assert len(source) == FRAMES - 2
    with zipfile.ZipFile(tmp_path / "none.zip", "w") as archive:
        archive.writestr("README", "")
    with pytest.raises(UserError, match=r"none\.zip has no \.xyz file in it"):
        open_qm22(tmp_path / "none.zip")
