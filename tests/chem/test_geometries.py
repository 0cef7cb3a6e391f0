import numpy as np
import pytest

from chemscale_jax.chem import geometries
from chemscale_jax.chem.geometries import FrameKind, draw_frame, prepare
from chemscale_jax.chem.xtb import energy_and_forces

WAVENUMBER_PER_OMEGA = 1e15 / (2 * np.pi * 2.99792458e10)  # cm^-1 per 1/fs


@pytest.fixture(scope="module")
def methanol():
    return prepare("CO", seed=0)


def test_water_has_its_three_vibrations():
    prepared = prepare("O", seed=0)
    (minimum,) = prepared.minima
    wavenumbers = np.sort(minimum.omega_per_fs) * WAVENUMBER_PER_OMEGA
    # GFN2-xTB harmonic frequencies of water, to 3 %.
    np.testing.assert_allclose(wavenumbers, [1540, 3640, 3640], rtol=0.03)


def test_linear_molecule_has_one_vibration_more():
    (minimum,) = prepare("O=C=O", seed=0).minima
    assert minimum.modes.shape == (4, 3, 3)


def test_modes_are_the_curvature_of_the_surface(methanol):
    minimum = methanol.minima[0]
    numbers = methanol.numbers
    energy_0, _ = energy_and_forces(numbers, minimum.positions_ang)
    # The three stiffest modes but the O-H and C-H stretches are nearly harmonic.
    for omega, mode in list(zip(minimum.omega_per_fs, minimum.modes, strict=True))[2:8]:
        amplitude = np.sqrt(2 * 0.02) / omega  # an energy of 0.02 eV
        move = amplitude * mode / methanol.root_masses[:, None]
        sides = [
            energy_and_forces(numbers, minimum.positions_ang + sign * move)[0]
            for sign in (1, -1)
        ]
        assert np.mean(sides) - energy_0 == pytest.approx(0.02, rel=0.1)


def test_modes_move_neither_centre_of_mass_nor_turn(methanol):
    minimum = methanol.minima[0]
    momenta = methanol.root_masses[:, None] * minimum.modes
    np.testing.assert_allclose(momenta.sum(axis=1), 0, atol=1e-8)
    turns = np.cross(minimum.positions_ang, momenta).sum(axis=1)
    np.testing.assert_allclose(turns, 0, atol=1e-7)


def test_normal_mode_energy_grows_with_temperature(methanol, monkeypatch):
    energy_0 = methanol.minima[0].energy_ev
    means = []
    for kelvin in (50.0, 400.0):
        monkeypatch.setattr(geometries, "NORMAL_MODE_KELVIN", (kelvin, kelvin))
        monkeypatch.setattr(geometries, "STRETCHED_SHARE", 0.0)
        monkeypatch.setattr(geometries, "THERMAL_SHARE", 0.0)
        frames = [draw_frame(methanol, 0, index)[0] for index in range(60)]
        energies = [energy_and_forces(methanol.numbers, frame)[0] for frame in frames]
        means.append(np.mean(energies) - energy_0)
    # On average 3/2 N kT times a half: N = 6 atoms. Floppy modes are capped, so less
    # is possible; anharmonicity gives or takes some.
    expected = 1.5 * 6 * 8.617e-5 * np.array([50.0, 400.0]) / 2
    np.testing.assert_allclose(means, expected, rtol=0.3)


def test_any_frame_can_be_made_alone(methanol):
    indices = range(40)
    forward = {index: draw_frame(methanol, 0, index) for index in indices}
    again = prepare("CO", seed=0)
    for index in reversed(indices):
        positions, kind = draw_frame(again, 0, index)
        np.testing.assert_array_equal(positions, forward[index][0])
        assert kind == forward[index][1]
    assert {kind for _, kind in forward.values()} == set(FrameKind)
    different = draw_frame(methanol, 1, 0)[0]
    assert np.abs(different - forward[0][0]).max() > 1e-3


def test_stretched_frames_have_a_longer_bond(methanol, monkeypatch):
    monkeypatch.setattr(geometries, "STRETCHED_SHARE", 1.0)
    monkeypatch.setattr(geometries, "STRETCHED_KELVIN", (0.0, 0.0))
    ends = np.array([bond[:2] for bond in methanol.open_bonds])

    def lengths(positions):
        return np.linalg.norm(positions[ends[:, 0]] - positions[ends[:, 1]], axis=1)

    for index in range(20):
        minimum = methanol.minima[index % len(methanol.minima)]
        positions, kind = draw_frame(methanol, 0, index)
        growth = np.sort(lengths(positions) - lengths(minimum.positions_ang))
        assert kind == FrameKind.STRETCHED
        assert 0.1 <= growth[-1] <= 1.0
        # The fragments move as they are: no other bond changes.
        np.testing.assert_allclose(growth[:-1], 0, atol=1e-9)


def test_ring_bonds_are_not_stretched():
    prepared = prepare("C1CO1", seed=0)
    assert len(prepared.open_bonds) == 4  # the C-H bonds


def test_molecule_that_falls_apart_is_an_error(monkeypatch):
    monkeypatch.setattr(geometries, "_same_bonds", lambda mol, positions: False)
    with pytest.raises(geometries.GeometryError, match="none of 1 embedded conformers"):
        prepare("O", seed=0)
