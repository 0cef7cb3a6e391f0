"""``chemscale map``: maps of embeddings, as plots and as a page, with numbers."""

import argparse
import pathlib
import re
from typing import TYPE_CHECKING

from chemscale_jax import main as trainer
from chemscale_jax.core.errors import UserError

if TYPE_CHECKING:
    from chemscale_jax.analysis.maps.files import WrittenMaps

EXAMPLE = """\
examples, one space, a model beside two controls, and the same from a config:
  chemscale map --embeddings=emb.npz --out=maps
  chemscale map --embeddings=trained.npz,untrained.npz,morgan.npz \\
      --input=molecules.csv --color=scaffold,logS --out=maps
  chemscale map --config=configs/maps.py:freesolv --input=freesolv.csv --out=maps

Several files are spaces of the same input, such as chemscale embed writes them, with
--untrained and with --workdir=morgan as controls. Writes map.html, where the structure
under the pointer is shown and nothing is loaded from elsewhere; map_LABEL.png;
report.md and report.json, which say with intervals in which space neighbours agree in
scaffold or label; and map.csv, with every row of the input. Layouts that are finished
are kept for the next call. A config embeds the input itself; its other fields are set
like --config.map.method=pca.
"""
_OVERRIDE = re.compile(r"--config\.[\w.]+=")


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit status."""
    args, overrides = _parser().parse_known_args(argv)
    if (args.embeddings is None) == (args.config is None):
        raise UserError("give --embeddings=FILE, or --config=configs/maps.py, not both")
    folder = pathlib.Path(args.out).expanduser()
    found = (
        _from_config(args, overrides) if args.config else _from_files(args, overrides)
    )
    print(found.text, end="")
    print(f"\nwritten to {folder}; map.html has {found.page_bytes / 1e6:.1f} MB")
    return 0


def _from_config(args: argparse.Namespace, overrides: list[str]) -> "WrittenMaps":
    for override in overrides:
        if not _OVERRIDE.match(override):
            raise UserError(
                f"cannot read argument {override!r}; fields of the config look like "
                "--config.map.method=pca"
            )
    flags = [f"--config={args.config}", f"--workdir={args.out}", *overrides]
    if args.input is not None:
        flags.append(f"--config.data.path={args.input}")
    config = trainer.parse(["chemscale map", *flags])
    # JAX takes seconds to import, which --help and mistakes should not.
    from chemscale_jax.runs.mapping import run_maps

    return run_maps(config, args.workers)


def _from_files(args: argparse.Namespace, overrides: list[str]) -> "WrittenMaps":
    if overrides:
        raise UserError(f"cannot read argument {overrides[0]!r}; see --help")
    # What follows takes a second to import.
    from chemscale_jax.analysis.maps.embedding_maps import MapSettings
    from chemscale_jax.analysis.maps.files import write_maps
    from chemscale_jax.analysis.maps.mapped_molecules import read_molecules
    from chemscale_jax.analysis.maps.study import StudySettings

    settings = MapSettings(
        method=args.method,
        scale=args.scale,
        components=args.components,
        perplexity=args.perplexity,
        neighbors=args.umap_neighbors,
        seed=args.seed,
    )
    molecules = read_molecules(
        _words(args.embeddings),
        names=_words(args.names),
        columns_from=args.input,
        smiles_col=args.smiles_col,
        most=args.max_points,
        seed=args.seed,
    )
    return write_maps(
        molecules,
        pathlib.Path(args.out).expanduser(),
        color=_words(args.color),
        settings=settings,
        study=StudySettings(neighbors=args.neighbors, seed=args.seed),
        processes=args.workers,
    )


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="chemscale map",
        description="Draw maps of embeddings and measure in which space neighbours "
        "agree in scaffold or label.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add, default = parser.add_argument, "default: %(default)s"
    add(
        "--embeddings",
        metavar="FILE,FILE",
        help="of chemscale embed: one, or several of the same input",
    )
    add(
        "--config",
        metavar="FILE[:FORM]",
        help="embeds the input with a model and controls: configs/maps.py, forms "
        "freesolv, tox21, table, smoke; options below but --input, --out and --workers "
        "are for --embeddings",
    )
    add(
        "--names",
        default="",
        metavar="NAME,NAME",
        help="of the spaces (default: of their files)",
    )
    add(
        "--input",
        metavar="FILE",
        help="that was embedded, for its columns (default: those kept beside the "
        "embeddings)",
    )
    add("--smiles-col", default="", metavar="NAME", help="of the SMILES in the input")
    add(
        "--color",
        default="scaffold",
        metavar="NAME,NAME",
        help=f"scaffold, or columns of labels or numbers ({default})",
    )
    add("--out", required=True, metavar="DIR", help="folder of what is written")
    add("--method", default="tsne", choices=("tsne", "pca", "umap"), help=default)
    add(
        "--scale",
        default="auto",
        choices=("auto", "columns", "rows", "none"),
        help="columns: each dimension to deviation 1; rows: each vector to length 1; "
        "auto: rows of counts such as fingerprints, else columns",
    )
    add(
        "--components",
        type=int,
        default=50,
        metavar="N",
        help=f"of the PCA before t-SNE and UMAP ({default})",
    )
    add(
        "--perplexity",
        type=float,
        default=30.0,
        metavar="X",
        help=f"of t-SNE ({default})",
    )
    add(
        "--umap-neighbors",
        type=int,
        default=15,
        metavar="N",
        help=f"of UMAP, which needs the extra umap ({default})",
    )
    add(
        "--neighbors",
        type=int,
        default=5,
        metavar="K",
        help=f"that purity and contrast look at ({default})",
    )
    add(
        "--max-points",
        type=int,
        default=20_000,
        metavar="N",
        help=f"of more molecules a random choice is shown; at most 20000 ({default})",
    )
    add("--seed", type=int, default=0, metavar="N", help=f"of all chance ({default})")
    add("--workers", type=int, metavar="N", help="that draw structures (default: all)")
    return parser
