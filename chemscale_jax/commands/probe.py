"""``chemscale probe``: simple models of embeddings, tested beside fingerprints."""

import argparse
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from chemscale_jax.core.errors import UserError

if TYPE_CHECKING:
    from chemscale_jax.analysis.probes.cells import ProbeSettings
    from chemscale_jax.analysis.probes.rows import ProbeRows

EXAMPLE = """\
examples:
  chemscale probe --embeddings=embeddings.npz --input=molecules.csv --targets=logS \\
      --split=scaffold --folds=5 --seeds=3 --out=probes
  chemscale probe --embeddings=trained=emb.npz,untrained=control.npz \\
      --input=tox21.csv.gz --data=tox21 --out=tox21
  chemscale probe --predict=probes/probe.npz --embeddings=others.npz \\
      --out=predicted.csv

Prints which representation is better, with intervals, and writes report.md, plots,
leaderboard.csv (every metric on every fold), rows.csv (what became of each row) and the
folds, which chemscale finetune reads with --split=file. A command that was stopped goes
on when it is given again.
"""
PROBE = "probe.npz"


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit status."""
    args = _parser().parse_args(argv)
    if args.predict:
        return _predict(args)
    # What follows takes seconds to import, which --help should not.
    from chemscale_jax.analysis.probes import cells as probe_cells
    from chemscale_jax.analysis.probes import figures as probe_figures
    from chemscale_jax.analysis.probes import report as probe_report
    from chemscale_jax.analysis.probes.networks import read_networks
    from chemscale_jax.analysis.probes.predictor import fit_predictor

    settings = _settings(args)
    rows = _rows(args)
    folder = pathlib.Path(args.out).expanduser()
    folds = probe_cells.fold_numbers(rows, settings)
    if not (folder / probe_report.CELLS).exists():
        probe_report.begin_report(folder, rows, settings, folds)
    networks = {
        name: read_networks(path, rows, settings, folds)
        for name, path in _named(args.finetuned or "", "finetuned").items()
    }
    cells = probe_cells.run_cells(
        rows, settings, folder / probe_report.CELLS, processes=args.processes
    )
    found = probe_figures.gathered(rows, settings, folds, cells, networks)
    print(probe_report.write_report(folder, found))
    print(f"written to {folder}")
    if args.save:
        first = next(iter(rows.values))
        fit_predictor(rows, first, settings).save(folder / PROBE)
        print(
            f"predict other molecules: chemscale probe --predict={folder / PROBE} "
            "--embeddings=FILE --out=predicted.csv"
        )
    return 0


def _predict(args: argparse.Namespace) -> int:
    from chemscale_jax.analysis.probes.predictor import (
        ProbePredictor,
        write_predictions,
    )
    from chemscale_jax.core.embedding_table import read_embeddings

    path = pathlib.Path(args.predict).expanduser()
    if not path.is_file():
        raise UserError(
            f"{path} does not exist: chemscale probe --save writes probe.npz"
        )
    files = _named(args.embeddings, "embeddings")
    if len(files) > 1:
        raise UserError(f"{len(files)} files of embeddings are given: give one")
    (file,) = files.values()
    table = read_embeddings(file)
    out = pathlib.Path(args.out).expanduser()
    rows = write_predictions(ProbePredictor.load(path), table, out)
    print(f"{rows:,} rows, {int(table.usable.sum()):,} predicted: {out}")
    return 0


def _settings(args: argparse.Namespace) -> "ProbeSettings":
    from chemscale_jax.analysis.probes.cells import ProbeSettings
    from chemscale_jax.analysis.probes.probes import MODELS

    models = {}
    for flag in ("models", "baseline"):
        names = _words(getattr(args, flag))
        if flag == "baseline" and names == ("none",):
            names = ()
        elif not names or any(name not in MODELS for name in names):
            raise UserError(
                f"--{flag}={getattr(args, flag)}: give some of {', '.join(MODELS)}"
            )
        models[flag] = tuple(dict.fromkeys(MODELS[name] for name in names))
    low = {"folds": 2, "inner_folds": 2, "seeds": 1, "trees": 1}
    for name, least in low.items():
        if getattr(args, name) < least:
            flag = name.replace("_", "-")
            raise UserError(f"--{flag}={getattr(args, name)}: give {least} or more")
    return ProbeSettings(
        split=args.split,
        folds=args.folds,
        seeds=tuple(range(args.seed, args.seed + args.seeds)),
        inner_folds=args.inner_folds,
        models=models["models"],
        baseline=models["baseline"],
        trees=args.trees,
    )


def _rows(args: argparse.Namespace) -> "ProbeRows":
    from chemscale_jax.analysis.probes.rows import read_probe_rows
    from chemscale_jax.core.embedding_table import read_embeddings
    from chemscale_jax.data.inputs.open_input import open_input
    from chemscale_jax.data.labels.property_tables import PROPERTY_TABLES, columns_of

    files = _named(args.embeddings, "embeddings")
    targets, units = _words(args.targets), _words(args.units)
    smiles_col, kind, title = args.smiles_col, args.kind, args.name
    if args.data and not args.input:
        raise UserError(f"--data={args.data} says how to read a file: give --input too")
    source = None
    if args.input:
        # A path; SMILES have no labels.
        path = pathlib.Path(args.input).expanduser()
        source = open_input(path, smiles_col=smiles_col)
        title = title or path.name.partition(".")[0]
        if args.data:
            known = columns_of(args.data, source.columns)
            targets = targets or known.targets
            units = units or (known.units if targets == known.targets else ())
            kind = PROPERTY_TABLES[args.data].kind if kind == "auto" else kind
            title = args.name or PROPERTY_TABLES[args.data].title
            if not smiles_col and known.smiles != source.smiles_col:
                source = open_input(path, smiles_col=known.smiles)
    return read_probe_rows(
        {name: read_embeddings(file) for name, file in files.items()},
        source,
        data_set=title or next(iter(files)),
        targets=targets,
        units=units,
        kind=kind,
    )


def _named(text: str, flag: str) -> Mapping[str, pathlib.Path]:
    """Files or folders by the names they are given, or their own."""
    found: dict[str, pathlib.Path] = {}
    for word in _words(text):
        name, equals, path = word.partition("=")
        own = pathlib.Path(path if equals else word).expanduser()
        name = name if equals else own.name.partition(".")[0]
        if name in found:
            raise UserError(
                f"--{flag} names {name!r} twice: give names, as in a=FILE,b=FILE"
            )
        found[name] = own
    return found


def _words(text: str | None) -> Sequence[str]:
    return tuple(word.strip() for word in (text or "").split(",") if word.strip())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="chemscale probe",
        description="Learn properties from frozen embeddings with simple models, in "
        "folds, beside models of Morgan fingerprints, or predict with such a model.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add, default = parser.add_argument, "default: %(default)s"
    add(
        "--embeddings",
        required=True,
        metavar="[NAME=]FILE,...",
        help="of chemscale embed, of one level and layer; several are compared",
    )
    add("--out", required=True, metavar="DIR", help="folder to write; a csv to predict")
    add(
        "--input",
        metavar="FILE",
        help="the table that was embedded, with labels (default: the columns kept with "
        "the embeddings)",
    )
    add(
        "--targets",
        metavar="NAME,...",
        help="columns to learn (default: all others that are numbers)",
    )
    add("--units", metavar="UNIT,...", help="of the targets, for tables and plots")
    add(
        "--data",
        choices=("freesolv", "esol", "lipophilicity", "tox21", "biogen"),
        help="the input is this data set, whose columns are known",
    )
    add("--name", default="", help="of the data set, in reports")
    add("--smiles-col", default="", metavar="NAME", help="of the SMILES in the input")
    add(
        "--kind",
        default="auto",
        choices=("auto", "regression", "binary", "multiclass"),
        help="of the targets (default: by their labels)",
    )
    add(
        "--split",
        default="scaffold",
        choices=("random", "scaffold", "cluster"),
        help=f"what stays in one fold: equal molecules, scaffolds, clusters of similar "
        f"scaffolds ({default})",
    )
    add("--folds", type=int, default=5, metavar="K", help=default)
    add(
        "--seeds", type=int, default=1, metavar="N", help=f"times all folds ({default})"
    )
    add("--seed", type=int, default=0, metavar="N", help=f"the first ({default})")
    add(
        "--inner-folds",
        type=int,
        default=4,
        metavar="K",
        help=f"of a training set, to choose settings by ({default})",
    )
    add(
        "--models",
        default="linear,boosting",
        metavar="NAME,...",
        help="of embeddings: linear (ridge, or logistic regression), boosting, forest "
        f"({default})",
    )
    add(
        "--baseline",
        default="linear,forest,boosting",
        metavar="NAME,...",
        help=f"models of Morgan fingerprints beside them, or none ({default})",
    )
    add("--trees", type=int, default=100, metavar="N", help=f"of a forest ({default})")
    add(
        "--finetuned",
        metavar="[NAME=]DIR,...",
        help="folders, each with a finished run SEED-FOLD of chemscale finetune for "
        "each file of splits/",
    )
    add(
        "--save",
        action="store_true",
        help=f"write {PROBE}, a linear probe of the first embeddings on all molecules",
    )
    add("--predict", metavar="FILE", help=f"a {PROBE}, with which to predict")
    add("--processes", type=int, metavar="N", help="threads (default: all)")
    return parser
