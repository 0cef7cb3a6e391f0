"""The programs of lanes: those of the solo loop, mapped over a leading axis."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from chemscale_jax.core import partition
from chemscale_jax.core.stream import Epoch, Stream
from chemscale_jax.core.task import Metrics, Task, at_step
from chemscale_jax.core.types import Array, Batch, Config
from chemscale_jax.core.workdir import Workdir
from chemscale_jax.training import evaluation
from chemscale_jax.training.host import StartFrom
from chemscale_jax.training.optimizer import make_lane_optimizer, make_optimizer
from chemscale_jax.training.step import (
    TrainState,
    choose_slices,
    make_eval_step,
    make_init,
    make_train_step,
)


class Lane(NamedTuple):
    """One of several runs that train together."""

    task: Task
    stream: Stream
    config: Config
    workdir: Workdir
    steps: int  # length of the schedule, see ``make_optimizer``
    start_from: StartFrom | None = None


class LanePrograms:
    """The jitted programs of all lanes, and how arrays get to them and back."""

    def __init__(self, lanes: Sequence[Lane], mesh: Mesh) -> None:
        config = lanes[0].config
        self._lanes = lanes
        slices = choose_slices(
            lanes[0].task.batch_specs, config.train.rows_at_once, mesh
        )
        frozen = tuple(config.init_freeze)
        optimizer = make_optimizer(config.optimizer, lanes[0].steps, frozen)
        optimizer_of = make_lane_optimizer(
            [lane.config.optimizer for lane in lanes],
            [lane.steps for lane in lanes],
            frozen,
        )
        task_of = _lane_task([lane.task for lane in lanes])
        seeds = [lane.config.seed for lane in lanes]
        stops = config.train.on_nonfinite == "stop"

        self._whole = partition.replicated(mesh)
        self._rows = NamedSharding(mesh, PartitionSpec(None, partition.ROW_AXES))
        self.init, self.solo = make_init(
            lanes[0].task, optimizer, config.mesh.rules.to_dict(), mesh
        )
        stacked = jax.tree.map(
            lambda s: NamedSharding(mesh, PartitionSpec(None, *s.spec)), self.solo
        )
        on_cpu = mesh.devices.flat[0].platform == "cpu"
        # A lane alone stays in the cache of a CPU; elsewhere lanes fill the device.
        at_once = config.train.lanes_at_once or (1 if on_cpu else len(lanes))

        def train_lane(given: tuple[TrainState, Batch, Array, Array, Array]) -> Any:
            state, batch, ends, moves, lane = given
            step = make_train_step(
                task_of(lane), optimizer_of(lane), jnp.asarray(seeds)[lane], slices
            )
            if stops:
                moves = moves & (state.skipped == 0)
            nothing = _zeros(lambda: step(state, batch, ends)[1])
            return jax.lax.cond(
                moves, lambda: step(state, batch, ends), lambda: (state, nothing)
            )

        eval_step = make_eval_step(lanes[0].task, optimizer.ema_decay > 0, slices)

        def eval_lane(given: tuple[TrainState, Batch, Array]) -> Metrics:
            state, batch, counts = given
            nothing = _zeros(lambda: eval_step(state, batch))
            return jax.lax.cond(
                counts, lambda: eval_step(state, batch), lambda: nothing
            )

        numbers = jnp.arange(len(lanes))
        self.train_step = jax.jit(
            lambda state, batch, ends, moves: _over_lanes(
                train_lane, (state, batch, ends, moves, numbers), at_once
            ),
            in_shardings=(stacked, self._rows, self._whole, self._whole),
            out_shardings=(stacked, self._whole),
            donate_argnums=0,
        )
        self._eval_step = jax.jit(
            lambda state, batch, counts: _over_lanes(
                eval_lane, (state, batch, counts), at_once
            ),
            in_shardings=(stacked, self._rows, self._whole),
            out_shardings=self._whole,
        )
        self._stack = jax.jit(
            lambda states: jax.tree.map(lambda *x: jnp.stack(x), *states),
            out_shardings=stacked,
        )
        self._take = jax.jit(
            lambda state, lane: jax.tree.map(lambda x: x[lane], state),
            out_shardings=self.solo,
        )

    def stack(self, states: list[TrainState]) -> TrainState:
        """The state of all lanes."""
        return self._stack(states)

    def take(self, state: TrainState, lane: int) -> TrainState:
        """The state of one lane, as the solo loop has it."""
        return self._take(state, lane)

    def replicate(self, x: np.ndarray) -> Array:
        """An array on every device."""
        return jax.device_put(x, self._whole)

    def flags(self, given: Mapping[int, bool]) -> Array:
        """One flag for each lane, False where none is given."""
        return self.replicate(
            np.array([given.get(k, False) for k in range(len(self._lanes))])
        )

    def put(self, batches: Mapping[int, Batch]) -> Batch:
        """Batches of some lanes on the devices; the others get one of these."""
        spare = next(iter(batches.values()))
        every = [batches.get(k, spare) for k in range(len(self._lanes))]
        return jax.tree.map(
            lambda *x: jax.make_array_from_process_local_data(self._rows, np.stack(x)),
            *every,
        )

    def evaluate(
        self, state: TrainState, splits: Mapping[int, Epoch]
    ) -> dict[int, Metrics]:
        """`evaluation.evaluate` for some lanes, each on batches of its own."""
        feeds = {k: self._lanes[k].stream.iterate(s, 0) for k, s in splits.items()}
        totals: dict[int, Any] = {}
        for index in range(max(map(len, splits.values()))):
            counting = [k for k, split in splits.items() if index < len(split)]
            batches = self.put({k: next(feeds[k]) for k in counting})
            flags = self.flags(dict.fromkeys(counting, True))
            found = jax.device_get(self._eval_step(state, batches, flags))
            for k in counting:
                part = jax.tree.map(lambda x, k=k: x[k], found)
                totals[k] = evaluation.add(totals.get(k), part)
        return totals


def _lane_task(tasks: Sequence[Task]) -> Callable[[Array], Task]:
    """The task of each lane by its number: that of lane 0 with the lane's weights."""
    first = tasks[0]
    if all(
        task.weights_at is None and task.loss_weights == first.loss_weights
        for task in tasks
    ):
        return lambda lane: first

    def of_lane(lane: Array) -> Task:
        def weights_at(step: Array) -> dict[str, Array]:
            each = [at_step(task, step).loss_weights for task in tasks]
            return {
                name: jnp.stack([jnp.asarray(w[name]) for w in each])[lane]
                for name in first.loss_weights
            }

        return dataclasses.replace(first, weights_at=weights_at)

    return of_lane


def _zeros(function: Callable[[], Any]) -> Any:
    """What a function gives, all zero, without computing it."""
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(function))


def _over_lanes(function: Callable[[Any], Any], given: Any, at_once: int) -> Any:
    """Maps over the leading axis, ``at_once`` lanes at a time."""
    lanes = jax.tree.leaves(given)[0].shape[0]
    if at_once >= lanes:
        return jax.vmap(function)(given)
    # One at a time, a lane that stands still costs nothing.
    return jax.lax.map(function, given, batch_size=at_once if at_once > 1 else None)
