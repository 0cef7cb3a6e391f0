"""What the cells of a study cost, before any of them is trained.

Parameters come from the shapes that initialisation gives, floating-point operations
from the traced training step (see `program_cost`), memory from both; hours are those of
a stated device under stated assumptions. Nothing is trained, and nothing compiled
unless asked for, since that takes minutes for a large network.
"""

import contextlib
import dataclasses
import json
import math
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np

from chemscale_jax.core import config_files, partition
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.task import Task
from chemscale_jax.core.types import Config
from chemscale_jax.core.workdir import read_json, write_json
from chemscale_jax.runs.assembly import with_start
from chemscale_jax.studies import plan_data
from chemscale_jax.studies.cells import Cell, make_cells
from chemscale_jax.studies.devices import Cost
from chemscale_jax.studies.planned_cell import PlannedCell
from chemscale_jax.studies.program_cost import cost_of
from chemscale_jax.tasks import TASKS
from chemscale_jax.training.host import planned_steps
from chemscale_jax.training.optimizer import Optimizer, make_optimizer
from chemscale_jax.training.setup import config_hash
from chemscale_jax.training.step import (
    Slices,
    TrainState,
    choose_slices,
    init_state,
    make_train_step,
    one_slice,
)

PLAN = "plan.json"


def study_cells(
    config: str, folder: pathlib.Path, overrides: Sequence[str]
) -> list[Cell]:
    """The cells that the ``study(arguments)`` of a config file yields.

    Args:
        config: a config file, with or without arguments after a colon.
        folder: where the folders of the cells go.
        overrides: arguments for every cell.

    Raises:
        UserError: the file has no study, an override does not fit, or a folder holds
            the run of another config.
    """
    file, _, arguments = config.partition(":")
    module = config_files.load_module(config_files.find(file))
    study: Callable[[str], Iterable[Mapping[str, Any]]] | None = getattr(
        module, "study", None
    )
    if study is None:
        raise UserError(
            f"{file} has no study(arguments); give one of the scaling_* configs, or "
            "write one that yields overrides as sweep() does"
        )
    source = f"study() of {file}"
    return make_cells(config, folder, overrides, study(arguments), source)


def has_study(config: str) -> bool:
    """Whether a config file yields the cells of a study."""
    module = config_files.load_module(config_files.find(config.partition(":")[0]))
    return hasattr(module, "study")


def plan_on_cpu(devices: int = 1) -> None:
    """Keeps JAX off accelerators in this process, whose memory the runs need.

    Args:
        devices: how many the processor is to look like.
    """
    jax.config.update("jax_platforms", "cpu")
    # JAX refuses once it is in use; then it has the devices, or the mesh is refused.
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", devices)


class Prepared(NamedTuple):
    """A cell as far as it is known without training."""

    config: Config
    data: plan_data.Data
    steps: int
    task: Task
    optimizer: Optimizer


class Planner:
    """Plans cells; data and programs that several of them share are looked at once."""

    def __init__(self, compile_steps: bool = False) -> None:
        """With ``compile_steps``, memory is that of the compiled program."""
        self._compile = compile_steps
        self._data: dict[str, plan_data.Data] = {}
        self._programs: dict[str, dict[str, Any]] = {}

    def plan(self, cell: Cell) -> PlannedCell:
        """One cell.

        Raises:
            UserError: its config cannot be used, or says too little of absent data.
        """
        prepared = self.prepare(cell)
        config, data, steps = prepared.config, prepared.data, prepared.steps
        rules = config.train
        epochs = math.ceil(steps / data.steps_per_epoch)
        program = self._program(prepared)
        return PlannedCell(
            name=cell.name,
            config=config_hash(cell.config),
            seeds=max(rules.ensemble, 1),
            **data.sizes._asdict(),
            batch=data.batch,
            epochs=epochs,
            steps=steps,
            steps_per_epoch=data.steps_per_epoch,
            eval_steps=epochs * data.eval_steps,
            dtype=config.model.get("dtype", "float32"),
            stand_in=data.stand_in,
            **program,
        )

    def prepare(self, cell: Cell) -> Prepared:
        """Data, task and optimiser of a cell.

        Raises:
            UserError: see `plan`.
        """
        config = with_start(ml_collections.ConfigDict(cell.config))
        if config.task not in TASKS:
            raise UserError(
                f"{config.name} is for the command of {config.task}, which trains "
                f"nothing; a plan is for one of the tasks {', '.join(TASKS)}"
            )
        key = plan_data.key_of(config)
        if key not in self._data:
            self._data[key] = plan_data.look_at(config)
        data = self._data[key]
        rules = config.train
        steps = planned_steps(rules.epochs, rules.max_steps, data.steps_per_epoch)
        planned = {"steps": steps, "steps_per_epoch": data.steps_per_epoch}
        task = TASKS[config.task](
            config, data.specs, {**data.artifacts, "planned": planned}
        )
        optimizer = make_optimizer(
            config.optimizer, steps, tuple(config.init_freeze), data.steps_per_epoch
        )
        return Prepared(config, data, steps, task, optimizer)

    def _program(self, prepared: Prepared) -> dict[str, Any]:
        config, data = prepared.config, prepared.data
        specs = [jax.tree.map(lambda x: (x.shape, str(x.dtype)), s) for s in data.specs]
        shown = (
            config.model.to_dict(),
            config.loss.to_dict() if "loss" in config else {},
            config.optimizer.to_dict(),
            [str(spec) for spec in specs],
            data.shares,
            {k: v for k, v in data.artifacts.get("statistics", {}).items()},
        )
        key = json.dumps(shown, sort_keys=True, default=str)
        if key not in self._programs:
            self._programs[key] = self._trace(prepared)
        return self._programs[key]

    def _trace(self, prepared: Prepared) -> dict[str, Any]:
        config, data, _, task, optimizer = prepared
        state = jax.eval_shape(lambda: init_state(task, optimizer, 0))
        train = make_train_step(task, optimizer, 0, one_slice)
        ends = jax.ShapeDtypeStruct((), np.bool_)
        costs = [cost_of(train, state, spec, ends) for spec in data.specs]
        validation = [
            cost_of(task.eval_fn, state.params, state.constants, spec)
            for spec in data.specs
        ]
        most = data.specs[int(np.argmax([cost.peak_bytes for cost in costs]))]
        compiled = None
        if self._compile:
            compiled = _compiled_bytes(task, optimizer, config, state, most)

        def mean(found: Sequence[Cost], field: str) -> float:
            values = [getattr(cost, field) for cost in found]
            return float(np.dot(values, data.shares))

        return {
            **count_parameters(state),
            "flops_per_step": mean(costs, "flops"),
            "operations_per_step": mean(costs, "operations"),
            "traffic_per_step": mean(costs, "traffic_bytes"),
            "eval_flops_per_step": mean(validation, "flops"),
            "eval_operations_per_step": mean(validation, "operations"),
            "eval_traffic_per_step": mean(validation, "traffic_bytes"),
            "state_bytes": float(_tree_bytes(state)),
            "working_bytes": max(cost.peak_bytes for cost in costs),
            "rows": jax.tree.leaves(most)[0].shape[0],
            "compiled_bytes": compiled,
            "open_loops": max(cost.open_loops for cost in costs),
        }


def count_parameters(state: TrainState) -> dict[str, int]:
    """All trained numbers, and those that are not rows of a table to look up."""
    leaves = jax.tree.leaves(state.params)
    paths = partition.tree_paths(state.params)
    sizes = {
        path: math.prod(leaf.shape) for path, leaf in zip(paths, leaves, strict=True)
    }
    embedded = sum(size for path, size in sizes.items() if "embed" in path)
    total = sum(sizes.values())
    return {"parameters": total, "parameters_nonembedding": total - embedded}


def _compiled_bytes(
    task: Task, optimizer: Optimizer, config: Config, state: TrainState, spec: Any
) -> float:
    """Temporary memory of the compiled step, scaled to all rows at once."""
    mesh = partition.make_mesh(1, 1, 1)
    slices: Slices = choose_slices(task.batch_specs, config.train.rows_at_once, mesh)
    step = jax.jit(make_train_step(task, optimizer, 0, slices), donate_argnums=0)
    ends = jax.ShapeDtypeStruct((), np.bool_)
    found = step.lower(state, spec, ends).compile().memory_analysis()
    return float(getattr(found, "temp_size_in_bytes", 0)) * slices(spec)


def _tree_bytes(tree: Any) -> int:
    return sum(
        math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree)
    )


def make_plan(
    cells: Sequence[Cell],
    folder: pathlib.Path | None = None,
    compile_steps: bool = False,
    progress: Callable[[Iterable[Cell]], Iterable[Cell]] = iter,
) -> list[PlannedCell]:
    """Plans every cell; what plan.json in the folder already has is taken from there.

    Args:
        cells: of a study.
        folder: of the study; None: nothing is read or written.
        compile_steps: compile the largest step of every shape for its memory.
        progress: goes over the cells and shows how far it is.
    """
    known: dict[str, Any] = {}
    path = None if folder is None else folder / PLAN
    if path is not None and path.exists():
        known = read_json(path)
    planner = Planner(compile_steps)
    planned = []
    for cell in progress(cells):
        saved: dict[str, Any] = known.get(cell.name, {})
        fits = saved.get("config") == config_hash(cell.config)
        usable = fits and not (compile_steps and saved["compiled_bytes"] is None)
        planned.append(PlannedCell(**saved) if usable else planner.plan(cell))
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {cell.name: dataclasses.asdict(cell) for cell in planned})
    return planned
