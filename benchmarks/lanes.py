"""Sixteen runs as lanes of one program, against the same runs one after another.

    python benchmarks/lanes.py --model=chemgpt
    python benchmarks/lanes.py --model=painn

The models are a ChemGPT of width 64 (24 layers, 64 tokens) and a PaiNN of
width 16 (3 layers, 5 molecules), each trained for 500 steps on data of the package.
All is timed from the outside, as commands of ``chemscale_jax.main``: start of Python,
data, compilation, steps, validations, checkpoints and the report at the end.

A cold run has an empty cache of compiled programs of its own; a warm one has the cache
that a run of another seed has filled; the lanes start with an empty one. Data are
prepared beforehand for all. Runs that only differ in their seed take the same time, so
a few of them (``--cold``, ``--warm``) stand for sixteen. See README.md for results.
"""

import argparse
import itertools
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from force_field_step import machine

COMMON = {
    "batch.prefetch": 0,
    "check": "none",
    "optimizer.schedule": "constant",
    "optimizer.warmup_steps": 0,
    "train.early_stop_epochs": 0,
    "train.epochs": 1000,
    "train.use_plateau": False,
}
# By model: its config, and fields of it.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "chemgpt": (
        "configs/chemgpt.py:smoke,width=64",
        {
            "batch.form": "packed",
            "batch.length": 64,
            "batch.rows": 1,
            "data.embedded_molecules": 1000,
            "model.depth": 24,
            "model.positions": 512,
            "model.width": 64,
            # Hardly any report, of which cold runs would compile much.
            "sample.max_tokens": 16,
            "sample.molecules": 8,
            "sample.reference": 8,
            "sample.scored": 50,
        },
    ),
    "painn": (
        "configs/painn_ani1x.py:smoke,width=16,depth=3",
        {"batch.molecules": 5, "batch.rows": 1, "data.max_frames": 1000},
    ),
}


class Timed(NamedTuple):
    """Seconds of one command."""

    first_step: float  # from the start of Python to the result of the first step
    training: float  # from there to the last step, with validations and checkpoints
    rest: float  # the report and the end
    step: float  # median of a step, of all lanes if there are any
    cpu: float  # of all cores

    @property
    def total(self) -> float:
        """All of it."""
        return self.first_step + self.training + self.rest

    def line(self, name: str) -> str:
        """For a person."""
        return (
            f"{name:<12} total {self.total:6.1f} s: first step {self.first_step:5.1f}, "
            f"training {self.training:6.1f}, rest {self.rest:5.1f}; "
            f"a step {1e3 * self.step:.2f} ms; {self.cpu:.0f} s of cores"
        )


def run(
    args: argparse.Namespace, workdir: pathlib.Path, cache: pathlib.Path, **fields: Any
) -> Timed:
    """Trains from the command line, in a process of its own."""
    config, own = MODELS[args.model]
    given = {"train.max_steps": args.steps, **COMMON, **own, **fields}
    command = [sys.executable, "-m", "chemscale_jax.main", f"--config={config}"]
    command += [f"--config.{name}={value}" for name, value in given.items()]
    start, before = time.time(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [*command, f"--workdir={workdir}"],
        env={**os.environ, "JAX_COMPILATION_CACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
    )
    total, after = time.time() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    lane = workdir / "lanes" / "0"
    folder = lane if lane.exists() else workdir
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    times = {
        r["step"]: (r["time"]["unix"], r["epoch"])
        for r in records
        if r["split"] == "train" and r["name"] == "loss"
    }
    first = json.loads((workdir / "run.json").read_text())["first_step_s"]
    last = max(moment for moment, _ in times.values()) - start
    return Timed(first, last - first, total - last, median_step(times), cpu)


def median_step(times: Mapping[int, tuple[float, int]]) -> float:
    """Seconds of a step, from the moments of logged ones within an epoch."""
    steps = sorted(times)
    return statistics.median(
        (times[b][0] - times[a][0]) / (b - a)
        for a, b in itertools.pairwise(steps)
        if times[a][1] == times[b][1]
    )


def mean(runs: list[Timed]) -> Timed:
    """The mean of each part."""
    return Timed(*(statistics.fmean(part) for part in zip(*runs, strict=True)))


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", 1)[0])
    parser.add_argument("--model", choices=sorted(MODELS), required=True)
    parser.add_argument("--lanes", type=int, default=16)
    parser.add_argument("--steps", type=int, default=500, help="of each run")
    parser.add_argument("--cold", type=int, default=2, help="cold runs that are timed")
    parser.add_argument("--warm", type=int, default=2, help="warm runs that are timed")
    parser.add_argument(
        "--lanes-at-once", type=int, default=0, help="config.train.lanes_at_once"
    )
    parser.add_argument("--rounds", type=int, default=1, help="of all of it")
    args = parser.parse_args()
    print(machine())
    for _ in range(args.rounds):
        measure(args)


def measure(args: argparse.Namespace) -> None:
    """Times all kinds of runs once and prints the ratios."""
    with tempfile.TemporaryDirectory() as scratch:
        place = pathlib.Path(scratch)
        # Data are made here, so that nobody's figures have them.
        run(args, place / "data", place / "data-cache", **{"train.max_steps": 20})
        cold = [
            run(args, place / f"cold{k}", place / f"cache{k}", seed=k)
            for k in range(args.cold)
        ]
        print(mean(cold).line("cold run"), flush=True)
        warm = [
            run(args, place / f"warm{k}", place / "cache0", seed=100 + k)
            for k in range(args.warm)
        ]
        print(mean(warm).line("warm run"), flush=True)
        ensemble = {
            "train.ensemble": args.lanes,
            "train.lanes_at_once": args.lanes_at_once,
        }
        lanes = run(args, place / "lanes", place / "lanes-cache", **ensemble)
        print(lanes.line(f"{args.lanes} lanes"), flush=True)
    n, cold_s, warm_s = args.lanes, mean(cold).total, mean(warm).total
    print(
        f"{n} cold runs of {args.steps} steps take {n * cold_s:.0f} s, warm ones "
        f"{n * warm_s:.0f} s, the lanes {lanes.total:.0f} s: "
        f"{lanes.total / (n * cold_s):.1%} and {lanes.total / (n * warm_s):.1%}; "
        f"a step of all lanes takes {lanes.step / (n * mean(warm).step):.2f} of {n} "
        "steps of a run alone"
    )


if __name__ == "__main__":
    main()
