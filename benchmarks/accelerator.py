"""Training steps of every model at several sizes, on the device that JAX finds.

    python benchmarks/accelerator.py                       # all, sizes of this device
    python benchmarks/accelerator.py --only=chemgpt --profile=profiles

Each case is a config of the package with the batches of its own stream. Its jitted step
is compiled for every shape of batch, and then the first batches of the epoch are run
one after another, already on the device: input is not part of the figure.

Useful examples are those that the task counts (tokens of molecules, molecules, frames),
so padding makes a figure lower. Utilisation is arithmetic of the model over time and
the device's peak for the factors of its matrix products:

    ChemGPT: 6 operations per weight of a matrix (head included, embeddings not) and
        real token, and 12 w per layer and pair of real tokens that causal attention
        joins; nothing that is computed twice, no padding.
    others: all arithmetic of the traced step without rematerialisation, as
        ``chemscale plan`` counts it, padding included.

The two floors say how long a step would take if the device reached its peak in
arithmetic, and its bandwidth for what goes in and out of products, gathers, scatters
and reductions. On a processor the sizes are small and say nothing of an accelerator;
see README.md for results.
"""

import argparse
import contextlib
import dataclasses
import json
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from chemscale_jax.analysis.markdown import markdown_table
from chemscale_jax.core import partition
from chemscale_jax.core.batches import TokenRows
from chemscale_jax.core.types import Batch, Config
from chemscale_jax.core.workdir import Workdir
from chemscale_jax.runs.assembly import make_lane, with_start
from chemscale_jax.studies.cells import single_cell
from chemscale_jax.studies.devices import CPU, DEVICES, Device, find_device
from chemscale_jax.studies.program_cost import cost_of
from chemscale_jax.tasks import TASKS
from chemscale_jax.training import step as steps
from chemscale_jax.training.optimizer import make_optimizer

HEADER = (
    *("case", "parameters", "batch", "ms/step", "useful/s", "TFLOP/s", "of the peak"),
    *("arithmetic floor, ms", "bandwidth floor, ms", "memory, GB", "compiling, s"),
)


@dataclasses.dataclass(frozen=True)
class Case:
    """A model at one size."""

    name: str
    config: str  # file, form and arguments
    fields: tuple[str, ...] = ()  # of the config, KEY=VALUE


def chemgpt(width: int, tokens: int, dtype: str) -> Case:
    """Rows of 512 tokens, molecules packed into them."""
    return Case(
        f"chemgpt {width}",
        f"configs/chemgpt.py:embedded,width={width}",
        (
            "batch.form=packed",
            f"batch.rows={max(1, tokens // 512)}",
            f"batch.tokens={tokens}",
            "data.embedded_molecules=20000",
            f"model.dtype={dtype}",
        ),
    )


def unimol2(size: str, rows: int, dtype: str) -> Case:
    """Conformers of the package, in buckets of their length."""
    return Case(
        f"unimol2 {size}",
        f"configs/unimol2_pretrain.py:embedded,size={size}",
        (
            f"batch.rows={rows}",
            "data.embedded_molecules=2000",
            f"model.dtype={dtype}",
        ),
    )


def force_field(model: str, width: int, rows: int) -> Case:
    """Frames of the package, energies and forces."""
    return Case(
        f"{model} {width}",
        f"configs/{model}_ani1x.py:embedded,width={width}",
        (f"batch.rows={rows}", "batch.molecules=16"),
    )


FIELDS = ("schnet", "painn", "allegro", "spookynet")
ON_PROCESSORS = (
    *(chemgpt(width, 2048, "float32") for width in (64, 128)),
    *(unimol2(size, 8, "float32") for size in ("tiny", "1M")),
    *(force_field(model, 64, 4) for model in FIELDS),
)
ON_ACCELERATORS = (
    *(chemgpt(width, 65_536, "bfloat16") for width in (256, 512, 1024, 2048)),
    *(unimol2(size, 256, "bfloat16") for size in ("42M", "84M", "310M")),
    *(force_field(model, width, 64) for model in FIELDS for width in (64, 256)),
)


def arithmetic_of_text(
    config: Config, vocabulary: int, batches: Sequence[Batch]
) -> float:
    """Operations of training on rows of text, by the formula above."""
    width, depth = config.model.width, config.model.depth
    weights = depth * 12 * width**2 + width * vocabulary
    tokens = pairs = 0
    for batch in batches:
        for row_L in batch.segment_BL:
            lengths = np.bincount(row_L)[1:]
            tokens += int(lengths.sum())
            pairs += int((lengths * (lengths + 1) // 2).sum())
    return 6 * weights * tokens + 12 * width * depth * pairs


def measure(case: Case, device: Device, args: argparse.Namespace) -> dict[str, Any]:
    """Times one case."""
    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder) / "run"
        flags = [f"--config.{field}" for field in case.fields]
        config = with_start(ConfigDict(single_cell(case.config, place, flags).config))
        lane = make_lane(config, Workdir(place))
        stream, task = lane.stream, lane.task
        epoch = stream.train_epoch(0)
        host = [epoch[k] for k in range(min(args.steps, len(epoch)))]
    optimizer = make_optimizer(config.optimizer, lane.steps, (), len(epoch))
    mesh = partition.make_mesh(data=1)
    slices = steps.choose_slices(task.batch_specs, config.train.rows_at_once, mesh)
    step = jax.jit(steps.make_train_step(task, optimizer, 0, slices), donate_argnums=0)
    state = jax.jit(lambda: steps.init_state(task, optimizer, 0))()
    ends = jax.device_put(np.bool_(False))

    # The arithmetic, of the program that computes nothing twice.
    once = config.copy_and_resolve_references()
    if "remat" in once.model:
        once.model.remat = "none"
    plain = TASKS[once.task](once, stream.batch_specs, stream.artifacts)
    traced = steps.make_train_step(plain, optimizer, 0, steps.one_slice)
    shapes = jax.eval_shape(lambda: state)
    costs = {_shape(x): cost_of(traced, shapes, x, ends) for x in task.batch_specs}
    flops = sum(costs[_shape(batch)].flops for batch in host)
    traffic = sum(costs[_shape(batch)].traffic_bytes for batch in host)
    if isinstance(host[0], TokenRows):
        flops = arithmetic_of_text(
            config, len(stream.artifacts["vocabulary"]["tokens"]), host
        )

    start = time.perf_counter()
    programs: dict[str, Any] = {}
    for batch in host:
        if _shape(batch) not in programs:
            programs[_shape(batch)] = step.lower(shapes, batch, ends).compile()
    compiling = time.perf_counter() - start
    memory: list[Any] = [program.memory_analysis() for program in programs.values()]

    batches = jax.device_put(host)
    useful = 0.0
    for batch in batches:  # once for warmth, and to count
        state, output = programs[_shape(batch)](state, batch, ends)
        useful += float(output.metrics[task.counter].total)
    profiled = contextlib.nullcontext()
    if args.profile:
        profiled = jax.profiler.trace(str(args.profile / case.name.replace(" ", "-")))
    seconds = []
    with profiled:
        for _ in range(args.rounds):
            start = time.perf_counter()
            for batch in batches:
                state, output = programs[_shape(batch)](state, batch, ends)
            jax.block_until_ready(state)
            seconds.append(time.perf_counter() - start)
    took = float(np.median(seconds))
    dtype = config.model.get("dtype", "float32")
    peak = device.peak_bf16 if dtype == "bfloat16" else device.peak_f32
    return {
        "case": case.name,
        "config": case.config,
        "fields": case.fields,
        "dtype": dtype,
        "parameters": sum(x.size for x in jax.tree.leaves(state.params)),
        "unit": task.counter,
        "useful_per_step": useful / len(host),
        "step_s": took / len(host),
        "useful_per_s": useful / took,
        "flop_per_s": flops / took,
        "utilisation": flops / took / peak,
        "arithmetic_floor_s": flops / len(host) / peak,
        "bandwidth_floor_s": traffic / len(host) / device.bandwidth,
        "memory_bytes": max(
            m.argument_size_in_bytes + m.temp_size_in_bytes for m in memory
        ),
        "compile_s": compiling,
    }


def _shape(batch: Batch) -> str:
    return str(jax.tree.map(lambda x: x.shape, batch))


def table(found: Sequence[dict[str, Any]]) -> str:
    """For a person."""
    rows = [
        (
            f"{case['case']}, {case['dtype']}",
            f"{case['parameters']:,}",
            f"{case['useful_per_step']:,.0f} {case['unit']}",
            f"{1e3 * case['step_s']:.3g}",
            f"{case['useful_per_s']:,.0f}",
            f"{case['flop_per_s'] / 1e12:.3g}",
            f"{case['utilisation']:.1%}",
            f"{1e3 * case['arithmetic_floor_s']:.3g}",
            f"{1e3 * case['bandwidth_floor_s']:.3g}",
            f"{case['memory_bytes'] / 1e9:.3g}",
            f"{case['compile_s']:.0f}",
        )
        for case in found
    ]
    return markdown_table(HEADER, rows)


def device_here(name: str) -> Device:
    """The stated device, or the entry of `DEVICES` that JAX's device is."""
    if name:
        return find_device(name)
    found = jax.devices()[0]
    if found.platform == CPU:
        return find_device(CPU)
    kind = found.device_kind.lower().replace(" ", "-")
    for known, device in DEVICES.items():
        if known in kind:
            return device
    raise SystemExit(
        f"the peak of {found.device_kind} is not known; give --device, one of "
        f"{', '.join(DEVICES)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", default=[""], help="how cases begin")
    parser.add_argument("--steps", type=int, default=20, help="batches of a round")
    parser.add_argument("--rounds", type=int, default=3, help="the median counts")
    parser.add_argument("--device", default="", help="whose peaks; default: found")
    parser.add_argument("--profile", type=pathlib.Path, help="folder of XLA profiles")
    parser.add_argument("--out", type=pathlib.Path, help="the figures as JSON")
    args = parser.parse_args()
    device = device_here(args.device)
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True
    ).stdout.strip()
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}, commit {commit}")
    print(device.assumptions.split("; ")[0])
    cases = ON_PROCESSORS if jax.default_backend() == CPU else ON_ACCELERATORS
    found = []
    for case in cases:
        if not case.name.startswith(tuple(args.only)):
            continue
        try:
            found.append(measure(case, device, args))
        except jax.errors.JaxRuntimeError as error:  # too large for this device
            print(f"{case.name}: {str(error).splitlines()[0]}", file=sys.stderr)
            continue
        print(json.dumps(found[-1]), flush=True)
    print(table(found))
    if args.out:
        args.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
