"""The task contract: a learning problem as a record of pure functions."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from chemscale_jax.core.types import Array, Batch, Key, Params


class Mean(NamedTuple):
    """A mean kept as numerator and denominator, exact under padding and merging."""

    total: Array
    count: Array

    def value(self) -> Array:
        """The mean; 0 where nothing was counted."""
        return self.total / jnp.maximum(self.count, 1)


Metrics = Mapping[str, Mean]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """A learning problem. The trainer knows nothing else about models and data.

    The loss is ``sum(weight * metrics[name].value())`` over ``loss_weights``. Keeping
    its terms as means makes gradient accumulation over uneven rows, and validation
    over uneven batches, exact. Training may change the weights with the step, see
    ``weights_at``: a pure function, so that a resumed run goes on exactly. Validation
    never does, and neither do plateau, early stop and the best checkpoint, which
    follow it. The training speed sums the loss that was trained on.
    """

    name: str  # for logs; nothing dispatches on it
    # key -> {"params": trained, "constants": saved and sharded, never updated}
    init: Callable[[Key], dict[str, Params]]
    # params, constants, batch, key -> means, among them every term of the loss. Slices
    # of a batch have the same key: what is random of a row depends on its number.
    loss_fn: Callable[[Params, Params, Batch, Key], Metrics]
    # params, constants, batch -> means; deterministic
    eval_fn: Callable[[Params, Params, Batch], Metrics]
    # params, constants, batch -> arrays per row, for reports and inference
    predict_fn: Callable[[Params, Params, Batch], Mapping[str, Array]]
    # The weights of validation, so that losses of different steps compare.
    loss_weights: Mapping[str, float | Array]
    # step -> the weights to train with, for the same names; None: always loss_weights.
    weights_at: Callable[[Array], Mapping[str, Array]] | None = None
    # {metric name: unit}; a metric that is not listed has no unit
    units: Mapping[str, str]
    # Metrics that a person wants to see after each validation, besides the loss.
    headline: tuple[str, ...]
    # The metric whose total counts the examples of a batch; names the unit of rates.
    counter: str
    # One entry per static bucket: a batch of jax.ShapeDtypeStruct, all rows of all
    # processes together.
    batch_specs: tuple[Batch, ...]
    # (path regex, logical axes) pairs over "params/..." and "constants/..."; the
    # first match wins, a path without a rule and a rule without a path are errors.
    param_axes: tuple[tuple[str, tuple[str | None, ...]], ...]


def at_step(task: Task, step: Array) -> Task:
    """The task with the loss weights of one training step."""
    if task.weights_at is None:
        return task
    return dataclasses.replace(task, loss_weights=task.weights_at(step))


def loss_of(metrics: Metrics, loss_weights: Mapping[str, float | Array]) -> Array:
    """The weighted sum of the loss terms, in float32 or wider."""
    return sum(
        (weight * metrics[name].value() for name, weight in loss_weights.items()),
        start=jnp.zeros((), jnp.float32),
    )


def merge(left: Metrics, right: Metrics) -> Metrics:
    """The means over both parts together."""
    return jax.tree.map(jnp.add, left, right)
