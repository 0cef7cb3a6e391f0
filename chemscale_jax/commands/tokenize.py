"""``chemscale tokenize``: a file of SMILES to a token store with a complete ledger."""

import argparse
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

from chemscale_jax.chem.vocabulary import NOTATIONS
from chemscale_jax.core.errors import UserError
from chemscale_jax.data.text.finish_store import ON_UNKNOWN, Finish
from chemscale_jax.data.text.molecule_text import TextSource, open_text
from chemscale_jax.data.text.tokenize import Tokenized, tokenize_source
from chemscale_jax.data.text.vocabulary_file import read_vocabulary

EXAMPLE = """\
examples, a file of one's own, and one for a published ChemGPT:
  chemscale tokenize molecules.csv --column=smiles --out=molecules.tokens
  chemscale tokenize molecules.smi.gz --notation=selfies-1 \\
      --vocabulary=ChemGPT-4.7M/tokenizer.json --out=molecules.tokens

Every line becomes a molecule of the store, or a row of its ledger.csv with the reason.
A run that was stopped goes on when the same command is given again.
"""


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="chemscale tokenize",
        description="Check and encode molecules for a language model.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "source",
        metavar="FILE",
        help="csv, tsv, smi or txt (each also .gz, .bz2, .xz, .zip), parquet, or the "
        "folder of a prepared TFDS data set",
    )
    parser.add_argument("--out", required=True, help="folder to make")
    parser.add_argument(
        "--column",
        default="",
        metavar="NAME",
        help="of the SMILES: a name in the header or a number from 1 (default: the "
        "column called SMILES or the like, or the only one)",
    )
    parser.add_argument(
        "--split",
        default="train",
        help="of a TFDS data set (default: %(default)s)",
    )
    parser.add_argument(
        "--notation",
        choices=NOTATIONS,
        help="selfies-1 is the alphabet of SELFIES 1.0.4 and the published ChemGPT "
        "models (default: that of the vocabulary, otherwise selfies)",
    )
    parser.add_argument(
        "--vocabulary",
        metavar="FILE",
        help="vocabulary.json of a store, or tokenizer.json of a Hugging Face model "
        "(default: made from the molecules)",
    )
    parser.add_argument(
        "--max-vocabulary",
        type=int,
        default=Finish.max_vocabulary,
        metavar="N",
        help="tokens of a vocabulary that is made (default: %(default)s)",
    )
    parser.add_argument(
        "--on-unknown",
        choices=ON_UNKNOWN,
        default=Finish.on_unknown,
        help="what happens to molecules with symbols that the vocabulary lacks: drop "
        "them into the ledger, keep them with [UNK], or fail (default: %(default)s)",
    )
    parser.add_argument(
        "--canonical",
        action="store_true",
        help="encode RDKit's canonical SMILES, not the SMILES as written",
    )
    parser.add_argument(
        "--round-trip",
        type=int,
        metavar="N",
        help="molecules to decode and compare (default: one in 50, at least 200 and at "
        "most 1000)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=Finish.seed,
        help="of the choice of these (default: %(default)s)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="processes; the result does not depend on it (default: one per core)",
    )
    args = parser.parse_args(argv)
    vocabulary = read_vocabulary(args.vocabulary) if args.vocabulary else None
    finish = Finish(
        vocabulary, args.max_vocabulary, args.on_unknown, args.round_trip, args.seed
    )
    try:
        done = tokenize_source(
            _open(args.source, args.column, args.split),
            args.out,
            notation=args.notation
            or (vocabulary.notation if vocabulary else "selfies"),
            finish=finish,
            canonical=args.canonical,
            workers=args.workers,
        )
    except KeyboardInterrupt:
        print(
            f"stopped; what is done is in {args.out}.parts, and the same command goes "
            "on from there",
            file=sys.stderr,
        )
        return 130
    print(summary(done))
    return 0


def _open(path: str, column: str, split: str) -> TextSource:
    if not pathlib.Path(path).expanduser().is_dir():
        return open_text(path, column)
    if column:
        raise UserError(f"{path} is a folder: --column is for files of text")
    # Costs start-up time.
    from chemscale_jax.data.text.tfds_text import open_prepared

    return open_prepared(path, split)


def summary(done: Tokenized) -> str:
    """What a person wants to know of a store."""
    store, info, coverage = done.store, done.store.info, done.store.coverage
    M = len(store)
    failed = store.failed()
    reasons = ", ".join(f"{n:,} {why}" for why, n in failed.most_common()) or "none"
    lines = [
        f"lines       {info['lines']:,}: {M:,} stored, {failed.total():,} in "
        f"{store.folder}/ledger.csv ({reasons})",
        f"symbols     {info['symbols']:,} of {info['notation']}, "
        f"{info['symbols'] / max(M, 1):.1f} per molecule",
        f"vocabulary  {info['vocabulary_size']:,} tokens; unknown: "
        + unknown_line(coverage),
    ]
    round_trip = info["round_trip"]
    if round_trip["molecules"]:
        lines.append(
            f"round trip  {round_trip['equal']:,} of {round_trip['molecules']:,} "
            f"molecules come back the same ({round_trip['share']:.2%})"
        )
    if done.cpu_s:
        rate = info["lines"] / done.cpu_s
        lines.append(f"speed       {rate:,.0f} lines per core-second")
    return "\n".join([*lines, f"written to  {store.folder}"])


def unknown_line(coverage: Mapping[str, Any]) -> str:
    """Unknown symbols in words: never silent."""
    unknown = coverage["unknown"]
    if not unknown:
        return "none"
    fate = {"keep": "kept as [UNK]", "drop": "in the ledger"}[coverage["on_unknown"]]
    shown = " ".join(list(unknown)[:8]) + (" ..." if len(unknown) > 8 else "")
    return (
        f"{len(unknown)} symbols in {coverage['molecules_with_unknown']:,} molecules, "
        f"which are {fate}: {shown}"
    )
