"""ANI-1 and ANI-2x: symbols and numbers, energies only, species by frame."""

import h5py
import numpy as np
import pytest

from chemscale_jax.chem.units import HARTREE_EV
from chemscale_jax.core.errors import UserError
from chemscale_jax.data.frames.ani_layouts import open_ani
from tests.data.reader_files import FRAMES, WATER, assert_frames, frames, write_ani1


def test_species_by_frame(tmp_path):
    """The ANI-2x layout: molecules of equal size share a group."""
    x, e, f = frames()
    species = np.tile(WATER, (FRAMES, 1))
    species[1::2] = [16, 1, 1]
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["003/species"] = species
        file["003/coordinates"] = x.astype(np.float32)
        file["003/energies"] = e / HARTREE_EV
        file["003/forces"] = f / HARTREE_EV
    source = open_ani(tmp_path / "a.h5")
    assert sorted(source.group_names) == ["003/H2O", "003/H2S"]
    for i in range(FRAMES):
        record = source[i]
        row = int(record.id.rpartition("/")[2])
        assert record.species.tolist() == species[row].tolist()
        assert record.energy == pytest.approx(e[row])
        np.testing.assert_allclose(record.forces, f[row], atol=1e-5)


def test_bad_groups(tmp_path):
    path = write_ani1(tmp_path)["path"]
    with h5py.File(path, "r+") as file:
        file["more/odd/species"] = np.array(["Qq", "H"], "S2")
        file["more/odd/coordinates"] = np.ones((2, 2, 3)) * np.arange(2)[:, None]
        file["more/odd/energies"] = np.zeros(2)
    source = open_ani(path)
    assert_frames(source, with_forces=False)
    assert source.report["skipped"] == {"unknown element": 2}
    with h5py.File(path, "r+") as file:
        del file["more/odd/energies"]
        file["more/odd/energies"] = np.zeros(3)
    with pytest.raises(
        UserError, match=r"energies of group 'more/odd' has shape \(3,\)"
    ):
        open_ani(path)
