"""What a cell takes on a mesh of devices, without the devices.

The training step is compiled for as many devices of this machine's processor as the
mesh has, and never run: that gives the memory of each device and what they send to one
another. Time is that of a stated device under stated assumptions.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from chemscale_jax.analysis.markdown import markdown_table
from chemscale_jax.core import partition
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.types import Batch
from chemscale_jax.studies.collectives import Exchange, exchange_of
from chemscale_jax.studies.devices import Cost, Device
from chemscale_jax.studies.plan import Prepared
from chemscale_jax.studies.planned_cell import STAND_IN, PlannedCell
from chemscale_jax.training.step import (
    TrainState,
    choose_slices,
    make_init,
    make_train_step,
    one_slice,
)

HEADER = (
    *("cell", "mesh", "parameters", "steps", "batch", "FLOP/step/device"),
    *("state, GB", "step, GB", "sent/step, GB", "ms/step", "of it sending"),
    *("days", "device hours", "cost", "fits"),
)
# Of a device's memory that a program can have; the rest is the driver's and XLA's.
USABLE = 0.92


class MeshSizes(NamedTuple):
    """Devices along each axis of a mesh."""

    data: int = 1
    fsdp: int = 1
    tensor: int = 1

    @property
    def devices(self) -> int:
        """All of them."""
        return self.data * self.fsdp * self.tensor

    def __str__(self) -> str:
        shown = (f"{name}={size}" for name, size in self._asdict().items() if size > 1)
        return " ".join(shown) or "1 device"


def parse_mesh(text: str) -> MeshSizes:
    """The mesh of ``data=8,fsdp=8``; an axis that is not named has one device.

    Raises:
        UserError: it names another axis, or something that is no number of devices.
    """
    sizes: dict[str, int] = {}
    for part in text.split(","):
        axis, _, size = part.partition("=")
        if axis not in MeshSizes._fields or not size.isdecimal() or int(size) < 1:
            raise UserError(
                f"--mesh={text}: {part!r} is not AXIS=DEVICES, with one of the axes "
                f"{', '.join(MeshSizes._fields)}"
            )
        sizes[axis] = int(size)
    return MeshSizes(**sizes)


@dataclasses.dataclass(frozen=True)
class MeshedCell:
    """A cell on a mesh; bytes are those of one device."""

    cell: PlannedCell
    sizes: MeshSizes
    state_bytes: float  # parameters, averages, moments of the optimiser, the batch
    host_bytes: float  # moments that wait in the memory of the host instead
    step_bytes: float  # temporary, of the step compiled for processors
    exchange: Exchange  # of one step

    @property
    def memory(self) -> float:
        """State and step together."""
        return self.state_bytes + self.step_bytes

    def sending_s(self, device: Device) -> float:
        """Of a step, if nothing is computed meanwhile."""
        return device.exchange_seconds(self.exchange.within, self.exchange.across)

    def fetching_s(self, device: Device) -> float:
        """Of a step: moments come from the memory of the host, and go back to it."""
        return 2 * self.host_bytes / device.host_link

    def step_s(self, device: Device) -> float:
        """Expected: the device's share of the work, and after it what is moved."""
        parts = self.sizes.devices
        share = Cost(
            self.cell.flops_per_step / parts,
            self.cell.operations_per_step,
            self.cell.traffic_per_step / parts,
            0,
            0,
        )
        work = device.step_seconds(share, self.cell.dtype)
        moving = self.sending_s(device) + self.fetching_s(device)
        return self.cell.seeds * work + moving

    def days(self, device: Device) -> float:
        """Of the whole training, without validation."""
        return self.cell.steps * self.step_s(device) / 86_400

    def fits(self, device: Device) -> bool:
        """Whether memory suffices."""
        return self.memory <= USABLE * device.memory


class CompiledStep(NamedTuple):
    """The training step on a cell's largest batches, compiled for a mesh."""

    call: Any  # (state, batch, whether it ends an epoch) -> state, output
    init: Callable[[int], TrainState]  # seed -> a state where it lives
    batch: Batch  # shapes
    moment_bytes: int  # of the state of the optimiser, for one device


def compile_step(prepared: Prepared, sizes: MeshSizes) -> CompiledStep:
    """The step that the trainer runs on a mesh of accelerators.

    They take all rows at once unless the config says how many; a processor would take
    few (see `choose_slices`), whatever the mesh.

    Args:
        prepared: the cell.
        sizes: of the mesh; JAX must have as many devices.

    Raises:
        UserError: rows or parameters do not divide over the mesh.
    """
    config, task, optimizer = prepared.config, prepared.task, prepared.optimizer
    mesh = partition.make_mesh(*sizes)
    partition.check_rows(config.batch.rows, mesh)
    rows, whole = partition.row_sharding(mesh), partition.replicated(mesh)
    slices = one_slice
    if config.train.rows_at_once:
        slices = choose_slices(task.batch_specs, config.train.rows_at_once, mesh)
    init, shardings = make_init(task, optimizer, config.mesh.rules.to_dict(), mesh)
    state = jax.eval_shape(init, 0)
    spec = max(prepared.data.specs, key=_numbers)
    step = jax.jit(
        make_train_step(task, optimizer, 0, slices),
        in_shardings=(shardings, rows, whole),
        out_shardings=(shardings, whole),
        donate_argnums=0,
    )
    with jax.set_mesh(mesh):
        ends = jax.ShapeDtypeStruct((), np.bool_)
        compiled = step.lower(state, spec, ends).compile()
    moments = zip(
        *map(jax.tree.leaves, (state.opt_state, shardings.opt_state)), strict=True
    )
    kept = sum(
        math.prod(place.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf, place in moments
    )
    return CompiledStep(compiled, init, spec, kept)


def plan_on_mesh(
    prepared: Prepared, cell: PlannedCell, sizes: MeshSizes, device: Device
) -> MeshedCell:
    """What a cell takes on a mesh.

    Args:
        prepared: the cell.
        cell: the same, planned for one device.
        sizes: of the mesh; JAX must have as many devices.
        device: how many of them are on one host.

    Raises:
        UserError: rows or parameters do not divide over the mesh.
    """
    step = compile_step(prepared, sizes)
    memory: Any = step.call.memory_analysis()
    away = step.moment_bytes if prepared.config.optimizer.offload else 0
    seeds = cell.seeds
    exchange = exchange_of(step.call.as_text() or "", sizes.devices, device.per_host)
    return MeshedCell(
        cell,
        sizes,
        seeds * float(memory.argument_size_in_bytes - away),
        seeds * float(away),
        seeds * float(memory.temp_size_in_bytes),
        Exchange(
            seeds * exchange.within,
            seeds * exchange.across,
            {kind: seeds * sent for kind, sent in exchange.by_kind.items()},
        ),
    )


def _numbers(spec: Any) -> int:
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(spec))


def mesh_table(
    cells: Sequence[MeshedCell], device: Device, price: float | None = None
) -> str:
    """The plan for a person, with what was assumed.

    Args:
        cells: of the plan.
        device: of which the mesh is made.
        price: of one device for an hour; None where nobody said.
    """
    rows = [_row(cell, device, price) for cell in cells]
    lines = [
        f"{device.assumptions}; {device.link / 1e9:.0f} GB/s to each of the "
        f"{device.per_host} devices of a host, {device.network / 1e9:.0f} GB/s to other"
        " hosts",
        "FLOP of the traced step, shared evenly; validation, compiling and reports are "
        "not counted",
        "state and step: memory of one device, of the program compiled for processors, "
        f"whose temporary arrays are about those of {device.name}; it fits where both "
        f"take at most {USABLE:.0%}",
        "sent: by one device in one step, read from the compiled program, in rings; "
        "none of it is assumed to be hidden behind the work",
    ]
    for kinds in [cells[0].exchange.by_kind] if len(cells) == 1 else []:
        found = (f"{kind} {sent / 1e9:.3g} GB" for kind, sent in sorted(kinds.items()))
        lines.append("sent in a step: " + (", ".join(found) or "nothing"))
    lines += [
        f"{cell.cell.name}, {cell.sizes}: {cell.host_bytes / 1e9:.3g} GB of moments of "
        "each device wait in its host's memory; to fetch them and put them back takes "
        f"{1e3 * cell.fetching_s(device):.3g} ms of a step"
        for cell in cells
        if cell.host_bytes
    ]
    if any(cell.cell.stand_in for cell in cells):
        lines.append(STAND_IN)
    return "\n\n".join(
        [markdown_table(HEADER, rows), "\n".join(f"- {line}" for line in lines)]
    )


def _row(planned: MeshedCell, device: Device, price: float | None) -> tuple[str, ...]:
    cell, devices = planned.cell, planned.sizes.devices
    step_s, days = planned.step_s(device), planned.days(device)
    hours = 24 * days * devices
    missing = planned.memory - USABLE * device.memory
    return (
        cell.name,
        str(planned.sizes),
        f"{cell.parameters:,}",
        f"{cell.steps:,}",
        f"{cell.batch:g}",
        f"{cell.seeds * cell.flops_per_step / devices:.3g}",
        f"{planned.state_bytes / 1e9:.3g}",
        f"{planned.step_bytes / 1e9:.3g}",
        f"{(planned.exchange.within + planned.exchange.across) / 1e9:.3g}",
        f"{1e3 * step_s:.3g}",
        f"{planned.sending_s(device) / step_s:.0%}",
        f"{days:.3g}",
        f"{hours:.4g}",
        "-" if price is None else f"{price * hours:,.0f}",
        "yes" if planned.fits(device) else f"no, {missing / 1e9:.3g} GB too much",
    )
