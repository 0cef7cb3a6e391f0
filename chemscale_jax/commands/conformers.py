"""``chemscale conformers``: a file of SMILES to a store of geometries with a ledger."""

import argparse
import sys

from chemscale_jax.chem.conformers import ConformerSettings
from chemscale_jax.chem.molecule_record import STATUSES
from chemscale_jax.core.errors import UserError
from chemscale_jax.data.conformers.build import Plan
from chemscale_jax.data.conformers.conform import Conformed, conform_source
from chemscale_jax.data.text.molecule_text import open_text

EXAMPLE = """\
examples, on this machine, and on a cluster that Apache Beam knows:
  chemscale conformers molecules.smi.gz --conformers=4 --out=molecules.conformers
  chemscale conformers molecules.smi.gz --out=/shared/molecules.conformers \\
      --shards=1000 --runner=FlinkRunner --beam-options='--flink_master=HOST:8081'

Every line becomes a molecule of the store, or a row of its ledger.csv with the reason;
molecules without a geometry are stored as a drawing. A run that was stopped goes on
when the same command is given again, and gives the same files.
"""


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="chemscale conformers",
        description="Make conformers (ETKDG, MMFF94) of the distinct molecules of a "
        "file, with features and Murcko scaffolds, for pretraining.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "source",
        metavar="FILE",
        help="csv, tsv, smi or txt (each also .gz, .bz2, .xz, .zip), or parquet",
    )
    parser.add_argument("--out", required=True, help="folder to make")
    parser.add_argument(
        "--column",
        default="",
        metavar="NAME",
        help="of the SMILES: a name in the header or a number from 1 (default: the "
        "column called SMILES or the like, or the only one)",
    )
    numbers = {
        "conformers": (ConformerSettings.count, "of each molecule"),
        "seed": (ConformerSettings.seed, "of the conformers"),
        "max-atoms": (Plan.max_atoms, "heavy atoms; larger molecules are refused"),
    }
    for name, (default, text) in numbers.items():
        parser.add_argument(
            f"--{name}",
            type=int,
            default=default,
            metavar="N",
            help=f"{text} (default: %(default)s)",
        )
    parser.add_argument(
        "--shards",
        type=int,
        default=0,
        metavar="N",
        help="files of the store (default: one per 4 MB of the source)",
    )
    parser.add_argument(
        "--float32",
        action="store_true",
        help="store coordinates exactly, not to 0.0005 angstrom in half the space",
    )
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="processes; the result does not depend on it (default: one per core)",
    )
    parser.add_argument(
        "--runner",
        metavar="NAME",
        help="make it with Apache Beam, on this runner of it, such as DirectRunner; "
        "all its workers must see FILE and the folder of --out",
    )
    parser.add_argument(
        "--beam-options",
        default="",
        metavar="FLAGS",
        help="of Beam and its runner, in quotes",
    )
    args = parser.parse_args(argv)
    if args.beam_options and not args.runner:
        raise UserError("--beam-options are for Apache Beam: give --runner too")
    if args.runner and args.workers is not None:
        raise UserError(
            "--workers is for making a store without --runner: give the number of "
            "workers with --beam-options, for the DirectRunner --direct_num_workers=N"
        )
    settings = ConformerSettings(count=args.conformers, seed=args.seed)
    plan = Plan(
        conformers=settings,
        max_atoms=args.max_atoms,
        float32=args.float32,
        shards=args.shards,
    )
    source = open_text(args.source, args.column)
    try:
        if args.runner:
            # Beam is an extra.
            from chemscale_jax.data.conformers.pipeline import conform_with_beam

            store = conform_with_beam(
                source, args.out, plan, runner=args.runner, options=args.beam_options
            )
            done = Conformed(store)
        else:
            done = conform_source(source, args.out, plan, workers=args.workers)
    except KeyboardInterrupt:
        print(
            f"stopped; what is done is in {args.out}.parts, and the same command goes "
            "on from there",
            file=sys.stderr,
        )
        return 130
    print(summary(done))
    return 0


def summary(done: Conformed) -> str:
    """What a person wants to know of a store."""
    store, info = done.store, done.store.info
    M, failed = len(store), done.store.failed()
    kinds = sorted(failed.items(), key=lambda kind: (-kind[1], kind[0]))
    reasons = ", ".join(f"{n:,} {why}" for why, n in kinds) or "none"
    size = sum((store.folder / file).stat().st_size for file, _ in info["shards"])
    lines = [
        f"lines       {info['lines']:,}: {M:,} stored, {failed.total():,} in "
        f"{store.folder}/ledger.csv ({reasons})",
        *(
            f"status      {n:,} {name}: {STATUSES[name]}"
            for name, n in info["statuses"].items()
        ),
        f"conformers  {info['conformers']:,}, in {info['coordinates']}; "
        f"{len(info['shards'])} shards, {size / max(M, 1):,.0f} bytes per molecule",
        f"scaffolds   {info['scaffolds']:,}",
    ]
    if done.cpu_s:
        rate = done.made / done.cpu_s
        lines.append(f"speed       {rate:,.1f} molecules per core-second")
    return "\n".join([*lines, f"written to  {store.folder}"])
