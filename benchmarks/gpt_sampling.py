"""Molecules drawn from a ChemGPT: this package and ``transformers.generate``.

    python benchmarks/gpt_sampling.py --peer-python=PEERS/bin/python

PEERS is an environment with torch and transformers. Both sides draw 256 sequences at
once from the begin token, with the same weights in float32, temperature 1, no filter
and a cache of keys and values. A sequence ends with the end token or after --max-new
tokens. Ours also returns the log-likelihood of each token.

Without --model the weights are random, except that the end token is as likely at each
place as sequences of PubChem's lengths ask for: log-normal with mean 40 and deviation
16 symbols, so that the longest of 256 has about three times the mean. With --no-end it
cannot be drawn, and each sequence has --new-tokens tokens. With --model (workdirs, or
folders in the layout of Hugging Face) lengths are those of the models.

What counts is sequences per second. Seeds take turns; each side draws its own random
numbers, so mean lengths are printed. The peer's setting is chosen with few tokens. See
README.md for results.
"""

import argparse
import functools
import json
import math
import operator
import os
import pathlib
import sys
import tempfile
from typing import Any

import numpy as np
from gpt_peer_settings import Peer, add_peer_arguments, best_setting, peer_command
from gpt_step import medians
from gpt_step import turns as take_turns
from turns import Worker, serve

ROWS = 256
# Of random weights.
VOCABULARY = 200
MEAN_SYMBOLS, DEVIATION = 40.3, 16.4
MOST_LOGIT = 12.0  # of the end token, where the state points its way
ITERATIONS = 12
TRIAL_TOKENS = 16  # of the passes that choose the peer's setting


def end_chances(places: int) -> np.ndarray:
    """How likely a sequence of PubChem's lengths is to end at each place, if not yet.

    Lengths are log-normal.
    """
    variance = math.log(1 + (DEVIATION / MEAN_SYMBOLS) ** 2)
    middle = math.log(MEAN_SYMBOLS) - variance / 2
    scale = math.sqrt(2 * variance)
    longer = [
        math.erfc((math.log(k) - middle) / scale) / 2 for k in range(1, places + 1)
    ]
    reached = np.maximum([1.0, *longer[:-1]], 1e-30)
    return np.clip(1 - longer / reached, 1e-6, 0.9)


def end_as_likely(options: Any, params: Any, end: int, chance_L: np.ndarray) -> Any:
    """Weights with which a sequence ends at each place with a given probability.

    One direction of the state is left to the positions and to the end token: nothing
    else writes into it. How far positions must go in it is found in a few rounds.
    """
    import jax

    from chemscale_jax.models import gpt

    D, L = options.width, len(chance_L)
    direction_D = np.where(np.arange(D) % 2, -1.0, 1.0) / np.sqrt(D)
    tokens_VD, positions_LD = (
        np.array(params[name]["embedding"], np.float64)
        for name in ("tokens", "positions")
    )
    for table in (tokens_VD, positions_LD):
        table -= np.outer(table @ direction_D, direction_D)
    tokens_VD[end] = direction_D * MOST_LOGIT / np.sqrt(D)
    pairs = {kind: dict(block) for kind, block in params["pairs"].items()}
    for block in pairs.values():
        for name in ("merge", "shrink"):
            kernel = np.array(block[name]["kernel"])
            kernel -= (kernel @ direction_D)[..., None] * direction_D.astype("f4")
            block[name] = block[name] | {"kernel": kernel}
    others = np.log(options.vocabulary - 1)
    wanted_L = np.log(chance_L / (1 - chance_L)) + others

    def slope(logit_L: np.ndarray) -> np.ndarray:
        """The state's part in the direction over the rest of it."""
        cosine_L = np.clip(logit_L / MOST_LOGIT, -0.99, 0.99)
        return cosine_L / np.sqrt(1 - cosine_L**2)

    def with_part(part_L: np.ndarray) -> Any:
        positions = positions_LD.copy()
        positions[:L] += np.outer(part_L, direction_D)
        tables = {"tokens": tokens_VD, "positions": positions}
        return (
            params
            | {"pairs": pairs}
            | {name: {"embedding": np.float32(table)} for name, table in tables.items()}
        )

    tokens_1L = np.random.default_rng(0).integers(end + 1, options.vocabulary, (1, L))

    @jax.jit
    def state_and_logit(params: Any) -> tuple[Any, Any]:
        row: Any = tokens_1L, np.ones((1, L), int), np.arange(L)[None]
        before = gpt.hidden(options, params, *row, layer=options.depth - 1)
        return before[0], gpt.logits(options, params, *row)[0, :, end]

    part_L = np.zeros(L)
    for _ in range(ITERATIONS):
        x_LD, logit_L = state_and_logit(with_part(part_L))
        rest_L = np.linalg.norm(
            x_LD - np.outer(x_LD @ direction_D, direction_D), axis=1
        )
        part_L += 0.8 * rest_L * (slope(wanted_L) - slope(logit_L))
    return with_part(part_L)


def write_model(args: argparse.Namespace, of: int | str, folder: pathlib.Path) -> int:
    """Writes the weights for both sides, and returns their width."""
    import jax

    from chemscale_jax.chem.vocabulary import Vocabulary
    from chemscale_jax.inference.language_model import open_language_model
    from chemscale_jax.interop import hf_gpt_neo
    from chemscale_jax.models import gpt

    if isinstance(of, str):
        found = open_language_model(of)
        hf_gpt_neo.save_folder(folder, found.options, found.params, found.vocabulary)
        return found.options.width
    symbols = {f"[C{number}]": 1 for number in range(VOCABULARY - Vocabulary.specials)}
    vocabulary = Vocabulary.from_counts(symbols, "selfies")
    options = gpt.GptOptions(vocabulary=vocabulary.size, width=of)
    params = gpt.init(options, jax.random.key(0))["params"]
    if not args.no_end:
        chances = end_chances(args.max_new)
        params = end_as_likely(options, params, vocabulary.end, chances)
    hf_gpt_neo.save_folder(folder, options, params, vocabulary)
    return of


def worker(args: argparse.Namespace) -> None:
    """Our side: the package's own decoding."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])
    import jax

    from chemscale_jax.inference.decode import decode
    from chemscale_jax.inference.decode_step import advance
    from chemscale_jax.interop import hf_gpt_neo

    found = hf_gpt_neo.load_folder(args.folder)
    params = jax.device_put(found.variables["params"])
    words = found.vocabulary
    place = 0
    longest = []

    def step() -> float:
        nonlocal place
        out = decode(
            found.options,
            params,
            [np.array([words.begin])],
            end=None if args.no_end else words.end,
            pad=words.pad,
            max_new=args.max_new,
            samples_per_prompt=ROWS,
            batch_rows=ROWS,
            seed=place % args.seeds,
        )
        place += 1
        longest.append(int(out.lengths.max()))
        return float(out.lengths.mean())

    # Compiles what each seed needs.
    lengths = [step() for _ in range(args.seeds)]
    place = -2  # the steps of warm-up
    facts = {
        "version": f"jax {jax.__version__}",
        "mean_tokens": lengths,
        "most_tokens": longest[: args.seeds],
        "loops_compiled": operator.methodcaller("_cache_size")(advance),
    }
    serve(step, facts)


def compare(args: argparse.Namespace, of: int | str, folder: pathlib.Path) -> None:
    """Measures one model and prints what was found."""
    from chemscale_jax.chem.vocabulary import Vocabulary

    width = write_model(args, of, folder)
    max_new = args.new_tokens if args.no_end else args.max_new
    fields = [f"--max-new={max_new}", f"--seeds={args.seeds}"]
    ours = [f"--folder={folder}", *(["--no-end"] if args.no_end else []), *fields]
    workers = {
        "ours": Worker([sys.executable, __file__, "--worker", *ours], args.threads)
    }

    def start(setting: Peer, *changes: str) -> Worker:
        command = peer_command(
            args.peer_python,
            setting,
            f"--model={folder}",
            f"--rows={ROWS}",
            f"--begin={Vocabulary.begin}",
            f"--end={-1 if args.no_end else Vocabulary.end}",
            f"--pad={Vocabulary.pad}",
            *fields,
            *changes,
        )
        return Worker(command, setting.threads)

    setting = None
    if args.peer_python:
        setting = Peer(*args.peer) if args.peer else None
        trial = functools.partial(_start_trial, start)
        setting = setting or best_setting(trial, 1, args.preload, compile=False)
        workers["peer"] = start(setting)
    seconds = take_turns(workers, dict.fromkeys(workers, int(args.seeds)), args.rounds)
    result: dict[str, Any] = {"width": width, "peer_setting": setting}
    for name, each_s in seconds.items():
        mean_s = float(medians(each_s, args.seeds).mean())
        result[name] = {
            "molecules_s": ROWS / mean_s,
            "s": mean_s,
            **workers[name].facts,
        }
    if setting:
        rates = (result[name]["molecules_s"] for name in ("ours", "peer"))
        result["ratio"] = next(rates) / next(rates)
    print(json.dumps(result, indent=1), flush=True)
    for each in workers.values():
        each.close()


def _start_trial(start: Any, setting: Peer) -> Worker:
    """A worker of the peer that makes few tokens."""
    return start(setting, f"--max-new={TRIAL_TOKENS}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", nargs="*", help="trained ones; default random")
    parser.add_argument(
        "--widths", type=int, nargs="+", default=[64, 256], help="of random weights"
    )
    add_peer_arguments(parser)
    parser.add_argument("--threads", type=int, default=2, help="of ours")
    parser.add_argument("--max-new", type=int, default=256)
    parser.add_argument("--no-end", action="store_true", help="sequences of one length")
    parser.add_argument("--new-tokens", type=int, default=64, help="with --no-end")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=1, help="turns of the seeds")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        worker(args)
        return
    for of in args.model or args.widths:
        with tempfile.TemporaryDirectory() as folder:
            compare(args, of, pathlib.Path(folder))


if __name__ == "__main__":
    main()
