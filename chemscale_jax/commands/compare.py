"""``chemscale compare``: runs of a sweep side by side, with intervals."""

import argparse
import pathlib

from chemscale_jax.analysis.reports.compare import compare, read_runs
from chemscale_jax.analysis.reports.compare_report import (
    PLOT,
    RUNS,
    TABLE,
    write_comparison,
)

EXAMPLE = """\
example, a sweep over widths and data sizes with two seeds:
  python launch/local.py --config=configs/chemgpt_grid.py --workdir=runs/grid \\
      --config.data.path=molecules.csv
  chemscale compare --runs=runs/grid --by=model.width,data.train_molecules
"""


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="chemscale compare",
        description="Compare the finished runs in a folder: losses on the records that "
        "all of them were scored on, differences between runs with 95 % intervals, and "
        "what the logs say where a loss does not fall.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--runs", required=True, help="folder with a folder per run")
    parser.add_argument(
        "--by",
        default="",
        metavar="FIELD,...",
        help="fields of the config to compare by (default: those in which the runs "
        "differ); runs that differ in their seeds only are one cell",
    )
    args = parser.parse_args(argv)
    folder = pathlib.Path(args.runs)
    by = [name for name in args.by.split(",") if name]
    print(write_comparison(compare(read_runs(folder), by), folder))
    print(f"\nwritten: {', '.join(str(folder / f) for f in (TABLE, PLOT, RUNS))}")
    return 0
