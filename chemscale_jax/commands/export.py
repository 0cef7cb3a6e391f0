"""``chemscale export``: a force field as StableHLO, for other programs."""

import argparse
import pathlib

EXAMPLE = """\
example:
  chemscale export --workdir=runs/my-run --out=exported

reads back with jax.export.deserialize; force_field.json names inputs and units.
"""


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="chemscale export",
        description="Write energy and forces of a trained force field as one StableHLO "
        "program for any number of atoms and edges.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--workdir", help="folder of a run (default: the force field of the package)"
    )
    parser.add_argument("--out", required=True, help="folder to write to")
    parser.add_argument(
        "--periodic", action="store_true", help="take a cell and give stress"
    )
    parser.add_argument(
        "--platforms",
        default="cpu,cuda,tpu",
        help="where it will run (default: %(default)s)",
    )
    args = parser.parse_args(argv)
    # JAX takes seconds to import, which --help should not.
    from chemscale_jax.core.workdir import Workdir
    from chemscale_jax.inference import export
    from chemscale_jax.inference.ensemble import default_workdir
    from chemscale_jax.inference.force_field import open_force_field

    source = pathlib.Path(args.workdir) if args.workdir else default_workdir()
    out = pathlib.Path(args.out)
    export.export_force_field(
        open_force_field(Workdir(source)),
        out,
        periodic=args.periodic,
        platforms=args.platforms.split(","),
    )
    size_mb = (out / export.PROGRAM).stat().st_size / 1e6
    print(f"{out / export.PROGRAM}: {size_mb:.2f} MB, and {export.DESCRIPTION}")
    return 0
