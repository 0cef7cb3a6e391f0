"""SPICE: gradients become forces, SMILES give charges, other files are named."""

import h5py
import numpy as np
import pytest

from chemscale_jax.core.errors import UserError
from chemscale_jax.data.frames.spice import open_spice
from tests.data.reader_files import FRAMES, assert_frames, write_spice


def test_values_and_charges(tmp_path):
    path = write_spice(tmp_path)["path"]
    source = open_spice(path)
    # Groups come in the order of their names.
    assert source.group_names == ("odd", "water")
    assert_frames(source, first=FRAMES)
    assert {source[i].charge for i in range(FRAMES)} == {1}
    assert source[FRAMES].charge == 0
    assert source[FRAMES + 3].id == "water/3"
    with h5py.File(path, "r+") as file:
        del file["odd/smiles"]
        energies = file["water/dft_total_energy"]
        assert isinstance(energies, h5py.Dataset)
        energies[2] = np.nan
    source = open_spice(path)
    assert source[0].charge == 0
    assert source.report["groups_without_smiles"] == 1
    assert source.report["nan_rows"] == 1


def test_units_in_the_file(tmp_path):
    path = write_spice(tmp_path)["path"]
    with h5py.File(path, "r+") as file:
        for name in ("odd", "water"):
            file[f"{name}/conformations"].attrs["units"] = "angstrom"
    source = open_spice(path)
    assert source.report["units"]["length"] == "angstrom"
    with h5py.File(path, "r+") as file:
        file["water/conformations"].attrs["units"] = "bohr"
    with pytest.raises(
        UserError, match=r"'water' has the units .*bohr, the ones before"
    ):
        open_spice(path)


def test_energies_only(tmp_path):
    path = write_spice(tmp_path)["path"]
    with h5py.File(path, "r+") as file:
        del file["odd/dft_total_gradient"]
    source = open_spice(path)
    masks = [source[i].forces_mask for i in range(2 * FRAMES)]
    assert masks == [False] * FRAMES + [True] * FRAMES


def test_other_layouts(tmp_path):
    path = write_spice(tmp_path)["path"]
    with h5py.File(path, "r+") as file:
        del file["water/dft_total_gradient"]
        file["water/dft_total_gradient"] = np.zeros((FRAMES, 4, 3))
    with pytest.raises(UserError, match=r"gradient of group 'water' has shape \(24, 4"):
        open_spice(path)
    with h5py.File(path, "w") as file:
        file["a/coordinates"] = np.zeros(3)
    with pytest.raises(
        UserError, match=r"no group with atomic_numbers.*'a' holds coordinates"
    ):
        open_spice(path)
