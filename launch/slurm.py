"""Submits the cells of a config to Slurm, as an array job with a task for each.

A task asks for --nodes with --gpus-per-node; on several nodes its processes train one
run together. Some time before the time limit a run saves and its task goes back into
the queue, as often as it takes. The same command, given again, leaves out the cells
that are finished and those that are still queued, and submits the others, which resume.

The scripts, and what they print, are in a numbered folder of the workdir, slurm/001 and
so on; the output of a run is log.txt in its own folder. Without sbatch the scripts are
written all the same.

What follows "--" is another command of chemscale, run as one job of one process:
chemscale sweep, with its policies, or chemscale study, with its report.
"""

import argparse
import os
import pathlib
import shlex
import subprocess
import sys
from collections.abc import Sequence

from chemscale_jax.core.errors import UserError
from chemscale_jax.studies import launch_arguments, slurm_script
from chemscale_jax.studies.slurm_script import COMPILED, HOST, JOB, LINES

EXAMPLE = """\
examples, a sweep with two runs at a time, one run on two nodes, and a sweep that stops
runs early as one job:
  python launch/slurm.py --config=configs/painn_ani1x.py --workdir=runs/lr \\
      --gpus-per-node=1 --time=04:00:00 --array-limit=2 \\
      --setup='module load cuda; source .venv/bin/activate'
  python launch/slurm.py --config=configs/chemgpt.py --cells=single \\
      --workdir=runs/gpt --nodes=2 --gpus-per-node=4 --time=1-00:00:00
  python launch/slurm.py --workdir=runs/hpo --gpus-per-node=2 --time=12:00:00 -- \\
      sweep --config=configs/hpo_force_fields.py --workdir=runs/hpo --devices=0,1
"""
MODULE = ("-m", "chemscale_jax.main")
ID = "job_id.txt"


def main(argv: Sequence[str], program: Sequence[str] = ()) -> int:
    """Submits the cells; the exit status is 0 if sbatch took them or none is left.

    Args:
        argv: the arguments after the program's name.
        program: the command that takes a cell's arguments; () is the trainer.
    """
    own, *command = split(argv)
    args, overrides = make_parser(bool(command)).parse_known_args(own)
    try:
        resources = slurm_script.resources_of(args)
        folder = pathlib.Path(args.workdir).absolute()
        if "%" in str(folder):
            raise UserError(
                f"Slurm replaces the % in {folder}; choose another --workdir"
            )
        python = args.python or ("python" if args.setup else sys.executable)
        if command:
            words = [python, "-m", "chemscale_jax", *command[0]]
            lines, total = [slurm_script.line_of(folder, words)], 1
            name, array = f"chemscale-{command[0][0]}", False
            check_command(command[0], args, overrides)
        else:
            program = program or (python, *MODULE)
            lines, total = cell_lines(args, overrides, folder, program)
            name = launch_arguments.title_of(args.config)
            array = args.cells != "single"
        waiting = queued(folder) if not args.dry_run else set()
        left = [x for x in lines if slurm_script.folder_of(x) not in waiting]
        print(
            f"{total} cells: {total - len(lines)} done, "
            f"{len(lines) - len(left)} queued or running, {len(left)} to submit"
        )
        if not left:
            return 0
        job = next_folder(folder / "slurm")
        scripts = {
            JOB: slurm_script.job_script(
                name,
                job,
                len(left),
                resources,
                folder / COMPILED,
                pathlib.Path.cwd(),
                array,
            ),
            HOST: slurm_script.host_script(resources),
            LINES: "".join(f"{line}\n" for line in left),
        }
        if args.dry_run:
            for file, text in scripts.items():
                print(f"\n== {job / file}\n{text}", end="")
            return 0
        write(job, scripts)
        submit(job)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def split(argv: Sequence[str]) -> list[list[str]]:
    """The launcher's own arguments and, after ``--``, those of a command."""
    words = list(argv)
    if "--" not in words:
        return [words]
    at = words.index("--")
    return [words[:at], words[at + 1 :]]


def check_command(
    command: Sequence[str], args: argparse.Namespace, rest: Sequence[str]
) -> None:
    """Raises unless a command can be one job of one process."""
    from chemscale_jax.commands import COMMANDS

    if not command or command[0] not in COMMANDS:
        raise UserError(
            f"{shlex.join(command) or 'nothing'!r} after -- is no command of "
            "chemscale; chemscale --help lists them"
        )
    if args.nodes > 1 or args.process_per != "node":
        raise UserError("a command after -- is one process; leave out --nodes")
    if rest:
        raise UserError(f"cannot read argument {rest[0]!r}; put it after --")


def cell_lines(
    args: argparse.Namespace,
    overrides: Sequence[str],
    folder: pathlib.Path,
    program: Sequence[str],
) -> tuple[list[str], int]:
    """A line of cells.txt for each cell that is not settled, and how many there are."""
    cells = launch_arguments.chosen_cells(args, overrides, folder)
    return [
        slurm_script.line_of(cell.workdir.path, [*program, *cell.arguments])
        for cell in launch_arguments.unsettled(cells)
    ], len(cells)


def queued(folder: pathlib.Path) -> set[str]:
    """Folders of runs that Slurm still has, waiting or running, by earlier commands."""
    jobs = sorted((folder / "slurm").glob(f"*/{ID}"))
    if not jobs:
        return set()
    try:
        told = subprocess.run(
            ["squeue", "--me", "--noheader", "--array", "--format=%i"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        detail = getattr(error, "stderr", "") or str(error)
        raise UserError(
            "squeue does not say which cells are still queued "
            f"({' '.join(detail.split())}); run this where Slurm's commands work"
        ) from None
    known = set(told.stdout.split())
    found = set()
    for path in jobs:
        number = path.read_text().strip()
        lines = (path.parent / LINES).read_text().splitlines()
        for i, line in enumerate(lines):
            if {number, f"{number}_{i}"} & known:
                found.add(slurm_script.folder_of(line))
    return found


def next_folder(folder: pathlib.Path) -> pathlib.Path:
    """``001``, ``002``, ... below a folder, whichever is free."""
    taken = [int(p.name) for p in folder.glob("*") if p.name.isdecimal()]
    return folder / f"{max(taken, default=0) + 1:03d}"


def write(job: pathlib.Path, scripts: dict[str, str]) -> None:
    """Writes the scripts of a job into a folder of their own."""
    try:
        job.mkdir(parents=True)
        for name, text in scripts.items():
            (job / name).write_text(text)
            if text.startswith("#!"):
                os.chmod(job / name, 0o755)
    except OSError as error:
        raise UserError(
            f"{error.filename} cannot be written ({error.strerror}); choose another "
            "--workdir"
        ) from None


def submit(job: pathlib.Path) -> None:
    """Gives a job to sbatch and notes its number beside the script.

    Raises:
        UserError: there is no sbatch, or it does not take the script.
    """
    try:
        told = subprocess.run(
            ["sbatch", "--parsable", str(job / JOB)],
            capture_output=True,
            text=True,
            check=True,
        )
    except FileNotFoundError:
        raise UserError(
            f"there is no sbatch on this machine; where Slurm is: sbatch {job / JOB}"
        ) from None
    except subprocess.CalledProcessError as error:
        raise UserError(
            f"sbatch does not take {job / JOB}: {' '.join(error.stderr.split())}"
        ) from None
    # NUMBER or NUMBER;CLUSTER
    number = told.stdout.strip().partition(";")[0]
    (job / ID).write_text(f"{number}\n")
    print(f"submitted job {number}: {job / JOB}")


def make_parser(command: bool = False) -> argparse.ArgumentParser:
    """The command line; with a command after "--" there is no config."""
    parser = launch_arguments.make_parser(
        "launch/slurm.py", __doc__, EXAMPLE, needs_config=not command
    )
    slurm_script.add_slurm_arguments(parser)
    parser.add_argument(
        "--python",
        default="",
        metavar="FILE",
        help="of the cluster (default: this one, or with --setup the one it activates)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
