"""``chemscale search``: the most similar molecules of an index."""

import argparse
import csv
import functools
import itertools
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from chemscale_jax.core.errors import UserError

EXAMPLE = """\
examples:
  chemscale search --index=library.index --query='CC(=O)Oc1ccccc1C(=O)O'
  chemscale search --index=library.index --input=molecules.csv --k=20 --out=hits.csv
  chemscale search --index=library.index --embeddings=queries.npz --exact
  chemscale search --index=library.index --query=CCO --by=fingerprint
  chemscale search --index=training.index --input=new.csv --applicability=new_far.csv

--query and --input are embedded with the model of the index. Every row of the queries
is in the output, with its number; those that failed have a reason and no hit.

--applicability takes the index for one of a model's training set, and tells how far
each query is from it: "quantile" is the share of training molecules whose nearest
other one is nearer than the query's; beyond 0.95 a query is not "inside".
"""
_PRINTED = 10


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit status."""
    args = _parser().parse_args(argv)
    # What follows takes seconds to import, which --help should not.
    from chemscale_jax.analysis.search import search_hits
    from chemscale_jax.analysis.search.vector_index import VectorIndex

    index = VectorIndex.open(args.index)
    asked = search_hits.Asked(args.k, args.by, args.exact, args.effort)
    queries = _queries(args, index.about, args.by)
    out = pathlib.Path(args.out).expanduser()
    if args.query:
        (only,) = queries()
        if not only.smiles[0]:
            raise UserError(f"{args.query} cannot be read: {only.reason[0]}")
    written = search_hits.write_hits(out, index, queries(), asked)
    if args.query:
        _show(out)
    print(f"{written.answered:,} queries answered, {written.failed:,} failed")
    print(f"written to {out}")
    if args.applicability:
        path = pathlib.Path(args.applicability).expanduser()
        if args.by == "fingerprint":
            queries = _queries(args, index.about, "embedding")
        search_hits.write_applicability(path, index, queries())
        print(f"distances to the set written to {path}")
    return 0


def _queries(
    args: argparse.Namespace, about: Mapping[str, Any], by: str
) -> Callable[[], Iterable[Any]]:
    """What gives blocks of queries, as often as it is called."""
    if args.embeddings:
        from chemscale_jax.core import embedding_table

        return functools.partial(embedding_table.blocks, args.embeddings)
    molecules = args.input or [args.query]
    if by == "fingerprint":
        from chemscale_jax.data.inputs.query_rows import query_rows

        rows = query_rows(molecules, args.smiles_col)
        return lambda: [rows]
    from chemscale_jax.core import processes
    from chemscale_jax.data import cache
    from chemscale_jax.inference.query_embeddings import embed_like

    processes.start(cache.cache_folder() / "xla")
    embedded = embed_like(
        about,
        molecules,
        workdir=args.workdir or "",
        smiles_col=args.smiles_col,
        progress=bool(args.input),
    )
    return lambda: [embedded]


def _show(path: pathlib.Path) -> None:
    with path.open(newline="", encoding="utf-8") as file:
        print(f"{'rank':>4}  {'distance':>9}  {'tanimoto':>8}  {'row':>9}  smiles")
        for hit in itertools.islice(csv.DictReader(file), _PRINTED):
            print(
                f"{hit['rank']:>4}  {hit['distance']:>9}  {hit['tanimoto']:>8}  "
                f"{hit['row']:>9}  {hit['smiles']}"
            )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="chemscale search",
        description="Find the molecules of an index that are most similar to others.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add, default = parser.add_argument, "default: %(default)s"
    add("--index", required=True, metavar="DIR", help="of chemscale index")
    one = parser.add_mutually_exclusive_group(required=True)
    one.add_argument("--query", metavar="SMILES", help="one molecule")
    one.add_argument(
        "--input", metavar="FILE", help="of molecules: csv, smi, parquet, sdf, ..."
    )
    one.add_argument(
        "--embeddings",
        metavar="FILE",
        help="of molecules that chemscale embed embedded in the same way",
    )
    add("--smiles-col", default="", metavar="NAME", help="of the SMILES in the input")
    add("--k", type=int, default=100, metavar="N", help=f"hits of each ({default})")
    add("--by", default="embedding", choices=("embedding", "fingerprint"), help=default)
    add("--exact", action="store_true", help="compare with every vector")
    add(
        "--effort",
        type=int,
        metavar="N",
        help="of an approximate search: lists or candidates to look at (default: as "
        "measured when the index was built)",
    )
    add("--out", default="hits.csv", metavar="FILE", help=f"csv ({default})")
    add(
        "--applicability",
        metavar="FILE",
        help="csv of how far each query is from the molecules of the index",
    )
    add("--workdir", metavar="DIR", help="of the model, if it was moved")
    return parser
