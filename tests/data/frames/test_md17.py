"""npz files of sGDML: units in the file, padded species, shapes."""

import numpy as np
import pytest

from chemscale_jax.chem.units import KCAL_PER_MOL_EV
from chemscale_jax.core.errors import UserError
from chemscale_jax.data.frames.frames import UnitNames
from chemscale_jax.data.frames.md17 import open_md17
from chemscale_jax.data.frames.source import TEST, TRAIN
from tests.data.reader_files import FRAMES, WATER, assert_frames, frames, write_md17


def test_units_of_the_file_and_of_the_user(tmp_path):
    write_md17(tmp_path, E=frames()[1], F=frames()[2], e_unit=np.array(b"eV"))
    source = open_md17(tmp_path / "water.npz")
    assert_frames(source)
    assert source.report["units"]["force"] == "eV/angstrom"
    write_md17(tmp_path, R=frames()[0] / 10, r_unit=np.array("nm"))
    named = UnitNames(force="kcal/mol/Ang")
    assert_frames(open_md17(tmp_path / "water.npz", unit_names=named))
    # Forces are in the units of energy and length.
    per_nm = 10 * frames()[2] / KCAL_PER_MOL_EV
    write_md17(tmp_path, R=frames()[0] / 10, F=per_nm, r_unit=np.array("nm"))
    assert_frames(open_md17(tmp_path / "water.npz"))
    write_md17(tmp_path, e_unit=np.array("calories"))
    with pytest.raises(UserError, match="unknown energy unit 'calories'"):
        open_md17(tmp_path / "water.npz")


def test_energies_or_forces_may_be_missing(tmp_path):
    write_md17(tmp_path, F=None)
    assert_frames(open_md17(tmp_path / "water.npz"), with_forces=False)
    write_md17(tmp_path, E=None)
    source = open_md17(tmp_path / "water.npz")
    assert (source[0].energy_mask, source[0].forces_mask) == (False, True)
    assert source.report["without_energy"] == FRAMES


def test_padding_is_cut_off(tmp_path):
    """Frames of two molecules, as in padded samples of QM7-X."""
    x, e, f = frames(n=3)
    z = np.array([[8, 1, 1, 0, 0], [1, 8, 1, 0, 0], [6, 1, 1, 1, 1]])
    pad = np.zeros((3, 2, 3))
    far = np.concatenate([x, pad + np.array([[9.0, 9, 9], [9, 9, 1]])], 1)
    np.savez(tmp_path / "a.npz", z=z, R=far, E=e, F=np.concatenate([f, pad], 1))
    source = open_md17(tmp_path / "a.npz", energy_and_length=("eV", "angstrom"))
    assert source.n_atoms.tolist() == [3, 3, 5]
    assert [source[i].id for i in range(3)] == ["H2O/0", "H2O/1", "CH4/2"]
    np.testing.assert_allclose(source[1].forces, f[1], atol=1e-6)
    assert source[1].species.tolist() == [1, 8, 1]
    assert source[2].energy == pytest.approx(e[2])


def test_a_test_file(tmp_path):
    write_md17(tmp_path, "a.npz")
    write_md17(tmp_path, "b.npz")
    source = open_md17(tmp_path / "a.npz", tmp_path / "b.npz")
    assert source.given_split is not None
    assert source.given_split.tolist() == [TRAIN] * FRAMES + [TEST] * FRAMES
    assert_frames(source, first=FRAMES)
    assert open_md17(tmp_path / "a.npz").given_split is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"F": np.zeros((FRAMES, 4, 3))},
            r"array F has shape \(24, 4, 3\).*need \(24, 3",
        ),
        ({"E": np.zeros(FRAMES + 1)}, r"array E has shape \(25,\)"),
        ({"z": np.array([8, 1])}, r"array z has shape \(2,\)"),
        ({"R": np.zeros((FRAMES, 9))}, "array R has shape"),
        ({"R": None}, r"holds the arrays E, F, z, but z, R, and E or F are needed"),
        ({"E": None, "F": None}, "and E or F are needed"),
        ({"E": np.array(["a"] * FRAMES)}, "array E holds <U1, not numbers"),
        ({"E": np.array([None] * FRAMES)}, "cannot be read as an .npz file"),
        ({"z": np.array([8, 1, 0])}, r"none of the 24 frames.*unknown element"),
        ({"R": np.zeros((0, 3, 3)), "E": np.zeros(0), "F": None}, "none of the 0"),
    ],
)
def test_other_files(tmp_path, change, message):
    write_md17(tmp_path, **change)
    with pytest.raises(UserError, match=message):
        open_md17(tmp_path / "water.npz")


def test_a_single_array(tmp_path):
    np.save(tmp_path / "a.npy", WATER)
    with pytest.raises(UserError, match="single array, not an .npz archive"):
        open_md17(tmp_path / "a.npy")
