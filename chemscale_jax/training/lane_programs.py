"""The programs of lanes: those of the solo loop, mapped over a leading axis."""

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
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
from chemscale_jax.training.host import Due, Scalars, StartFrom
from chemscale_jax.training.optimizer import make_lane_optimizer, make_optimizer
from chemscale_jax.training.step import (
    StepOutput,
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


class Groups(NamedTuple):
    """States of all lanes."""

    states: tuple[TrainState, ...]  # of a group; every array has an axis of lanes first
    order: tuple[int, ...]  # the lane at each place of the groups, which come in turn


class LanePrograms:
    """The jitted programs of all lanes, and how arrays get to them and back.

    A program takes a group of lanes. Where there are as many lanes as devices, each
    device has lanes of its own, of which it takes ``config.train.lanes_at_once``: on an
    accelerator all of them, mapped over; on a CPU one, which is quickest there. Where
    devices are more, all have all lanes and rows are spread, as for a run alone.

    Groups take turns; one in which no lane moves is left out. Places that are left over
    at the end hold copies of a lane.
    """

    def __init__(self, lanes: Sequence[Lane], mesh: Mesh) -> None:
        config = lanes[0].config
        self._lanes = lanes
        apart = spreads_lanes(len(lanes), mesh)
        devices = mesh.size if apart else 1
        on_cpu = mesh.devices.flat[0].platform == "cpu"
        each = -(-len(lanes) // devices)
        at_once = min(config.train.lanes_at_once or (1 if on_cpu else each), each)
        self._size = devices * at_once  # of a group
        self._count = -(-len(lanes) // self._size)  # of groups

        row_mesh = partition.make_mesh(1, devices=[mesh.devices.flat[0]])
        slices = choose_slices(
            lanes[0].task.batch_specs,
            config.train.rows_at_once,
            row_mesh if apart else mesh,
        )
        frozen = tuple(config.init_freeze)
        optimizer = make_optimizer(config.optimizer, lanes[0].steps, frozen)
        optimizer_of = make_lane_optimizer(
            [lane.config.optimizer for lane in lanes],
            [lane.steps for lane in lanes],
            frozen,
        )
        task_of = _lane_task([lane.task for lane in lanes])
        stops = config.train.on_nonfinite == "stop"

        lane_axis = "data" if apart else None
        row_axis = None if apart else partition.ROW_AXES
        self._own = own = NamedSharding(mesh, PartitionSpec(lane_axis))
        self._rows = rows = NamedSharding(mesh, PartitionSpec(lane_axis, row_axis))
        self.init, self.solo = make_init(
            lanes[0].task, optimizer, config.mesh.rules.to_dict(), mesh
        )
        stacked = jax.tree.map(
            lambda s: NamedSharding(mesh, PartitionSpec(lane_axis, *s.spec)), self.solo
        )

        def train_lane(
            state: TrainState, batch: Batch, ends: Array, moves: Array, facts: Array
        ) -> tuple[TrainState, StepOutput]:
            lane, seed = facts
            step = make_train_step(task_of(lane), optimizer_of(lane), seed, slices)
            if stops:
                moves = moves & (state.skipped == 0)
            nothing = _zeros(lambda: step(state, batch, ends)[1])
            return jax.lax.cond(
                moves, lambda: step(state, batch, ends), lambda: (state, nothing)
            )

        eval_step = make_eval_step(lanes[0].task, optimizer.ema_decay > 0, slices)

        def eval_lane(state: TrainState, batch: Batch, counts: Array) -> Metrics:
            nothing = _zeros(lambda: eval_step(state, batch))
            return jax.lax.cond(
                counts, lambda: eval_step(state, batch), lambda: nothing
            )

        def of_group(function: Callable[..., Any]) -> Callable[..., Any]:
            every = jax.vmap(function) if self._size > devices else _only(function)
            if devices == 1:
                return every
            spec = PartitionSpec(lane_axis)
            return jax.shard_map(
                every, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False
            )

        self._train_step = jax.jit(
            of_group(train_lane),
            in_shardings=(stacked, rows, own, own, own),
            out_shardings=(stacked, own),
            donate_argnums=0,
        )
        self._eval_step = jax.jit(
            of_group(eval_lane), in_shardings=(stacked, rows, own), out_shardings=own
        )
        self._stack = jax.jit(
            lambda states: jax.tree.map(lambda *x: jnp.stack(x), *states),
            out_shardings=stacked,
        )
        self._take = jax.jit(
            lambda state, place: jax.tree.map(lambda x: x[place], state),
            out_shardings=self.solo,
        )
        # Seeds are arguments, so that lanes of other seeds share the program.
        self._facts = {
            k: np.array([k, lane.config.seed], np.int32) for k, lane in enumerate(lanes)
        }

    def stack(
        self, states: Sequence[TrainState], order: Sequence[int] | None = None
    ) -> Groups:
        """The states of all lanes, given in an order, by default that of lanes."""
        return Groups(
            tuple(self._stack(part) for part in self._grouped(states)),
            tuple(range(len(states)) if order is None else order),
        )

    def take(self, groups: Groups, lane: int) -> TrainState:
        """The state of one lane, as the solo loop has it."""
        group, place = divmod(groups.order.index(lane), self._size)
        return self._take(groups.states[group], place)

    def gather(self, groups: Groups, lanes: Collection[int]) -> Groups:
        """The same with some lanes in as few groups as they need, for they go on."""
        taken = {groups.order.index(k) // self._size for k in lanes}
        if len(taken) <= -(-len(lanes) // self._size):
            return groups
        order = sorted(groups.order, key=lambda k: k not in lanes)
        return self.stack([self.take(groups, k) for k in order], order)

    def train_step(
        self, groups: Groups, batches: Mapping[int, Batch], ends: Mapping[int, bool]
    ) -> tuple[Groups, dict[int, StepOutput]]:
        """One step of some lanes; the others stand still.

        Args:
            groups: states of all lanes; those of the lanes that move are used up.
            batches: one for each lane that moves.
            ends: whether it ends the lane's epoch.

        Returns:
            The states, and for each lane the results of its group, see `fetch`.
        """
        after, outputs = list(groups.states), {}
        for group, part in self._parts(groups, batches):
            lanes = self._grouped(groups.order)[group]
            moves = dict.fromkeys(part, True)
            given = self._put(lanes, part, ends, moves, self._facts)
            after[group], output = self._train_step(after[group], *given)
            outputs |= dict.fromkeys(part, output)
        return groups._replace(states=tuple(after)), {k: outputs[k] for k in batches}

    def fetch(self, groups: Groups, moved: Mapping[int, Due]) -> dict[int, Due]:
        """Steps of some lanes, each with its own results, on the host."""
        found = jax.device_get({id(d.output): d.output for d in moved.values()})
        return {
            k: due._replace(output=self._own_part(groups, found[id(due.output)], k))
            for k, due in moved.items()
        }

    def evaluate(
        self, groups: Groups, splits: Mapping[int, Epoch]
    ) -> dict[int, Metrics]:
        """`evaluation.evaluate` for some lanes, each on batches of its own."""
        feeds = {k: self._lanes[k].stream.iterate(s, 0) for k, s in splits.items()}
        totals: dict[int, Any] = {}
        for index in range(max(map(len, splits.values()))):
            counting = [k for k, split in splits.items() if index < len(split)]
            found = {}
            batches = {k: next(feeds[k]) for k in counting}
            for group, part in self._parts(groups, batches):
                lanes = self._grouped(groups.order)[group]
                given = self._put(lanes, part, dict.fromkeys(part, True))
                found[tuple(part)] = self._eval_step(groups.states[group], *given)
            for part, metrics in jax.device_get(found).items():
                for k in part:
                    own = self._own_part(groups, metrics, k)
                    totals[k] = evaluation.add(totals.get(k), own)
        return totals

    def scalars(self, groups: Groups) -> list[Scalars]:
        """What the host reads at the end of an epoch, of each lane."""
        found = jax.device_get(
            [Scalars(s.tse, s.skipped, s.lr_scale) for s in groups.states]
        )
        places = map(groups.order.index, range(len(self._lanes)))
        return [
            jax.tree.map(lambda x, at=at: x[at % self._size], found[at // self._size])
            for at in places
        ]

    def with_lr_scale(self, groups: Groups, scales: Mapping[int, Any]) -> Groups:
        """The states with what plateau rules have left of some schedules."""
        before = self.scalars(groups)
        every = [scales.get(k, before[k].lr_scale) for k in groups.order]
        return groups._replace(
            states=tuple(
                state._replace(lr_scale=jax.device_put(np.array(part), self._own))
                for state, part in zip(groups.states, self._grouped(every), strict=True)
            )
        )

    def _own_part(self, groups: Groups, tree: Any, lane: int) -> Any:
        """What belongs to a lane in a tree that its group has on the host."""
        place = groups.order.index(lane) % self._size
        return jax.tree.map(lambda x: x[place], tree)

    def _grouped(self, each: Sequence[Any]) -> list[Sequence[Any]]:
        """Something of each place, by group; spare places get that of the first."""
        every = [*each, *[each[0]] * (-len(each) % self._size)]
        return [every[i : i + self._size] for i in range(0, len(every), self._size)]

    def _parts(
        self, groups: Groups, batches: Mapping[int, Batch]
    ) -> Iterator[tuple[int, dict[int, Batch]]]:
        """Groups, with batches of one shape for some of their lanes.

        Text has rows of several lengths, so that lanes may need several turns.
        """
        parts: dict[Any, dict[int, Batch]] = {}
        for k, batch in batches.items():
            shapes = tuple(x.shape for x in jax.tree.leaves(batch))
            group = groups.order.index(k) // self._size
            parts.setdefault((group, shapes), {})[k] = batch
        for (group, _), part in parts.items():
            yield group, part

    def _put(
        self, lanes: Sequence[int], batches: Mapping[int, Batch], *facts: Mapping
    ) -> tuple[Any, ...]:
        """Batches and facts of the lanes of a group, on the devices.

        Args:
            lanes: of the group; in a place to spare, the first of all.
            batches: of some of them; the others get one of these.
            facts: small arrays; where a lane has none, False.
        """
        spare = next(iter(batches.values()))
        every = [batches.get(k, spare) for k in lanes]
        stacked = jax.tree.map(lambda *x: np.stack(x), *every)
        own = [np.array([fact.get(k, False) for k in lanes]) for fact in facts]
        if jax.process_count() == 1:
            return jax.device_put(
                (stacked, *own), (self._rows, *[self._own] * len(own))
            )
        placed = jax.tree.map(
            lambda x: jax.make_array_from_process_local_data(self._rows, x), stacked
        )
        return placed, *(jax.device_put(x, self._own) for x in own)


def spreads_lanes(lanes: int, mesh: Mesh) -> bool:
    """Whether the devices of a mesh get whole lanes, and not rows of all of them."""
    alone = mesh.shape["fsdp"] == mesh.shape["tensor"] == jax.process_count() == 1
    return alone and lanes >= mesh.size


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


def _only(function: Callable[..., Any]) -> Callable[..., Any]:
    """Maps over a leading axis of one lane, by leaving it out."""

    def mapped(*given: Any) -> Any:
        alone = jax.tree.map(lambda x: x[0], given)
        return jax.tree.map(lambda x: x[None], function(*alone))

    return mapped
