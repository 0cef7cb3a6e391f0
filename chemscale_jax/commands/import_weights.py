"""``chemscale import``: makes a workdir of other people's weights."""

import argparse
import json
import pathlib
import sys
from typing import Any

from chemscale_jax.core.errors import UserError

EXAMPLE = """\
example, PaiNN of NeuralForceField, whose energies are in kcal/mol:
  chemscale import --family=nff_painn --weights=best_model.pth \\
      --options=params.json --workdir=runs/imported

The torch file is read without torch, and nothing in it is executed: a file that asks
for more than tensors and plain values is refused. Options are the arguments that the
foreign model was made with, such as {"feat_dim": 128, "cutoff": 5.0, ...}.
"""


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit status."""
    # Imported here so that mistakes in the command line answer at once.
    from chemscale_jax.interop.families import FAMILIES

    parser = argparse.ArgumentParser(
        prog="chemscale import",
        description="Make a workdir of a force field that was trained elsewhere.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--family", required=True, help=f"one of {', '.join(FAMILIES)}")
    parser.add_argument(
        "--weights",
        required=True,
        metavar="FILE",
        help="state dict: .pth or .pt of torch.save, or .npz",
    )
    parser.add_argument(
        "--options",
        required=True,
        metavar="FILE.json",
        help="arguments of the foreign model",
    )
    parser.add_argument("--workdir", required=True, help="folder to make")
    parser.add_argument(
        "--energy-unit",
        default="",
        metavar="UNIT",
        help="of the foreign energies, such as kcal/mol (default: kcal/mol for nff_*, "
        "else eV)",
    )
    parser.add_argument(
        "--elements",
        default="",
        metavar="H,C,...",
        help="what the weights were trained on (default: what the options list, or "
        "H,C,N,O)",
    )
    parser.add_argument(
        "--prefix",
        default="",
        help="take only arrays whose name begins with it, without it",
    )
    args = parser.parse_args(argv)
    options = _read_options(pathlib.Path(args.options))

    from chemscale_jax.core import processes
    from chemscale_jax.data import cache
    from chemscale_jax.inference.imported import write_workdir
    from chemscale_jax.interop.families import import_force_field, read_weights

    processes.start(cache.cache_folder() / "xla")
    imported = import_force_field(
        args.family, read_weights(args.weights, args.prefix), options, args.energy_unit
    )
    workdir = write_workdir(
        args.workdir,
        imported,
        weights=args.weights,
        family=args.family,
        elements=[symbol for symbol in args.elements.split(",") if symbol],
    )
    symbols = ", ".join(workdir.artifacts()["elements"])
    unit = args.energy_unit or FAMILIES[args.family].energy_unit
    print(
        f"{workdir.path}: {imported.model} from {args.weights}, energies in {unit} "
        f"scaled to eV, for {symbols}",
        file=sys.stdout,
    )
    return 0


def _read_options(path: pathlib.Path) -> dict[str, Any]:
    try:
        options = json.loads(path.read_text())
    except OSError as error:
        raise UserError(f"--options={path} cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise UserError(f"--options={path} is not JSON ({error})") from None
    if not isinstance(options, dict):
        raise UserError(
            f"--options={path} holds a {type(options).__name__}, expected an object "
            "of arguments"
        )
    return options
