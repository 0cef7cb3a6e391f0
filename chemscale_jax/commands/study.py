"""``chemscale study``: model size x data x seed, from one plan to one report."""

import argparse
import pathlib
import sys

from tqdm import tqdm

from chemscale_jax.core.errors import UserError
from chemscale_jax.studies.place_arguments import add_place_arguments

EXAMPLE = """\
example, a small study of force fields on two cores, on frames that are made beforehand:
  chemscale generate --out=gfn2_1e4.h5 --frames=10000 --max-atoms=11 \\
      --thermal-share=0.05
  chemscale study --config=configs/scaling_force_fields.py:small \\
      --workdir=runs/scaling --jobs=2

The same command goes on where a study was stopped or killed.
"""


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit status."""
    args, overrides = make_parser().parse_known_args(argv)
    # Imported here, so that --help answers at once: these bring in JAX.
    from chemscale_jax.studies.cells import check_overrides
    from chemscale_jax.studies.devices import find_device
    from chemscale_jax.studies.local_processes import places_of
    from chemscale_jax.studies.plan import make_plan, plan_on_cpu, study_cells
    from chemscale_jax.studies.planned_cell import plan_table
    from chemscale_jax.studies.study import run_study

    plan_on_cpu()
    check_overrides(overrides)
    places = places_of(args.jobs, args.devices)
    device = find_device(args.device) if args.dry_run else None
    folder = pathlib.Path(args.workdir)
    cells = study_cells(args.config, folder, overrides)
    bar = tqdm(
        cells, desc="plan", unit="cell", leave=False, disable=not sys.stderr.isatty()
    )
    planned = make_plan(cells, None if args.dry_run else folder, progress=lambda _: bar)
    if device is not None:
        print(plan_table(planned, device))
        return 0
    absent = next((p.name for p in planned if p.stand_in), "")
    if absent:
        raise UserError(
            f"the data of {absent} are not on this machine; make them as the config "
            "says, give --config.data.path, or add --dry-run"
        )
    name = pathlib.Path(args.config.partition(":")[0]).stem
    name += args.config.removeprefix(args.config.partition(":")[0])
    program = (sys.executable, "-m", "chemscale_jax.main")
    ended = run_study(name, cells, planned, folder, program, places)
    if ended.received:
        print(f"stopped by {ended.received.name}; the same command goes on")
        return 128 + ended.received
    if ended.unsettled:
        print(ended.table)
        names = "; ".join(ended.unsettled)
        print(f"not finished: {names}; see log.txt in their folders")
        return 1
    print(ended.report)
    print(f"written to {folder}: results.csv, trajectories.csv, study.md")
    return 0


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="chemscale study",
        description="Train every cell of a config's study(), model size x data x seed, "
        "and fit scaling laws to the results.",
        epilog=f"Other arguments of the form --config.KEY=VALUE go to every cell.\n\n"
        f"{EXAMPLE}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", required=True, metavar="FILE[:ARG]")
    parser.add_argument("--workdir", required=True, help="holds a folder per cell")
    add_place_arguments(parser)
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print what the cells cost and train nothing, as chemscale plan does",
    )
    parser.add_argument(
        "--device",
        default="cpu",
        metavar="NAME",
        help="of the dry run, see chemscale plan (default: %(default)s)",
    )
    return parser
