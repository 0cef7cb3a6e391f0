import dataclasses
import sys
from typing import Any

import ase
import ase.build
import jax
import numpy as np
import pytest
from ase.calculators.calculator import PropertyNotImplementedError

from chemscale_jax.core.errors import UserError
from chemscale_jax.inference import ensemble, neighbor_list
from chemscale_jax.inference.calculator import ForceFieldCalculator
from chemscale_jax.inference.training_range import TrainingRangeWarning, remarks
from tests.inference.force_fields import (
    ARTIFACTS,
    REFERENCE,
    force_field,
    write_workdir,
)
from tests.models.molecules import CUTOFF_ANG

# Sums of a few hundred float32 numbers of up to ten.
CLOSE = 1e-4


@pytest.fixture(scope="module")
def shared():
    """Used one after another, so that most tests share its program."""
    return ForceFieldCalculator(force_field())


@pytest.fixture(scope="module")
def solid():
    """The same for cells."""
    calculator = ForceFieldCalculator(force_field())
    calculator.get_stress(crystal((2, 1, 1)))  # the largest, so that there is room
    return calculator


def with_program_of(other, source, **options) -> Any:
    """A calculator with weights and list of its own, but nothing to compile."""
    calculator = ForceFieldCalculator(source, **options)
    calculator._programs = other._programs
    calculator._listed, calculator._placed = other._listed, other._placed
    return calculator


@pytest.fixture
def ethanol():
    atoms = ase.build.molecule("CH3CH2OH")
    atoms.rattle(0.05, seed=1)
    return atoms


def crystal(repeat: Any = 1):
    """A cell that is narrower than the cutoff."""
    atoms = ase.Atoms(
        "CO",
        scaled_positions=[[0.1, 0.1, 0.1], [0.5, 0.45, 0.55]],
        pbc=True,
        cell=[[2.6, 0, 0], [0.3, 2.8, 0], [0.1, -0.2, 3.1]],
    )
    return atoms.repeat(repeat)


def test_energies_add_up_with_their_references(shared, ethanol):
    ethanol.calc = shared
    energy, energies = ethanol.get_potential_energy(), ethanol.get_potential_energies()
    assert abs(energies.sum() - energy) < CLOSE
    reference = np.array([REFERENCE[z] for z in ethanol.numbers])
    # What is left is the network's, which does not know the references.
    assert 1e-3 < np.abs(energies - reference).max() < 100
    assert ethanol.get_potential_energy(force_consistent=True) == energy


def test_forces_are_the_slope_of_the_energy(ethanol):
    ethanol.calc = ForceFieldCalculator(force_field(), dtype="float64")
    forces = ethanol.get_forces()
    assert np.abs(forces).max() > 1e-2
    direction = np.random.default_rng(0).normal(size=forces.shape)
    ends = []
    for step in (1e-5, -1e-5):
        moved = ethanol.copy()
        moved.positions += step * direction
        moved.calc = ethanol.calc
        ends.append(moved.get_potential_energy())
    slope = (ends[0] - ends[1]) / 2e-5
    assert abs(slope + (forces * direction).sum()) < 1e-6
    assert jax.numpy.zeros(()).dtype == np.float32


def test_one_compilation_for_a_walk_and_the_list_stays_complete(ethanol):
    calculator = ForceFieldCalculator(force_field(), skin_ang=0.4)
    rng = np.random.default_rng(0)
    ethanol.calc = calculator
    for step in range(30):
        ethanol.positions += rng.normal(0, 0.03, (9, 3))
        energy = ethanol.get_potential_energy()
        if step % 10 == 9:
            fresh = with_program_of(calculator, force_field(), skin_ang=0.0)
            assert abs(fresh.get_potential_energy(ethanol) - energy) < CLOSE
    assert calculator.compilations == 1
    assert 2 <= calculator.list_builds < 25


def test_a_list_is_made_again_when_it_must(shared, ethanol):
    ethanol.calc = shared
    ethanol.get_potential_energy()
    builds = shared.list_builds
    ethanol.positions[0] += [0.2, 0, 0]  # less than half the skin of 0.5
    ethanol.get_potential_energy()
    assert shared.list_builds == builds
    ethanol.positions[0] += [0.1, 0, 0]
    ethanol.get_potential_energy()
    assert shared.list_builds == builds + 1
    ethanol.numbers[8] = 8
    ethanol.get_potential_energy()
    assert shared.list_builds == builds + 2


def test_room_grows_in_steps():
    chain = [
        ase.Atoms("H" * n, [[0.9 * i, 0, 0] for i in range(n)]) for n in range(2, 40)
    ]
    reach = neighbor_list.Reach(CUTOFF_ANG)
    room, rooms = neighbor_list.Capacity(), []
    for atoms in chain:
        system = neighbor_list.System(atoms.numbers, atoms.positions)
        listed = neighbor_list.make_list(system, reach, room)
        room = listed.capacity
        assert listed.pack.species_N[-1] == 0
        assert (np.diff(listed.pack.receivers_E) >= 0).all()
        assert len(listed.edges[0]) <= room.edges
        rooms.append(room)
    assert len(set(rooms)) < 18 < len(chain)
    assert rooms[0] == (3, 2, 0)  # no more than two atoms can need


def test_a_larger_molecule_after_a_smaller_one(shared):
    calculator: Any = ForceFieldCalculator(force_field())
    molecules = [ase.build.molecule(name) for name in ("H2O", "C2H6", "H2O")]
    together = [calculator.get_potential_energy(atoms) for atoms in molecules]
    known = [shared.get_potential_energy(atoms) for atoms in molecules]
    np.testing.assert_allclose(together, known, atol=CLOSE)
    assert calculator.compilations == 2


def test_a_periodic_cell_repeats(solid):
    small, large = crystal(), crystal((2, 1, 1))
    small.calc = large.calc = solid
    energy, stress = small.get_potential_energy(), small.get_stress()
    forces = small.get_forces()
    assert abs(large.get_potential_energy() - 2 * energy) < 4 * CLOSE
    np.testing.assert_allclose(large.get_stress(), stress, atol=CLOSE)
    np.testing.assert_allclose(large.get_forces()[:2], forces, atol=CLOSE)
    # Whole cells away is the same place.
    small.positions[1] += 2 * small.cell[0] - small.cell[2]
    assert abs(small.get_potential_energy() - energy) < CLOSE


def test_stress_is_the_slope_under_strain():
    calculator = ForceFieldCalculator(force_field(), dtype="float64")
    atoms = crystal()
    atoms.calc = calculator
    stress = atoms.get_stress(voigt=False)
    strain = np.array([[0.3, 0.2, 0], [0.2, -0.1, 0.4], [0, 0.4, 0.2]])
    energies = []
    for step in (1e-5, -1e-5):
        moved = atoms.copy()
        moved.set_cell(atoms.cell @ (np.eye(3) + step * strain), scale_atoms=True)
        energies.append(calculator.get_potential_energy(moved))
    slope = (energies[0] - energies[1]) / 2e-5
    assert abs(slope - atoms.get_volume() * (stress * strain).sum()) < 1e-6
    assert abs(slope) > 1e-3


def test_a_slab_has_no_images_above_it(solid):
    atoms = crystal((1, 1, 1))
    atoms.pbc = (True, True, False)
    atoms.calc = solid
    energy = atoms.get_potential_energy()
    assert abs(energy - solid.get_potential_energy(crystal())) > 1e-2
    for third in ([0, 0, 30.0], [0, 0, 0]):
        atoms.cell[2] = third
        assert abs(atoms.get_potential_energy() - energy) < CLOSE
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_stress()


def test_an_ensemble_gives_mean_and_spread(shared, ethanol):
    members = [force_field(seed) for seed in range(3)]
    ethanol.calc = ForceFieldCalculator(members)
    shared.get_potential_energy(ethanol)
    alone = [with_program_of(shared, member) for member in members]
    energies = [c.get_potential_energy(ethanol) for c in alone]
    forces = np.stack([c.get_forces(ethanol) for c in alone])
    assert abs(ethanol.get_potential_energy() - np.mean(energies)) < CLOSE
    np.testing.assert_allclose(ethanol.get_forces(), forces.mean(0), atol=CLOSE)
    found = ethanol.calc.results
    assert abs(found["energy_std"] - np.std(energies, ddof=1)) < CLOSE
    np.testing.assert_allclose(found["forces_std"], forces.std(0, ddof=1), atol=CLOSE)
    assert found["energy_std"] > 1e-3
    assert ethanol.calc.compilations == 1
    assert "energy_std" not in alone[0].results


def test_workdirs_and_lanes_are_opened(tmp_path, ethanol):
    folders = [write_workdir(tmp_path / "lanes" / str(k), k) for k in (0, 1)]
    lanes = ensemble.open_members(tmp_path)
    both = ensemble.open_members([folders[0], str(folders[1].path)])
    assert len(lanes) == len(both) == 2
    for lane, one in zip(lanes, both, strict=True):
        jax.tree.map(np.testing.assert_array_equal, lane.params, one.params)
    calculator = ForceFieldCalculator(tmp_path)
    energy = calculator.get_potential_energy(ethanol)
    again = with_program_of(calculator, folders).get_potential_energy(ethanol)
    assert energy == again
    with pytest.raises(UserError, match="at least one workdir"):
        ForceFieldCalculator([])
    with pytest.raises(UserError, match="does not exist"):
        ForceFieldCalculator(tmp_path / "no-such-run")


def test_elements_never_seen_are_refused(shared, ethanol):
    ethanol.numbers[3] = 9
    ethanol.calc = shared
    with pytest.raises(UserError, match=r"has F, .* knows H, C, O"):
        ethanol.get_potential_energy()


def test_what_cannot_be_calculated_is_refused(shared):
    with pytest.raises(UserError, match="no atoms"):
        shared.get_potential_energy(ase.Atoms())
    with pytest.raises(UserError, match="not finite"):
        shared.get_potential_energy(ase.Atoms("H", [[np.nan, 0, 0]]))
    with pytest.raises(UserError, match="no vector along an axis"):
        shared.get_potential_energy(ase.Atoms("H", pbc=True))
    with pytest.raises(UserError, match="dtype"):
        ForceFieldCalculator(force_field(), dtype="float16")


def test_a_model_of_far_pairs_takes_no_cell():
    local = force_field()
    model = dataclasses.replace(local.model, pair_cutoff_ang=float("inf"))
    far = local._replace(model=model)
    calculator = ForceFieldCalculator(far)
    assert "stress" not in calculator.implemented_properties
    with pytest.raises(UserError, match="takes no periodic cell"):
        calculator.get_potential_energy(crystal())
    water = ase.build.molecule("H2O")
    system = calculator._system(water)
    listed = neighbor_list.make_list(system, calculator.reach)
    assert listed.pack.pair_receivers_P is not None
    assert sorted(listed.pack.pair_receivers_P.tolist()) == [0, 0, 1, 1, 2, 2]


def test_charge_and_spin_reach_the_model(shared, ethanol):
    ethanol.calc = shared
    ethanol.get_potential_energy()
    ethanol.info.update(charge=-1, spin=2)
    assert "initial_charges" in shared.check_state(ethanol)
    ethanol.get_potential_energy()
    assert shared._listed.pack.charge_M.tolist() == [-1, 0]
    assert shared._listed.pack.spin_M.tolist() == [2, 0]
    assert not shared.check_state(ethanol)


def test_each_kind_of_strange_geometry_is_told_once(shared, ethanol):
    known = {
        "closest_ang": 0.9,
        "largest_force_ev_per_ang": 1e-6,
        "charges": [0],
        "spins": [0],
    }
    odd = force_field()._replace(artifacts={**ARTIFACTS, "training_range": known})
    shared.get_potential_energy(ethanol)
    ethanol.calc = with_program_of(shared, odd, charge=1)
    with pytest.warns(TrainingRangeWarning) as told:
        ethanol.get_potential_energy()
    text = "\n".join(str(warning.message) for warning in told)
    assert "largest_force_ev_per_ang" in text
    assert "charge 1 was never trained on" in text
    assert len(told) == 2
    ethanol.positions[3:] *= 0.5
    with pytest.warns(TrainingRangeWarning, match="closest_ang") as told:
        ethanol.get_potential_energy()
    assert len(told) == 1
    ethanol.positions[3] += 50
    with pytest.warns(TrainingRangeWarning, match=r"atoms \[3\] have no neighbour"):
        ethanol.get_potential_energy()
    ethanol.positions[3] += 50  # nothing new: a warning would be an error


def test_members_that_disagree_are_told(ethanol):
    results = {"forces": np.zeros((9, 3)), "forces_std": np.full((9, 3), 200.0)}
    system = neighbor_list.System(ethanol.numbers, ethanol.positions)
    listed = neighbor_list.make_list(system, neighbor_list.Reach(CUTOFF_ANG))
    args = (ARTIFACTS, listed, system)
    (told,) = remarks(*args, results, CUTOFF_ANG, set())
    assert told[0] == "statistics.energy_scale"
    calm = {**results, "forces_std": np.full((9, 3), 50.0)}
    assert not list(remarks(*args, calm, CUTOFF_ANG, set()))


def test_one_atom_is_its_reference_and_what_the_network_adds(shared):
    energy = shared.get_potential_energy(ase.Atoms("O"))
    assert abs(energy - REFERENCE[8]) < 50


def test_without_ase_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ase", None)
    monkeypatch.delitem(sys.modules, "chemscale_jax.inference.calculator")
    with pytest.raises(UserError, match=r"pip install 'chemscale_jax\[ase\]'"):
        __import__("chemscale_jax.inference.calculator")
