import jax.numpy as jnp
import numpy as np
import pytest

from chemscale_jax.core import config_files
from chemscale_jax.core.batches import GraphPack
from chemscale_jax.core.errors import UserError
from chemscale_jax.tasks import force_losses

common = config_files.load_module(config_files.installed_folder() / "common.py")


def loss_config(**fields):
    config = common.force_loss()
    config.update(fields)
    return config


@pytest.fixture(scope="module")
def errors():
    """H alone, then CO whose energy is not labelled, then a padding atom."""
    pack = GraphPack(
        positions_N3=jnp.zeros((4, 3)),
        species_N=jnp.asarray([1, 6, 8, 0]),
        molecule_N=jnp.asarray([0, 1, 1, 2]),
        senders_E=jnp.asarray([3]),
        receivers_E=jnp.asarray([3]),
        molecule_mask_M=jnp.asarray([True, True, False]),
        charge_M=jnp.zeros(3),
        spin_M=jnp.zeros(3),
        energy_M=jnp.asarray([1.0, 5.0, 0.0]),
        energy_mask_M=jnp.asarray([True, True, False]),
        forces_N3=jnp.zeros((4, 3)).at[3].set(jnp.nan),
        forces_mask_N=jnp.asarray([True, True, True, False]),
    )
    forces_N3 = jnp.asarray(
        [[3.0, 4.0, 0.0], [0.0, 0.0, 1.0], [2.0, -2.0, 0.0], [9.0, 9.0, 9.0]]
    )
    return force_losses.errors_of(pack, jnp.asarray([3.0, 9.0, 5.0]), forces_N3)


@pytest.mark.parametrize(
    ("fields", "energy", "force"),
    [
        ({"power": "l1", "energy_per": "atom"}, (2 + 4 / 2) / 2, 12 / 9),
        ({"power": "l2", "energy_per": "atom"}, (4 + 4) / 2, 34 / 9),
        # delta (|x| - delta / 2) beyond delta, x^2 / 2 up to it.
        (
            {"power": "huber", "delta_energy": 3.0, "delta_force": 2.0},
            (0.5 * 4 + 3 * (4 - 1.5)) / 2,
            (2 * (3 - 1) + 2 * (4 - 1) + 0.5 * 1 + 2 * 0.5 * 4) / 9,
        ),
        (
            {
                "power": "huber",
                "form": "equation",
                "delta_energy": 9.0,
                "delta_force": 4.0,
            },
            (0.5 * 4 + 0.5 * 16) / 2,
            (4 * (5 - 2) + 0.5 * 9) / 2,  # norms 5 and 3
        ),
        # H counts half, O not at all; the number of components stays.
        (
            {"power": "l1", "element_weights": (("H", 0.5), ("O", 0.0))},
            (2 + 4) / 2,
            (0.5 * 7 + 1) / 9,
        ),
        (
            {"power": "l2", "form": "equation", "element_weights": [["H", 2.0]]},
            (4 + 16) / 2,
            (2 * 25 + 9) / 2,
        ),
    ],
)
def test_terms_on_hand_worked_errors(errors, fields, energy, force):
    terms = force_losses.make_terms(loss_config(**fields))
    assert float(terms.energy(errors).value()) == pytest.approx(energy)
    assert float(terms.force(errors).value()) == pytest.approx(force)
    assert set(terms.units) == {terms.energy_name, terms.force_name}


def test_terms_of_another_meaning_have_another_name():
    names = {
        force_losses.make_terms(loss_config(**fields)).force_name
        for fields in ({}, {"power": "huber"}, {"element_weights": (("H", 2.0),)})
    }
    assert len(names) == 3


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"power": "l3"}, "power is 'l3', expected"),
        ({"energy_per": "bond"}, "energy_per is 'bond', expected"),
        ({"power": "huber", "delta_force": 0.0}, "delta_force=0.0"),
        ({"element_weights": (("Hx", 1.0),)}, "Hx.*give pairs"),
        ({"element_weights": (("H", -1.0),)}, "must be >= 0"),
        ({"alpha_force": 0.0}, "both must be >= 0 and one positive"),
        ({"schedule": "step"}, "schedule='step' needs to know"),
        ({"schedule": "step", "final_alpha_force": 0.0}, "both 0"),
    ],
)
def test_what_makes_no_sense_is_refused(fields, message):
    loss = loss_config(**fields)
    with pytest.raises(UserError, match=message):
        force_losses.make_weights(loss, force_losses.make_terms(loss), {})


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        # Of 200 planned steps, or epochs of 10.
        (
            {"schedule": "linear", "change_at": 0.5, "change_until": 0.75},
            {0: 0.1, 100: 0.1, 125: 0.3, 150: 0.5, 199: 0.5},
        ),
        (
            {"schedule": "step", "change_at": 3.0, "change_unit": "epoch"},
            {0: 0.1, 29: 0.1, 30: 0.5, 199: 0.5},
        ),
    ],
)
def test_weights_change_with_the_step_and_validation_has_the_last(fields, expected):
    loss = loss_config(alpha_energy=0.1, final_alpha_energy=0.5, **fields)
    terms = force_losses.make_terms(loss)
    planned = {"planned": {"steps": 200, "steps_per_epoch": 10}}
    final, weights_at = force_losses.make_weights(loss, terms, planned)
    assert final == {"energy_l1": 0.5, "force_l1_component": 1.0}
    assert weights_at is not None
    found = {s: weights_at(jnp.int32(s))["energy_l1"] for s in expected}
    np.testing.assert_allclose(list(found.values()), list(expected.values()), 1e-6)


def test_energies_that_come_later_are_no_force_only_training():
    assert not force_losses.trains_energy(loss_config(final_alpha_energy=1.0))
    assert force_losses.trains_energy(
        loss_config(schedule="step", final_alpha_energy=1.0)
    )
    assert force_losses.trains_energy(loss_config(alpha_energy=1.0))
