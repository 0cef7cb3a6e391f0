import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from chemscale_jax.core.task import loss_of
from chemscale_jax.training.optimizer import make_optimizer
from chemscale_jax.training.step import accumulate, init_state, make_train_step
from tests import toy


def setup(**fields):
    config = toy.make_config()
    config.optimizer.update(fields)
    task = toy.make_task()
    optimizer = make_optimizer(config.optimizer, 100, ())
    return task, optimizer, init_state(task, optimizer, seed=3)


def test_slices_of_uneven_rows_equal_the_whole_batch():
    task, _, state = setup()
    batch = toy.ToyEpoch(0, 3)[2]
    assert 0 < batch["mask"].sum() < 8

    def loss(params, micro_batches):
        metrics = accumulate(task, params, {}, batch, jax.random.key(0), micro_batches)
        return loss_of(metrics, task.loss_weights)

    whole = jax.value_and_grad(loss)(state.params, 1)
    for micro_batches in (2, 4, 8):
        parts = jax.value_and_grad(loss)(state.params, micro_batches)
        # Only the order of summation differs.
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), whole, parts
        )


def test_a_step_that_is_not_finite_changes_nothing_but_counts():
    task, optimizer, state = setup(ema_decay=0.9)
    step = jax.jit(make_train_step(task, optimizer, seed=3))
    good = toy.ToyEpoch(0, 3)[0]
    bad = toy.ToyEpoch(0, 3, poison=0)[0]
    before, _ = step(state, good, jnp.asarray(False))
    after, output = step(before, bad, jnp.asarray(False))
    assert not output.finite
    assert int(after.skipped) == 1
    assert int(after.step) == 2
    for field in ("params", "opt_state", "ema_params", "lr_scale"):
        old, new = getattr(before, field), getattr(after, field)
        assert jax.tree.all(jax.tree.map(np.array_equal, old, new)), field
    assert float(after.tse.epoch_sum) == float(before.tse.epoch_sum)


def test_the_average_follows_the_weights():
    task, optimizer, state = setup(ema_decay=0.75)
    new, _ = make_train_step(task, optimizer, 3)(
        state, toy.ToyEpoch(0, 3)[0], jnp.asarray(False)
    )
    old_w, new_w = (s.params["line"]["kernel"] for s in (state, new))
    expected = 0.75 * old_w + 0.25 * new_w
    np.testing.assert_allclose(new.ema_params["line"]["kernel"], expected, rtol=1e-6)


def test_noise_is_a_function_of_seed_and_step():
    task, optimizer, state = setup()
    seen = []

    def noisy(params, constants, batch, key):
        metrics = dict(task.eval_fn(params, constants, batch))
        noise = jax.random.uniform(key)
        metrics["square"] = metrics["square"]._replace(total=noise)
        return metrics

    step = make_train_step(dataclasses.replace(task, loss_fn=noisy), optimizer, 3)
    batch = toy.ToyEpoch(0, 3)[0]
    for start in (state, state._replace(step=jnp.int32(1)), state):
        seen.append(float(step(start, batch, jnp.asarray(False))[1].loss))
    assert seen[0] == seen[2] != seen[1]
