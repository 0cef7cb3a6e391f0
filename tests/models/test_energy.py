import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chemscale_jax.core.errors import UserError
from chemscale_jax.models.energy import energy_forces_stress
from tests.models.molecules import CUTOFF_ANG, WATER, as_dtype, model_of, pack_of
from tests.parity_cases.fixture import make_pack

CELL = np.array([[3.6, 0.2, 0.0], [0.1, 3.9, -0.3], [0.4, 0.0, 3.7]])


def crystal(positions, cell):
    """A pack of water in a cell, with every image within the cut-off."""
    receivers, senders, shifts = [], [], []
    for shift in itertools.product(range(-2, 3), repeat=3):
        moved = positions + np.array(shift) @ cell
        distance = np.linalg.norm(moved[None] - positions[:, None], axis=-1)
        for i, j in zip(*np.nonzero(distance <= CUTOFF_ANG + 0.3), strict=True):
            if i != j or any(shift):
                receivers.append(i)
                senders.append(j)
                shifts.append(shift)
    receivers, senders = np.array(receivers), np.array(senders)
    order = np.lexsort((senders, receivers))
    pack = make_pack(
        WATER[0], positions, np.zeros(3, int), receivers, senders, "float64", (1, 0)
    )
    return pack._replace(
        senders_E=jnp.asarray(senders[order], jnp.int32),
        shifts_E3=jnp.asarray(np.array(shifts)[order], jnp.int32),
        cell_M33=jnp.asarray(np.stack([cell, np.zeros((3, 3))])),
    )


def test_stress_is_the_strain_derivative_over_the_volume():
    model, params, constants = model_of("painn")
    with jax.enable_x64(True):
        args = as_dtype(params), as_dtype(constants)

        @jax.jit
        def run(pack):
            return energy_forces_stress(model, *args, pack)

        pack = crystal(WATER[1], CELL)
        energy, forces, stress = run(pack)
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
        np.testing.assert_allclose(forces.sum(0), 0, atol=1e-12)
        assert not np.asarray(stress[1]).any()
        # Moving an atom by a cell vector, and its edges with it, changes nothing.
        shifted = crystal(WATER[1] + np.array([[0, 0, 0], [0, 0, 0], CELL[1]]), CELL)
        assert abs(run(shifted)[0][0] - energy[0]) < 1e-11


def test_stress_needs_a_cell():
    model, params, constants = model_of("painn")
    with pytest.raises(UserError, match="found one without cells"):
        energy_forces_stress(model, params, constants, pack_of(WATER, dtype="float32"))
