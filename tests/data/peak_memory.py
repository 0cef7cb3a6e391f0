"""Peak memory of fresh processes, which have nothing of pytest's."""

import multiprocessing
import pathlib
import subprocess
import sys
import threading

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def peak_bytes(pid: int | str | None = "self") -> int:
    """Peak resident memory of a process; 0 where it has ended.

    What the operating system reports of a process that has ended would include the
    memory of the one that started it.
    """
    try:
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    lines = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(lines[0].split()[1]) * 1024 if lines else 0


def watch_children(peak):
    """Keeps the largest peak of the child processes in a list of one number."""

    def look():
        while True:
            for child in multiprocessing.active_children():
                peak[0] = max(peak[0], peak_bytes(child.pid))
            threading.Event().wait(0.02)

    threading.Thread(target=look, daemon=True).start()


def run_fresh(script, *arguments):
    """Output of a Python script in a process of its own."""
    if not pathlib.Path("/proc/self/status").exists():
        pytest.skip("memory is measured with /proc")
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    return done.stdout
