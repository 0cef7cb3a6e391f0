from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chemscale_jax.core.errors import UserError
from chemscale_jax.core.task import Task
from chemscale_jax.data.frames.splits import split_records
from chemscale_jax.data.packs.stream import GraphStream
from chemscale_jax.inference.calibrate import calibrate_energy
from chemscale_jax.inference.force_field import ForceField
from chemscale_jax.models.energy import EnergyModel
from tests.data.ani_files import array_source

PLANTED = {"H": -3.25, "C": 11.5, "N": 4.75, "O": -7.125}  # eV
NUMBERS = {"H": 1, "C": 6, "N": 7, "O": 8}


def biased_task() -> Task:
    """Predicts the label itself, less a constant for each atom's element."""
    table = (
        jnp.zeros(10)
        .at[jnp.array(list(NUMBERS.values()))]
        .set(jnp.array(list(PLANTED.values())))
    )

    def predict_row(pack):
        bias_M = jax.ops.segment_sum(
            table[pack.species_N], pack.molecule_N, len(pack.energy_M)
        )
        return {"energy_M": pack.energy_M - bias_M, "forces_N3": pack.forces_N3}

    return Task(
        name="biased",
        init=lambda key: {"params": {}, "constants": {}},
        loss_fn=lambda *_: {},
        eval_fn=lambda *_: {},
        predict_fn=lambda params, constants, batch: jax.vmap(predict_row)(batch),
        loss_weights={},
        units={},
        headline=(),
        counter="frames",
        batch_specs=(),
        param_axes=(),
    )


@pytest.fixture(scope="module")
def stream():
    source = array_source(120)
    split = split_records(source, 0, valid_size=20, heldout="none")
    return GraphStream(source, split, cutoff_ang=2.0, molecules=3, rows=2)


@pytest.mark.parametrize("frames", [20, 10_000])
def test_a_planted_constant_of_each_element_is_recovered(stream, frames):
    variables = {"params": {}, "constants": {}}
    found = calibrate_energy(biased_task(), variables, stream, frames)
    assert set(found) == set(PLANTED)
    for symbol, planted in PLANTED.items():
        assert found[symbol] == pytest.approx(planted, rel=1e-6)


def test_total_energies_have_references_and_calibration():
    force_field = ForceField(
        model=cast(EnergyModel, None),
        params={},
        constants={},
        config=None,
        artifacts={
            "reference_energies_ev": {"H": -10.0, "O": -2000.0},
            "calibration_ev": {"H": 0.5, "O": -1.0},
        },
    )
    water = np.array([8, 1, 1, 0])
    assert force_field.reference_energy_ev(water) == -2001.0 - 19.0
    without = force_field._replace(
        artifacts={"reference_energies_ev": {"H": -10.0, "O": -2000.0}}
    )
    assert without.reference_energy_ev(water) == -2020.0
    with pytest.raises(UserError, match="no reference energy of C"):
        force_field.reference_energy_ev(np.array([6, 1]))
