"""``chemscale scaffolds``: scaffold frequencies of one or two sets of molecules."""

import argparse
import pathlib

from chemscale_jax.analysis.maps.scaffold_report import write_scaffold_report
from chemscale_jax.core.errors import UserError
from chemscale_jax.data.conformers.scaffold_table import scaffold_table

EXAMPLE = """\
examples, what a larger set adds, and one set alone:
  chemscale scaffolds small.smi large.smi.gz --out=report
  chemscale scaffolds molecules.conformers --out=report
"""


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="chemscale scaffolds",
        description="Count molecules and Murcko scaffolds, what a second set adds to "
        "a first, and draw the most frequent scaffolds.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "sources",
        metavar="SET",
        nargs="+",
        help="one or two: folder of a conformer store, or a file: csv, tsv, smi or "
        "txt (each also .gz, .bz2, .xz, .zip), or parquet",
    )
    parser.add_argument(
        "--out",
        required=True,
        help="folder for report.md, scaffolds.csv and scaffolds.png",
    )
    parser.add_argument(
        "--column",
        default="",
        metavar="NAME",
        help="of the SMILES in files: a name in the header or a number from 1 "
        "(default: the column called SMILES or the like, or the only one)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="processes (default: one per core)",
    )
    args = parser.parse_args(argv)
    if len(args.sources) > 2:
        raise UserError(f"{len(args.sources)} sets are given: compare two at a time")
    if args.workers is not None and args.workers < 0:
        raise UserError(f"workers is {args.workers}: it must not be negative")
    tables = [
        scaffold_table(path, column=args.column, workers=args.workers)
        for path in args.sources
    ]
    print(write_scaffold_report(tables, pathlib.Path(args.out).expanduser()), end="")
    print(f"written to {args.out}")
    return 0
