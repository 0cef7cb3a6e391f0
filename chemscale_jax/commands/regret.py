"""``chemscale regret``: which policy chooses best for its cost, from whole sweeps."""

import argparse
import pathlib

from chemscale_jax.analysis.tpe.run_curves import RunCurve, read_curves
from chemscale_jax.core.errors import UserError
from chemscale_jax.studies import regret
from chemscale_jax.studies.regret_report import PLOT, ROWS, TABLE, write_regret

EXAMPLE = """\
example, sweeps of three models whose runs were all trained to their ends:
  chemscale regret --runs=runs/schnet,runs/painn,runs/spookynet --out=runs/regret
"""


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="chemscale regret",
        description="Replay policies that stop runs early (tpe, halving, tpe_halving, "
        "asha) over sweeps whose runs were all trained to their ends, and compare what "
        "they pick at equal cost. A policy is tuned on all sweeps but the one it is "
        "tested on.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--runs", required=True, metavar="DIR,DIR,...", help="a folder for each sweep"
    )
    parser.add_argument(
        "--out", default="", help="folder of the report (default: that of the first)"
    )
    parser.add_argument(
        "--budgets",
        default=",".join(map(str, regret.BUDGETS)),
        metavar="B,...",
        help="of the cost of training all runs (default: %(default)s)",
    )
    parser.add_argument(
        "--resamplings",
        type=int,
        default=regret.RESAMPLINGS,
        help="draws of runs to test on (default: %(default)s)",
    )
    parser.add_argument(
        "--tuning",
        type=int,
        default=regret.TUNING,
        help="draws of runs to tune on (default: %(default)s)",
    )
    args = parser.parse_args(argv)
    try:
        budgets = [float(part) for part in args.budgets.split(",") if part]
    except ValueError:
        raise UserError(f"--budgets={args.budgets}: give numbers as 0.2,0.3") from None
    draws = (args.resamplings, args.tuning)
    if not budgets or not all(0 < b <= 1 for b in budgets) or min(draws) < 1:
        raise UserError(
            f"--budgets={args.budgets} --resamplings={args.resamplings} "
            f"--tuning={args.tuning}: budgets are above 0 and at most 1, numbers of "
            "draws at least 1"
        )
    tasks: dict[str, list[RunCurve]] = {}
    for name in filter(None, args.runs.split(",")):
        folder = pathlib.Path(name)
        label = folder.name if folder.name not in tasks else name
        tasks[label] = read_curves(folder)
    out = pathlib.Path(args.out or args.runs.split(",")[0])
    results = regret.compare(tasks, budgets, args.resamplings, args.tuning)
    print(write_regret(results, tasks, out))
    written = (TABLE, ROWS, f"{PLOT}.png")
    print(f"\nwritten: {', '.join(str(out / f) for f in written)}")
    return 0
