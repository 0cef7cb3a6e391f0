"""Launches the cells of a config through XManager: a work unit for each.

--executor=local runs them on this machine (xm_local.Local), some at a time.
--executor=slurm packs this checkout and submits an array job to a Slurm cluster, over
ssh if need be (lxm3's xm_cluster.Slurm); its file says where the cluster is. There a
run that nears its time limit saves and goes back into the queue, as with
launch/slurm.py, which has no need of either package and takes several nodes.

The same command goes on where an experiment was stopped: cells that are finished are
left out, the others resume. Arguments that begin with --xm_ or --lxm_ are XManager's.
"""

import argparse
import asyncio
import dataclasses
import importlib
import importlib.util
import os
import pathlib
import shlex
import signal
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from chemscale_jax.analysis.markdown import markdown_table
from chemscale_jax.core.errors import UserError
from chemscale_jax.studies import cell_process, launch_arguments, slurm_script
from chemscale_jax.studies.cells import Cell
from chemscale_jax.studies.local_processes import Place, is_locked, places_of
from chemscale_jax.studies.place_arguments import add_place_arguments
from chemscale_jax.studies.slurm_script import CACHE, COMPILED, Resources

EXAMPLE = """\
examples, a sweep on this machine two at a time, and on a cluster:
  python launch/xm_launch.py --config=configs/painn_ani1x.py:smoke \\
      --workdir=runs/lr --jobs=2 --config.train.epochs=1
  python launch/xm_launch.py --executor=slurm --config=configs/painn_ani1x.py \\
      --workdir=/scratch/me/lr --gpus-per-node=1 --time=04:00:00 \\
      --setup='source /scratch/me/venv/bin/activate' --lxm_config=lxm.toml
"""
CHECKOUT = pathlib.Path(__file__).absolute().parent.parent
TRAINER = ("-m", "chemscale_jax.main")
# Executor: the package that has it, which is also the name of the extra.
PACKAGES = {"local": "xmanager", "slurm": "lxm3"}
# Characters that lxm3's scripts read a second time.
_UNSAFE = set("'\"$`\\*?[\n")


@dataclasses.dataclass(frozen=True)
class WorkUnit:
    """One cell, as XManager starts it."""

    cell: Cell
    arguments: list[str]  # of the executable
    environment: dict[str, str]


def main(argv: Sequence[str], program: Sequence[str] = ()) -> int:
    """Launches the cells; the exit status is 0 if all are finished, or submitted.

    Args:
        argv: the arguments after the program's name.
        program: the command that takes a cell's arguments; () is the trainer.
    """
    args, rest = make_parser().parse_known_args(argv)
    own = [word for word in rest if word.startswith(("--xm_", "--lxm_"))]
    overrides = [word for word in rest if word not in own]
    try:
        folder = pathlib.Path(args.workdir)
        resources = slurm_script.resources_of(args)
        places = places_of(args.jobs, args.devices)
        if args.executor == "slurm":
            check_cluster(args, resources)
        cells = launch_arguments.chosen_cells(args, overrides, folder)
        left = launch_arguments.unsettled(cells)
        if args.executor == "local":
            units = local_units(left, program or (sys.executable, *TRAINER), folder)
        else:
            python = args.python or "python3"
            units = cluster_units(
                left, program or (python, *TRAINER), resources, folder
            )
        print(describe(args, units, len(cells), resources, len(places)))
        if args.dry_run or not units:
            return 0
        start_package(PACKAGES[args.executor], own)
        title = launch_arguments.title_of(args.config)
        if args.executor == "slurm":
            submit(title, units, resources)
            return 0
        received = asyncio.run(run_here(title, units, places))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(markdown_table(("cell", "state"), [(c.name, c.state) for c in cells]))
    if received:
        print(f"stopped by {received.name}; the same command goes on")
        return 128 + received
    return 0 if all(cell.done for cell in cells) else 1


def check_cluster(args: argparse.Namespace, resources: Resources) -> None:
    """Raises where lxm3 cannot give what is asked for."""
    if resources.nodes > 1 or resources.process_per != "node":
        raise UserError(
            "lxm3 starts one process on one node; for more of them: launch/slurm.py"
        )
    if not os.path.isabs(args.workdir):
        raise UserError(
            f"--workdir={args.workdir} is of the cluster, where runs start in a folder "
            "that is thrown away; give an absolute path"
        )


def local_units(
    cells: Sequence[Cell], program: Sequence[str], folder: pathlib.Path
) -> list[WorkUnit]:
    """Work units whose executable is this Python."""
    cache = os.environ.get(CACHE) or str((folder / COMPILED).absolute())
    start = ["-m", cell_process.__name__]
    return [
        WorkUnit(
            cell,
            [*start, str(cell.workdir.path), *program, *cell.arguments],
            {CACHE: cache},
        )
        for cell in cells
    ]


def cluster_units(
    cells: Sequence[Cell],
    program: Sequence[str],
    resources: Resources,
    folder: pathlib.Path,
) -> list[WorkUnit]:
    """Work units whose executable is the packed checkout.

    Raises:
        UserError: an argument would not survive the shells it passes through.
    """
    environment = {CACHE: str(folder / COMPILED), **resources.environment}
    units = []
    for cell in cells:
        arguments = [str(cell.workdir.path), *program, *cell.arguments]
        for word in arguments:
            if _UNSAFE & set(word) or "  " in word:
                raise UserError(
                    f"lxm3 changes quotes and the like in {word!r}; write it into the "
                    "config, or use launch/slurm.py"
                )
        units.append(WorkUnit(cell, arguments, environment))
    return units


def entrypoint(resources: Resources) -> list[str]:
    """Shell commands of the packed checkout: the last has the arguments."""
    setup = [resources.setup] if resources.setup else []
    return [*setup, slurm_script.run_function(resources, ""), 'run "$@"']


def slurm_settings(resources: Resources, tasks: int) -> dict[str, list[str]]:
    """What xm_cluster.Slurm is given: lines of #SBATCH, and those of its own left out.

    lxm3 writes the range of the array itself, without a limit.
    """
    directives, skipped = resources.directives(), []
    if resources.array_limit and tasks > 1:
        skipped = ["--array"]
        directives.append(f"--array=1-{tasks}%{resources.array_limit}")
    return {"extra_directives": directives, "skip_directives": skipped}


def describe(
    args: argparse.Namespace,
    units: Sequence[WorkUnit],
    total: int,
    resources: Resources,
    at_a_time: int,
) -> str:
    """The experiment as XManager will see it."""
    title = launch_arguments.title_of(args.config)
    if args.executor == "local":
        executor = ["xm_local.Local()"]
        executable = f"xm.Binary(path={sys.executable!r})"
        requirements = [
            f"{at_a_time} at a time, on "
            + (f"GPUs {args.devices}" if args.devices else "the devices that JAX finds")
        ]
    else:
        settings = slurm_settings(resources, len(units))
        executor = ["xm_cluster.Slurm()"]
        executable = f"xm_cluster.PythonPackage(path={str(CHECKOUT)!r})"
        requirements = [f"#SBATCH {line}" for line in settings["extra_directives"]]
        executor += [f"without its own {line}" for line in settings["skip_directives"]]
    lines = [
        f"experiment {title!r}: {total} cells, {total - len(units)} done, "
        f"{len(units)} work units",
        f"executor: {', '.join(executor)}",
        f"executable: {executable}",
        "requirements:",
        *(f"  {line}" for line in requirements),
    ]
    if args.executor == "slurm" and args.dry_run:
        text = "\n".join(entrypoint(resources))
        lines += ["entrypoint:", *(f"  {line}".rstrip() for line in text.splitlines())]
    for number, unit in enumerate(units, start=1):
        lines.append(f"work unit {number}: {unit.cell.name}")
        lines.append(f"  arguments: {shlex.join(unit.arguments)}")
        pairs = (f"{k}={v}" for k, v in unit.environment.items())
        lines.append(f"  environment: {shlex.join(pairs)}")
    return "\n".join(lines)


def start_package(name: str, flags_given: Sequence[str]) -> None:
    """Imports a package and gives it its flags.

    Raises:
        UserError: it is not installed, or has no such flag.
    """
    if importlib.util.find_spec(name) is None:
        raise UserError(
            f"this executor needs {name}; pip install 'chemscale_jax[{name}]', or use "
            "--dry-run, launch/local.py or launch/slurm.py"
        )
    from absl import flags

    if name == "xmanager":
        importlib.import_module("xmanager.xm_flags")
    else:
        importlib.import_module("lxm3.xm_cluster")
    try:
        flags.FLAGS([sys.argv[0], *flags_given])
    except flags.Error as error:
        raise UserError(str(error)) from None


async def run_here(
    title: str, units: Sequence[WorkUnit], places: Sequence[Place]
) -> signal.Signals | None:
    """Runs work units with xm_local, as many at a time as there are places.

    Returns:
        The signal that stopped it, if any, after the runs have saved.
    """
    xm: ModuleType = importlib.import_module("xmanager.xm")
    xm_local: ModuleType = importlib.import_module("xmanager.xm_local")
    free: asyncio.Queue[Place] = asyncio.Queue()
    for place in places:
        free.put_nowait(place)
    received: list[signal.Signals] = []
    running: set[Cell] = set()
    failed: list[str] = []

    def stop(number: signal.Signals) -> None:
        received.append(number)
        for cell in running:
            # Empty until the process has the folder for itself; it waits no longer.
            words = (cell.workdir.path / cell_process.LOCK).read_text().split()
            if words and is_locked(cell.workdir):
                os.kill(int(words[0]), signal.SIGTERM)

    async def run(experiment: Any, executable: Any, unit: WorkUnit) -> None:
        place = await free.get()
        try:
            if received or unit.cell.done:
                return
            if is_locked(unit.cell.workdir):
                failed.append(unit.cell.name)
                print(f"{unit.cell.name}: another process writes its folder")
                return
            unit.cell.workdir.path.mkdir(parents=True, exist_ok=True)
            (unit.cell.workdir.path / cell_process.LOCK).write_text("")
            running.add(unit.cell)
            job = xm.Job(
                executable=executable,
                executor=xm_local.Local(experimental_stream_output=False),
                name=unit.cell.name,
                args=with_cores(unit.arguments, place),
                env_vars=unit.environment
                | ({"CUDA_VISIBLE_DEVICES": place.device} if place.device else {}),
            )
            started = await experiment.add(job)
            try:
                await started.wait_until_complete()
            except xm.ExperimentUnitFailedError as error:
                failed.append(unit.cell.name)
                print(
                    f"{unit.cell.name}: {error}; see {cell_process.LOG} in its folder"
                )
        finally:
            running.discard(unit.cell)
            free.put_nowait(place)

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
    try:
        async with xm_local.create_experiment(experiment_title=title) as experiment:
            (executable,) = experiment.package(
                [xm.Packageable(xm.Binary(path=sys.executable), xm_local.Local.Spec())]
            )
            await asyncio.gather(*(run(experiment, executable, u) for u in units))
    except RuntimeError:
        # Leaving the experiment raises once more what its work units raised.
        if not failed:
            raise
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
    return received[0] if received else None


def with_cores(arguments: Sequence[str], place: Place) -> list[str]:
    """The arguments of `cell_process` with the cores of a place."""
    if not place.cores:
        return list(arguments)
    at = arguments.index(cell_process.__name__) + 1
    cores = ",".join(map(str, sorted(place.cores)))
    return [*arguments[:at], f"--cores={cores}", *arguments[at:]]


def submit(title: str, units: Sequence[WorkUnit], resources: Resources) -> None:
    """Submits work units as one array job with lxm3."""
    xm: ModuleType = importlib.import_module("lxm3.xm")
    xm_cluster: ModuleType = importlib.import_module("lxm3.xm_cluster")
    package = xm_cluster.PythonPackage(
        path=str(CHECKOUT), entrypoint=xm_cluster.CommandList(entrypoint(resources))
    )
    try:
        with xm_cluster.create_experiment(experiment_title=title) as experiment:
            (executable,) = experiment.package(
                [xm.Packageable(package, xm_cluster.Slurm.Spec())]
            )
            experiment.add(
                xm_cluster.ArrayJob(
                    executable=executable,
                    executor=xm_cluster.Slurm(**slurm_settings(resources, len(units))),
                    args=[unit.arguments for unit in units],
                    env_vars=[unit.environment for unit in units],
                )
            )
    except FileNotFoundError as error:
        raise UserError(
            f"{error.filename} is not there; lxm3 needs sbatch, on this machine or on "
            "the server that its file names"
        ) from None
    except ValueError as error:
        raise UserError(
            f"lxm3: {error}; give --lxm_config=FILE, see docs/launchers.md"
        ) from None


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = launch_arguments.make_parser("launch/xm_launch.py", __doc__, EXAMPLE)
    parser.add_argument(
        "--executor", default="local", choices=[*PACKAGES], help="(%(default)s)"
    )
    add_place_arguments(parser)
    slurm_script.add_slurm_arguments(parser)
    parser.add_argument(
        "--python",
        default="",
        metavar="FILE",
        help="of the cluster (default: python3, which --setup may activate)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
