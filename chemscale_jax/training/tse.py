"""Training speed estimation: the summed early training losses of Eq. 7.

``TSE = sum_t (1/B) sum_i loss(theta_{t,i})`` over epochs t of B steps each (Eq. 7 of
Frey et al. 2023; Ru et al. 2021). The accumulator lives inside the jitted step, sums
the task's training loss, and is float32. The epoch's end comes with the batch, so
epochs of unequal length are exact.
"""

from typing import NamedTuple

import jax.numpy as jnp

from chemscale_jax.core.types import Array

# Weight of the past in the exponential form, per epoch, as in the published code.
EMA_DECAY = 0.999


class Tse(NamedTuple):
    """Sums over the running epoch, and the three forms over completed epochs."""

    epoch_sum: Array  # sum of the losses of the running epoch
    epoch_steps: Array  # int32, number of them
    tse: Array  # sum over completed epochs of their mean loss (Eq. 7)
    last: Array  # mean loss of the last completed epoch (TSE-E with E = 1)
    ema: Array  # sum over completed epochs t of decay^(T - t) times their mean loss


def init() -> Tse:
    """The accumulator before the first step."""
    zero = jnp.zeros((), jnp.float32)
    return Tse(zero, jnp.zeros((), jnp.int32), zero, zero, zero)


def update(state: Tse, loss: Array, counts: Array, epoch_end: Array) -> Tse:
    """The accumulator after one step.

    Args:
        state: the accumulator before it.
        loss: the step's training loss, a scalar.
        counts: False for a step that was skipped; its loss is left out.
        epoch_end: True for the last step of an epoch.
    """
    # Replace the loss before adding it: 0 * nan is nan.
    epoch_sum = state.epoch_sum + jnp.where(counts, loss, 0.0).astype(jnp.float32)
    epoch_steps = state.epoch_steps + counts.astype(jnp.int32)
    mean = epoch_sum / jnp.maximum(epoch_steps, 1)
    return Tse(
        epoch_sum=jnp.where(epoch_end, 0.0, epoch_sum),
        epoch_steps=jnp.where(epoch_end, 0, epoch_steps),
        tse=jnp.where(epoch_end, state.tse + mean, state.tse),
        last=jnp.where(epoch_end, mean, state.last),
        ema=jnp.where(epoch_end, EMA_DECAY * state.ema + mean, state.ema),
    )
