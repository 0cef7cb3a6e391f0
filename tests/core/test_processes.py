import os
import subprocess
import sys

import pytest

from chemscale_jax.core import processes

PROGRAM = """
import pathlib, sys
from chemscale_jax.core import processes
processes.start(pathlib.Path(sys.argv[1]), cpu_devices=int(sys.argv[2]))
import jax
print(jax.local_device_count())
processes.start(pathlib.Path(sys.argv[1]), cpu_devices=1 + jax.local_device_count())
"""


def devices(folder, lanes, flags=""):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder), str(lanes)],
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


def test_cores_become_devices(tmp_path):
    assert devices(tmp_path, 2) == min(2, len(os.sched_getaffinity(0)))


def test_devices_divide_the_rows(monkeypatch):
    monkeypatch.setattr(processes, "usable_processes", lambda: 12)
    given = [(16, 0), (12, 0), (7, 0), (5, 4), (16, 3), (0, 0), (16, 1)]
    found = [processes.devices_for_rows(*each) for each in given]
    assert found == [8, 6, 7, 1, 2, 1, 1]


@pytest.mark.slow
def test_who_asks_for_devices_gets_them(tmp_path):
    assert devices(tmp_path, 2, "--xla_force_host_platform_device_count=3") == 3
