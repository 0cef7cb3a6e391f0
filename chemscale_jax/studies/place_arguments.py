"""The arguments that say where processes run, equal for all that start many."""

import argparse


def add_place_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds ``--jobs`` and ``--devices``, which `local_processes.places_of` takes."""
    parser.add_argument(
        "--jobs",
        type=int,
        default=0,
        help="processes at a time, each with its share of the cores (default: one, or "
        "one per device)",
    )
    parser.add_argument(
        "--devices",
        default="",
        metavar="0,1,...",
        help="GPUs, one for each process; sets CUDA_VISIBLE_DEVICES",
    )
