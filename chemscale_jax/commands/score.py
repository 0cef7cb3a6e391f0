"""``chemscale score``: exact log-likelihoods of molecules under a language model."""

import argparse
import csv
import pathlib

import numpy as np

from chemscale_jax.core.errors import UserError

EXAMPLE = """\
example:
  chemscale score --workdir=runs/my-run --input=molecules.smi --out=scores.csv

Writes one row for each line of the input: its number, SMILES, log-likelihood in nats,
number of tokens (the end included), nats per token, and the reason if it has no score.
"""
HEADER = ("line", "smiles", "log_likelihood", "tokens", "nats_per_token", "reason")


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="chemscale score",
        description="Score molecules by how likely a language model finds them.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--workdir",
        metavar="DIR",
        help="of a run, or another folder of a model (default: the packaged model)",
    )
    parser.add_argument(
        "--step", type=int, metavar="N", help="of a checkpoint (default: the best)"
    )
    parser.add_argument(
        "--input", required=True, metavar="FILE", help="csv, smi, txt or parquet"
    )
    parser.add_argument(
        "--column", default="", metavar="NAME", help="of the SMILES in the input"
    )
    parser.add_argument("--out", default="scores.csv", help="default: %(default)s")
    args = parser.parse_args(argv)

    import jax
    from tqdm import tqdm

    from chemscale_jax.chem import prompts
    from chemscale_jax.core import partition, processes
    from chemscale_jax.data import cache
    from chemscale_jax.data.text.molecule_text import open_text, read_lines
    from chemscale_jax.inference import score
    from chemscale_jax.inference.language_model import open_language_model

    out = pathlib.Path(args.out)
    if not out.parent.is_dir():
        raise UserError(f"{out.parent} is not a folder; make it first")
    processes.start(cache.cache_folder() / "xla")
    source = open_text(args.input, args.column)
    model = open_language_model(args.workdir, args.step)
    vocabulary = model.vocabulary
    sequences, scored, rows = [], [], []
    for line in read_lines(source):
        reason = line.message if line.reason else ""
        ids = np.zeros(0, np.int64)
        if not reason:
            try:
                symbols = prompts.encode(line.text, model.notation)
                ids = vocabulary.encode(symbols).astype(np.int64)
            except ValueError as error:
                reason = str(error)
        if np.any(ids == vocabulary.unk):
            reason = "a symbol is not in the vocabulary"
        if len(ids) + 2 > model.options.positions:
            reason = f"longer than the model's {model.options.positions} positions"
        if not reason:
            scored.append(len(rows))
            sequences.append(np.array([vocabulary.begin, *ids, vocabulary.end]))
        rows.append([line.number, line.text, "", "", "", reason])
    mesh = partition.make_mesh() if jax.local_device_count() > 1 else None
    with tqdm(total=len(sequences), unit="mol", desc="score") as bar:
        found = score.log_likelihoods(
            model.options,
            model.params,
            sequences,
            mesh=mesh,
            on_rows=bar.update,
        )
    for place, sequence, value in zip(scored, sequences, found, strict=True):
        tokens = len(sequence) - 1
        rows[place][2:5] = [f"{value:.6f}", tokens, f"{-value / tokens:.6f}"]
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(HEADER)
        writer.writerows(rows)
    print(f"{len(found):,} of {len(rows):,} lines scored")
    if len(found):
        places = sum(map(len, sequences)) - len(sequences)
        print(
            f"mean {-found.mean():.3f} nats per molecule, "
            f"{-found.sum() / places:.4f} per token"
        )
    print(f"written to {out}")
    return 0
