import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chemscale_jax.core import partition
from chemscale_jax.core.errors import UserError
from chemscale_jax.training.optimizer import make_optimizer
from chemscale_jax.training.step import (
    choose_slices,
    init_state,
    loss_and_grads,
    make_init,
    make_train_step,
)
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
    key = jax.random.key(0)

    def of(slices):
        loss, metrics, grads = loss_and_grads(
            task, state.params, {}, batch, key, slices
        )
        return loss, metrics["square"], metrics["frames"].total, grads

    whole = of(1)
    for slices in (2, 4, 8):
        parts = of(slices)
        # Only the order of summation differs.
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-5), whole, parts)


def test_slices_of_a_batch_have_one_key():
    task, _, state = setup()
    batch = toy.ToyEpoch(0, 3)[0]

    def noisy(params, constants, batch, key):
        noise = jax.random.normal(key)
        return task.loss_fn(params, constants, {**batch, "y": batch["y"] + noise}, key)

    random = dataclasses.replace(task, loss_fn=noisy)
    key = jax.random.key(0)
    losses = [
        loss_and_grads(random, state.params, {}, batch, key, slices)[0]
        for slices in (1, 4)
    ]
    np.testing.assert_allclose(losses[1], losses[0], 1e-5)
    assert losses[0] != loss_and_grads(task, state.params, {}, batch, key, 1)[0]


@pytest.mark.parametrize("slices", [1, 2])
def test_devices_of_rows_wait_for_each_other_twice(slices):
    """For what the loss is divided by, and for the sums, whatever the slices."""
    task, _, state = setup()
    batch = toy.ToyEpoch(0, 3)[2]
    mesh = partition.make_mesh(data=4)
    rows, whole = partition.row_sharding(mesh), partition.replicated(mesh)
    key = jax.random.key(0)

    def of(slices):
        def found(params, batch):
            given = task, params, {}, batch, key, slices
            loss, metrics, grads = loss_and_grads(*given)
            return loss, metrics["square"], metrics["frames"].total, grads

        return jax.jit(found, in_shardings=(whole, rows), out_shardings=whole)

    alone = of(1)(state.params, batch)
    with jax.set_mesh(mesh):
        apart = of(slices).lower(state.params, batch).compile()
        sums = (apart.as_text() or "").count(" all-reduce(")
        assert 1 <= sums <= 2
        found = apart(jax.device_put(state.params, whole), jax.device_put(batch, rows))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-5), alone, found)


def test_offloaded_moments_come_to_the_device_for_the_update():
    task, optimizer, _ = setup()
    mesh = partition.make_mesh(data=1)
    rows, whole = partition.row_sharding(mesh), partition.replicated(mesh)

    def placed(offloaded):
        """Shardings of the state, and the step as it is made for a GPU."""
        chosen = optimizer._replace(offloaded=offloaded)
        init, shardings = make_init(task, chosen, {"embed": None}, mesh)
        step = jax.jit(
            make_train_step(task, chosen, seed=3),
            in_shardings=(shardings, rows, whole),
            out_shardings=(shardings, whole),
        )
        given = jax.eval_shape(init, 0), toy.SPECS[0], jax.ShapeDtypeStruct((), bool)
        text = step.trace(*given).lower(lowering_platforms=("cuda",)).as_text()
        return shardings, re.findall(r'_xla_buffer_placement = "(\w+)"', text)

    shardings, moves = placed(offloaded=True)
    kinds = [leaf.memory_kind for leaf in jax.tree.leaves(shardings.opt_state)]
    assert sorted(kinds) == ["device", "pinned_host", "pinned_host"]
    others = jax.tree.leaves(shardings._replace(opt_state=None))
    assert {leaf.memory_kind for leaf in others} == {"device"}
    plain, without = placed(offloaded=False)
    assert {leaf.memory_kind for leaf in jax.tree.leaves(plain)} == {"device"}
    assert moves.count("pinned_host") == 2
    assert without.count("pinned_host") == 0
    assert moves.count("device") >= 2 + without.count("device")


def test_slices_follow_rows_devices_and_platform():
    mesh = partition.make_mesh(data=2)
    large, small = (jnp.zeros(shape) for shape in ((8, 30), (24, 10)))
    specs = ({"x": large}, {"x": small})
    assert [choose_slices(specs, 0, mesh)(spec) for spec in specs] == [4, 4]
    for at_once in (4, 8):
        assert [choose_slices(specs, at_once, mesh)(spec) for spec in specs] == [1, 1]
    # Of the small rows 5 would have room, of which 12 is no multiple.
    assert choose_slices(specs[:1], 2, mesh)({"x": jnp.zeros((24, 12))}) == 3
    with pytest.raises(UserError, match="does not divide the 4 rows"):
        choose_slices(specs, 3, mesh)


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
