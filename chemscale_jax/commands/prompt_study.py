"""``chemscale prompt-study``: compares prompts, sampling settings and model sizes."""

import argparse
import re
import shlex
import sys

from chemscale_jax import main as trainer
from chemscale_jax.core.errors import UserError

EXAMPLE = """\
examples, two models of one's own, and molecules of one's own on the published ones:
  chemscale prompt-study --workdir=study --config.models=runs/small,runs/large
  chemscale prompt-study --workdir=study2 --config.prompts.path=leads.smi

Prints tables of validity, uniqueness, kept prompts, pass rate of the MOSES filters and
difference of mass, for each setting and each model, and writes report.md, plots,
settings.csv and molecules.csv. The same command goes on where it was stopped. Models
are workdirs, folders in the layout of Hugging Face, or hub:owner/name. Other fields of
the config: --config.sampling.samples=50, --config.grid.top_p="(0.8, 0.9)".
"""
_OVERRIDE = re.compile(r"--config\.[\w.]+=")


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="chemscale prompt-study",
        description="Compare prompt lengths, sampling settings and sizes of language\n"
        "models, as Fig. 6 of Frey et al. 2023 does.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config",
        default="configs/prompting.py",
        metavar="FILE[:FORM]",
        help="paper or smoke form (default: %(default)s)",
    )
    parser.add_argument("--workdir", required=True, help="folder of the study")
    parser.add_argument(
        "--config.models",
        dest="models",
        metavar="DIR,DIR",
        help="models to compare (default: two published ones); any field of the config "
        "is set like this",
    )
    args, overrides = parser.parse_known_args(argv)
    for override in overrides:
        if not _OVERRIDE.match(override):
            raise UserError(
                f"cannot read argument {override!r}; fields of the config look like "
                "--config.sampling.samples=50"
            )
    flags = [f"--config={args.config}", f"--workdir={args.workdir}", *overrides]
    if args.models is not None:
        flags.append(f"--config.models={args.models}")
    config = trainer.parse(["chemscale prompt-study", *flags])
    # JAX takes seconds to import, which --help and mistakes should not.
    from chemscale_jax.runs.prompting import run_study

    try:
        report = run_study(config)
    except KeyboardInterrupt:
        again = shlex.join(["chemscale", "prompt-study", *argv])
        print(f"\nstopped; this goes on: {again}", file=sys.stderr)
        return 130
    print(report.table)
    print(f"\nreport, plots and molecules: {args.workdir}")
    return 0
