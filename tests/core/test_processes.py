import os
import subprocess
import sys

import pytest

from chemscale_jax.core import processes
from chemscale_jax.core.worker_processes import usable_processes

PROGRAM = """
import pathlib, sys
from chemscale_jax.core import processes
from chemscale_jax.core.worker_processes import usable_processes
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


SLOW_DEVICE = """
import pathlib, sys, time
from chemscale_jax.core import partition, processes
processes.start(pathlib.Path(sys.argv[1]), cpu_devices=2)
import jax
import jax.numpy as jnp
import numpy as np

mesh = partition.make_mesh(data=2)

def wait(x):
    if np.asarray(x)[0] == 0:
        time.sleep(50)
    return np.asarray(x)

def summed(x):
    x = jax.pure_callback(wait, jax.ShapeDtypeStruct(x.shape, x.dtype), x)
    return jax.lax.psum(x, "data")

spec = jax.sharding.PartitionSpec
of_devices = jax.shard_map(
    summed, mesh=mesh, in_specs=spec("data"), out_specs=spec(), check_vma=False
)
print(int(jax.jit(of_devices)(jnp.arange(2))[0]))
"""


@pytest.mark.slow
@pytest.mark.skipif(usable_processes() < 2, reason="needs two cores")
def test_a_device_waits_for_a_slower_one(tmp_path):
    """For longer than XLA allows by itself."""
    env = {**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", SLOW_DEVICE, str(tmp_path)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert int(done.stdout) == 1


def test_what_the_environment_says_of_patience_stays(monkeypatch):
    name = "xla_cpu_collective_call_terminate_timeout_seconds"
    monkeypatch.setenv("XLA_FLAGS", f"--{name}=70")
    processes._be_patient()
    processes._be_patient()
    flags = os.environ["XLA_FLAGS"].split()
    assert flags[0] == f"--{name}=70"
    assert len(flags) == 2
