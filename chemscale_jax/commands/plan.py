"""``chemscale plan``: what the cells of a study cost on a stated device."""

import argparse
import pathlib
import sys

from tqdm import tqdm

EXAMPLE = """\
examples, the paper's force fields on an H100, and a small study on this machine:
  chemscale plan --config=configs/scaling_force_fields.py --device=h100
  chemscale plan --config=configs/scaling_force_fields.py:small --device=cpu \\
      --config.data.path=gfn2_1e4.h5
one run on 64 devices: memory of each, what they send, days, and whether it fits
  chemscale plan --config=configs/chemgpt.py:width=2048 --mesh=data=8,fsdp=8 \\
      --device=h100 --price=2.5 --config.batch.rows=512
"""


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit status."""
    args, overrides = make_parser().parse_known_args(argv)
    # Imported here, so that --help answers at once: these bring in JAX.
    from chemscale_jax.studies.cells import check_overrides, single_cell
    from chemscale_jax.studies.devices import find_device
    from chemscale_jax.studies.mesh_plan import mesh_table, parse_mesh, plan_on_mesh
    from chemscale_jax.studies.plan import (
        Planner,
        has_study,
        make_plan,
        plan_on_cpu,
        study_cells,
    )
    from chemscale_jax.studies.planned_cell import plan_table

    sizes = parse_mesh(args.mesh) if args.mesh else None
    plan_on_cpu(sizes.devices if sizes else 1)
    check_overrides(overrides)
    device = find_device(args.device)
    # No folder of a run is made: the cells only have to have one.
    folder = pathlib.Path("plan")
    if has_study(args.config):
        cells = study_cells(args.config, folder, overrides)
    else:
        cells = [single_cell(args.config, folder, overrides)]
    bar = tqdm(cells, unit="cell", disable=not sys.stderr.isatty())
    if sizes is None:
        planned = make_plan(cells, compile_steps=args.compile, progress=lambda _: bar)
        print(plan_table(planned, device))
        return 0
    planner = Planner()
    meshed = [
        plan_on_mesh(planner.prepare(cell), planner.plan(cell), sizes, device)
        for cell in bar
    ]
    print(mesh_table(meshed, device, args.price))
    return 0


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="chemscale plan",
        description="Print parameters, floating-point operations, memory and expected "
        "hours of every cell of a config's study, or of the run of a config without "
        "one. Nothing is trained. Data that are not on this machine are stood in for "
        "by those of the package.",
        epilog=f"Other arguments of the form --config.KEY=VALUE go to every cell.\n\n"
        f"{EXAMPLE}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", required=True, metavar="FILE[:ARG]")
    parser.add_argument(
        "--device",
        default="cpu",
        metavar="NAME",
        help="cpu (this machine's, measured), v100, a100, h100, h200, tpu-v4, tpu-v5e, "
        "tpu-v5p (default: %(default)s)",
    )
    parser.add_argument(
        "--mesh",
        default="",
        metavar="AXES",
        help="plan for several devices, as in data=8,fsdp=8 (axes data, fsdp, tensor); "
        "compiles the step of every cell, which takes a minute or two for large "
        "networks, and needs none of the devices",
    )
    parser.add_argument(
        "--price", type=float, help="of one device for an hour, with --mesh"
    )
    parser.add_argument(
        "--compile",
        action="store_true",
        help="compile the step of every shape for its memory; takes minutes for large "
        "networks",
    )
    return parser
