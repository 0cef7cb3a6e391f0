"""``chemscale neighbours``: what near molecules have in common."""

import argparse
import functools
import pathlib

from chemscale_jax.core.errors import UserError

EXAMPLE = """\
examples:
  chemscale neighbours --index=library.index --out=neighbours
  chemscale neighbours --index=trained.index,untrained.index --out=neighbours \\
      --query='CC(=O)Oc1ccccc1C(=O)O' --queries=500

Measures |property of a molecule - mean or median over its nearest neighbours| for
logP, SA, QED and MW, by embeddings, by Morgan fingerprints, and for molecules drawn at
random: Table A.2 and Fig. 7e of Frey et al. 2023 for one query, and with paired
intervals for many. Several indexes are compared on the molecules that all of them
hold; the first one must have fingerprints. Properties are kept in descriptors.csv of
the folder, so that a command that was stopped goes on.
"""


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit status."""
    args = _parser().parse_args(argv)
    # What follows takes seconds to import, which --help should not.
    from chemscale_jax.analysis.search import neighbour_properties as study
    from chemscale_jax.analysis.search.neighbour_report import write_neighbour_report
    from chemscale_jax.analysis.search.vector_index import VectorIndex
    from chemscale_jax.chem.descriptor_table import described

    out = pathlib.Path(args.out).expanduser()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out} cannot be made ({error.strerror})") from None
    folders = [path for path in args.index.split(",") if path]
    names = [name for name in args.names.split(",") if name]
    names = names or [pathlib.Path(path).name for path in folders]
    if len(names) != len(folders) or len(set(names)) < len(names):
        raise UserError(
            f"{len(folders)} indexes are called {', '.join(names)}: give each a name "
            "of its own with --names"
        )
    taken = {study.FINGERPRINT, study.RANDOM} & set(names)
    if taken:
        raise UserError(f"{taken.pop()} is taken: name the index otherwise")
    indexes = dict(
        zip(names, (VectorIndex.open(path) for path in folders), strict=True)
    )
    corpus = study.shared_corpus(indexes)
    places = study.random_queries(corpus, args.queries, args.seed)
    queries = [corpus.smiles[place] for place in places]
    vectors = study.stored_vectors(indexes, corpus, places)
    find = functools.partial(
        study.find_neighbourhoods, indexes, corpus, k=args.k, seed=args.seed
    )
    many = find(queries=queries, vectors=vectors)
    if args.query:
        text, own = _embedded(args.query, indexes)
        one = find(queries=[text], vectors=own)
    else:
        one = study.first_query(many)
    describe = functools.partial(
        described, kept=out / "descriptors.csv", processes=args.processes
    )
    facts = {
        "k": args.k,
        "seed": args.seed,
        "molecules": len(corpus.smiles),
        "indexes": {name: study.says(index) for name, index in indexes.items()},
    }
    found = [
        (near, study.compare_properties(near, corpus, describe)) for near in (one, many)
    ]
    print(write_neighbour_report(out, facts, corpus, *found, seed=args.seed), end="")
    print(f"written to {args.out}")
    return 0


def _embedded(smiles: str, indexes):
    """The canonical SMILES of a molecule, and its vector for each index."""
    from chemscale_jax.core import processes
    from chemscale_jax.data import cache
    from chemscale_jax.inference.query_embeddings import embed_like

    processes.start(cache.cache_folder() / "xla")
    vectors, text = {}, ""
    for name, index in indexes.items():
        table = embed_like(index.about, [smiles])
        if not table.usable[0]:
            raise UserError(f"{smiles} cannot be embedded: {table.reason[0]}")
        text = str(table.smiles[0])
        vectors[name] = index.project(table.values)
    return text, vectors


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="chemscale neighbours",
        description="Compare properties of molecules with those of their nearest "
        "neighbours, by embeddings and by fingerprints.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add, default = parser.add_argument, "default: %(default)s"
    add(
        "--index",
        required=True,
        metavar="DIRS",
        help="one or more of chemscale index, joined by commas",
    )
    add(
        "--names",
        default="",
        metavar="NAMES",
        help="of the indexes in the report (default: of their folders)",
    )
    add("--out", required=True, metavar="DIR", help="folder of the report")
    add(
        "--query",
        default="",
        metavar="SMILES",
        help="of Fig. 7e, embedded with the models (default: the first random one)",
    )
    add(
        "--queries",
        type=int,
        default=200,
        metavar="N",
        help=f"drawn from the corpus at random ({default})",
    )
    add("--k", type=int, default=100, metavar="N", help=f"neighbours ({default})")
    add(
        "--seed", type=int, default=0, metavar="N", help=f"of what is drawn ({default})"
    )
    add("--processes", type=int, metavar="N", help="for properties (default: all)")
    return parser
