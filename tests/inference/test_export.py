import functools
import importlib.util
import json
from typing import Any

import ase.build
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chemscale_jax.chem.neighbors import all_pairs, periodic_pairs
from chemscale_jax.core.errors import UserError
from chemscale_jax.inference import export
from chemscale_jax.inference.calculator import ForceFieldCalculator
from tests.inference.force_fields import REFERENCE, force_field
from tests.models.molecules import CUTOFF_ANG, TINY

# Sums of a few hundred float32 numbers of up to ten.
CLOSE = 1e-4


@functools.cache
def calculator_for(periodic, name="painn") -> Any:
    """One for all molecules, and one for cells: each compiles once."""
    return ForceFieldCalculator(force_field(0, name))


def expected(atoms, name="painn"):
    """Energy without references, and forces, of the calculator."""
    calculator = calculator_for(bool(atoms.pbc.any()), name)
    reference = sum(REFERENCE[z] for z in atoms.numbers)
    energy = calculator.get_potential_energy(atoms) - reference
    return energy, calculator.get_forces(atoms)


def padded_pairs(n_atoms, room):
    """Senders and receivers of all pairs in no order, padded with n_atoms."""
    receivers, senders = all_pairs(n_atoms)
    order = np.random.default_rng(0).permutation(room)
    padding = np.full(room - len(senders), n_atoms)
    return [
        np.concatenate([index, padding])[order].astype(np.int32)
        for index in (senders, receivers)
    ]


def test_the_program_gives_what_the_calculator_gives(tmp_path):
    description = export.export_force_field(
        force_field(), tmp_path / "new", platforms=("cpu",)
    )
    saved = json.loads((tmp_path / "new" / export.DESCRIPTION).read_text())
    assert saved == description
    assert saved["reference_energies_ev"] == {
        "H": -13.25,
        "C": -1030.25,
        "O": -2041.125,
    }
    assert saved["cutoff_ang"] == CUTOFF_ANG
    blob = (tmp_path / "new" / export.PROGRAM).read_bytes()
    program = jax.export.deserialize(bytearray(blob))
    for name, room in (("CH3CH2OH", 80), ("H2O", 6)):  # of any size, padded or not
        atoms = ase.build.molecule(name)
        given = {
            "positions": np.float32(atoms.positions),
            "species": np.int32(atoms.numbers),
            "charge": np.float32(0),
            "spin": np.float32(0),
        }
        given["senders"], given["receivers"] = padded_pairs(len(atoms), room)
        found = program.call(*(given[entry["name"]] for entry in saved["inputs"]))
        energy, forces = expected(atoms)
        assert abs(float(found["energy"]) - energy) < CLOSE * len(atoms)
        np.testing.assert_allclose(found["forces"], forces, atol=CLOSE)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(TINY))
def test_every_model_can_be_used_everywhere(name, tmp_path):
    """Calculator with a skin, second derivatives, and a program of any size."""
    model = force_field(0, name)
    atoms = ase.build.molecule("CH3CH2OH")
    energy, forces = expected(atoms, name)
    tight: Any = ForceFieldCalculator(model, skin_ang=0.0)
    np.testing.assert_allclose(tight.get_forces(atoms), forces, atol=CLOSE)
    hessian = tight.hessian(atoms)
    assert np.isfinite(hessian).all()
    assert np.abs(hessian).max() > 1e-3
    description = export.export_force_field(model, tmp_path, platforms=("cpu",))
    program = jax.export.deserialize(
        bytearray((tmp_path / export.PROGRAM).read_bytes())
    )
    given = {
        "positions": np.float32(atoms.positions),
        "species": np.int32(atoms.numbers),
        "charge": np.float32(0),
        "spin": np.float32(0),
    }
    given["senders"], given["receivers"] = padded_pairs(9, 80)
    given["pair_senders"], given["pair_receivers"] = padded_pairs(9, 80)
    found = program.call(*(given[entry["name"]] for entry in description["inputs"]))
    assert abs(float(found["energy"]) - energy) < 10 * CLOSE
    np.testing.assert_allclose(found["forces"], forces, atol=CLOSE)


def test_a_function_in_the_manner_of_jax_md():
    atoms = ase.build.molecule("CH3CH2OH")
    energy_fn = export.make_energy_fn(force_field(), atoms.numbers)
    pairs = padded_pairs(9, 80)
    energy, gradient = jax.jit(jax.value_and_grad(energy_fn))(
        jnp.asarray(atoms.positions, jnp.float32), *pairs
    )
    known, forces = expected(atoms)
    assert abs(energy - known) < 10 * CLOSE
    np.testing.assert_allclose(-gradient, forces, atol=CLOSE)


def test_pairs_of_a_box_are_at_their_nearest_images():
    # Two rows of three, each row a neighbour of its own images.
    places = 2.1 * np.argwhere(np.ones((3, 2, 1)))
    atoms = ase.Atoms("H4C2", places, cell=[6.5, 7.0, 6.2], pbc=True)
    atoms.rattle(0.1, seed=0)
    atoms.positions[0] -= 2 * np.asarray(atoms.cell)[1]
    box = np.diag(atoms.cell)
    energy_fn = export.make_energy_fn(force_field(), atoms.numbers, box)
    receivers, senders, _ = periodic_pairs(atoms.positions, np.diag(box), CUTOFF_ANG)
    assert len(receivers) > 8
    positions = jnp.asarray(atoms.positions, jnp.float32)
    energy = jax.jit(energy_fn)(positions, senders, receivers)
    assert abs(energy - expected(atoms)[0]) < 10 * CLOSE


def test_without_flatbuffers_one_line_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'chemscale_jax\[export\]'"):
        export.export_force_field(force_field(), tmp_path)


def test_what_cannot_be_exported_is_refused():
    with pytest.raises(UserError, match=r"atomic numbers \[9\]"):
        export.make_energy_fn(force_field(), [1, 9])
    with pytest.raises(UserError, match=r"5\.00 angstrom across"):
        export.make_energy_fn(force_field(), [1], box=[9.0, 5.0, 9.0])
    with pytest.raises(UserError, match=r"shape \(2,\)"):
        export.make_energy_fn(force_field(), [1], box=[9.0, 5.0])
