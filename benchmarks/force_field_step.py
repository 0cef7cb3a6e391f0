"""One training step of a force field, energies and forces: this package and a peer.

    python benchmarks/force_field_step.py --model=painn --peer-python=PEERS/bin/python

PEERS is an environment with the peer's package. Both sides train on the same frames
of the embedded data set (batches of 60 molecules) with the same sizes, loss and
optimiser. Each side runs in processes of its own, one per thread setting. All of them
alternate, and the medians of each side's faster setting are compared.
What counts is real molecules per second. See README.md for results.

To add a model: an entry of CASES, a config ``configs/<model>_ani1x.py`` and the peer's
file, which takes --frames, --model (JSON of ``config.model``) and --threads (and
--compile, if it can), and ends with ``turns.serve``.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from turns import Worker, serve

MOLECULES = 60
THREADS = (1, 2)
PAUSE_S = 0.5  # before each turn


@dataclasses.dataclass(frozen=True)
class Case:
    """How one model is compared."""

    peer: str  # a file beside this one
    fields: Mapping[str, Any]  # of config.model, besides the width
    widths: tuple[int, ...] = (64, 256)
    # Rows of our batch by width, MOLECULES in all; the peer takes one graph.
    rows: Callable[[int], int] = lambda width: 12
    # fields with the width, atoms, edges -> GFLOP of the matrix products of a step
    matmul_gflop: Callable[[Mapping[str, Any], int, int], float] | None = None


def painn_gflop(fields: Mapping[str, Any], atoms: int, edges: int) -> float:
    """GFLOP of PaiNN's matrix products.

    A product is done once forward, once for the forces, and twice for the gradient of
    each of these; the first layer, where v = 0, lacks a third of two products.
    """
    F, depth = fields["width"], fields["depth"]
    per_atom = depth * (F * F + 3 * F * F + 6 * F * F + 2 * F * F + 3 * F * F)
    per_atom += F * F // 2 - F * F
    per_edge = (3 * depth - 1) * F * (fields["n_rbf"] + 1)
    return 6 * 2 * (atoms * per_atom + edges * per_edge) / 1e9


def schnet_gflop(fields: Mapping[str, Any], atoms: int, edges: int) -> float:
    """GFLOP of SchNet's matrix products, in schnetpack's form with filters by pair."""
    F, depth = fields["width"], fields["depth"]
    per_atom = depth * 3 * F * F + F * F // 2
    per_edge = depth * (F * fields["n_rbf"] + F * F)
    return 6 * 2 * (atoms * per_atom + edges / 2 * per_edge) / 1e9


CASES = {
    "painn": Case(
        peer="schnetpack_peer.py",
        fields={"depth": 3, "n_rbf": 20, "cutoff_ang": 5.0},
        matmul_gflop=painn_gflop,
    ),
    "schnet": Case(
        peer="schnetpack_peer.py",
        # schnetpack's form of the filters and of the layer before them.
        fields={
            "depth": 3,
            "n_rbf": 20,
            "cutoff_ang": 5.0,
            "trainable_gauss": False,
            "filter_hidden": "filters",
            "sender_bias": False,
            "readout_activation": "silu",
        },
        widths=(64, 128),
        # Larger rows while they fit the cache.
        rows=lambda width: 4 if width <= 64 else 6,
        matmul_gflop=schnet_gflop,
    ),
    "allegro": Case(
        peer="allegro_peer.py",
        fields={
            "form": "2025",
            "width_map": "quarter",
            "channels": 16,
            "depth": 2,
            "n_bessel": 8,
            "readout": (32,),
            "cutoff_ang": 5.0,
            "l_max": 2,
            "elements": (1, 6, 7, 8),
            "avg_num_neighbors": 10.0,
            "energy_scale": 1.0,
        },
        widths=(64, 128),
    ),
    "spookynet": Case(
        peer="spookynet_peer.py",
        fields={"depth": 3, "n_rbf": 16, "cutoff_ang": 5.0},
        widths=(64, 128),
        rows=lambda width: 6,
    ),
}


def config_of(model: str, width: int):
    """The embedded config of a model at the size of the benchmark."""
    from chemscale_jax.core import config_files

    config = config_files.load(f"configs/{model}_ani1x.py")
    with config.model.unlocked():
        config.model.update({"width": width, **CASES[model].fields})
    config.batch.rows = CASES[model].rows(width)
    config.batch.molecules = MOLECULES // config.batch.rows
    config.optimizer.ema_decay, config.optimizer.clip_norm = 0.0, 0.0
    config.optimizer.warmup_steps = 0
    return config


def write_frames(path: pathlib.Path, model: str, width: int) -> dict:
    """Writes the first batch of the stream, packed and as one flat graph."""
    from chemscale_jax.data import STREAMS

    stream = STREAMS["graphs"](config_of(model, width), 0, 1)
    batch = stream.train_epoch(0)[0]
    packed: dict[str, Any] = {
        f"pack/{k}": v for k, v in batch._asdict().items() if v is not None
    }
    flat: dict[str, list[np.ndarray]] = {}
    atoms = molecules = 0
    for row in range(len(batch.species_N)):
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
            "charge": batch.charge_M[row][mask_M],
            "spin": batch.spin_M[row][mask_M],
        }
        if batch.pair_receivers_P is not None:
            pairs = batch.pair_receivers_P[row] < len(real) - 1
            parts["pair_receivers"] = batch.pair_receivers_P[row][pairs] + atoms
            parts["pair_senders"] = batch.pair_senders_P[row][pairs] + atoms
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


def worker(frames: pathlib.Path, model: str, width: int, threads: int) -> None:
    """Our side: the package's own task and jitted step on the packed batch."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    import jax

    from chemscale_jax.core import partition
    from chemscale_jax.core.batches import GraphPack
    from chemscale_jax.tasks import TASKS
    from chemscale_jax.training import step as steps
    from chemscale_jax.training.optimizer import make_optimizer

    config = config_of(model, width)
    with np.load(frames) as file:
        fields = {k.split("/")[1]: file[k] for k in file.files if k.startswith("pack/")}
    batch = jax.device_put(GraphPack(**fields))
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch)
    task = TASKS[config.task](config, (shapes,), {})
    optimizer = make_optimizer(config.optimizer, 1000, ())
    slices = steps.choose_slices((shapes,), 0, partition.make_mesh(data=1))
    state = jax.jit(lambda: steps.init_state(task, optimizer, 0))()
    train_step = jax.jit(
        steps.make_train_step(task, optimizer, 0, slices), donate_argnums=0
    )
    no = jax.device_put(np.array(False))
    start = time.perf_counter()
    compiled = train_step.lower(state, batch, no).compile()
    compile_s = time.perf_counter() - start

    # XLA counts the body of a loop once, so one slice is counted and multiplied.
    count = slices(shapes)
    row = jax.tree.map(lambda x: x[: config.batch.rows // count], batch)
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
            "gflop": count * cost["flops"] / 1e9,
            "gbyte": count * cost["bytes accessed"] / 1e9,
            "parameters": sum(x.size for x in jax.tree.leaves(state.params)),
            "temp_mb": memory.temp_size_in_bytes / 1e6,
        },
    )


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
    case = CASES[args.model]
    widths = args.widths or case.widths
    with tempfile.TemporaryDirectory() as folder:
        frames = pathlib.Path(folder) / "frames.npz"
        facts = write_frames(frames, args.model, widths[0])
        print(json.dumps(facts))
        print(json.dumps(machine()))
        here = pathlib.Path(__file__)
        for width in widths:
            ours = [f"--frames={frames}", f"--model={args.model}", f"--width={width}"]
            commands = {"ours": [sys.executable, str(here), "--worker", *ours]}
            fields = config_of(args.model, width).model.to_dict()
            if args.peer_python:
                commands["peer"] = [
                    args.peer_python,
                    str(here.with_name(case.peer)),
                    f"--frames={frames}",
                    f"--model={json.dumps(fields)}",
                    *(["--compile"] if args.compile_peer else []),
                    *([f"--peer-path={args.peer_path}"] if args.peer_path else []),
                ]
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
            result: dict[str, Any] = {"model": args.model, "width": width}
            if case.matmul_gflop:
                result["matmul_gflop"] = case.matmul_gflop(
                    fields, facts["atoms"], facts["edges"]
                )
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
    parser.add_argument("--model", choices=CASES, default="painn")
    parser.add_argument(
        "--peer-python",
        help="Python with torch and the peer; without it only our side runs",
    )
    parser.add_argument(
        "--compile-peer", action="store_true", help="the peer uses torch.compile"
    )
    parser.add_argument("--peer-path", help="checkout of a peer that is no package")
    parser.add_argument("--widths", type=int, nargs="+", help="default: of the model")
    parser.add_argument("--rounds", type=int, default=7, help="alternations")
    parser.add_argument("--steps", type=int, default=4, help="steps per turn")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    for name in ("--frames", "--width", "--threads"):
        kind = pathlib.Path if name == "--frames" else int
        parser.add_argument(name, type=kind, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        worker(args.frames, args.model, args.width, args.threads)
    else:
        compare(args)


if __name__ == "__main__":
    main()
