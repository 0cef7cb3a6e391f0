import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chemscale_jax.core.errors import UserError
from chemscale_jax.models import ENERGY_MODELS
from chemscale_jax.models.energy import energy_forces_stress
from tests.models.molecules import CUTOFF_ANG, WATER, as_dtype, model_of, pack_of
from tests.parity_cases.fixture import make_pack

CELL = np.array([[3.6, 0.2, 0.0], [0.1, 3.9, -0.3], [0.4, 0.0, 3.7]])


# All but SpookyNet, whose attention joins every atom of a molecule with every other.
LOCAL = sorted(set(ENERGY_MODELS) - {"spookynet"})
ATOMS, EDGES = 8, 64  # room for two cells, so that one compilation serves all


def crystal(species, positions, cell):
    """A pack of one cell, with every image within the cut-off and a skin."""
    edges = []
    for shift in itertools.product(range(-2, 3), repeat=3):
        moved = positions + np.array(shift) @ cell
        distance = np.linalg.norm(moved[None] - positions[:, None], axis=-1)
        for i, j in zip(*np.nonzero(distance <= CUTOFF_ANG + 0.3), strict=True):
            if i != j or any(shift):
                edges.append((i, j, *shift))
    edges = np.array(sorted(edges))
    receivers, senders, shifts = edges[:, 0], edges[:, 1], edges[:, 2:]
    padding = (ATOMS - len(species), EDGES - len(edges))
    molecule = np.zeros(len(species), int)
    pack = make_pack(
        species, positions, molecule, receivers, senders, "float64", padding
    )
    shifts = np.concatenate([shifts, np.zeros((padding[1], 3), int)])
    return pack._replace(
        shifts_E3=jnp.asarray(shifts, jnp.int32),
        cell_M33=jnp.asarray(np.stack([cell, np.zeros((3, 3))])),
    )


@pytest.mark.parametrize("name", LOCAL)
def test_crystals(name):
    model, params, constants = model_of(name)
    species, positions = WATER
    with jax.enable_x64(True):
        args = as_dtype(params), as_dtype(constants)

        @jax.jit
        def run(pack):
            return energy_forces_stress(model, *args, pack)

        pack = crystal(species, positions, CELL)
        energy, forces, stress = run(pack)
        np.testing.assert_allclose(forces.sum(0), 0, atol=1e-12)

        # Stress is the derivative of the energy by the strain, over the volume.
        volume = abs(np.linalg.det(CELL))
        for i, j in ((0, 0), (1, 2)):
            ends = []
            for step in (1e-5, -1e-5):
                assert pack.cell_M33 is not None
                stretch = np.eye(3)
                stretch[i, j] += step / 2
                stretch[j, i] += step / 2
                moved = pack._replace(
                    positions_N3=pack.positions_N3 @ stretch,
                    cell_M33=pack.cell_M33 @ stretch,
                )
                ends.append(float(run(moved)[0][0]))
            slope = (ends[0] - ends[1]) / 2e-5 / volume
            assert abs(slope - stress[0, i, j]) < 1e-8
            assert abs(slope) > 1e-5
        np.testing.assert_allclose(stress[0], stress[0].T, atol=1e-12)
        assert not np.asarray(stress[1]).any()

        # Forces are the derivative by the place of an atom and all its images.
        for atom, axis in ((0, 2), (1, 0)):
            ends = []
            for step in (1e-5, -1e-5):
                moved = pack.positions_N3.at[atom, axis].add(step)
                ends.append(float(run(pack._replace(positions_N3=moved))[0][0]))
            slope = (ends[0] - ends[1]) / 2e-5
            assert abs(slope + forces[atom, axis]) < 1e-7
            assert abs(slope) > 1e-4

        # Two cells side by side are the same crystal.
        double = crystal(
            np.concatenate([species, species]),
            np.concatenate([positions, positions + CELL[0]]),
            CELL * np.array([[2], [1], [1]]),
        )
        energy_2, forces_2, stress_2 = run(double)
        assert abs(energy_2[0] - 2 * energy[0]) < 1e-11
        for copy in (forces_2[:3], forces_2[3:6]):
            np.testing.assert_allclose(copy, forces[:3], atol=1e-11)
        np.testing.assert_allclose(stress_2[0], stress[0], atol=1e-11)

        # Moving an atom by a cell vector, and its edges with it, changes nothing.
        shift = np.array([[0, 0, 0], [0, 0, 0], CELL[1]])
        shifted = crystal(species, positions + shift, CELL)
        assert abs(run(shifted)[0][0] - energy[0]) < 1e-11


def test_stress_needs_a_cell():
    model, params, constants = model_of("painn")
    with pytest.raises(UserError, match="found one without cells"):
        energy_forces_stress(model, params, constants, pack_of(WATER, dtype="float32"))
