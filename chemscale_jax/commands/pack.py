"""``chemscale pack``: the small part of a run that others need to use its model."""

import argparse
import pathlib

EXAMPLE = """\
example:
  chemscale pack --workdir=runs/my-run --out=my-force-field
  chemscale md relax CCO --workdir=my-force-field
"""


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="chemscale pack",
        description="Copy config, facts, card and best weights of a run into a folder "
        "that predicts like the run and is a fraction of its size.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--workdir", required=True, help="folder of a run")
    parser.add_argument("--out", required=True, help="folder to write")
    args = parser.parse_args(argv)
    # JAX takes seconds to import, which --help should not.
    from chemscale_jax.core.workdir import Workdir
    from chemscale_jax.training import checkpoint

    out = Workdir(pathlib.Path(args.out))
    checkpoint.pack(Workdir(pathlib.Path(args.workdir)), out)
    size = sum(file.stat().st_size for file in out.path.iterdir())
    print(f"{out.path}: {size / 1e6:.2f} MB")
    return 0
