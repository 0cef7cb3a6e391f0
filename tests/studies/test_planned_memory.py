"""The memory of a plan, against that of steps that are run."""

import json
import os
import subprocess
import sys

import pytest

# In a process of its own, whose peak is set back once the step is compiled.
MEASURE = """
import json
import pathlib
import sys

import jax
import numpy as np

from chemscale_jax.studies.cells import single_cell
from chemscale_jax.studies.devices import DEVICES
from chemscale_jax.studies.mesh_plan import MeshSizes, compile_step, plan_on_mesh
from chemscale_jax.studies.plan import Planner


def memory(kind):
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(x.split()[1]) for x in lines if x.startswith(kind))


config, folder, *flags = sys.argv[1:]
cell = single_cell(config, pathlib.Path(folder), flags)
planner = Planner()
prepared, one = planner.prepare(cell), MeshSizes()
planned = plan_on_mesh(prepared, planner.plan(cell), one, DEVICES["h100"])
step = compile_step(prepared, one)
batch = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), step.batch)
pathlib.Path("/proc/self/clear_refs").write_text("5")
before = memory("VmRSS")
state = step.init(0)
for _ in range(3):
    state, output = step.call(state, batch, np.bool_(False))
    jax.block_until_ready(state)
print(json.dumps([planned.memory, memory("VmHWM") - before]))
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not os.path.exists("/proc/self/clear_refs"), reason="needs Linux's /proc"
)
@pytest.mark.parametrize(
    ("config", "flags"),
    [
        ("configs/chemgpt.py:smoke", ("depth=8", "width=256")),
        ("configs/unimol2_pretrain.py:smoke", ("depth=6", "width=128", "heads=8")),
    ],
)
def test_steps_take_the_memory_that_was_planned(config, flags, tmp_path):
    given = [f"--config.model.{flag}" for flag in flags] + ["--config.batch.rows=64"]
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, config, str(tmp_path / "run"), *given],
        env={**os.environ, "XLA_FLAGS": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    planned, measured = json.loads(done.stdout.splitlines()[-1])
    print(f"{config}: planned {planned / 1e6:.0f} MB, measured {measured / 1e6:.0f} MB")
    assert measured > 3e8  # much more than a process moves by itself
    assert planned == pytest.approx(measured, rel=0.1)
