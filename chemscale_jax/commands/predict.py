"""``chemscale predict``: properties of molecules from a finetuned Uni-Mol2."""

import argparse

EXAMPLE = """\
examples:
  chemscale predict --workdir=runs/solubility --input=new.csv --out=predicted.csv
  chemscale predict --workdir=runs/solubility --input='CC(=O)Oc1ccccc1C(=O)O' \\
      --out=aspirin.csv --level=0.95 --conformers=10

Every row of the input is a row of the output, with its columns and these: a status, and
the reason where a molecule could not be read (its values are empty); for each target
pred_NAME [unit], an interval (low90_NAME, high90_NAME) that holds the true value with
the chance of --level for molecules like those that were held back in training, and
standard deviations over members (folds or seeds) and over conformers. For classes there
are probabilities, and the sets of classes at that level. OUT.json says what the model
is. A command that was stopped goes on when it is given again.
"""


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit status."""
    args = _parser().parse_args(argv)
    # What follows takes seconds to import, which --help should not.
    import jax

    from chemscale_jax.core import partition, processes
    from chemscale_jax.core.errors import UserError
    from chemscale_jax.data import cache
    from chemscale_jax.data.inputs.open_input import open_input
    from chemscale_jax.inference.molecule_batches import Batching
    from chemscale_jax.inference.predict_files import labels, write_predictions
    from chemscale_jax.inference.predict_properties import (
        PredictSettings,
        open_property_model,
    )

    if args.conformers < 0:
        raise UserError(f"--conformers is {args.conformers}; make it 0 or more")
    processes.start(cache.cache_folder() / "xla")
    changes = {"dtype": args.dtype} if args.dtype else {}
    folders = args.workdir.split(",")
    model = open_property_model(folders if folders[1:] else folders[0], **changes)
    source = open_input(
        args.input, smiles_col=args.smiles_col, max_atoms=model.data["max_atoms"]
    )
    mesh = partition.make_mesh() if jax.local_device_count() > 1 else None
    about = write_predictions(
        model,
        source,
        args.out,
        PredictSettings(
            conformers=args.conformers, seed=args.seed, geometry=args.geometry or ""
        ),
        level=args.level,
        batching=Batching(pairs=args.batch_pairs, mesh=mesh),
        workers=args.workers,
    )
    shown = ", ".join(f"{n:,} {status}" for status, n in about["rows"].items())
    print(f"{sum(about['rows'].values()):,} rows: {shown}")
    print(f"predicted: {', '.join(labels(about['targets'], about['units']))}")
    for note in about["notes"]:
        print(f"note: {note}")
    print(f"written to {args.out}, explained in {args.out}.json")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="chemscale predict",
        description="Predict properties of molecules with a finetuned Uni-Mol2, with "
        "intervals.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add, default = parser.add_argument, "default: %(default)s"
    add(
        "--workdir",
        required=True,
        metavar="DIR",
        help="of chemscale finetune, one run or several; several folders with commas "
        "are averaged, without intervals",
    )
    add(
        "--input",
        required=True,
        metavar="FILE",
        help="csv, smi, txt, parquet, sdf, mol, xyz, or a SMILES string",
    )
    add("--out", required=True, metavar="FILE", help=".csv or .parquet")
    add("--smiles-col", default="", metavar="NAME", help="of the SMILES in the input")
    add(
        "--level",
        type=float,
        default=0.9,
        metavar="P",
        help=f"of intervals ({default})",
    )
    add(
        "--conformers",
        type=int,
        default=0,
        metavar="K",
        help="of each molecule, over which predictions are averaged (default: as in "
        "training)",
    )
    add(
        "--seed",
        type=int,
        default=-1,
        metavar="N",
        help="of conformers (default: that of training)",
    )
    add(
        "--geometry",
        choices=("given", "conformers", "flat"),
        help="given: coordinates of the input, else conformers; flat: drawings "
        "(default: as in training)",
    )
    add("--dtype", choices=("float32", "bfloat16"), help="of matrix products")
    add(
        "--batch-pairs",
        type=int,
        default=0,
        metavar="N",
        help="pairs of places in a batch, which set its memory (default: by device)",
    )
    add("--workers", type=int, metavar="N", help="that make conformers (default: all)")
    return parser
