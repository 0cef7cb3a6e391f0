import sys

import numpy as np
import pytest

from chemscale_jax.chem.xtb import Surface, energy_and_forces

NUMBERS = np.array([8, 1, 1], np.uint8)
POSITIONS = np.array([[0.0, 0.0, 0.0], [0.98, 0.05, 0.0], [-0.24, 0.91, 0.1]])


def test_forces_are_minus_the_gradient_of_the_energy():
    _, forces = energy_and_forces(NUMBERS, POSITIONS)
    step = 1e-3
    for atom in range(3):
        for axis in range(3):
            moved = np.zeros((3, 3))
            moved[atom, axis] = step
            ahead, _ = energy_and_forces(NUMBERS, POSITIONS + moved)
            behind, _ = energy_and_forces(NUMBERS, POSITIONS - moved)
            # Second-order differences of a smooth function: error about 1e-4.
            slope = (ahead - behind) / (2 * step)
            assert forces[atom, axis] == pytest.approx(-slope, abs=1e-3)


def test_energy_of_water_is_in_electronvolts():
    # GFN2-xTB water at its minimum is -5.0705 hartree; this geometry lies 0.02 above.
    energy, _ = energy_and_forces(NUMBERS, POSITIONS)
    assert energy / 27.211386 == pytest.approx(-5.06, abs=0.02)


def test_restarted_surface_agrees_with_single_points():
    surface = Surface(NUMBERS)
    for scale in (1.0, 1.05, 0.95):
        energy, forces = surface(POSITIONS * scale)
        fresh_energy, fresh_forces = energy_and_forces(NUMBERS, POSITIONS * scale)
        assert energy == pytest.approx(fresh_energy, abs=1e-4)
        np.testing.assert_allclose(forces, fresh_forces, atol=1e-3)


def test_missing_tblite_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tblite.interface", None)
    with pytest.raises(ImportError, match=r"pip install 'chemscale_jax\[generate\]'"):
        energy_and_forces(NUMBERS, POSITIONS)
