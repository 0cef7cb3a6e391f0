"""Runs every cell of a config's sweep() in processes of this machine.

A cell is one run of the trainer, in a folder of its own. The same command goes on
where a sweep was stopped: cells that are finished are skipped, the others resume.
Cells that run side by side without devices share the CPU cores out among them: small
models gain little from a second core, so two cells at a time are done sooner.
"""

import argparse
import pathlib
import shlex
import sys
from collections.abc import Sequence

from chemscale_jax.core.errors import UserError
from chemscale_jax.studies.cells import check_overrides, expand
from chemscale_jax.studies.local_processes import CellRuns, places_of
from chemscale_jax.studies.place_arguments import add_place_arguments

EXAMPLE = """\
example, the learning rates of the config's sweep on a tiny model, two at a time:
  python launch/local.py --config=configs/painn_ani1x.py:smoke \\
      --workdir=runs/lr --jobs=2 --config.train.epochs=1
"""
PROGRAM = (sys.executable, "-m", "chemscale_jax.main")


def main(argv: Sequence[str], program: Sequence[str] = PROGRAM) -> int:
    """Runs a sweep; the exit status is 0 if all its cells are finished.

    Args:
        argv: the arguments after the program's name.
        program: the command that takes a cell's arguments.
    """
    args, overrides = make_parser().parse_known_args(argv)
    try:
        check_overrides(overrides)
        cells = expand(args.config, pathlib.Path(args.workdir), overrides)
        places = places_of(args.jobs, args.devices)
        if args.dry_run:
            for cell in cells:
                print(shlex.join([*program, *cell.arguments]))
            return 0
        runs = CellRuns(cells, program, places)
        received = runs.run()
        print(runs.table())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if received:
        print(f"stopped by {received.name}; the same command goes on")
        return 128 + received
    return 0 if all(cell.done for cell in cells) else 1


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python launch/local.py",
        description=__doc__,
        epilog=f"Other arguments of the form --config.KEY=VALUE go to every cell.\n\n"
        f"{EXAMPLE}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", required=True, metavar="FILE[:ARG]")
    parser.add_argument("--workdir", required=True, help="holds a folder per cell")
    add_place_arguments(parser)
    parser.add_argument(
        "--dry-run", action="store_true", help="print the commands and run nothing"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
