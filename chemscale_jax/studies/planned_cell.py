"""What a plan says of a cell, and the table of a whole plan."""

import dataclasses
from collections.abc import Sequence

from chemscale_jax.analysis.markdown import markdown_table
from chemscale_jax.studies.devices import CPU, Cost, Device

HEADER = (
    "cell",
    "data",
    "seeds",
    "parameters",
    "without embeddings",
    "steps",
    "batch",
    "FLOP/step",
    "FLOP in all",
    "memory, GB",
    "hours",
)
# Told where the data of a cell are absent.
STAND_IN = (
    "the data are not on this machine: batches have the shapes of the package's data, "
    "and sizes are those that the config states, of labelled molecules the package's"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlannedCell:
    """What is known of a cell beforehand; numbers are those of one seed."""

    name: str
    config: str  # hash of what it computes
    seeds: int  # trained together as lanes
    parameters: int
    parameters_nonembedding: int  # without tables of species, tokens, positions, types
    molecules: int | None  # of the training set, as are the next two
    frames: int | None
    tokens: int | None
    batch: float  # examples per step: frames, molecules, or rows of text
    epochs: int  # at most
    steps: int  # at most
    steps_per_epoch: int
    flops_per_step: float  # of training, without validation
    operations_per_step: float
    traffic_per_step: float  # bytes, if nothing were fused
    eval_steps: int  # of all validations together
    eval_flops_per_step: float
    eval_operations_per_step: float
    eval_traffic_per_step: float
    state_bytes: float  # parameters, averages, moments of the optimiser
    working_bytes: float  # of a step besides, with all rows at once: an upper bound
    rows: int  # of a batch
    dtype: str  # of matrix products
    stand_in: bool  # shapes are those of the package's data, not of the config's
    compiled_bytes: float | None = None  # of a step besides, from the compiled program
    open_loops: int = 0  # loops of unknown length, counted once

    @property
    def flops(self) -> float:
        """Of the whole training of a seed, if it is not stopped early."""
        return self.flops_per_step * self.steps

    def hours(self, device: Device) -> float:
        """Expected on one device, all seeds, with validation, without the start."""
        step = Cost(
            self.flops_per_step, self.operations_per_step, self.traffic_per_step, 0, 0
        )
        validation = Cost(
            self.eval_flops_per_step,
            self.eval_operations_per_step,
            self.eval_traffic_per_step,
            0,
            0,
        )
        seconds = self.steps * device.step_seconds(step, self.dtype)
        seconds += self.eval_steps * device.step_seconds(validation, self.dtype)
        return self.seeds * seconds / 3600

    def memory(self, device: Device) -> float:
        """Bytes on one device; a processor takes rows and seeds one at a time."""
        working = self.compiled_bytes or self.working_bytes
        if device.name == CPU:
            return self.seeds * self.state_bytes + working / self.rows
        return self.seeds * (self.state_bytes + working)


def plan_table(planned: Sequence[PlannedCell], device: Device) -> str:
    """The plan for a person, with the sums and what was assumed."""
    rows = [_row(cell, device) for cell in planned]
    hours = sum(cell.hours(device) for cell in planned)
    flops = sum(cell.seeds * cell.flops for cell in planned)
    runs = sum(cell.seeds for cell in planned)
    lines = [
        f"{len(planned)} cells, {runs} runs: {flops:.3g} FLOP, {hours:.3g} hours on one"
        f" {device.name}, one after another",
        f"{device.assumptions}; validation is counted in the hours, but not in the "
        "FLOP; compiling, reading data and reports are in neither",
        "FLOP are those of the traced training step, products and all other "
        "arithmetic, loops as often as they run",
        "memory: state of all seeds and an upper bound for the step"
        + (
            ""
            if all(cell.compiled_bytes is None for cell in planned)
            else ", or that of the compiled step on this machine"
        ),
    ]
    if any(cell.stand_in for cell in planned):
        lines.append(STAND_IN)
    over = [c.name for c in planned if c.memory(device) > device.memory]
    if over:
        lines.append(f"does not fit one {device.name}: {', '.join(over)}")
    if any(cell.open_loops for cell in planned):
        lines.append("some loops have no known length and were counted once")
    return "\n\n".join(
        [markdown_table(HEADER, rows), "\n".join(f"- {line}" for line in lines)]
    )


def _row(cell: PlannedCell, device: Device) -> tuple[str, ...]:
    return (
        cell.name,
        data_of(cell),
        str(cell.seeds),
        f"{cell.parameters:,}",
        f"{cell.parameters_nonembedding:,}",
        f"{cell.steps:,}",
        f"{cell.batch:g}",
        f"{cell.flops_per_step:.3g}",
        f"{cell.seeds * cell.flops:.3g}",
        f"{cell.memory(device) / 1e9:.3g}",
        f"{cell.hours(device):.3g}",
    )


def data_of(cell: PlannedCell) -> str:
    """The size of the training set in its largest known unit of cost."""
    for unit in ("frames", "tokens", "molecules"):
        amount = getattr(cell, unit)
        if amount is not None:
            return f"{amount:,} {unit}"
    return "-"
