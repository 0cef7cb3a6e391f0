"""``chemscale fit``: scaling laws of the runs in a csv file."""

import argparse
import pathlib

from chemscale_jax.analysis.scaling.analysis import AUTO
from chemscale_jax.analysis.scaling.data import DEFAULT, Columns, read_rows
from chemscale_jax.analysis.scaling.forms import FORMS
from chemscale_jax.analysis.scaling.report import Settings, study_of, write_study
from chemscale_jax.core.errors import UserError

EXAMPLE = """\
examples, a study of this package, and any file with a row per run:
  chemscale fit runs/scaling/results.csv --out=report
  chemscale fit runs.csv --loss=val_loss --size=params --data=tokens --group= \\
      --form=chinchilla --huber=0.001 --out=report
"""
_HELP = {
    "loss": "of the losses; several, by commas, are fitted one after another",
    "size": "of model sizes, such as parameters_nonembedding or capacity",
    "data": "of amounts of data: different records, each counted once",
    "compute": "of the compute of whole runs; without it, 6 N D is taken",
    "steps": "of steps, for the form unimol2",
    "group": "of groups that are fitted apart, such as models; empty for one group",
    "seed": "of seeds; runs that differ in nothing else are averaged",
    "epochs": "of passes over the data, for the form repeated",
}


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="chemscale fit",
        description="Fit scaling laws to the runs of a study: power laws in windows "
        "that a rule chooses, laws of size and data with 95 % intervals by profile "
        "likelihood, what the data cannot identify, the best use of compute, and the "
        "next run.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("results", metavar="CSV", help="a row per run")
    parser.add_argument(
        "--out",
        required=True,
        metavar="DIR",
        help="for report.md, fit.json, cells.csv and plots (PNG and SVG)",
    )
    parser.add_argument(
        "--form",
        default=AUTO,
        help=f"{AUTO} (default: the form that predicts the largest runs best), "
        f"{', '.join(FORMS)}",
    )
    columns = parser.add_argument_group("columns of the file")
    for role, default in DEFAULT._asdict().items():
        columns.add_argument(
            f"--{role}",
            default=default,
            metavar="COLUMN",
            help=f"{_HELP[role]} (default: {default})",
        )
    parser.add_argument(
        "--huber",
        type=float,
        metavar="DELTA",
        help="log loss beyond which residuals count linearly (default: twice their "
        "spread; 0.001 is that of Hoffmann et al. 2022)",
    )
    parser.add_argument(
        "--at-size",
        type=float,
        metavar="SIZE",
        help="compare the data exponents of groups at this size (default: the smallest "
        "of each)",
    )
    parser.add_argument(
        "--replicates",
        type=int,
        default=1000,
        metavar="N",
        help="of the bootstraps (default: 1000)",
    )
    args = parser.parse_args(argv)
    if args.huber is not None and not args.huber > 0:
        raise UserError(f"--huber is {args.huber}: it must be positive")
    if args.replicates < 20:
        raise UserError(
            f"--replicates is {args.replicates}: an interval needs 20 or more"
        )
    rows = read_rows(pathlib.Path(args.results).expanduser())
    settings = Settings(
        form=args.form,
        delta=args.huber,
        replicates=args.replicates,
        size=args.at_size,
    )
    out = pathlib.Path(args.out).expanduser()
    losses = [name for name in args.loss.split(",") if name]
    if not losses:
        raise UserError("--loss is empty; name the column of the losses")
    for name in losses:
        named = {role: getattr(args, role) for role in Columns._fields}
        study = study_of(rows, Columns(**{**named, "loss": name}), settings)
        folder = out / name if len(losses) > 1 else out
        print(write_study(study, folder), end="")
        print(f"written to {folder}")
    return 0
