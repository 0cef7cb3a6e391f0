"""``chemscale embed``: vectors of molecules, atoms or pairs from any trained model."""

import argparse

EXAMPLE = """\
examples:
  chemscale embed --input=molecules.csv --out=embeddings.npz
  chemscale embed --workdir=chemgpt --input=molecules.csv --out=chemgpt.zarr
  chemscale embed --workdir=runs/my-run --input=molecules.sdf --out=atoms.parquet \\
      --level=atom --layer=all --conformers=5
  chemscale embed --workdir=checkpoint.pt --input='CC(=O)Oc1ccccc1C(=O)O' \\
      --out=aspirin.csv --pool=mean
  chemscale embed --workdir=morgan --input=molecules.csv --out=fingerprints.npz
  chemscale embed --untrained --input=molecules.csv --out=untrained.npz

Models are runs of Uni-Mol2, of language models (ChemGPT) and of force fields; the last
two commands write controls. Every row of the input has its place in the output, with a
status and the reason if it could not be read. Equal molecules give equal numbers,
however they are written and whatever else is in the file. Atoms stand in the order of
the canonical SMILES that is written beside them. With several conformers, values are
means over them, and there are standard deviations too. A command that was stopped goes
on when it is given again.

  .npz      arrays; chemscale_jax.inference.embed.Embeddings.load reads it
  .csv      one row for each molecule, atom or pair
  .parquet  the same, with one list for each embedding (needs the extra parquet)
  .zarr     arrays in chunks, for millions of molecules (needs the extra zarr)
"""


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit status."""
    args = _parser().parse_args(argv)
    # What follows takes seconds to import, which --help should not.
    import jax

    from chemscale_jax.core import partition, processes
    from chemscale_jax.data import cache
    from chemscale_jax.data.inputs.open_input import open_input
    from chemscale_jax.inference.embed_files import write_embeddings
    from chemscale_jax.inference.embed_settings import EmbedSettings
    from chemscale_jax.inference.embedder import open_embedder
    from chemscale_jax.inference.molecule_batches import Batching

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
    untrained = args.seed if args.untrained else None
    model = open_embedder(args.workdir, args.step, untrained=untrained, **changes)
    mesh = partition.make_mesh() if jax.local_device_count() > 1 else None
    statuses = write_embeddings(
        model,
        source,
        args.out,
        settings,
        batching=Batching(args.batch_pairs, mesh=mesh, places=args.batch_places),
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
        description="Write what a model makes of molecules, atoms or pairs of atoms.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add, default = parser.add_argument, "default: %(default)s"
    add(
        "--workdir",
        metavar="DIR",
        help="of a run of Uni-Mol2, a language model or a force field; published "
        "weights: checkpoint.pt, .safetensors, a folder, hub:owner/name; or what comes "
        "with the package: unimol2, chemgpt, force_field; or morgan, fingerprints "
        "(default: unimol2)",
    )
    add("--step", type=int, metavar="N", help="of a checkpoint (default: the best)")
    add(
        "--untrained",
        action="store_true",
        help="fresh parameters of the same sizes, drawn with --seed, as a control",
    )
    add(
        "--input",
        required=True,
        metavar="FILE",
        help="csv, smi, txt, parquet, sdf, mol, xyz, or a SMILES string",
    )
    add("--out", required=True, metavar="FILE", help=".npz, .csv, .parquet or .zarr")
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
        default="auto",
        choices=("auto", "cls", "mean", "sum", "last"),
        help="of molecules: the mean or sum over atoms, or over the symbols of a "
        "language model; cls: the virtual atom of Uni-Mol2; last: the last symbol; "
        "auto: cls for Uni-Mol2, else mean",
    )
    add(
        "--conformers",
        type=int,
        default=1,
        metavar="K",
        help=f"of each molecule, over which values are averaged ({default})",
    )
    add(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help=f"of conformers, and of --untrained ({default})",
    )
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
    add(
        "--batch-places",
        type=int,
        default=0,
        metavar="N",
        help="the same of other models: tokens or atoms (default: by device)",
    )
    add("--dtype", choices=("float32", "bfloat16"), help="of matrix products")
    add(
        "--batch-pairs",
        type=int,
        default=0,
        metavar="N",
        help="pairs of places in a batch of Uni-Mol2, which set its memory (default: "
        "by device)",
    )
    add("--workers", type=int, metavar="N", help="that make conformers (default: all)")
    return parser
