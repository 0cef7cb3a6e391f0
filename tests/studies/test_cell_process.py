"""A command that alone writes a folder, and the number of its process."""

import os
import signal
import subprocess
import sys
import time

from chemscale_jax.core.workdir import Workdir
from chemscale_jax.studies import cell_process
from chemscale_jax.studies.local_processes import is_locked

START = [sys.executable, "-m", cell_process.__name__]
WAITS = "import time; print('waits', flush=True); time.sleep(60)"


def test_one_process_writes_a_folder_and_signals_reach_it(tmp_path):
    folder = tmp_path / "cell"
    first = subprocess.Popen([*START, str(folder), sys.executable, "-c", WAITS])
    log = folder / cell_process.LOG
    for _ in range(600):
        if log.exists() and log.read_text():
            break
        time.sleep(0.05)
    assert log.read_text() == "waits\n"
    assert is_locked(Workdir(folder))
    number = int((folder / cell_process.LOCK).read_text())
    second = subprocess.run(
        [*START, str(folder), "echo", "never"], capture_output=True, text=True
    )
    assert second.returncode == cell_process.BUSY
    assert "another process writes" in second.stderr
    os.kill(number, signal.SIGTERM)
    assert first.wait(60) == -signal.SIGTERM
    assert not is_locked(Workdir(folder))
    assert log.read_text() == "waits\n"


def test_the_command_has_the_cores_it_was_given(tmp_path):
    if not hasattr(os, "sched_setaffinity"):
        return
    core = max(os.sched_getaffinity(0))
    shown = "import os; print(os.sched_getaffinity(0))"
    command = [f"--cores={core}", str(tmp_path), sys.executable, "-c", shown]
    assert subprocess.run([*START, *command]).returncode == 0
    assert (tmp_path / cell_process.LOG).read_text() == f"{{{core}}}\n"
