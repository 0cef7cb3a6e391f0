import ase
import ase.build
import ase.io
import numpy as np
import pytest
from ase import units
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.calculators.morse import MorsePotential

from chemscale_jax.core.errors import UserError
from chemscale_jax.inference import dynamics, motion
from chemscale_jax.inference.calculator import ForceFieldCalculator
from chemscale_jax.inference.vibrations import harmonic, vibrations
from tests.inference.force_fields import force_field


class Springs(Calculator):
    """Springs between all atoms, whose rest lengths are those of the start."""

    implemented_properties = ["energy", "forces"]

    def __init__(self, atoms, stiffness=20.0, explode_after=None):
        super().__init__()
        self.rest, self.stiffness = atoms.get_all_distances(), stiffness
        self.left = explode_after

    def calculate(self, atoms, properties, system_changes):
        super().calculate(atoms, properties, system_changes)
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise UserError("the force field gives energy nan")
        apart = atoms.positions[:, None] - atoms.positions[None]
        length = np.linalg.norm(apart, axis=-1) + np.eye(len(atoms))
        stretch = length - np.eye(len(atoms)) - self.rest
        self.results = {
            "energy": self.stiffness / 4 * (stretch**2).sum(),
            "forces": -self.stiffness * ((stretch / length)[..., None] * apart).sum(1),
        }


@pytest.fixture
def water():
    return ase.build.molecule("H2O")


def test_drift_is_the_slope_of_energy():
    time_fs = np.arange(0, 2001.0)
    wobble = 1e-3 * np.cos(2 * np.pi * time_fs / 20)
    drift = motion.energy_drift(time_fs, -500 + 4e-6 * time_fs + wobble, 4)
    # 4e-3 eV per ps over 4 atoms, for 2 ps; the wobble averages out.
    assert drift.mev_per_atom_per_ps == pytest.approx(1.0, abs=2e-3)
    assert drift.mev_per_atom == pytest.approx(2.0, abs=4e-3)
    assert drift.fluctuation_mev_per_atom == pytest.approx(0.25 / 2**0.5, rel=0.01)
    assert motion.energy_drift(time_fs[:1], time_fs[:1], 4).mev_per_atom == 0


@pytest.mark.parametrize(("name", "freedom"), [("H2O", 3), ("CO2", 4), ("CH4", 9)])
def test_velocities_have_a_temperature_and_no_overall_motion(name, freedom):
    atoms = ase.build.molecule(name)
    motion.draw_velocities(atoms, 250.0, seed=3)
    assert motion.internal_freedom(atoms) == freedom
    kinetic = atoms.get_kinetic_energy()
    assert kinetic == pytest.approx(0.5 * freedom * units.kB * 250)
    assert np.abs(atoms.get_momenta().sum(0)).max() < 1e-12
    assert np.abs(atoms.get_angular_momentum()).max() < 1e-12
    again = ase.build.molecule(name)
    motion.draw_velocities(again, 250.0, seed=3)
    np.testing.assert_array_equal(again.get_momenta(), atoms.get_momenta())


def test_nve_keeps_energy_and_writes_frames(water, tmp_path):
    springs = Springs(water)
    found = dynamics.run_nve(
        water,
        springs,
        steps=400,
        timestep_fs=0.25,
        equilibration_steps=50,
        interval=100,
        trajectory=tmp_path / "t.extxyz",
    )
    assert (found.state, found.steps, found.broken_bonds) == ("finished", 400, ())
    assert found.samples.time_fs[-1] == 100.0
    assert np.ptp(found.samples.kinetic_ev) > 1e-2
    assert abs(found.drift.mev_per_atom) < 0.05
    assert 20 < found.mean_temperature_k < 900
    frames = list(ase.io.iread(tmp_path / "t.extxyz"))
    assert [frame.info["step"] for frame in frames] == [0, 100, 200, 300, 400]
    last = frames[-1]
    np.testing.assert_allclose(last.positions, found.atoms.positions, atol=1e-7)
    np.testing.assert_allclose(last.get_momenta(), found.atoms.get_momenta(), atol=1e-7)
    energy = last.get_potential_energy() + last.get_kinetic_energy()
    assert energy == pytest.approx(found.samples.total_ev[-1], abs=1e-5)
    assert "momenta" not in water.arrays  # the start is left alone


def test_nvt_reaches_its_temperature(water):
    found = dynamics.run_nvt(
        water, Springs(water), steps=3000, temperature_k=400.0, friction_per_ps=50.0
    )
    # 9 coordinates, some hundred independent samples: a spread of 20 K.
    assert found.mean_temperature_k == pytest.approx(400, abs=100)
    assert isinstance(found, dynamics.NvtResult)


def test_runs_that_end_early_give_what_they_have(water, tmp_path):
    asked = iter([False] * 6 + [True])
    path = tmp_path / "t.extxyz"
    found = dynamics.run_nve(
        water,
        Springs(water),
        steps=100,
        interval=4,
        trajectory=path,
        should_stop=lambda: next(asked),
    )
    assert (found.state, found.steps) == ("interrupted", 7)
    assert len(found.samples.time_fs) == 8
    assert [f.info["step"] for f in ase.io.iread(path)] == [0, 4, 7]

    found = dynamics.run_nve(water, Springs(water, explode_after=10), steps=100)
    assert (found.state, found.reason) == ("failed", "the force field gives energy nan")
    assert 8 <= found.steps <= 10
    with pytest.raises(UserError, match="nan"):
        dynamics.run_nve(water, Springs(water, explode_after=0), steps=100)

    found = dynamics.run_nve(
        water, Springs(water), steps=200, timestep_fs=30.0, temperature_k=1e4
    )
    assert found.state == "failed"
    assert "flies apart" in found.reason
    with pytest.raises(UserError, match="time step positive"):
        dynamics.run_nve(water, Springs(water), steps=5, timestep_fs=0.0)


def test_broken_bonds_are_named_once():
    atoms = ase.build.molecule("CH4")
    bonds = motion.Bonds(atoms)
    assert len(bonds.first) == 4
    atoms.positions[2] *= 1.4
    bonds.look(atoms, 10.0)
    assert not bonds.broken
    atoms.positions[2] *= 1.6
    bonds.look(atoms, 20.0)
    bonds.look(atoms, 30.0)
    assert bonds.broken == {"C0-H2": 20.0}


def test_relaxation_finds_the_minimum(tmp_path):
    atoms = ase.Atoms("N2", [[0, 0, 0], [0, 0, 1.3]])
    morse = MorsePotential(epsilon=2.0, r0=1.1, rho0=3.0)
    found = dynamics.relax(atoms, morse, trajectory=tmp_path / "r.extxyz")
    assert found.converged
    assert found.atoms.get_distance(0, 1) == pytest.approx(1.1, abs=2e-3)
    assert found.energy_change_ev < -0.1
    assert len(list(ase.io.iread(tmp_path / "r.extxyz"))) == found.steps + 1
    short = dynamics.relax(atoms, morse, max_steps=1, optimizer="fire")
    assert (short.converged, short.steps) == (False, 1)
    with pytest.raises(UserError, match="optimizer"):
        dynamics.relax(atoms, morse, optimizer="newton")


def test_relaxation_moves_the_cell_if_asked_to():
    copper = ase.build.bulk("Cu", a=3.8)
    found = dynamics.relax(copper, EMT(), cell=True)
    assert found.converged
    assert found.atoms.get_volume() < 0.97 * copper.get_volume()


def test_a_diatomic_vibrates_as_two_masses_on_a_spring():
    atoms = ase.Atoms("CO", [[0, 0, 0], [0.3, 0.4, 1.0]])
    axis = atoms.positions[1] / np.linalg.norm(atoms.positions[1])
    block = 100.0 * np.outer(axis, axis)
    found = harmonic(atoms, np.block([[block, -block], [-block, block]]))
    reduced = np.prod(atoms.get_masses()) / atoms.get_masses().sum()
    # sqrt(k / mu) in cm^-1 for k in eV/angstrom^2 and mu in dalton.
    assert found.wavenumber_cm1 == pytest.approx([521.4709 * np.sqrt(100 / reduced)])
    assert found.zero_point_ev == pytest.approx(found.wavenumber_cm1[0] / 2 / 8065.544)


def test_frequencies_by_jax_are_those_by_differences(water):
    water.rattle(0.02, seed=0)
    calculator = ForceFieldCalculator(force_field(), dtype="float64")
    jax_made = vibrations(water, calculator)
    differences = vibrations(water, calculator, method="differences", step_ang=3e-4)
    assert jax_made.modes_N3.shape == (3, 3, 3)
    assert np.abs(jax_made.wavenumber_cm1).max() > 50
    np.testing.assert_allclose(
        differences.wavenumber_cm1, jax_made.wavenumber_cm1, atol=0.5
    )
    with pytest.raises(UserError, match="needs a ForceFieldCalculator"):
        vibrations(water, Springs(water))
    with pytest.raises(UserError, match="periodic"):
        vibrations(ase.Atoms("H", pbc=True), calculator)
