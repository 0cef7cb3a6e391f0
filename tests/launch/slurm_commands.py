"""Slurm's commands for tests: sbatch, squeue, scontrol and srun, and who runs the jobs.

Jobs are kept in a folder; `Slurm.run` does what the controller would: it starts the
script of a task with the variables that Slurm sets, warns the processes of srun before
the time limit, and starts a task again that was requeued.
"""

import os
import pathlib
import re
import signal
import subprocess
import time

# N.sh is the script of job N; "queue" lists tasks that wait, such as "7_0".
SBATCH = """#!/bin/bash
parsable=
if [ "$1" = --parsable ]; then parsable=1; shift; fi
number=$(($(ls "$FAKE_SLURM" | grep -c 'sh$') + 7))
cp "$1" "$FAKE_SLURM/$number.sh"
array=$(sed -n 's/^#SBATCH --array=\\([0-9]*\\)-\\([0-9]*\\).*/\\1 \\2/p' "$1")
if [ -z "$array" ]; then
  echo "$number" >> "$FAKE_SLURM/queue"
else
  for i in $(seq $array); do echo "${number}_$i" >> "$FAKE_SLURM/queue"; done
fi
if [ -n "$parsable" ]; then echo "$number;cluster"; else
  echo "Submitted batch job $number"; fi
"""
SQUEUE = """#!/bin/bash
cat "$FAKE_SLURM/queue" 2> /dev/null || true
"""
SCONTROL = """#!/bin/bash
[ "$1" = requeue ] && echo "$2" >> "$FAKE_SLURM/queue"
"""
# Two processes per node are two processes here; only they are ever signalled.
SRUN = """#!/bin/bash
while [[ "$1" == --* ]]; do
  case "$1" in --output=*) exec >> "${1#--output=}" 2>&1 ;; esac
  shift
done
pids=()
for ((i = 0; i < FAKE_PROCESSES; i++)); do
  SLURM_PROCID=$i SLURM_LOCALID=$i SLURM_NODEID=$i \\
    SLURM_STEP_NUM_TASKS=$FAKE_PROCESSES "$@" &
  pids+=($!)
done
echo "${pids[*]}" > "$FAKE_SLURM/pids"
code=0
for pid in "${pids[@]}"; do wait "$pid" || code=$?; done
rm "$FAKE_SLURM/pids"
exit $code
"""


class Slurm:
    """A cluster of one machine."""

    def __init__(self, folder, monkeypatch):
        """Puts the commands first on PATH."""
        self.folder = folder / "fake-slurm"
        programs = folder / "bin"
        self.folder.mkdir()
        programs.mkdir()
        commands = {
            "sbatch": SBATCH,
            "squeue": SQUEUE,
            "scontrol": SCONTROL,
            "srun": SRUN,
        }
        for name, text in commands.items():
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
        monkeypatch.setenv("FAKE_SLURM", str(self.folder))
        self.exits = {}  # of each start of a task
        self.restarts = {}

    @property
    def queue(self):
        path = self.folder / "queue"
        return path.read_text().split() if path.exists() else []

    def run(self, warn=(), cancel=()):
        """Runs what waits now, each task once.

        Args:
            warn: tasks whose processes are warned before their time limit.
            cancel: tasks whose processes and script are told to end.
        """
        tasks = self.queue
        (self.folder / "queue").unlink(missing_ok=True)
        for task in tasks:
            self._start(task, task in warn, task in cancel)

    def _start(self, task, warned, cancelled):
        number, _, index = task.partition("_")
        script = self.folder / f"{number}.sh"
        text = script.read_text()

        def option(name, default):
            found = re.search(rf"^#SBATCH --{name}=(.*)$", text, re.MULTILINE)
            return found[1] if found else default

        environment = os.environ | {
            "SLURM_JOB_ID": number,
            "SLURM_RESTART_COUNT": str(self.restarts.get(task, 0)),
            "FAKE_PROCESSES": str(
                int(option("nodes", 1)) * int(option("ntasks-per-node", 1))
            ),
        }
        if index:
            environment |= {
                "SLURM_ARRAY_JOB_ID": number,
                "SLURM_ARRAY_TASK_ID": index,
            }
        output = option("output", "")
        marks = {"%A": number, "%a": index, "%j": number, "%x": option("job-name", "")}
        for mark, value in marks.items():
            output = output.replace(mark, value)
        with pathlib.Path(output).open("a") as log:
            process = subprocess.Popen(
                ["bash", str(script)],
                cwd=option("chdir", "."),
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            try:
                if warned or cancelled:
                    self._signal(process.pid if cancelled else None)
                code = process.wait(60)
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        self.exits.setdefault(task, []).append(code)
        self.restarts[task] = self.restarts.get(task, 0) + 1

    def _signal(self, script):
        """SIGTERM to the processes of srun, and to the script if it is given."""
        for _ in range(1200):
            if (self.folder / "ready").exists():
                break
            time.sleep(0.05)
        (self.folder / "ready").unlink()
        if script is not None:
            os.kill(script, signal.SIGTERM)
        for pid in (self.folder / "pids").read_text().split():
            os.kill(int(pid), signal.SIGTERM)
