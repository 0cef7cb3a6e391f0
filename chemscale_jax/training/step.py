"""The jitted step: loss, gradient, update and training speed in one program."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from chemscale_jax.core import partition
from chemscale_jax.core.task import Mean, Metrics, Task, loss_of, merge
from chemscale_jax.core.types import Array, Batch, Key, Params
from chemscale_jax.training import tse
from chemscale_jax.training.optimizer import Optimizer


class TrainState(NamedTuple):
    """Everything on the device that a run needs to go on."""

    step: Array  # int32, batches seen
    params: Params
    constants: Params  # saved and sharded, never updated
    opt_state: Any
    ema_params: Params  # empty without a weight average
    tse: tse.Tse
    lr_scale: Array  # float32, what the plateau rule has left of the schedule
    skipped: Array  # int32, steps whose loss or gradient was not finite


class StepOutput(NamedTuple):
    """Scalars of one step."""

    loss: Array
    lr: Array
    grad_norm: Array
    finite: Array  # bool; where False the parameters did not move
    metrics: Mapping[str, Mean]


def init_state(task: Task, optimizer: Optimizer, seed: int) -> TrainState:
    """The state before the first step, a function of the seed alone."""
    variables = task.init(jax.random.key(seed))
    params = variables["params"]
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        constants=variables["constants"],
        opt_state=optimizer.init(params),
        # A copy: the step donates its input, and one buffer cannot be given twice.
        ema_params=jax.tree.map(jnp.copy, params) if optimizer.ema_decay else {},
        tse=tse.init(),
        lr_scale=jnp.ones((), jnp.float32),
        skipped=jnp.zeros((), jnp.int32),
    )


def state_shardings(
    state: TrainState,
    task: Task,
    optimizer: Optimizer,
    mesh_rules: Mapping[str, str | None],
    mesh: Mesh,
) -> TrainState:
    """Where each array of the state lives; optimiser moments follow their parameter."""
    variables = {"params": state.params, "constants": state.constants}
    placed = partition.param_shardings(variables, task.param_axes, mesh_rules, mesh)
    whole = partition.replicated(mesh)
    opt_state = optax.tree.map_params(
        optimizer.transform,
        lambda _, sharding: sharding,
        state.opt_state,
        placed["params"],
        transform_non_params=lambda _: whole,
    )
    everywhere = jax.tree.map(lambda _: whole, state)
    return everywhere._replace(
        params=placed["params"],
        constants=placed["constants"],
        opt_state=opt_state,
        ema_params=placed["params"] if state.ema_params else {},
    )


def make_init(
    task: Task,
    optimizer: Optimizer,
    mesh_rules: Mapping[str, str | None],
    mesh: Mesh,
) -> tuple[Callable[[int], TrainState], TrainState]:
    """A function that makes the state where it lives, and the shardings it uses."""
    shapes = jax.eval_shape(lambda: init_state(task, optimizer, 0))
    shardings = state_shardings(shapes, task, optimizer, mesh_rules, mesh)

    def init(seed: int) -> TrainState:
        return jax.jit(
            lambda: init_state(task, optimizer, seed), out_shardings=shardings
        )()

    return init, shardings


def make_train_step(
    task: Task, optimizer: Optimizer, seed: int
) -> Callable[[TrainState, Batch, Array], tuple[TrainState, StepOutput]]:
    """The step as a pure function of (state, batch, whether it ends an epoch).

    A step whose loss or gradient is not finite leaves parameters, optimiser and TSE
    as they were and is counted; the caller decides whether to go on.
    """

    def train_step(
        state: TrainState, batch: Batch, epoch_end: Array
    ) -> tuple[TrainState, StepOutput]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)

        def loss_fn(params: Params) -> tuple[Array, Metrics]:
            metrics = accumulate(
                task, params, state.constants, batch, key, optimizer.micro_batches
            )
            return loss_of(metrics, task.loss_weights), metrics

        (loss, metrics), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
        moved, opt_state, grad_norm = optimizer.direction(
            grads, state.opt_state, state.params
        )
        lr = jnp.asarray(optimizer.schedule(state.step)) * state.lr_scale
        finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)

        def if_finite(new: Array, old: Array) -> Array:
            return jnp.where(finite, new, old)

        params = jax.tree.map(
            lambda p, u: jnp.where(finite, p + (lr * u).astype(p.dtype), p),
            state.params,
            moved,
        )
        ema_params = jax.tree.map(
            lambda mean, p: mean + (1 - optimizer.ema_decay) * (p - mean),
            state.ema_params,
            params if optimizer.ema_decay else {},
        )
        new_state = TrainState(
            step=state.step + 1,
            params=params,
            constants=state.constants,
            opt_state=jax.tree.map(if_finite, opt_state, state.opt_state),
            ema_params=jax.tree.map(if_finite, ema_params, state.ema_params),
            tse=tse.update(state.tse, loss, finite, epoch_end),
            lr_scale=state.lr_scale,
            skipped=state.skipped + jnp.where(finite, 0, 1),
        )
        return new_state, StepOutput(loss, lr, grad_norm, finite, metrics)

    return train_step


def accumulate(
    task: Task,
    params: Params,
    constants: Params,
    batch: Batch,
    key: Key,
    micro_batches: int,
) -> Metrics:
    """The metrics of a batch, taken in slices of its rows to bound memory.

    The slices' means are merged before they are divided, and each slice is
    recomputed in the backward pass, so loss and gradient equal those of the whole
    batch however uneven its rows are.
    """
    if micro_batches == 1:
        return task.loss_fn(params, constants, batch, key)
    # Every slice takes rows from every device.
    slices = jax.tree.map(
        lambda x: jnp.moveaxis(
            x.reshape(x.shape[0] // micro_batches, micro_batches, *x.shape[1:]), 1, 0
        ),
        batch,
    )

    @jax.checkpoint
    def of_slice(params: Params, part: Batch, index: Array) -> Metrics:
        return task.loss_fn(params, constants, part, jax.random.fold_in(key, index))

    def add(total: Metrics, numbered: tuple[Array, Batch]) -> tuple[Metrics, None]:
        index, part = numbered
        return merge(total, of_slice(params, part, index)), None

    indices = jnp.arange(micro_batches)
    shapes = jax.eval_shape(
        lambda: of_slice(params, jax.tree.map(lambda x: x[0], slices), indices[0])
    )
    nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    total, _ = jax.lax.scan(add, nothing, (indices, slices))
    return total


def make_eval_step(task: Task, use_ema: bool) -> Callable[[TrainState, Batch], Metrics]:
    """Metrics of one batch, with the averaged weights where there are some."""

    def eval_step(state: TrainState, batch: Batch) -> Metrics:
        params = state.ema_params if use_ema else state.params
        return task.eval_fn(params, state.constants, batch)

    return eval_step
