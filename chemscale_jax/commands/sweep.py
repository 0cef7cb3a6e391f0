"""``chemscale sweep``: many runs, of which the best go on."""

import argparse
import pathlib
import sys

from chemscale_jax.studies.place_arguments import add_place_arguments
from chemscale_jax.studies.policies import DEFAULT, POLICIES

EXAMPLE = """\
examples, the grid of a config, then twenty random settings two at a time:
  chemscale sweep --config=configs/hpo_force_fields.py:smoke --workdir=runs/hpo \\
      --config.train.epochs=10
  chemscale sweep --config=configs/painn_ani1x.py:smoke --workdir=runs/lr --jobs=2 \\
      --trials=20 --space='optimizer.lr=log(1e-4, 1e-2)' --config.train.epochs=10

All runs are trained for some epochs, a policy ranks them by their losses so far, most
of them stop, and the best go on from their own checkpoints. Runs that differ in
learning rate, weight decay, schedule, seed or loss weights only train as lanes of one
program. The same command goes on where it was stopped or killed.

Each run has a folder of its own in the workdir; sweep.md, sweep.csv, sweep.json and
sweep.png are the results. Other arguments: --config.KEY=VALUE goes to every run,
--policy.KEY=VALUE to the policy, such as --policy.fraction=0.1.
"""


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit status."""
    args, rest = make_parser().parse_known_args(argv)
    # JAX takes seconds to import, which --help should not.
    from chemscale_jax.studies.sweep import Programs
    from chemscale_jax.studies.sweep_setup import Told, dry_run, run_sweep

    told = Told(
        config=args.config,
        workdir=pathlib.Path(args.workdir),
        overrides=[given for given in rest if not given.startswith("--policy.")],
        search=args.search,
        space=args.space,
        trials=args.trials,
        generation=args.generation,
        seed=args.seed,
        storage=args.storage,
        study=args.study,
        policy=args.policy,
        settings=[given for given in rest if given.startswith("--policy.")],
    )
    how = args.jobs, args.devices, args.lanes, Programs()
    if args.dry_run:
        print(dry_run(told, *how))
        return 0
    received, broken, text = run_sweep(told, *how)
    if received:
        print(f"stopped by {received.name}; the same command goes on")
        return 128 + received
    print(text)
    if broken:
        print(f"error: failed: {', '.join(sorted(broken))}", file=sys.stderr)
    return 1 if broken else 0


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="chemscale sweep",
        description="Train many runs of a config, each as far as it is worth it.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", required=True, metavar="FILE[:ARG]")
    parser.add_argument("--workdir", required=True, help="holds a folder per run")
    parser.add_argument(
        "--policy",
        default=DEFAULT,
        choices=[*POLICIES],
        help="which runs go on; tpe ranks them once, full lets all of them (default: "
        "%(default)s)",
    )
    parser.add_argument(
        "--search",
        default="",
        metavar="NAME",
        help="grid, random or optuna (default: the grid of the config's sweep(), or "
        "random from its search())",
    )
    parser.add_argument(
        "--space",
        action="append",
        default=[],
        metavar="KEY=RANGE",
        help="what to search instead: log(a, b), uniform(a, b), int(a, b) or "
        "choice(a, b, ...) of a field of the config; may be given many times",
    )
    parser.add_argument(
        "--trials", type=int, default=16, help="of random and optuna (%(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of random and optuna (%(default)s)"
    )
    parser.add_argument(
        "--generation",
        type=int,
        default=4,
        help="settings Optuna chooses before it sees their scores (%(default)s)",
    )
    parser.add_argument(
        "--storage",
        default="",
        metavar="URL",
        help="of the Optuna study, which several sweeps may share (default: a file "
        "in the workdir)",
    )
    parser.add_argument(
        "--study", default="", help="its name there (default: that of the config file)"
    )
    add_place_arguments(parser)
    parser.add_argument(
        "--lanes",
        type=int,
        default=16,
        help="most runs of one program; 1: a process for each run (%(default)s)",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print the runs and their cost, and run nothing",
    )
    return parser
