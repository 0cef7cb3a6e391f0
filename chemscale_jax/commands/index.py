"""``chemscale index``: builds an index of embeddings, for similarity search."""

import argparse

EXAMPLE = """\
examples:
  chemscale embed --input=library.csv --out=library.npz
  chemscale index --embeddings=library.npz --out=library.index
  chemscale index --embeddings=a.npz,b.npz --out=both.index --kind=ivf --metric=l2

Embeddings are reduced to their principal components, which are found in a first pass
over all rows; vectors are stored in a second one. The folder is read memory-mapped.
Rows without an embedding are listed in its left_out.csv. A command that was stopped
goes on when it is given again.

  flat  every search compares all vectors, exactly
  ivf   looks at the vectors around the nearest of some centres; for 100,000 and more
  hnsw  a graph of near vectors; answers sooner than ivf, takes much longer to build

ivf and hnsw need the extra search. Their effort is set so that --recall of the --k
nearest are found, as measured on vectors of the index.
"""


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit status."""
    args = _parser().parse_args(argv)
    # What follows takes seconds to import, which --help should not.
    from chemscale_jax.analysis.search.index_build import IndexSettings, build_index
    from chemscale_jax.analysis.search.vector_sources import file_source

    settings = IndexSettings(
        kind=args.kind,
        metric=args.metric,
        pca=args.pca,
        fingerprints=not args.no_fingerprints,
        recall=args.recall,
        k=args.k,
        lists=args.lists,
        seed=args.seed,
    )
    sources = [file_source(path) for path in args.embeddings.split(",") if path]
    index = build_index(sources, args.out, settings, processes=args.processes)
    facts = index.facts
    print(
        f"{facts['vectors']:,} vectors of width {facts['width']}, "
        f"{facts['left_out']:,} rows left out ({args.out}/left_out.csv)"
    )
    if facts["pca"]:
        print(f"components keep {facts['variance_kept']:.1%} of the variance")
    if index.kind != "flat":
        short = "" if facts["recall_reached"] else ": less than was asked for"
        print(
            f"effort {facts['effort']}, recall@{settings.k} {facts['recall']:.3f}"
            f"{short}"
        )
    print(f"written to {args.out} in {facts['build_s']:.1f} s")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="chemscale index",
        description="Build an index of embeddings, for chemscale search.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add, default = parser.add_argument, "default: %(default)s"
    add(
        "--embeddings",
        required=True,
        metavar="FILES",
        help="one or more of chemscale embed, joined by commas",
    )
    add("--out", required=True, metavar="DIR", help="folder of the index")
    add("--kind", default="flat", choices=("flat", "ivf", "hnsw"), help=default)
    add("--metric", default="cosine", choices=("cosine", "l2", "l1"), help=default)
    add(
        "--pca",
        type=int,
        default=100,
        metavar="N",
        help=f"principal components; 0 takes embeddings as they are ({default})",
    )
    add(
        "--no-fingerprints",
        action="store_true",
        help="leave out Morgan fingerprints, with which --by=fingerprint searches",
    )
    add(
        "--recall",
        type=float,
        default=0.95,
        metavar="X",
        help=f"of ivf and hnsw ({default})",
    )
    add("--k", type=int, default=100, metavar="N", help=f"of the recall ({default})")
    add(
        "--lists",
        type=int,
        default=0,
        metavar="N",
        help="centres of ivf (default: four times the root of the number of vectors)",
    )
    add("--seed", type=int, default=0, metavar="N", help=f"of samples ({default})")
    add("--processes", type=int, metavar="N", help="for fingerprints (default: all)")
    return parser
