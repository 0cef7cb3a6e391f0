"""One training step of PaiNN, energies and forces: this package against schnetpack.

    python benchmarks/painn_step.py --peer-python=PEERS/bin/python

PEERS is an environment with the extra ``peers``. Both sides train on the same frames
of the embedded data set (batches of 60 molecules) with the same sizes, loss and
optimiser. Each side runs in processes of its own, one per thread setting. All of them
alternate, and the medians of each side's faster setting are compared.
What counts is real molecules per second. See README.md for results.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np

DEPTH, N_RBF, CUTOFF_ANG = 3, 20, 5.0
ROWS, MOLECULES_PER_ROW = 12, 5
THREADS = (1, 2)
PAUSE_S = 0.5  # before each turn


class Worker:
    """A process that takes steps when told to."""

    def __init__(self, command: list[str], threads: int):
        env = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        self.threads = threads
        self.process = subprocess.Popen(
            [*command, f"--threads={threads}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=env,
        )
        self.facts = self.answer()

    def answer(self) -> dict:
        """The next line of the worker that is JSON."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise SystemExit(f"worker {self.process.args} ended early")

    def step(self, count: int) -> list[float]:
        """Seconds of each of ``count`` steps."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{count}\n")
        self.process.stdin.flush()
        return self.answer()["seconds"]

    def close(self) -> None:
        """Ends the worker."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def serve(step: Callable[[], float], facts: dict) -> None:
    """The worker's side: after two steps to warm up, takes as many as it reads."""
    for _ in range(2):
        loss = step()
    print(json.dumps({**facts, "loss": loss}), flush=True)
    for line in sys.stdin:
        seconds = []
        for _ in range(int(line)):
            start = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - start)
        print(json.dumps({"seconds": seconds}), flush=True)


def config_of(width: int):
    """The embedded PaiNN config at the size of the benchmark."""
    from chemscale_jax.core import config_files

    config = config_files.load("configs/painn_ani1x.py")
    config.model.width, config.model.depth = width, DEPTH
    config.model.cutoff_ang = CUTOFF_ANG
    config.batch.rows, config.batch.molecules = ROWS, MOLECULES_PER_ROW
    config.optimizer.ema_decay, config.optimizer.clip_norm = 0.0, 0.0
    config.optimizer.warmup_steps = 0
    return config


def write_frames(path: pathlib.Path) -> dict:
    """Writes the first batch of the stream, packed and as one flat graph."""
    from chemscale_jax.data import STREAMS

    stream = STREAMS["graphs"](config_of(64), 0, 1)
    batch = stream.train_epoch(0)[0]
    packed: dict[str, Any] = {
        f"pack/{k}": v for k, v in batch._asdict().items() if v is not None
    }
    flat: dict[str, list[np.ndarray]] = {}
    atoms = molecules = 0
    for row in range(ROWS):
        real = batch.species_N[row] > 0
        edges = batch.receivers_E[row] < len(real) - 1
        mask_M = batch.molecule_mask_M[row]
        parts = {
            "species": batch.species_N[row][real],
            "positions": batch.positions_N3[row][real],
            "forces": batch.forces_N3[row][real],
            "molecule": batch.molecule_N[row][real] + molecules,
            "receivers": batch.receivers_E[row][edges] + atoms,
            "senders": batch.senders_E[row][edges] + atoms,
            "energy": batch.energy_M[row][mask_M],
        }
        for name, part in parts.items():
            flat.setdefault(name, []).append(part)
        atoms, molecules = atoms + int(real.sum()), molecules + int(mask_M.sum())
    joined: dict[str, Any] = {
        name: np.concatenate(parts) for name, parts in flat.items()
    }
    np.savez(path, **packed, **joined)
    edges = len(joined["senders"])
    return {
        "molecules": molecules,
        "atoms": atoms,
        "edges": edges,
        "node_fill": atoms / batch.species_N.size,
        "edge_fill": edges / batch.senders_E.size,
    }


def worker(frames: pathlib.Path, width: int, threads: int) -> None:
    """Our side: the package's own task and jitted step on the packed batch."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    import jax

    from chemscale_jax.core import partition
    from chemscale_jax.core.batches import GraphPack
    from chemscale_jax.tasks import TASKS
    from chemscale_jax.training import step as steps
    from chemscale_jax.training.optimizer import make_optimizer

    config = config_of(width)
    with np.load(frames) as file:
        fields = {k.split("/")[1]: file[k] for k in file.files if k.startswith("pack/")}
    batch = jax.device_put(GraphPack(**fields))
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch)
    task = TASKS[config.task](config, (shapes,), {})
    optimizer = make_optimizer(config.optimizer, 1000, ())
    slices = steps.choose_slices(ROWS, 0, partition.make_mesh(data=1))
    state = jax.jit(lambda: steps.init_state(task, optimizer, 0))()
    train_step = jax.jit(
        steps.make_train_step(task, optimizer, 0, slices), donate_argnums=0
    )
    no = jax.device_put(np.array(False))
    start = time.perf_counter()
    compiled = train_step.lower(state, batch, no).compile()
    compile_s = time.perf_counter() - start

    # XLA counts the body of a loop once, so one slice is counted and multiplied.
    row = jax.tree.map(lambda x: x[: ROWS // slices], batch)
    key = jax.random.key(0)
    cost: Any = (
        jax.jit(lambda p, c, b: steps.loss_and_grads(task, p, c, b, key, 1))
        .lower(state.params, state.constants, row)
        .compile()
        .cost_analysis()
    )

    def step() -> float:
        nonlocal state
        state, output = compiled(state, batch, no)
        return float(output.loss)

    memory: Any = compiled.memory_analysis()
    serve(
        step,
        {
            "version": f"jax {jax.__version__}",
            "compile_s": compile_s,
            "gflop": slices * cost["flops"] / 1e9,
            "gbyte": slices * cost["bytes accessed"] / 1e9,
            "temp_mb": memory.temp_size_in_bytes / 1e6,
        },
    )


def matmul_gflop(width: int, atoms: int, edges: int) -> float:
    """GFLOP of the matrix products of one step, by formula.

    A product is done once forward, once for the forces, and twice for the gradient of
    each of these; the first layer, where v = 0, lacks a third of two products.
    """
    F = width
    per_atom = DEPTH * (F * F + 3 * F * F + 6 * F * F + 2 * F * F + 3 * F * F)
    per_atom += F * F // 2 - F * F
    per_edge = (3 * DEPTH - 1) * F * (N_RBF + 1)
    return 6 * 2 * (atoms * per_atom + edges * per_edge) / 1e9


def machine() -> dict:
    """Matrix GFLOP/s, and GB/s of adding arrays that do not fit a cache."""
    import jax
    import jax.numpy as jnp

    def best(function: Callable, *args: jax.Array) -> float:
        jax.block_until_ready(function(*args))
        seconds = []
        for _ in range(7):
            start = time.perf_counter()
            jax.block_until_ready(function(*args))
            seconds.append(time.perf_counter() - start)
        return min(seconds)

    a = jnp.ones((2048, 2048))
    flops = 2 * 2048**3 / best(jax.jit(lambda a: a @ a), a) / 1e9
    b = jnp.ones(1 << 26)
    # A sum only reads, so no pages have to be mapped for its result.
    bandwidth = b.nbytes / best(jax.jit(jnp.sum), b) / 1e9
    return {"matmul_gflop_s": flops, "read_gbyte_s": bandwidth}


def compare(args: argparse.Namespace) -> None:
    """Runs both sides at each width and prints what was measured."""
    with tempfile.TemporaryDirectory() as folder:
        frames = pathlib.Path(folder) / "frames.npz"
        facts = write_frames(frames)
        print(json.dumps(facts))
        print(json.dumps(machine()))
        here = pathlib.Path(__file__)
        for width in args.widths:
            common = [f"--frames={frames}", f"--width={width}"]
            commands = {"ours": [sys.executable, str(here), "--worker", *common]}
            if args.peer_python:
                peer = str(here.with_name("painn_peer.py"))
                commands["peer"] = [args.peer_python, peer, *common]
            workers = {
                (side, threads): Worker(command, threads)
                for side, command in commands.items()
                for threads in THREADS
            }
            seconds: dict[tuple[str, int], list[float]] = {k: [] for k in workers}
            for _ in range(args.rounds):
                for setting, found in workers.items():
                    # OpenMP's threads go on spinning for 0.2 s after their work.
                    time.sleep(PAUSE_S)
                    seconds[setting] += found.step(args.steps)
            medians = {k: float(np.median(s)) for k, s in seconds.items()}
            for (side, threads), median in medians.items():
                print(f"{side} width {width} threads {threads}: {median:.4f} s")
            result: dict[str, Any] = {
                "width": width,
                "matmul_gflop": matmul_gflop(width, facts["atoms"], facts["edges"]),
            }
            for side in commands:
                best = min(THREADS, key=lambda t, side=side: medians[side, t])
                result[side] = {
                    "threads": best,
                    "frames_s": facts["molecules"] / medians[side, best],
                    **workers[side, best].facts,
                }
            if args.peer_python:
                result["ratio"] = (
                    result["ours"]["frames_s"] / result["peer"]["frames_s"]
                )
            print(json.dumps(result, indent=1))
            for found in workers.values():
                found.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--peer-python",
        help="Python with torch and schnetpack; without it only our side runs",
    )
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--rounds", type=int, default=7, help="alternations")
    parser.add_argument("--steps", type=int, default=4, help="steps per turn")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    for name in ("--frames", "--width", "--threads"):
        kind = pathlib.Path if name == "--frames" else int
        parser.add_argument(name, type=kind, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        worker(args.frames, args.width, args.threads)
    else:
        compare(args)


if __name__ == "__main__":
    main()
