"""The jitted step: loss, gradient, update and training speed in one program."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, PartitionSpec

from chemscale_jax.core import partition
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.task import Mean, Metrics, Task, at_step, loss_of
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


# Into how many slices a batch, or one of its shape, is cut.
Slices = Callable[[Batch], int]


def one_slice(batch: Batch) -> int:
    """The batch as it is."""
    del batch
    return 1


def init_state(task: Task, optimizer: Optimizer, seed: int | Array) -> TrainState:
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
        lambda _, sharding: (
            partition.in_host_memory(sharding) if optimizer.offloaded else sharding
        ),
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

    # The seed is an argument, so that runs of all seeds share one program.
    init = jax.jit(
        lambda seed: init_state(task, optimizer, seed), out_shardings=shardings
    )
    return init, shardings


def make_train_step(
    task: Task, optimizer: Optimizer, seed: int | Array, slices: Slices = one_slice
) -> Callable[[TrainState, Batch, Array], tuple[TrainState, StepOutput]]:
    """The step as a pure function of (state, batch, whether it ends an epoch).

    The batch is taken in ``slices``, see ``loss_and_grads``. A step whose loss or
    gradient is not finite leaves parameters, optimiser and TSE as they were and is
    counted; the caller decides whether to go on.
    """

    def train_step(
        state: TrainState, batch: Batch, epoch_end: Array
    ) -> tuple[TrainState, StepOutput]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)

        now = at_step(task, state.step)
        loss, metrics, grads = loss_and_grads(
            now, state.params, state.constants, batch, key, slices(batch)
        )
        moments = state.opt_state
        if optimizer.offloaded:
            moments = jax.device_put(moments, jax.memory.Space.Device)
        moved, opt_state, grad_norm = optimizer.direction(grads, moments, state.params)
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
            opt_state=jax.tree.map(if_finite, opt_state, moments),
            ema_params=jax.tree.map(if_finite, ema_params, state.ema_params),
            tse=tse.update(state.tse, loss, finite, epoch_end),
            lr_scale=state.lr_scale,
            skipped=state.skipped + jnp.where(finite, 0, 1),
        )
        return new_state, StepOutput(loss, lr, grad_norm, finite, metrics)

    return train_step


def loss_and_grads(
    task: Task, params: Params, constants: Params, batch: Batch, key: Key, slices: int
) -> tuple[Array, Metrics, Params]:
    """Loss, metrics and gradient of a batch, taken in slices of its rows.

    Slices bound memory, and on a CPU a slice that fits the cache is much faster than
    the whole batch. Loss and gradient equal those of the whole batch however uneven
    its rows are: what each term of the loss is divided by is counted first. All slices
    have the same key, so that what is random of a row does not depend on them.

    Devices that have all parameters each go through slices of their own rows, and add
    up what they found at the end: left to XLA, they would wait for each other after
    every layer of every slice.
    """
    apart = partition.rows_are_apart()
    if slices == 1 and not apart:
        (loss, metrics), grads = jax.value_and_grad(_loss, argnums=1, has_aux=True)(
            task, params, constants, batch, key, None
        )
        return loss, metrics, grads

    def of_device(
        params: Params, constants: Params, batch: Batch, key: Key
    ) -> tuple[Metrics, Params]:
        return _of_slices(task, params, constants, batch, key, slices, apart)

    if apart:
        whole, rows = PartitionSpec(), PartitionSpec(partition.ROW_AXES)
        of_device = jax.shard_map(
            of_device,
            in_specs=(whole, whole, rows, whole),
            out_specs=whole,
            check_vma=False,
        )
    metrics, grads = of_device(params, constants, batch, key)
    return loss_of(metrics, task.loss_weights), metrics, grads


def _of_slices(
    task: Task,
    params: Params,
    constants: Params,
    batch: Batch,
    key: Key,
    slices: int,
    apart: bool,
) -> tuple[Metrics, Params]:
    """Metrics and gradient of the rows of a device, summed over devices if apart."""

    def over_devices(sums: Any) -> Any:
        return jax.lax.psum(sums, partition.ROW_AXES) if apart else sums

    parts = split_rows(batch, slices)
    # Only the counts are used, so XLA drops the rest of this forward pass.
    unused = jax.vmap(task.loss_fn, in_axes=(None, None, 0, None))(
        params, constants, parts, key
    )
    counts = over_devices(
        {name: jnp.sum(unused[name].count) for name in task.loss_weights}
    )

    def add(
        total: tuple[Metrics, Params], part: Batch
    ) -> tuple[tuple[Metrics, Params], None]:
        (_, metrics), grads = jax.value_and_grad(_loss, argnums=1, has_aux=True)(
            task, params, constants, part, key, counts
        )
        return jax.tree.map(jnp.add, total, (metrics, grads)), None

    nothing = jax.tree.map(lambda x: jnp.zeros(x.shape[1:], x.dtype), unused)
    zeros = jax.tree.map(jnp.zeros_like, params)
    # Two slices at a time can overlap on two cores: 4 to 13 % faster.
    sums, _ = jax.lax.scan(add, (nothing, zeros), parts, unroll=min(2, slices))
    return over_devices(sums)


def _loss(
    task: Task,
    params: Params,
    constants: Params,
    part: Batch,
    key: Key,
    counts: Mapping[str, Array] | None,
) -> tuple[Array, Metrics]:
    """The loss of some rows and their metrics, divided by the counts of all rows."""
    metrics = task.loss_fn(params, constants, part, key)
    if counts is None:
        return loss_of(metrics, task.loss_weights), metrics
    counted = {
        name: metrics[name]._replace(count=count) for name, count in counts.items()
    }
    return loss_of(counted, task.loss_weights), metrics


def split_rows(batch: Batch, slices: int) -> Batch:
    """Slices along a new first axis; each has rows from every device."""
    return jax.tree.map(
        lambda x: jnp.moveaxis(
            x.reshape(x.shape[0] // slices, slices, *x.shape[1:]), 1, 0
        ),
        batch,
    )


def make_eval_step(
    task: Task, use_ema: bool, slices: Slices = one_slice
) -> Callable[[TrainState, Batch], Metrics]:
    """Metrics of one batch, with the averaged weights where there are some."""

    def eval_step(state: TrainState, batch: Batch) -> Metrics:
        params = state.ema_params if use_ema else state.params
        each = jax.lax.map(
            lambda part: task.eval_fn(params, state.constants, part),
            split_rows(batch, slices(batch)),
        )
        return jax.tree.map(lambda x: jnp.sum(x, axis=0), each)

    return eval_step


def choose_slices(specs: Sequence[Batch], rows_at_once: int, mesh: Mesh) -> Slices:
    """How many slices a batch is taken in, from how many rows a device takes at once.

    Args:
        specs: of all kinds of batches, of all processes.
        rows_at_once: per device, of the kind with the largest rows, all where it has
            fewer; of smaller rows as many as take no more room. 0 means one on a CPU,
            where a small working set stays in the cache, and all of them elsewhere.
        mesh: the devices.
    """
    devices = mesh.shape["data"] * mesh.shape["fsdp"]
    if not rows_at_once and mesh.devices.flat[0].platform != "cpu":
        return one_slice
    largest = max(specs, key=lambda spec: _shape(spec)[1])
    rows, most = _shape(largest)
    at_once = max(1, min(rows_at_once, rows // devices))
    if rows // devices % at_once:
        raise UserError(
            f"config.train.rows_at_once is {at_once}, which does not divide the "
            f"{rows // devices} rows of a device; choose a divisor"
        )
    room = at_once * most

    def slices(batch: Batch) -> int:
        rows, size = _shape(batch)
        per_device = rows // devices
        divisors = (n for n in range(1, per_device + 1) if per_device % n == 0)
        return next(n for n in divisors if per_device // n * size <= max(room, size))

    return slices


def _shape(batch: Batch) -> tuple[int, int]:
    """Rows of a batch, and how many numbers there are in each."""
    leaves = jax.tree.leaves(batch)
    return leaves[0].shape[0], sum(math.prod(leaf.shape[1:]) for leaf in leaves)
