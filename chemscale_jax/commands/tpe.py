"""``chemscale tpe``: which run of a sweep will be the best, from its early losses."""

import argparse
import ast
import pathlib
from typing import Any

from chemscale_jax.analysis.tpe import scores as tpe
from chemscale_jax.analysis.tpe.estimate import Estimate, estimate
from chemscale_jax.analysis.tpe.report import (
    PLOT,
    RUNS,
    SUMMARY,
    TABLE,
    summary,
    write_estimate,
)
from chemscale_jax.analysis.tpe.run_curves import read_curves
from chemscale_jax.core.errors import UserError

EXAMPLE = """\
example, a grid of learning rates and batch sizes, some of it finished:
  chemscale tpe --runs=runs/grid --fraction=0.2 \\
      --mark=optimizer.lr=5e-5,batch.rows=8
"""


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="chemscale tpe",
        description="Training performance estimation (Eq. 7 and 8 of Frey et al. "
        "2023): rank the runs of a sweep by their early training losses, predict the "
        "final losses of those that are not finished, and say how sure that is and "
        "what it costs.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--runs",
        required=True,
        metavar="DIR,...",
        help="folders with a folder per run; several sweeps are summed up in a table",
    )
    parser.add_argument(
        "--fraction",
        type=float,
        default=0.2,
        help="of the planned epochs that the score may see (default: 0.2)",
    )
    parser.add_argument(
        "--score",
        default="tse",
        choices=tpe.SCORES,
        help="tse: sum of the epochs' mean training losses (default); tse_last: the "
        "last epoch's; tse_ema: its exponential form; valid: validation loss",
    )
    parser.add_argument(
        "--mark",
        default="",
        metavar="FIELD=VALUE,...",
        help="settings of the run to mark in table and plot, such as the usual ones",
    )
    parser.add_argument(
        "--out",
        default="",
        help="folder of the table of several sweeps (default: that of the first)",
    )
    args = parser.parse_args(argv)
    folders = [pathlib.Path(name) for name in args.runs.split(",") if name]
    if not 0 < args.fraction <= 1:
        raise UserError(f"--fraction={args.fraction}, expected above 0 and at most 1")
    found: list[tuple[str, Estimate]] = []
    for folder in folders:
        curves = read_curves(folder)
        seen = estimate(curves, args.fraction, args.score, marks(args.mark))
        found.append((folder.name, seen))
        text = write_estimate(curves, seen, folder)
        written = ", ".join(str(folder / f) for f in (TABLE, RUNS, f"{PLOT}.png"))
        print(f"{folder}\n\n{text}\n\nwritten: {written}\n")
    if len(found) > 1:
        out = pathlib.Path(args.out) if args.out else folders[0]
        text = summary(found)
        try:
            out.mkdir(parents=True, exist_ok=True)
            (out / SUMMARY).write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise UserError(
                f"{out} cannot be written ({error.strerror}); choose another --out"
            ) from None
        print(f"{text}\n\nwritten: {out / SUMMARY}")
    return 0


def marks(text: str) -> dict[str, Any]:
    """The settings in ``FIELD=VALUE,...``.

    Raises:
        UserError: a part has no equals sign.
    """
    found: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        field, equals, value = part.partition("=")
        if not equals:
            raise UserError(
                f"--mark has {part!r}; write FIELD=VALUE, such as optimizer.lr=5e-5"
            )
        try:
            found[field] = ast.literal_eval(value)
        except (SyntaxError, ValueError):
            found[field] = value
    return found
