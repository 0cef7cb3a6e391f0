"""``chemscale export``: a trained model in a form that other programs read."""

import argparse
import pathlib

EXAMPLE = """\
example:
  chemscale export --workdir=runs/my-run --out=exported

A force field becomes one StableHLO program for any number of atoms and edges: it reads
back with jax.export.deserialize, and force_field.json names inputs and units. A
language model becomes a folder that transformers reads, by
GPTNeoForCausalLM.from_pretrained.
"""


LANGUAGE = "causal_lm"


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="chemscale export",
        description="Write a trained model in a form that other programs read.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--workdir", help="folder of a run (default: the force field of the package)"
    )
    parser.add_argument("--out", required=True, help="folder to write to")
    parser.add_argument(
        "--periodic",
        action="store_true",
        help="of a force field: take a cell and give stress",
    )
    parser.add_argument(
        "--platforms",
        default="cpu,cuda,tpu",
        help="where a force field will run (default: %(default)s)",
    )
    args = parser.parse_args(argv)
    # JAX takes seconds to import, which --help should not.
    from chemscale_jax.core import processes
    from chemscale_jax.core.workdir import Workdir
    from chemscale_jax.data import cache

    processes.start(cache.cache_folder() / "xla")

    given = Workdir(pathlib.Path(args.workdir)) if args.workdir else None
    if given and given.config()["task"] == LANGUAGE:
        return _language_model(args)
    from chemscale_jax.inference import export
    from chemscale_jax.inference.ensemble import default_workdir
    from chemscale_jax.inference.force_field import open_force_field

    source = pathlib.Path(args.workdir) if args.workdir else default_workdir()
    out = pathlib.Path(args.out)
    export.export_force_field(
        open_force_field(Workdir(source)),
        out,
        periodic=args.periodic,
        platforms=args.platforms.split(","),
    )
    size_mb = (out / export.PROGRAM).stat().st_size / 1e6
    print(f"{out / export.PROGRAM}: {size_mb:.2f} MB, and {export.DESCRIPTION}")
    return 0


def _language_model(args: argparse.Namespace) -> int:
    from chemscale_jax.inference.language_model import open_language_model
    from chemscale_jax.interop import hf_gpt_neo

    model = open_language_model(args.workdir)
    hf_gpt_neo.save_folder(args.out, model.options, model.params, model.vocabulary)
    print(f"{args.out}: {model.vocabulary.size} tokens, width {model.options.width}")
    return 0
