"""``chemscale evaluate``: metrics of generated molecules, beside reference data."""

import argparse
import pathlib

EXAMPLE = """\
example:
  chemscale evaluate --input=generated.csv --reference=test.csv.gz \\
      --train=train.csv.gz --out=evaluation

Prints validity, uniqueness, novelty, diversity, similarity to the reference, the
filters of MOSES and distances of properties, each with an interval and beside the same
figure of the reference itself, and writes metrics.json, filters.csv (the verdict on
each molecule and its reason) and properties.png. Files are csv, smi, txt or parquet,
packed or not; --train may also be a folder made by tokenising.
"""
_FILES = {
    "input": "generated molecules, in their order; what is empty counts as invalid",
    "reference": "molecules to compare with, such as a test set",
    "train": "molecules the model was trained on, for novelty",
    "prompts": "molecules whose beginnings were the prompts",
}


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="chemscale evaluate",
        description="Measure generated molecules as MOSES does, with intervals.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name, meaning in _FILES.items():
        parser.add_argument(
            f"--{name}", required=name == "input", metavar="FILE", help=meaning
        )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write")
    for name in _FILES:
        flag = "--column" if name == "input" else f"--{name}-column"
        parser.add_argument(
            flag,
            dest=f"{name}_column",
            default="",
            metavar="NAME",
            help=f"column of the SMILES in --{name} (default: the one called smiles)",
        )
    parser.add_argument(
        "--mcf",
        metavar="FILE",
        help="medicinal-chemistry filters, such as the mcf.csv of MOSES (default: our "
        "own rules, which reject the same molecules)",
    )
    parser.add_argument(
        "--pains",
        metavar="FILE",
        help="PAINS, such as the wehi_pains.csv of MOSES (default: RDKit's catalogue)",
    )
    parser.add_argument(
        "--all-reasons",
        action="store_true",
        help="give every reason why a molecule fails, not only the first",
    )
    parser.add_argument(
        "--fcd",
        action="store_true",
        help="also the Frechet ChemNet distance; needs the extra fcd",
    )
    parser.add_argument(
        "--max-reference",
        type=int,
        default=10_000,
        metavar="N",
        help="thin a larger reference to so many molecules; 0 takes all (default: "
        "%(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument(
        "--processes", type=int, metavar="N", help="default: all that may be used"
    )
    args = parser.parse_args(argv)

    from chemscale_jax.analysis.generation.generated_files import write_evaluation
    from chemscale_jax.analysis.generation.generated_metrics import (
        evaluate_molecules,
        metrics_table,
    )
    from chemscale_jax.chem.medicinal_filters import FilterOptions
    from chemscale_jax.data.text.molecule_text import open_text, read_lines
    from chemscale_jax.data.text.token_store import TokenStore

    def read(name: str) -> list[str | None] | None:
        path = getattr(args, name)
        if path is None:
            return None
        source = open_text(path, getattr(args, f"{name}_column"))
        return [None if line.reason else line.text for line in read_lines(source)]

    if args.train and pathlib.Path(args.train).is_dir():
        # Keys of the canonical SMILES, without reading any again.
        train = TokenStore.open(args.train).keys[:, 0]
    else:
        train = read("train")
    metrics = evaluate_molecules(
        read("input") or [],
        read("reference"),
        train,
        read("prompts"),
        filters=FilterOptions(args.mcf, args.pains, args.all_reasons),
        max_reference=args.max_reference,
        fcd=args.fcd,
        seed=args.seed,
        processes=args.processes,
    )
    folder = pathlib.Path(args.out)
    write_evaluation(metrics, folder)
    print(metrics_table(metrics))
    print(f"\nfigures, verdicts and plot: {folder}")
    return 0
