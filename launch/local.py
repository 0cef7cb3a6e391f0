"""Runs every cell of a config in processes of this machine.

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
from chemscale_jax.studies import launch_arguments
from chemscale_jax.studies.local_processes import CellRuns, places_of
from chemscale_jax.studies.place_arguments import add_place_arguments

EXAMPLE = """\
example, the learning rates of the config's sweep on a tiny model, two at a time:
  python launch/local.py --config=configs/painn_ani1x.py:smoke \\
      --workdir=runs/lr --jobs=2 --config.train.epochs=1
"""
PROGRAM = (sys.executable, "-m", "chemscale_jax.main")


def main(argv: Sequence[str], program: Sequence[str] = PROGRAM) -> int:
    """Runs the cells; the exit status is 0 if all of them are finished.

    Args:
        argv: the arguments after the program's name.
        program: the command that takes a cell's arguments.
    """
    args, overrides = make_parser().parse_known_args(argv)
    try:
        folder = pathlib.Path(args.workdir)
        cells = launch_arguments.chosen_cells(args, overrides, folder)
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
    parser = launch_arguments.make_parser("launch/local.py", __doc__, EXAMPLE)
    add_place_arguments(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
