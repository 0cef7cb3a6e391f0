"""``chemscale report``: writes table, plots and card of a run again."""

import argparse
import pathlib

from chemscale_jax.analysis.reports.report import write_report
from chemscale_jax.core.workdir import Workdir

EXAMPLE = """\
example:
  chemscale report --workdir=runs/painn_ani1x-embedded-1a2b3c4d
"""


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="chemscale report",
        description="Write plots/*.png and card.md of a run again, from its workdir, "
        "and print the table of results.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--workdir", required=True, help="folder of a run")
    args = parser.parse_args(argv)
    workdir = Workdir(pathlib.Path(args.workdir))
    print(write_report(workdir))
    print(f"\nplots and card: {workdir.plots}, {workdir.card}")
    return 0
