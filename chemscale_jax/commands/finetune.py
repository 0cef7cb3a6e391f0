"""``chemscale finetune``: a table of molecules and labels to a calibrated model."""

import argparse
import pathlib

from chemscale_jax import main as trainer
from chemscale_jax.core.errors import UserError

EXAMPLE = """\
examples:
  chemscale finetune --data=mols.csv --targets=logS --units='log10(mol/L)' --workdir=sol
  chemscale finetune --data=tox.csv --targets=NR-AR,SR-p53 --kind=binary --folds=5 \\
      --workdir=tox
  chemscale finetune --data=mols.csv --targets=logS --workdir=sol3 --seeds=3 \\
      --init=checkpoint.pt --config.optimizer.lr=4e-5
  chemscale predict --workdir=sol --input=others.csv --out=predicted.csv

FILE is csv, smi, parquet, sdf or xyz. Every row becomes a molecule of the run or is
listed with a reason; labels may be missing. Test molecules have other scaffolds than
those trained on, unless --split says otherwise. The folder gets predictions with
intervals, a fingerprint model on the same split beside them, plots and card.md. The
same command goes on where it was stopped.
"""
# Parts of the network that may stand still: regular expressions of parameters.
FREEZE = {
    "none": (),
    "encoder": ("^(?!head/)",),
    "embeddings": (
        "^(tokens|atoms|degrees|bonds|paths|virtual_atom|virtual_pair|kernel)/",
    ),
}
# Flag: the field of the config that it sets, and what it says.
_TEXTS = {
    "smiles-col": ("data.smiles_col", "NAME", "column of the SMILES"),
    "test": ("data.test_path", "FILE", "molecules that are only tested on"),
    "geometries": ("data.geometries", "FILE", "sdf whose record i is row i of --data"),
    "kind": (
        "data.kind",
        "KIND",
        "of the targets: regression, binary, multiclass (default: by their labels)",
    ),
    "split": (
        "data.split",
        "KIND",
        "scaffold (default), cluster, random, stratified, group, column, file",
    ),
    "split-col": ("data.split_col", "NAME", "column with train/valid/test, or groups"),
    "split-file": ("data.split_file", "FILE", "split.csv of an earlier run"),
    "features": ("data.features", "keep|drop", "of atoms and bonds; drop: only 3-D"),
}
_NUMBERS = {
    "conformers": ("data.conformers", int, "of each molecule, averaged over"),
    "epochs": ("train.epochs", int, "passes over the training set, at most"),
    "batch": ("batch.rows", int, "molecules of a step"),
    "lr": ("optimizer.lr", float, "peak learning rate"),
    "valid-fraction": ("data.valid_fraction", float, "of the molecules"),
    "test-fraction": ("data.test_fraction", float, "of the molecules"),
}


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit status."""
    parser = _parser()
    args, overrides = parser.parse_known_args(argv)
    for word in overrides:
        if not word.startswith("--config."):
            raise UserError(f"cannot read argument {word!r}; see --help")
    config = trainer.parse(["chemscale finetune", *arguments(args), *overrides])
    if not args.config:
        config.name = f"finetune-{pathlib.Path(args.data).name.partition('.')[0]}"
    # Imported here so that --help and mistakes in the command line answer at once.
    from chemscale_jax.runs.finetuning import finetune

    seeds = range(config.seed, config.seed + args.seeds)
    state = finetune(config, folds=args.folds, seeds=tuple(seeds))
    if state == "finished":
        print(
            f"\npredict other molecules: chemscale predict --workdir={args.workdir} "
            "--input=FILE --out=predicted.csv"
        )
    return 0


def arguments(args: argparse.Namespace) -> list[str]:
    """What the trainer has to be told to do the same.

    Raises:
        UserError: flags that exclude one another.
    """
    if not args.config and not args.data:
        raise UserError("give --data=FILE, a table of molecules with labels")
    if args.config and args.size:
        raise UserError("--size goes without --config; write it into the config's form")
    if args.size and args.init != "scratch":
        raise UserError(
            f"--size={args.size} is of a network that starts from nothing: give "
            "--init=scratch too, or leave it out"
        )
    found = [f"--workdir={args.workdir}"]

    def add(field: str, value: object) -> None:
        found.append(f"--config.{field}={value}")

    if args.config:
        found.append(f"--config={args.config}")
    else:
        form = "csv,init=" + ("scratch" if args.init == "scratch" else "packaged")
        size = f",size={args.size}" if args.size else ""
        found.append(f"--config=configs/finetune.py:{form}{size}")
    if args.data:
        add("data.source", "file")
        add("data.path", args.data)
    if args.init:
        add("init_from", "" if args.init == "scratch" else args.init)
    if args.freeze:
        add("init_freeze", FREEZE.get(args.freeze, (args.freeze,)))
    for name in ("targets", "units"):
        if (value := getattr(args, name)) is not None:
            add(f"data.{name}", tuple(word.strip() for word in value.split(",")))
    for flag, (field, *_) in {**_TEXTS, **_NUMBERS}.items():
        if (value := getattr(args, flag.replace("-", "_"))) is not None:
            add(field, value)
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="chemscale finetune",
        description="Finetune a Uni-Mol2 network on a table of molecules and labels.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        # --config.x must not be taken for an abbreviation.
        allow_abbrev=False,
    )
    parser.add_argument("--data", metavar="FILE", help="molecules with labels")
    parser.add_argument(
        "--targets",
        metavar="NAME,...",
        help="columns to learn (default: all others that are numbers)",
    )
    parser.add_argument("--workdir", required=True, metavar="DIR", help="of the run")
    parser.add_argument(
        "--units", metavar="UNIT,...", help="of the targets, for tables and plots"
    )
    for flag, (_, metavar, text) in _TEXTS.items():
        parser.add_argument(f"--{flag}", metavar=metavar, help=text)
    parser.add_argument(
        "--folds",
        type=int,
        default=0,
        metavar="K",
        help="train K networks, each tested on another part of the data, which predict "
        "together (default: one split)",
    )
    parser.add_argument(
        "--seeds",
        type=_count,
        default=1,
        metavar="N",
        help="networks of each split, which differ in their seeds (default: 1)",
    )
    parser.add_argument(
        "--init",
        metavar="SOURCE",
        help="packaged (default), scratch, a workdir, checkpoint.pt or safetensors",
    )
    parser.add_argument("--size", help="of a network from scratch (default: tiny)")
    parser.add_argument(
        "--freeze",
        metavar="PART",
        help=f"{', '.join(FREEZE)}, or a regular expression of parameters",
    )
    for flag, (_, kind, text) in _NUMBERS.items():
        parser.add_argument(f"--{flag}", type=kind, metavar="N", help=text)
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="another config of this task to start from, such as configs/qm9.py:paper",
    )
    parser.add_argument_group(
        "everything else", "--config.FIELD=VALUE, as for chemscale train"
    )
    return parser


def _count(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number
