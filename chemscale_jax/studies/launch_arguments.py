"""The arguments that say which runs a launcher starts, equal for all launchers."""

import argparse
import pathlib
from collections.abc import Sequence

from chemscale_jax.core.errors import UserError
from chemscale_jax.studies.cells import Cell, check_overrides, expand, single_cell

# What of a config is run: its sweep(), its study(arguments), or the config itself.
CELLS = ("sweep", "study", "single")


def make_parser(
    program: str, about: str | None, example: str, needs_config: bool = True
) -> argparse.ArgumentParser:
    """A command line with ``--config``, ``--workdir``, ``--cells`` and ``--dry-run``.

    Args:
        program: the file of the launcher.
        about: what it does.
        example: shown below the arguments.
        needs_config: whether ``--config`` has to be there.
    """
    parser = argparse.ArgumentParser(
        prog=f"python {program}",
        description=about,
        epilog=f"Other arguments of the form --config.KEY=VALUE go to every cell.\n\n"
        f"{example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", required=needs_config, metavar="FILE[:ARG]")
    parser.add_argument(
        "--workdir",
        required=True,
        help="holds a folder per cell; with --cells=single it is that of the run",
    )
    parser.add_argument(
        "--cells",
        default=CELLS[0],
        choices=CELLS,
        help="what is run: the config's sweep() or study(), or the config itself "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print what would run, and run nothing"
    )
    return parser


def chosen_cells(
    args: argparse.Namespace, overrides: Sequence[str], folder: pathlib.Path
) -> list[Cell]:
    """The cells that the arguments name.

    Args:
        args: of `make_parser`.
        overrides: arguments for every cell.
        folder: where the folders of the cells go.

    Raises:
        UserError: the config has no such cells, an override does not fit it, or a
            folder holds the run of another config.
    """
    check_overrides(overrides)
    if args.cells == "sweep":
        return expand(args.config, folder, overrides)
    if args.cells == "study":
        # Imported only where they are needed: both bring in JAX.
        from chemscale_jax.studies.plan import plan_on_cpu, study_cells

        plan_on_cpu()
        return study_cells(args.config, folder, overrides)
    if args.cells == "single":
        return [single_cell(args.config, folder, overrides)]
    raise UserError(f"--cells is {args.cells!r}, expected one of {', '.join(CELLS)}")


def unsettled(cells: Sequence[Cell]) -> list[Cell]:
    """The cells that are neither finished nor diverged."""
    from chemscale_jax.studies.study_rows import is_settled

    return [cell for cell in cells if not is_settled(cell)]


def title_of(config: str) -> str:
    """``painn_ani1x-smoke`` of ``configs/painn_ani1x.py:smoke``, to name a job."""
    file, _, arguments = config.partition(":")
    words = [pathlib.Path(file).stem, *([arguments] if arguments else [])]
    return "-".join(words).replace(" ", "_")
