import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chemscale_jax.core.errors import UserError
from chemscale_jax.training.optimizer import make_optimizer, make_schedule
from tests import toy


def config(**fields):
    settings = toy.common.optimizer()
    settings.update(fields)
    return settings


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0]),
        ("cosine", [0.5, 1.0, 0.55, 0.1, 0.1]),
        ("linear", [0.5, 1.0, 0.55, 0.1, 0.1]),
        ("wsd", [0.5, 1.0, 1.0, 0.1, 0.1]),
    ],
)
def test_schedules_at_their_landmarks(schedule, expected):
    # Two steps of warm-up, then ten of schedule, of which two are cooldown.
    fields = {"lr": 1.0, "warmup_steps": 2, "final_fraction": 0.1}
    rate = make_schedule(config(schedule=schedule, **fields), 12)
    found = [np.asarray(rate(step)) for step in (0, 2, 7, 12, 50)]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_warm_up_may_rise_once_an_epoch():
    fields = {"lr": 1.0, "warmup_steps": 4, "warmup_unit": "epoch"}
    rate = make_schedule(config(**fields), 100, steps_per_epoch=10)
    found = [np.asarray(rate(step)) for step in (0, 9, 10, 39, 40, 99)]
    np.testing.assert_allclose(found, [0, 0, 0.25, 0.75, 1, 1], atol=1e-6)
    with pytest.raises(UserError, match="train them apart"):
        make_schedule(config(**fields), 100)


def test_warm_up_may_be_a_share_of_the_schedule():
    fields = {"lr": 1.0, "warmup_steps": 20, "warmup_unit": "percent"}
    rate = make_schedule(config(**fields), 50)
    found = [np.asarray(rate(step)) for step in (0, 4, 9, 10)]
    np.testing.assert_allclose(found, [0.1, 0.5, 1, 1], atol=1e-6)


def test_unknown_names_are_refused():
    with pytest.raises(UserError, match="warmup_unit is 'week', expected"):
        make_schedule(config(warmup_unit="week"), 10)
    with pytest.raises(UserError, match="'cosin', expected one of"):
        make_schedule(config(schedule="cosin"), 10)
    with pytest.raises(UserError, match="'sgd', expected one of"):
        make_optimizer(config(name="sgd"), 10, ())
    with pytest.raises(UserError, match="set config.optimizer.name=adamw"):
        make_optimizer(config(weight_decay=0.1), 10, ())


def test_frozen_paths_do_not_move_and_do_not_count_in_the_norm():
    optimizer = make_optimizer(config(name="adamw", weight_decay=0.1), 10, ("^head/",))
    params = {"body": jnp.ones(2), "head": {"kernel": jnp.ones(2)}}
    grads = jax.tree.map(lambda x: 3 * x, params)
    direction, _, norm = optimizer.direction(grads, optimizer.init(params), params)
    np.testing.assert_allclose(norm, 3 * np.sqrt(2), rtol=1e-6)
    assert np.all(direction["head"]["kernel"] == 0)
    assert np.all(direction["body"] < 0)


def test_clipping_bounds_the_gradient_not_its_direction():
    # Adam's first moment shows the clipped gradient.
    optimizer = make_optimizer(config(clip_norm=1.0), 10, ())
    params = {"w": jnp.asarray([3.0, 4.0])}
    _, state, norm = optimizer.direction(params, optimizer.init(params), params)
    np.testing.assert_allclose(norm, 5.0, rtol=1e-6)
    np.testing.assert_allclose(
        state[0].mu["w"], 0.1 * np.asarray([0.6, 0.8]), rtol=1e-5
    )


def test_weight_decay_leaves_out_the_paths_that_are_named():
    params = {"dense": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}}
    fields = {"name": "adamw", "weight_decay": 0.1, "undecayed": ("/bias$",)}
    optimizer = make_optimizer(config(**fields), 10, ())
    state = optimizer.init(params)
    still = jax.tree.map(jnp.zeros_like, params)
    direction, _, _ = jax.jit(optimizer.direction)(still, state, params)
    np.testing.assert_allclose(direction["dense"]["kernel"], -0.1, rtol=1e-6)
    assert np.all(direction["dense"]["bias"] == 0)
