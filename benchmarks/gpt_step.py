"""Training steps of a ChemGPT: this package and GPT-Neo of ``transformers``.

    python benchmarks/gpt_step.py --data=FILE.smi --peer-python=PEERS/bin/python

PEERS is an environment with torch and transformers. Both sides train on the molecules
of the same file from the same weights with the same AdamW in float32, and must report
the same loss for the peer's first batch. Ours takes the rows that the config of the
width asks for; the peer takes 64 molecules padded to the longest of them, and, as a
second case, molecules padded to 512. What counts is real tokens per second: padding
does not.

First the peer's best setting is looked for (threads, allocator, torch.compile), one
choice at a time. Then ours and the peer take turns. Batches of a shape of ours all take
the same time, so an epoch is their number times the median of each shape. The peer's
differ in their longest molecule: a sample of them, evenly spread over this length,
stands for the epoch. See README.md for results.
"""

import argparse
import functools
import json
import os
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from force_field_step import machine
from gpt_peer_settings import Peer, add_peer_arguments, best_setting, peer_command
from turns import Worker, serve

BATCH = 64  # molecules of a batch of the peer
PAUSE_S = 0.5  # before each turn


def config_of(args: argparse.Namespace, width: int) -> Any:
    """The config of a width, with the benchmark's data and optimiser."""
    from chemscale_jax.core import config_files

    config = config_files.load(f"configs/chemgpt.py:embedded,width={width}")
    if args.data:
        is_store = (args.data / "store.json").exists()
        config.data.source = "store" if is_store else "file"
        config.data.path, config.data.column = str(args.data), ""
    if args.form:
        config.batch.form = args.form
    if args.tokens:
        config.batch.tokens = args.tokens
        config.batch.rows = max(1, args.tokens // config.batch.length)
    config.model.depth = args.depth
    config.train.rows_at_once = args.rows_at_once
    config.optimizer.clip_norm = config.optimizer.ema_decay = 0.0
    config.optimizer.schedule, config.optimizer.warmup_steps = "constant", 0
    config.optimizer.lr = 1e-4
    return config


def peer_batches(stream: Any, count: int) -> tuple[list[np.ndarray], float, float]:
    """Batches of 64 molecules of an epoch of the peer.

    Returns:
        ``count`` arrays of ids (64, longest), evenly spread over the length of the
        longest; and of all batches the mean number of tokens and the share of places
        that hold one.
    """
    from chemscale_jax.data.text import token_rows

    lengths = token_rows.tokens_per_molecule(stream.store)
    order = np.random.default_rng(0).permutation(stream.split.train)
    order = order[: len(order) // BATCH * BATCH].reshape(-1, BATCH)
    longest = lengths[order].max(1)
    by_length = np.argsort(longest, kind="stable")
    places = (np.arange(count) + 0.5) / count * len(order)
    chosen = np.random.default_rng(0).permutation(by_length[places.astype(int)])
    arrays: list[Any] = [
        token_rows.packed_rows(
            stream.store, [members[i : i + 1] for i in range(BATCH)], int(length)
        ).tokens_BL
        for members, length in zip(order[chosen], longest[chosen], strict=True)
    ]
    tokens = float(lengths[order].sum() / len(order))
    return arrays, tokens, tokens / (BATCH * float(longest.mean()))


def gflop(width: int, depth: int, vocabulary: int, places: float, keys: float) -> float:
    """GFLOP of the matrix products of a step on rows of ``keys`` places.

    Both sides form the scores of all pairs of places of a row, also of those that are
    masked. A product costs twice as much again in the backward pass.
    """
    weights = depth * 12 * width**2 + vocabulary * width
    return 6 * places * (weights + depth * 2 * width * keys) / 1e9


def worker(args: argparse.Namespace, width: int) -> None:
    """Our side: the package's own task and jitted step on the rows of its stream."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])
    import jax

    from chemscale_jax.core import partition, processes
    from chemscale_jax.data import STREAMS
    from chemscale_jax.tasks import TASKS
    from chemscale_jax.training import step as steps
    from chemscale_jax.training.optimizer import make_optimizer

    config = config_of(args, width)
    # As the trainer takes a CPU.
    devices = processes.devices_for_rows(config.batch.rows, args.cpu_devices)
    jax.config.update("jax_num_cpu_devices", devices)
    stream: Any = STREAMS["tokens"](config, 0, 1)
    task = TASKS[config.task](config, stream.batch_specs, stream.artifacts)
    optimizer = make_optimizer(config.optimizer, 1000, ())
    mesh = partition.make_mesh()
    rows, whole = partition.row_sharding(mesh), partition.replicated(mesh)
    init, placed = steps.make_init(task, optimizer, config.mesh.rules.to_dict(), mesh)
    state = init(0)
    first_loss = loss_of_first(args, stream, task, state)
    epoch = stream.train_epoch(0)
    numbers = epoch.plan.batches[:, 0] if hasattr(epoch.plan, "batches") else [0]
    counts = np.bincount(numbers, minlength=len(stream.shapes))
    no = jax.device_put(np.array(False), whole)
    programs, shapes, compile_s = [], [], 0.0
    specs = stream.batch_specs
    for number, shape in enumerate(stream.shapes):
        if not counts[number]:
            continue
        at = int(np.flatnonzero(np.array(numbers) == number)[0])
        batch = jax.device_put(epoch[at], rows)
        slices = steps.choose_slices(specs, args.rows_at_once, mesh)
        train_step = jax.jit(
            steps.make_train_step(task, optimizer, 0, slices),
            in_shardings=(placed, rows, whole),
            out_shardings=(placed, whole),
            donate_argnums=0,
        )
        start = time.perf_counter()
        with jax.set_mesh(mesh):
            lowered = train_step.lower(state, batch, no)
        programs.append((lowered.compile(), batch))
        compile_s += time.perf_counter() - start
        shapes.append([*shape, int(counts[number])])
    place = -2  # two steps of warm-up

    def step() -> float:
        nonlocal state, place
        program, batch = programs[place % len(programs)]
        state, output = program(state, batch, no)
        place += 1
        return float(output.loss)

    facts = {
        "version": f"jax {jax.__version__}",
        "parameters": sum(x.size for x in jax.tree.leaves(state.params)),
        "first_loss": first_loss,
        "cpu_devices": devices,
        "shapes": shapes,
        "form": config.batch.form,
        "compile_s": compile_s,
    }
    for _ in range(len(programs)):
        step()
    place = -2
    serve(step, facts)


def loss_of_first(args: argparse.Namespace, stream: Any, task: Any, state: Any) -> Any:
    """Our loss for the peer's first batch, several molecules in a row."""
    import jax

    from chemscale_jax.core.batches import TokenRows

    with np.load(args.batches) as file:
        ids = file[sorted(file.files)[0]]
    length = max(shape.length for shape in stream.shapes)
    pad = stream.store.vocabulary.pad
    empty: Any = np.zeros((3, BATCH, length), np.int32)
    batch = TokenRows(*empty)
    batch.tokens_BL[:] = pad
    row = used = number = 0
    for molecule in ids:
        n = int((molecule != pad).sum())
        if used + n > length:
            row, used, number = row + 1, 0, 0
        here = (row, slice(used, used + n))
        number += 1
        batch.tokens_BL[here], batch.segment_BL[here] = molecule[:n], number
        batch.position_BL[here] = np.arange(n)
        used += n
    batch = TokenRows(*(x[: row + 1] for x in batch))
    nll = jax.jit(task.eval_fn)(state.params, state.constants, batch)["nll"]
    return float(nll.total / nll.count)


class Case:
    """One width: its files, and how workers are started on them."""

    def __init__(self, args: argparse.Namespace, folder: pathlib.Path, width: int):
        import jax

        from chemscale_jax.data import STREAMS
        from chemscale_jax.interop import hf_gpt_neo
        from chemscale_jax.models import gpt
        from chemscale_jax.tasks import causal_lm

        self.args, self.width, self.folder = args, width, folder
        config = config_of(args, width)
        stream: Any = STREAMS["tokens"](config, 0, 1)
        print(stream.summary)
        options = causal_lm.make_options(config, stream.artifacts)
        params = gpt.init(options, jax.random.key(0))["params"]
        self.vocabulary = stream.store.vocabulary
        hf_gpt_neo.save_folder(folder / "model", options, params, self.vocabulary)
        arrays, self.peer_tokens, self.peer_fill = peer_batches(stream, args.sample)
        np.savez(folder / "dynamic.npz", *arrays)
        np.savez(folder / "padded.npz", arrays[0][: args.padded_batch])
        self.padded_tokens = self.peer_tokens / BATCH * args.padded_batch
        self.our_tokens = stream.artifacts["training_set"]["tokens"]
        self.optimizer = config.optimizer
        self.count = args.sample

    def ours(self) -> Worker:
        """Our side."""
        given = self.args
        fields = [f"--batches={self.folder / 'dynamic.npz'}", f"--widths={self.width}"]
        for name in ("data", "form", "tokens", "rows_at_once", "cpu_devices", "depth"):
            if value := getattr(given, name):
                fields.append(f"--{name.replace('_', '-')}={value}")
        return Worker([sys.executable, __file__, "--worker", *fields], given.threads)

    def peer(self, setting: Peer, padded: bool = False) -> Worker:
        """The peer in a setting."""
        batches = "padded" if padded else "dynamic"
        command = peer_command(
            self.args.peer_python,
            setting,
            f"--model={self.folder / 'model'}",
            f"--batches={self.folder / batches}.npz",
            f"--pad={self.vocabulary.pad}",
            f"--lr={self.optimizer.lr}",
            f"--b2={self.optimizer.b2}",
            f"--weight-decay={self.optimizer.weight_decay}",
            *([f"--pad-to={self.args.padded_to}"] if padded else []),
        )
        return Worker(command, setting.threads)

    def best_peer(self) -> Peer:
        """The peer's fastest setting on its sample of batches."""
        given = self.args
        return best_setting(self.peer, self.count, given.preload, not given.no_compile)


def medians(seconds: Sequence[float], kinds: int) -> np.ndarray:
    """The median of each kind of step; they came in turn."""
    return np.array([np.median(seconds[kind::kinds]) for kind in range(kinds)])


def turns(workers: Mapping[str, Worker], steps: Mapping[str, int], rounds: int) -> dict:
    """Seconds of the steps of each worker, in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in workers}
    for _ in range(rounds):
        for name, found in workers.items():
            # OpenMP's threads go on spinning for 0.2 s after their work.
            time.sleep(PAUSE_S)
            seconds[name] += found.step(steps[name])
    return seconds


def agree(losses: Sequence[float]) -> None:
    """Ends the program where ours and the peer's loss of the first batch differ."""
    if not abs(losses[0] - losses[1]) < 1e-4:
        raise SystemExit(f"losses of the first batch differ: {losses}")


def compare(args: argparse.Namespace, width: int, folder: pathlib.Path) -> None:
    """Measures one width and prints what was found."""
    case = Case(args, folder, width)
    workers = {"ours": case.ours()}
    kinds = {
        "ours": len(workers["ours"].facts["shapes"]),
        "peer": case.count,
        "padded": 1,
    }
    peers: dict[str, Callable[[], Worker]] = {}
    setting = None
    if args.peer_python:
        setting = Peer(*args.peer) if args.peer else case.best_peer()
        peers["peer"] = functools.partial(case.peer, setting)
        if args.padded_batch:
            peers["padded"] = functools.partial(case.peer, setting, padded=True)
    seconds: dict[str, list[float]] = {}
    # One peer at a time: at width 256 both of them together take over 20 GB.
    for name in list(peers) or ["ours"]:
        if name in peers:
            workers[name] = peers[name]()
        if name == "peer":
            agree([workers[each].facts["first_loss"] for each in workers])
        both = {each: workers[each] for each in ("ours", name)}
        # The peer's pass over its batches is cut into turns.
        steps = {each: max(1, kinds[each] // args.parts) for each in both}
        steps["ours"] = kinds["ours"]
        for each, times in turns(both, steps, args.rounds * args.parts).items():
            seconds.setdefault(each, []).extend(times)
        if name in peers:
            workers[name].close()
    workers["ours"].close()
    found = {name: medians(of, kinds[name]) for name, of in seconds.items()}
    first = {of: workers[of].facts["first_loss"] for of in workers if of != "padded"}
    result: dict[str, Any] = {"width": width, "first_loss": first}
    size = case.vocabulary.size
    for name, each_s in found.items():
        facts = workers[name].facts
        if name == "ours":
            rows, lengths, batches = np.array(facts["shapes"]).T
            tokens, places, keys = case.our_tokens, rows * lengths * batches, lengths
            pass_s = each_s * batches
        else:
            dynamic = name == "peer"
            tokens = case.count * case.peer_tokens if dynamic else case.padded_tokens
            rows, keys = np.array(facts["shapes"]).T
            places, pass_s = rows * keys, each_s
        work = sum(
            gflop(width, args.depth, size, *of) for of in zip(places, keys, strict=True)
        )
        result[name] = {
            **({"setting": setting} if name != "ours" else {}),
            "tokens_s": tokens / pass_s.sum(),
            "matrix_gflop_s": work / pass_s.sum(),
            "fill": tokens / places.sum(),
            "step_s": each_s.round(4).tolist(),
            **{key: value for key, value in facts.items() if key != "first_loss"},
        }
    for name in found:
        if name != "ours":
            rates = result["ours"]["tokens_s"], result[name]["tokens_s"]
            result[f"ratio_{name}"] = rates[0] / rates[1]
    print(json.dumps(result, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data",
        type=pathlib.Path,
        help="file of SMILES or token store; default the embedded corpus",
    )
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--depth", type=int, default=24)
    parser.add_argument("--form", choices=("packed", "bucketed"), help="of our rows")
    parser.add_argument("--tokens", type=int, help="of our batches")
    parser.add_argument("--rows-at-once", type=int, default=0, help="of ours")
    parser.add_argument("--threads", type=int, default=2, help="of ours")
    parser.add_argument(
        "--cpu-devices", type=int, default=0, help="of ours; 0: as the trainer has"
    )
    add_peer_arguments(parser)
    parser.add_argument("--sample", type=int, default=8, help="of the peer's sample")
    parser.add_argument(
        "--padded-batch",
        type=int,
        default=4,
        help="molecules padded to --padded-to; 0: leave the case out",
    )
    parser.add_argument("--padded-to", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3, help="passes over the sample")
    parser.add_argument("--parts", type=int, default=4, help="turns of a pass")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--batches", type=pathlib.Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        worker(args, args.widths[0])
        return
    print(json.dumps(machine()))
    for width in args.widths:
        with tempfile.TemporaryDirectory() as folder:
            compare(args, width, pathlib.Path(folder))


if __name__ == "__main__":
    main()
