"""``chemscale check``: measures whether a force field obeys the physics it should."""

import argparse
import pathlib

from chemscale_jax.core.errors import UserError
from chemscale_jax.core.workdir import Workdir

EXAMPLE = """\
example:
  chemscale check --workdir=runs/my-run

Prints a table with a verdict per line, and stores it in check.json and card.md of the
workdir. The exit status is 0 if every line is ok, else 1.
"""


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="chemscale check",
        description="Check symmetries, conservation, forces, cut-off, precision and "
        "energy drift of a trained force field.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--workdir", required=True, help="folder of a run")
    parser.add_argument(
        "--step", type=int, metavar="N", help="of a checkpoint (default: the best)"
    )
    parser.add_argument(
        "--no-nve", action="store_true", help="leave out dynamics, which needs ASE"
    )
    args = parser.parse_args(argv)
    workdir = Workdir(pathlib.Path(args.workdir))
    if not workdir.path.is_dir():
        raise UserError(
            f"workdir {workdir.path} does not exist; give the folder of a run"
        )

    from chemscale_jax.analysis.reports import report
    from chemscale_jax.core import processes
    from chemscale_jax.core.workdir import read_json
    from chemscale_jax.data import cache
    from chemscale_jax.inference import check

    processes.start(cache.cache_folder() / "xla")
    print(check.write_check(workdir, nve=not args.no_nve, step=args.step))
    if any(workdir.predictions.glob("*.npz")):
        report.write_report(workdir)
    return 0 if read_json(workdir.check_json)["ok"] else 1
