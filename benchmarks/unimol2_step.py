"""One training step of Uni-Mol2's pretraining: this package and its authors' code.

    python benchmarks/unimol2_step.py --data=FILE.csv --peer-python=PEERS/bin/python
        --peer-path=CHECKOUTS

FILE has a column "smiles"; PEERS is an environment with torch; CHECKOUTS holds Uni-Mol
and Uni-Core (of deepmodeling and dptech-corp). Both sides train the 84M model, or some
of its layers, with its dropout, its three losses and AdamW on the same molecules.

- same: identical batches, random ones of 32 padded to the longest molecule.
- own: the peer's are those; ours are of molecules of like length (`buckets`).

A pass over all batches is timed; what counts is molecules per second, and the peak of
resident memory of each process after its first passes. Coordinates are those of
drawings: their values do not change the time.
"""

import argparse
import csv
import json
import os
import pathlib
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from turns import Worker, serve

BATCH = 32
PAUSE_S = 0.5  # before each turn
MASK = 127


def read_molecules(path: pathlib.Path, count: int, seed: int) -> list[dict[str, Any]]:
    """The arrays of some molecules, drawn without replacement."""
    from chemscale_jax.chem.molecule_features import feature_ids
    from chemscale_jax.chem.molecule_record import record_of_smiles

    with path.open(encoding="utf-8", newline="") as file:
        texts = [row["smiles"] for row in csv.DictReader(file)]
    rng = np.random.default_rng(seed)
    molecules: list[dict[str, Any]] = []
    for index in rng.permutation(len(texts)):
        if len(molecules) == count:
            break
        record = record_of_smiles(texts[index])
        if record.status == "failed":
            continue
        ids = feature_ids(record)
        N = len(ids.token_N)
        masked = rng.random(N) < 0.15
        masked[rng.integers(N)] = True
        target = record.flat_N3 - record.flat_N3.mean(0, keepdims=True)
        molecules.append(
            {
                "species": np.where(masked, MASK, ids.token_N).astype(np.int32),
                "atom": ids.atom_N8.astype(np.int32),
                "bond": ids.bond_NN3.astype(np.int32),
                "path": ids.path_NN.astype(np.int32),
                "degree": ids.degree_N.astype(np.int32),
                "positions": target + rng.normal(0, 0.2, (N, 3)).astype(np.float32),
                "target_token": np.where(masked, ids.token_N, 0).astype(np.int32),
                "target_positions": target.astype(np.float32),
            }
        )
    return molecules


def padded(molecules: Sequence[dict[str, Any]]) -> dict[str, np.ndarray]:
    """One batch: with the virtual atom, a multiple of 4 places, as the peer pads."""
    longest = max(len(one["species"]) for one in molecules)
    N = (longest + 4) // 4 * 4 - 1
    batch = {}
    for name, first in molecules[0].items():
        axes = 2 if name in ("bond", "path") else 1
        whole = np.zeros(
            (len(molecules), *(N,) * axes, *first.shape[axes:]), first.dtype
        )
        for row, one in enumerate(molecules):
            whole[(row, *(slice(len(one["species"])),) * axes)] = one[name]
        batch[name] = whole
    return batch


def buckets(molecules: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Batches of molecules of like length."""
    ordered = sorted(molecules, key=lambda one: len(one["species"]))
    return [ordered[n : n + BATCH] for n in range(0, len(ordered), BATCH)]


def write_batches(path: pathlib.Path, molecules: list[dict[str, Any]]) -> None:
    """Writes both ways to batch the molecules."""
    random = [molecules[n : n + BATCH] for n in range(0, len(molecules), BATCH)]
    arrays: dict[str, Any] = {
        f"{kind}/{number}/{name}": array
        for kind, batches in (("same", random), ("own", buckets(molecules)))
        for number, batch in enumerate(batches)
        for name, array in padded(batch).items()
    }
    np.savez(path, **arrays)


def read_batches(path: pathlib.Path, kind: str) -> list[dict[str, np.ndarray]]:
    """The batches of one kind, in their order."""
    batches: dict[int, dict[str, np.ndarray]] = {}
    with np.load(path) as file:
        for full in file.files:
            found, number, name = full.split("/")
            if found == kind:
                batches.setdefault(int(number), {})[name] = file[full]
    return [batches[number] for number in sorted(batches)]


def peak_mb() -> float:
    """The largest resident memory that this process had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def worker(args: argparse.Namespace) -> None:
    """Our side: loss, gradients and AdamW, jitted once for each length."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])
    import jax
    import jax.numpy as jnp
    import optax

    from chemscale_jax.core.batches import MoleculeRows
    from chemscale_jax.core.partition import make_mesh
    from chemscale_jax.core.task import Mean, Task
    from chemscale_jax.models import unimol2
    from chemscale_jax.training.step import choose_slices, loss_and_grads

    options = unimol2.faithful(args.size, depth=args.depth, remat=args.remat)
    names = ("species", "atom", "bond", "path", "degree", "positions")

    def terms(params: Any, _: Any, batch: dict[str, Any], key: Any) -> dict[str, Mean]:
        rows = MoleculeRows(*(batch[name] for name in names))
        keys = jax.random.split(key)
        encoded = unimol2.encode(options, params, rows, keys[0])
        moved = unimol2.move(options, params, encoded, rows, keys[1])
        mask = unimol2.atom_mask(rows)
        # No more than a third of a molecule is masked, but for the smallest ones.
        chosen = batch["target_token"] > 0
        places = jnp.argsort(~chosen, axis=1)[:, : max(mask.shape[1] // 2, 1)]
        x = jnp.take_along_axis(encoded.x_BTD[:, 1:], places[..., None], axis=1)
        target = jnp.take_along_axis(batch["target_token"], places, axis=1)
        log_prob = jax.nn.log_softmax(unimol2.token_logits(options, params, x))
        nll = -jnp.take_along_axis(log_prob, target[..., None], axis=2)[..., 0]
        count = jnp.sum(mask, axis=1)
        apart = jnp.sum(jnp.abs(moved - batch["target_positions"]), axis=2)
        coordinate = jnp.sum(jnp.where(mask, apart, 0), axis=1) / count
        apart = unimol2.distances(moved) - unimol2.distances(batch["target_positions"])
        pairs = mask[:, :, None] & mask[:, None, :]
        distance = jnp.sum(jnp.where(pairs, jnp.abs(apart), 0), (1, 2)) / count**2
        molecules = jnp.float32(len(count))
        return {
            "token": Mean(
                jnp.sum(jnp.where(target > 0, nll, 0)),
                jnp.sum(target > 0, dtype=jnp.float32),
            ),
            "coord": Mean(jnp.sum(coordinate), molecules),
            "dist": Mean(jnp.sum(distance), molecules),
        }

    def unused(*_: Any) -> Any:
        raise AssertionError("the step needs the loss alone")

    task = Task(
        name="benchmark",
        init=unused,
        loss_fn=terms,
        eval_fn=unused,
        predict_fn=unused,
        loss_weights={"token": 1.0, "coord": 1.0, "dist": 1.0},
        units={},
        headline=(),
        counter="molecules",
        batch_specs=(),
        param_axes=(),
    )
    optimizer = optax.adamw(1e-4, 0.9, 0.99, weight_decay=1e-4)

    def train(params: Any, moments: Any, batch: dict[str, Any], key: Any) -> Any:
        value, _, grads = loss_and_grads(task, params, {}, batch, key, slices(batch))
        updates, moments = optimizer.update(grads, moments, params)
        return optax.apply_updates(params, updates), moments, value

    batches = [jax.device_put(b) for b in read_batches(args.batches, args.kind)]
    # As the trainer does, which takes few rows at a time on a CPU.
    mesh = make_mesh(devices=jax.devices()[:1])
    slices = choose_slices(batches, args.rows_at_once, mesh)
    key = jax.random.key(0)
    params = jax.jit(lambda: unimol2.init(options, key)["params"])()
    moments = jax.jit(optimizer.init)(params)
    start = time.perf_counter()
    compiled = {}
    for batch in batches:
        if (places := batch["species"].shape) not in compiled:
            lowered = jax.jit(train, donate_argnums=(0, 1)).lower(
                params, moments, batch, key
            )
            compiled[places] = lowered.compile()
    facts: dict[str, Any] = {
        "version": f"jax {jax.__version__}",
        "compile_s": time.perf_counter() - start,
        "programs": len(compiled),
        "parameters": sum(x.size for x in jax.tree.leaves(params)),
        "temp_mb": max(
            program.memory_analysis().temp_size_in_bytes
            for program in compiled.values()
        )
        / 1e6,
    }
    numbers = [len(b["species"]) for b in batches]
    lengths = [b["species"].shape[1] + 1 for b in batches]
    work = [
        3 * n * unimol2.forward_flops(options, T)
        for n, T in zip(numbers, lengths, strict=True)
    ]
    facts["layer_gflop_per_molecule"] = sum(work) / sum(numbers) / 1e9
    turn = 0

    def step() -> float:
        nonlocal params, moments, turn
        value = None
        for batch in batches:
            turn += 1
            program = compiled[batch["species"].shape]
            params, moments, value = program(
                params, moments, batch, jax.random.fold_in(key, turn)
            )
        jax.block_until_ready(params)
        facts["peak_mb"] = peak_mb()
        return float(np.asarray(value))

    serve(step, facts)


def floor_gflop(molecules: Sequence[dict[str, Any]], size: str, depth: int) -> float:
    """GFLOP of a training step of a molecule at least: layers, without padding."""
    from chemscale_jax.models import unimol2

    options = unimol2.faithful(size, depth=depth)
    lengths = [len(one["species"]) + 1 for one in molecules]
    return (
        3 * float(np.mean([unimol2.forward_flops(options, T) for T in lengths])) / 1e9
    )


def compare(args: argparse.Namespace) -> None:
    """Runs all sides in turns and prints what was measured."""
    molecules = read_molecules(args.data, args.molecules, seed=0)
    here = pathlib.Path(__file__)
    from chemscale_jax.models import unimol2

    options = unimol2.faithful(args.size, depth=args.depth)
    fields = {
        name: getattr(options, name)
        for name in ("width", "depth", "heads", "pair_width", "pair_hidden", "hidden")
    }
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "batches.npz"
        write_batches(path, molecules)
        shared = [f"--batches={path}"]
        ours = [sys.executable, str(here), "--worker", *shared, f"--size={args.size}"]
        ours += [f"--depth={args.depth}", f"--remat={args.remat}"]
        ours += [f"--rows-at-once={args.rows_at_once}"]
        commands = {kind: [*ours, f"--kind={kind}"] for kind in ("same", "own")}
        if args.peer_python:
            commands["peer"] = [
                args.peer_python,
                str(here.with_name("unimol2_peer.py")),
                *shared,
                f"--model={json.dumps(fields)}",
                f"--peer-path={args.peer_path}",
            ]
        workers = {side: Worker(c, args.threads) for side, c in commands.items()}
        seconds: dict[str, list[float]] = {side: [] for side in workers}
        for _ in range(args.rounds):
            for side, found in workers.items():
                time.sleep(PAUSE_S)
                seconds[side] += found.step(1)
        result: dict[str, Any] = {
            "size": args.size,
            "depth": args.depth,
            "molecules": len(molecules),
            "floor_gflop_per_molecule": floor_gflop(molecules, args.size, args.depth),
        }
        for side, found in workers.items():
            rate = len(molecules) / float(np.median(seconds[side]))
            result[side] = {"molecules_s": rate, **found.facts}
            found.close()
        if args.peer_python:
            for kind in ("same", "own"):
                result[f"ratio_{kind}"] = (
                    result[kind]["molecules_s"] / result["peer"]["molecules_s"]
                )
                result[f"memory_ratio_{kind}"] = (
                    result[kind]["peak_mb"] / result["peer"]["peak_mb"]
                )
        print(json.dumps(result, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=pathlib.Path, help="csv with a column smiles")
    parser.add_argument("--molecules", type=int, default=128)
    parser.add_argument("--size", default="84M", help="of unimol2.SIZES")
    parser.add_argument("--depth", type=int, default=2, help="layers, of its 12")
    parser.add_argument("--remat", default="dots", help="none, dots, full")
    parser.add_argument(
        "--rows-at-once", type=int, default=2, help="largest rows, by our side"
    )
    parser.add_argument("--rounds", type=int, default=3, help="alternations")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--peer-python", help="Python with torch; without it only our side runs"
    )
    parser.add_argument("--peer-path", help="folder of Uni-Mol and Uni-Core")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--batches", type=pathlib.Path, help=argparse.SUPPRESS)
    parser.add_argument("--kind", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        worker(args)
    elif args.data is None:
        parser.error("--data is needed: a csv with a column smiles")
    else:
        compare(args)


if __name__ == "__main__":
    main()
