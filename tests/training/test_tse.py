import jax.numpy as jnp
import numpy as np

from chemscale_jax.training import tse


def run(epochs, skipped=()):
    state = tse.init()
    step = 0
    for losses in epochs:
        for index, loss in enumerate(losses):
            counts = jnp.asarray(step not in skipped)
            ends = jnp.asarray(index + 1 == len(losses))
            state = tse.update(state, jnp.float32(loss), counts, ends)
            step += 1
    return state


def test_three_forms_on_a_hand_worked_log():
    # Epoch means 3, 1.5 and 1, over epochs of unequal length.
    state = run([[4.0, 2.0], [2.0, 1.0, 1.5], [1.0]])
    assert float(state.tse) == 5.5
    assert float(state.last) == 1.0
    np.testing.assert_allclose(state.ema, 3 * 0.999**2 + 1.5 * 0.999 + 1, rtol=1e-6)
    assert int(state.epoch_steps) == 0


def test_a_running_epoch_does_not_count_yet():
    state = run([[4.0, 2.0]])
    state = tse.update(state, jnp.float32(9.0), jnp.asarray(True), jnp.asarray(False))
    assert float(state.tse) == 3.0
    assert float(state.epoch_sum) == 9.0


def test_a_skipped_step_leaves_no_trace():
    state = run([[4.0, np.nan, 2.0]], skipped={1})
    assert float(state.tse) == 3.0


def test_proportional_curves_rank_alike():
    curve = [[4.0, 2.0], [1.0, 0.5]]
    low, high = run(curve), run([[2 * x for x in epoch] for epoch in curve])
    assert float(high.tse) == 2 * float(low.tse)
