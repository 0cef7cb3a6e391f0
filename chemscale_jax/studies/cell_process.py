"""Runs a command that alone writes a folder, with its output in the folder's log.

    python -m chemscale_jax.studies.cell_process [--cores=0,1] FOLDER COMMAND...

For launchers that start processes through others' programs. The command takes the place
of this process, so signals reach it. What another process writes is left alone (exit
status 75).
"""

import fcntl
import os
import pathlib
import sys
from collections.abc import Sequence

LOG = "log.txt"  # in the folder of a cell: the output of its process
LOCK = ".lock"  # held by the process that writes the folder; its number is in it
BUSY = os.EX_TEMPFAIL
_CORES = "--cores="


def main(argv: Sequence[str]) -> int:
    """Starts the command; returns only where it cannot be started."""
    words = list(argv)
    cores = words.pop(0).removeprefix(_CORES) if words[0].startswith(_CORES) else ""
    folder, command = pathlib.Path(words[0]), words[1:]
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"another process writes {folder}; nothing is done", file=sys.stderr)
        return BUSY
    os.ftruncate(lock, 0)
    os.write(lock, f"{os.getpid()}\n".encode())
    # The command has the lock too, and for as long as it lives.
    os.set_inheritable(lock, True)
    log = os.open(folder / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, map(int, cores.split(",")))
    os.execvp(command[0], command)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
