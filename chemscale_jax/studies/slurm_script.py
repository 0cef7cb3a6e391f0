"""The scripts of a Slurm job: one for the job, one for each of its processes.

Task i of the array trains the run in line i of cells.txt. Slurm sends SIGTERM to the
trainers some time before the time limit; they save and end, and the task goes back
into the queue, where it resumes.
"""

import argparse
import dataclasses
import pathlib
import re
import shlex
from collections.abc import Mapping, Sequence

from chemscale_jax.core.errors import UserError

JOB, HOST, LINES = "job.sh", "host.sh", "cells.txt"
CACHE = "JAX_COMPILATION_CACHE_DIR"  # JAX keeps compiled programs there
COMPILED = "compiled"  # the folder of a workdir that it names
_NAME = re.compile(r"[A-Za-z_]\w*")
_OPTION = re.compile(r"[a-z][a-z-]*(=.*)?")
_NODE, _GPU = "node", "gpu"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resources:
    """What a task of the array asks for, and what is done on its hosts."""

    nodes: int = 1
    gpus_per_node: int = 0
    process_per: str = _NODE  # or "gpu"
    time: str = ""  # limit, as Slurm writes it; empty: the partition's
    partition: str = ""
    account: str = ""
    save_seconds: int = 300  # before the limit, when the trainers are told to save
    requeues: int = 100  # most times that a task goes back by itself
    array_limit: int = 0  # tasks at a time; 0: as many as Slurm gives
    options: tuple[str, ...] = ()  # KEY=VALUE or KEY, further lines of #SBATCH
    setup: str = ""  # shell text, before anything else
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.nodes < 1 or self.gpus_per_node < 0:
            raise UserError(
                f"--nodes={self.nodes}, --gpus-per-node={self.gpus_per_node}; give at "
                "least one node and no negative number of GPUs"
            )
        if self.process_per not in (_NODE, _GPU):
            raise UserError(
                f"--process-per is {self.process_per!r}, expected {_NODE} or {_GPU}"
            )
        if self.process_per == _GPU and not self.gpus_per_node:
            raise UserError("--process-per=gpu needs --gpus-per-node=N")
        for name in self.environment:
            if not _NAME.fullmatch(name):
                raise UserError(f"--env has {name!r}, expected NAME=VALUE")
        for option in self.options:
            if not _OPTION.fullmatch(option):
                raise UserError(
                    f"--sbatch={option} is no option of sbatch; write it like "
                    "--sbatch=mem=64G or --sbatch=exclusive"
                )

    @property
    def processes_per_node(self) -> int:
        """How many trainers a node has."""
        return self.gpus_per_node if self.process_per == _GPU else 1

    def directives(self) -> list[str]:
        """The options of sbatch, in the order in which they are read."""
        given = {
            "time": self.time,
            "partition": self.partition,
            "account": self.account,
            "gpus-per-node": self.gpus_per_node,
        }
        return [
            "--requeue",
            "--open-mode=append",
            f"--signal=TERM@{self.save_seconds}",
            f"--nodes={self.nodes}",
            f"--ntasks-per-node={self.processes_per_node}",
            *(f"--{name}={value}" for name, value in given.items() if value),
            *(f"--{option}" for option in self.options),
        ]


def add_slurm_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that `resources_of` reads."""
    group = parser.add_argument_group("what a Slurm task asks for")
    default = Resources()
    group.add_argument("--nodes", type=int, default=default.nodes, metavar="N")
    group.add_argument(
        "--gpus-per-node", type=int, default=default.gpus_per_node, metavar="N"
    )
    group.add_argument(
        "--process-per",
        default=default.process_per,
        choices=(_NODE, _GPU),
        help="a process has all GPUs of a node, or one (default: %(default)s)",
    )
    group.add_argument("--time", default="", metavar="D-HH:MM:SS", help="time limit")
    group.add_argument("--partition", default="", metavar="NAME")
    group.add_argument("--account", default="", metavar="NAME")
    group.add_argument(
        "--array-limit",
        type=int,
        default=default.array_limit,
        metavar="N",
        help="most cells at a time",
    )
    group.add_argument(
        "--save-seconds",
        type=int,
        default=default.save_seconds,
        metavar="N",
        help="before the time limit, when runs save and go back into the queue "
        "(default: %(default)s)",
    )
    group.add_argument(
        "--requeues",
        type=int,
        default=default.requeues,
        metavar="N",
        help="most times that a run goes back into the queue (default: %(default)s)",
    )
    group.add_argument(
        "--sbatch",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="another option of sbatch; may be given many times",
    )
    group.add_argument(
        "--setup",
        default="",
        metavar="COMMANDS",
        help="shell commands that make the environment, such as 'module load cuda; "
        "source .venv/bin/activate'",
    )
    group.add_argument(
        "--env",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a variable of every process; VALUE is read by the shell of its host, so "
        "it may hold $SLURM_NODEID; may be given many times",
    )


def resources_of(args: argparse.Namespace) -> Resources:
    """What the arguments of `add_slurm_arguments` say.

    Raises:
        UserError: they do not fit together.
    """
    environment = {}
    for given in args.env:
        name, equals, value = given.partition("=")
        if not equals:
            raise UserError(f"--env={given}, expected NAME=VALUE")
        environment[name] = value
    return Resources(
        nodes=args.nodes,
        gpus_per_node=args.gpus_per_node,
        process_per=args.process_per,
        time=args.time,
        partition=args.partition,
        account=args.account,
        save_seconds=args.save_seconds,
        requeues=args.requeues,
        array_limit=args.array_limit,
        options=tuple(args.sbatch),
        setup=args.setup,
        environment=environment,
    )


def run_function(resources: Resources, launched: str) -> str:
    """Shell text: a function ``run FOLDER COMMAND...`` that trains one cell.

    It alone writes the folder while it runs, ends at once where the run is finished,
    and puts the task back into the queue where the run saved before its end.

    Args:
        resources: how often that may be.
        launched: shell words between ``srun`` and the command, and a space.
    """
    return f"""\
# Since Slurm 22.05 srun does not ask for what the job has.
[ -z "${{SLURM_CPUS_PER_TASK:-}}" ] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK

# Only the processes that srun started are warned before the time limit. This shell has
# a SIGTERM when the job is cancelled or preempted, of which Slurm takes care by itself.
ended=
trap 'ended=1' TERM

finished() {{
  [ -e "$1/card.md" ] && grep -q '"state": "finished"' "$1/run.json"
}}

interrupted() {{
  [ -e "$1/run.json" ] && grep -q '"state": "interrupted"' "$1/run.json"
}}

run() {{
  local folder=$1 code
  shift
  mkdir -p "$folder" || return
  # Held while a process writes the folder, on whichever host.
  exec 9>>"$folder/.lock"
  if ! flock --nonblock 9; then
    echo "another process writes $folder; nothing is done"
    return
  fi
  if finished "$folder"; then
    echo "$folder is finished"
    return
  fi
  srun --kill-on-bad-exit=1 --output="$folder/log.txt" --open-mode=append \\
    {launched}"$@"
  code=$?
  echo "$(date -u +%FT%TZ) exit status $code, restart ${{SLURM_RESTART_COUNT:-0}}: $*"
  if [ -n "$ended" ]; then
    return "$code"
  fi
  # A run that saved ends with 0; 143 is 128 + SIGTERM, of commands of many runs and of
  # processes that had nothing to save yet.
  if [ "$code" -eq 143 ] || {{ [ "$code" -eq 0 ] && interrupted "$folder"; }}; then
    if [ "${{SLURM_RESTART_COUNT:-0}}" -ge {resources.requeues} ]; then
      echo "not put back into the queue: that was done {resources.requeues} times"
      return 1
    fi
    # The number of an array's last task is also that of the whole array.
    if [ -n "${{SLURM_ARRAY_JOB_ID:-}}" ]; then
      scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID"
    else
      scontrol requeue "$SLURM_JOB_ID"
    fi
    return
  fi
  return "$code"
}}
"""


def job_script(
    name: str,
    folder: pathlib.Path,
    tasks: int,
    resources: Resources,
    cache: pathlib.Path,
    cwd: pathlib.Path,
    array: bool = True,
) -> str:
    """The script for sbatch.

    Args:
        name: of the job.
        folder: where the script, cells.txt and the output of the job are.
        tasks: lines of cells.txt.
        resources: of a task.
        cache: folder of compiled programs, which all tasks share.
        cwd: where relative paths start.
        array: whether it is an array job; a job of one task need not be.
    """
    output = folder / ("%A_%a.txt" if array else "%j.txt")
    at_once = f"%{resources.array_limit}" if resources.array_limit else ""
    directives = [
        f"--job-name={shlex.quote(name)}",
        f"--chdir={shlex.quote(str(cwd))}",
        f"--output={shlex.quote(str(output))}",
        *([f"--array=0-{tasks - 1}{at_once}"] if array else []),
        *resources.directives(),
    ]
    lines = "\n".join(f"#SBATCH {line}" for line in directives)
    here = shlex.quote(str(folder))
    setup = f"\n{resources.setup}\n" if resources.setup else ""
    return f"""\
#!/bin/bash
{lines}

# Task i of the array trains the run in line i of {LINES}, counted from 0: its folder,
# then the command. Made by launch/slurm.py; sbatch takes it again as it is.
{setup}
export {CACHE}=${{{CACHE}:-{shlex.quote(str(cache))}}}

{run_function(resources, f"bash {here}/{HOST} ")}
line=$(sed -n "$((${{SLURM_ARRAY_TASK_ID:-0}} + 1))p" {here}/{LINES})
eval "run $line"
"""


def host_script(resources: Resources) -> str:
    """The script of every process: what differs from host to host, then the trainer."""
    lines = []
    if resources.process_per == _NODE and resources.gpus_per_node:
        # JAX would take one GPU for each process that Slurm starts.
        devices = ",".join(str(i) for i in range(resources.gpus_per_node))
        lines.append(f"export JAX_LOCAL_DEVICE_IDS={devices}")
    for name, value in resources.environment.items():
        text = value.replace("\\", "\\\\").replace('"', '\\"')
        lines.append(f'export {name}="{text}"')
    body = "\n".join([*lines, 'exec "$@"'])
    return f"#!/bin/bash\n# Run by every process of a task, on its own host.\n{body}\n"


def line_of(folder: pathlib.Path, command: Sequence[str]) -> str:
    """A line of cells.txt, as the shell reads it."""
    return shlex.join([str(folder), *command])


def folder_of(line: str) -> str:
    """The folder that `line_of` wrote into a line."""
    return shlex.split(line)[0]
