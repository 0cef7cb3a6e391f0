"""``chemscale generate``: makes the embedded data set again, or one like it."""

import argparse
import pathlib

from chemscale_jax.chem.geometries import THERMAL_SHARE, atom_count
from chemscale_jax.chem.molecule_list import load_molecules
from chemscale_jax.core.errors import UserError
from chemscale_jax.data.frames.data_card import write_card
from chemscale_jax.data.frames.generate import FRAMES_PER_MOLECULE, generate
from chemscale_jax.data.frames.generated_file import rate_table

EXAMPLE = """\
examples, the embedded data set, and a hundred thousand frames of nine atoms:
  chemscale generate --out=chemscale_jax/data/embedded/gfn2_small.h5 \\
      --card=chemscale_jax/data/embedded/CARD.md
  chemscale generate --out=gfn2_1e5.h5 --frames=100000 --max-atoms=11 \\
      --thermal-share=0.05 --workers=8

A run that was stopped goes on when the same command is given again.
"""


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="chemscale generate",
        description="Label displaced geometries of named molecules with GFN2-xTB.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", required=True, help="HDF5 file to write")
    parser.add_argument(
        "--molecules",
        metavar="FILE.csv",
        help="columns name,smiles (default: the list of the embedded data set)",
    )
    parser.add_argument(
        "--max-atoms",
        type=int,
        metavar="N",
        help="leave out molecules with more atoms",
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        "--frames-per-molecule",
        type=int,
        default=FRAMES_PER_MOLECULE,
        metavar="N",
        help="geometries drawn for each molecule (default: %(default)s)",
    )
    size.add_argument(
        "--frames",
        type=int,
        metavar="N",
        help="at least N geometries in all, as many for each molecule",
    )
    parser.add_argument(
        "--thermal-share",
        type=float,
        default=THERMAL_SHARE,
        metavar="X",
        help="of frames from dynamics, which cost 15 times more than others "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=2,
        help="processes, one thread each; the result does not depend on it "
        "(default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--card", metavar="FILE.md", help="also write a data card")
    args = parser.parse_args(argv)
    try:
        molecules = load_molecules(args.molecules)
    except (ValueError, FileNotFoundError) as error:
        raise UserError(str(error)) from None
    if args.max_atoms is not None:
        molecules = [m for m in molecules if atom_count(m.smiles) <= args.max_atoms]
        if not molecules:
            raise UserError(f"no molecule has at most {args.max_atoms} atoms")
    per_molecule = args.frames_per_molecule
    if args.frames is not None:
        per_molecule = -(-args.frames // len(molecules))
    drops, costs = generate(
        args.out,
        molecules,
        frames_per_molecule=per_molecule,
        seed=args.seed,
        workers=args.workers,
        thermal_share=args.thermal_share,
    )
    if args.card:
        write_card(args.out, args.card)
    print(rate_table(costs))
    size_mb = pathlib.Path(args.out).stat().st_size / 1e6
    dropped = ", ".join(f"{n} {why}" for why, n in sorted(drops.items())) or "none"
    print(f"{args.out}: {size_mb:.2f} MB; frames dropped: {dropped}")
    return 0
