"""``chemscale embed``: embeddings of molecules, atoms or pairs from Uni-Mol2."""

import argparse

EXAMPLE = """\
examples:
  chemscale embed --input=molecules.csv --out=embeddings.npz
  chemscale embed --workdir=runs/my-run --input=molecules.sdf --out=atoms.parquet \\
      --level=atom --layer=all --conformers=5
  chemscale embed --workdir=checkpoint.pt --input='CC(=O)Oc1ccccc1C(=O)O' \\
      --out=aspirin.csv --pool=mean

Every row of the input has its place in the output, with a status and the reason if it
could not be read. Equal molecules give equal numbers, however they are written and
whatever else is in the file. Atoms stand in the order of the canonical SMILES that is
written beside them. With several conformers, values are means over them, and there are
standard deviations too. A command that was stopped goes on when it is given again.

  .npz      arrays; chemscale_jax.inference.embed.Embeddings.load reads it
  .csv      one row for each molecule, atom or pair
  .parquet  the same, with one list for each embedding (needs the extra parquet)
"""


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit status."""
    args = _parser().parse_args(argv)
    # What follows takes seconds to import, which --help should not.
    import jax

    from chemscale_jax.core import partition, processes
    from chemscale_jax.data import cache
    from chemscale_jax.data.open_input import open_input
    from chemscale_jax.inference.embed import EmbedSettings
    from chemscale_jax.inference.embed_files import write_embeddings
    from chemscale_jax.inference.molecule_batches import Batching
    from chemscale_jax.inference.molecule_model import open_molecule_model

    settings = EmbedSettings(
        layer=args.layer if args.layer == "all" else _number(args.layer),
        level=args.level,
        pool=args.pool,
        conformers=args.conformers,
        seed=args.seed,
        geometry=args.geometry,
        features=args.features,
    )
    source = open_input(
        args.input, smiles_col=args.smiles_col, max_atoms=args.max_atoms
    )
    processes.start(cache.cache_folder() / "xla")
    changes = {"dtype": args.dtype} if args.dtype else {}
    model = open_molecule_model(args.workdir, args.step, **changes)
    mesh = partition.make_mesh() if jax.local_device_count() > 1 else None
    statuses = write_embeddings(
        model,
        source,
        args.out,
        settings,
        batching=Batching(pairs=args.batch_pairs, mesh=mesh),
        workers=args.workers,
    )
    shown = ", ".join(f"{n:,} {status}" for status, n in statuses.most_common())
    print(f"{statuses.total():,} rows: {shown}")
    print(f"written to {args.out}")
    return 0


def _number(text: str) -> int | str:
    try:
        return int(text)
    except ValueError:
        return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="chemscale embed",
        description="Write what Uni-Mol2 makes of molecules, atoms or pairs of atoms.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add, default = parser.add_argument, "default: %(default)s"
    add(
        "--workdir",
        metavar="DIR",
        help="of a run, pretrained or finetuned, or published weights: checkpoint.pt, "
        ".safetensors, a folder, hub:owner/name (default: the packaged model)",
    )
    add("--step", type=int, metavar="N", help="of a checkpoint (default: the best)")
    add(
        "--input",
        required=True,
        metavar="FILE",
        help="csv, smi, txt, parquet, sdf, mol, xyz, or a SMILES string",
    )
    add("--out", required=True, metavar="FILE", help=".npz, .csv or .parquet")
    add("--smiles-col", default="", metavar="NAME", help="of the SMILES in the input")
    add(
        "--level",
        default="molecule",
        choices=("molecule", "atom", "pair"),
        help=default,
    )
    add(
        "--layer",
        default="-1",
        metavar="N",
        help="0: before the first layer; -1: the last; or all (default: -1)",
    )
    add(
        "--pool",
        default="cls",
        choices=("cls", "mean", "sum"),
        help=f"of molecules: the virtual atom, or the mean or sum of atoms ({default})",
    )
    add(
        "--conformers",
        type=int,
        default=1,
        metavar="K",
        help=f"of each molecule, over which values are averaged ({default})",
    )
    add("--seed", type=int, default=0, metavar="N", help=f"of conformers ({default})")
    add(
        "--geometry",
        default="given",
        choices=("given", "conformers", "flat"),
        help="given: coordinates of the input, else conformers; flat: drawings, which "
        f"take no time ({default})",
    )
    add(
        "--features",
        default="auto",
        choices=("auto", "keep", "drop"),
        help="of atoms and bonds; auto: as the network was finetuned, else keep",
    )
    add(
        "--max-atoms",
        type=int,
        default=256,
        metavar="N",
        help=f"heavy atoms; larger molecules are refused ({default})",
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
