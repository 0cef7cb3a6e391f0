"""Molecules drawn from a ChemGPT: this package and ``transformers.generate``.

    python benchmarks/gpt_sampling.py --model=DIR --peer-python=PEERS/bin/python

PEERS is an environment with torch and transformers. Both sides draw 256 sequences at
once from the begin token, with the same weights in float32, temperature 1, no filter
and a cache of keys and values. Ours also returns the log-likelihood of each token.

With --model (a workdir, or a folder in the layout of Hugging Face) a sequence ends with
the end token or after --max-new tokens. Without it the weights are random and would
hardly ever end a sequence, so the end token is suppressed and each sequence has
--new-tokens tokens. What counts is sequences per second. Seeds take turns; each side
draws its own random numbers, so the mean length is printed. See README.md for results.
"""

import argparse
import json
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
VOCABULARY = 200  # of random weights


def write_model(place: str | None, width: int, folder: pathlib.Path) -> int:
    """Writes the weights for both sides, and returns their width."""
    import jax

    from chemscale_jax.chem.vocabulary import Vocabulary
    from chemscale_jax.inference.language_model import open_language_model
    from chemscale_jax.interop import hf_gpt_neo
    from chemscale_jax.models import gpt

    if place:
        found = open_language_model(place)
        hf_gpt_neo.save_folder(folder, found.options, found.params, found.vocabulary)
        return found.options.width
    symbols = {f"[C{number}]": 1 for number in range(VOCABULARY - Vocabulary.specials)}
    vocabulary = Vocabulary.from_counts(symbols, "selfies")
    options = gpt.GptOptions(vocabulary=vocabulary.size, width=width)
    params = gpt.init(options, jax.random.key(0))["params"]
    hf_gpt_neo.save_folder(folder, options, params, vocabulary)
    return width


def worker(args: argparse.Namespace) -> None:
    """Our side: the package's own decoding."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])
    import jax

    from chemscale_jax.inference.decode import decode
    from chemscale_jax.interop import hf_gpt_neo

    found = hf_gpt_neo.load_folder(args.folder)
    params = jax.device_put(found.variables["params"])
    words = found.vocabulary
    place = 0

    def step() -> float:
        nonlocal place
        out = decode(
            found.options,
            params,
            [np.array([words.begin])],
            end=words.end if args.stops else None,
            pad=words.pad,
            max_new=args.max_new,
            samples_per_prompt=ROWS,
            batch_rows=ROWS,
            seed=place % args.seeds,
        )
        place += 1
        return float(out.lengths.mean())

    # Compiles what each seed needs.
    lengths = [step() for _ in range(args.seeds)]
    place = -2  # the steps of warm-up
    facts = {
        "version": f"jax {jax.__version__}",
        "mean_tokens": float(np.mean(lengths)),
    }
    serve(step, facts)


def compare(args: argparse.Namespace, width: int, folder: pathlib.Path) -> None:
    """Measures one model and prints what was found."""
    from chemscale_jax.chem.vocabulary import Vocabulary

    width = write_model(args.model, width, folder)
    stops = args.model is not None
    fields = [f"--max-new={args.max_new if stops else args.new_tokens}"]
    fields.append(f"--seeds={args.seeds}")
    ours = [f"--folder={folder}", *(["--stops"] if stops else []), *fields]
    workers = {
        "ours": Worker([sys.executable, __file__, "--worker", *ours], args.threads)
    }

    def start(setting: Peer) -> Worker:
        command = peer_command(
            args.peer_python,
            setting,
            f"--model={folder}",
            f"--rows={ROWS}",
            f"--begin={Vocabulary.begin}",
            f"--end={Vocabulary.end if stops else -1}",
            f"--pad={Vocabulary.pad}",
            *fields,
        )
        return Worker(command, setting.threads)

    setting = None
    if args.peer_python:
        setting = Peer(*args.peer) if args.peer else None
        setting = setting or best_setting(start, 1, args.preload, compile=False)
        workers["peer"] = start(setting)
    seconds = take_turns(workers, dict.fromkeys(workers, 1), args.rounds * args.seeds)
    result: dict[str, Any] = {"width": width, "ends": stops, "peer_setting": setting}
    for name, of in seconds.items():
        mean_s = float(medians(of, args.seeds).mean())
        result[name] = {
            "molecules_s": ROWS / mean_s,
            "s": mean_s,
            **workers[name].facts,
        }
    if setting:
        rates = (result[name]["molecules_s"] for name in ("ours", "peer"))
        result["ratio"] = next(rates) / next(rates)
    print(json.dumps(result, indent=1))
    for each in workers.values():
        each.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="a trained one; default random weights")
    parser.add_argument(
        "--widths", type=int, nargs="+", default=[64, 256], help="of random weights"
    )
    add_peer_arguments(parser)
    parser.add_argument("--threads", type=int, default=2, help="of ours")
    parser.add_argument("--max-new", type=int, default=256)
    parser.add_argument("--new-tokens", type=int, default=64, help="of random weights")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3, help="turns of each seed")
    for name in ("--worker", "--stops"):
        parser.add_argument(name, action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        worker(args)
        return
    for width in args.widths[:1] if args.model else args.widths:
        with tempfile.TemporaryDirectory() as folder:
            compare(args, width, pathlib.Path(folder))


if __name__ == "__main__":
    main()
