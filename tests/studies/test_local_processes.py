"""Processes: places, locks and orders; the tests of the launcher have more."""

import os
import signal
import subprocess
import sys
import time

import pytest

from chemscale_jax.core.errors import UserError
from chemscale_jax.core.workdir import Workdir
from chemscale_jax.studies.local_processes import (
    Job,
    Place,
    Processes,
    is_locked,
    places,
    places_of,
)

# Starts a process that ends when its file is there, says so, and is killed.
PARENT = """
import os, pathlib, signal, sys
from chemscale_jax.core.workdir import Workdir
from chemscale_jax.studies.local_processes import Job, Place, Processes
folder, child = pathlib.Path(sys.argv[1]), sys.argv[2]
command = (sys.executable, "-c", child, str(folder / "end"))
with Processes([Place()]) as processes:
    processes.start(Job("a", command, (Workdir(folder / "a"),), folder / "a.txt"))
    os.kill(os.getpid(), signal.SIGKILL)
"""
WAITS_FOR_FILE = """
import pathlib, sys, time
while not pathlib.Path(sys.argv[1]).exists():
    time.sleep(0.05)
"""
ECHOES = "import sys; [print(line, end='') for line in sys.stdin]"


def job(folder, child, name="a", **more):
    return Job(
        name=name,
        command=(sys.executable, "-c", child, str(folder / "end")),
        workdirs=(Workdir(folder / name),),
        log=folder / f"{name}.txt",
        **more,
    )


def wait(processes):
    ended = []
    for _ in range(600):
        ended += processes.poll()
        if not processes.running:
            return ended
        time.sleep(0.05)
    raise AssertionError("processes do not end")


def test_more_jobs_than_cores_are_not_bound():
    assert places(1000, []) == [Place()] * 1000


def test_places_follow_jobs_and_devices():
    assert places_of(0, "") == [Place()]
    assert places_of(0, "5,7") == [Place("5"), Place("7")]
    assert places_of(1, "5,7") == [Place("5")]
    for jobs, devices in ((3, "0,1"), (-1, "")):
        with pytest.raises(UserError, match="at least one job"):
            places_of(jobs, devices)


def test_a_folder_has_one_process_even_after_its_parent_was_killed(tmp_path):
    command = [sys.executable, "-c", PARENT, str(tmp_path), WAITS_FOR_FILE]
    assert subprocess.run(command).returncode == -signal.SIGKILL
    assert is_locked(Workdir(tmp_path / "a"))
    with Processes([Place(), Place()]) as processes:
        assert not processes.start(job(tmp_path, WAITS_FOR_FILE))
        assert processes.free == 2
        (tmp_path / "end").touch()
        for _ in range(600):
            if not is_locked(Workdir(tmp_path / "a")):
                break
            time.sleep(0.05)
        again = job(tmp_path, WAITS_FOR_FILE)
        assert processes.start(again)
        assert wait(processes) == [(again, 0)]
    assert not is_locked(Workdir(tmp_path / "a"))


def test_orders_arrive_in_order_and_end_with_the_context(tmp_path):
    with Processes([Place()]) as processes:
        echo = job(tmp_path, ECHOES, takes_orders=True)
        assert processes.start(echo)
        assert processes.order(echo, "one")
        assert processes.order(echo, "two")
        processes.close_orders(echo)
        assert wait(processes) == [(echo, 0)]
    assert echo.log.read_text() == "one\ntwo\n"


def test_leaving_the_context_leaves_no_process(tmp_path):
    with Processes([Place()]) as processes:
        processes.start(job(tmp_path, WAITS_FOR_FILE))
        (one,) = processes._running.values()
    assert one[0].poll() == -signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with Processes([Place()]) as processes:
        with pytest.raises(UserError, match="file.*choose another --workdir"):
            processes.start(job(tmp_path / "file", ECHOES))
        assert processes.free == 1


def test_signals_are_passed_on_once(tmp_path):
    with Processes([Place()]) as processes:
        processes.start(job(tmp_path, WAITS_FOR_FILE))
        os.kill(os.getpid(), signal.SIGINT)
        ((_, code),) = wait(processes)
        assert code == -signal.SIGINT or code == 1  # KeyboardInterrupt
        assert processes.received == signal.SIGINT
