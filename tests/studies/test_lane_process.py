"""A sweep with the real trainer: lanes that stop, go on, are killed and go on again."""

import csv
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest

from chemscale_jax.core.workdir import Workdir
from tests.xla_flags import QUICK

ROOT = pathlib.Path(__file__).parent.parent.parent
# Two batch sizes: two groups of lanes, whose programs differ.
CONFIG = """
from chemscale_jax.configs import painn_ani1x

def get_config(arg=""):
    config = painn_ani1x.get_config("smoke,width=4,depth=1")
    config.name = "swept"
    config.data.train_size, config.data.valid_size = 40, 16
    config.data.heldout = "none"
    config.batch.rows = 1
    config.train.epochs = 5
    config.log.every_steps = 1
    return config

def sweep():
    for molecules in (4, 8):
        for lr in (1e-2, 3e-3, 1e-3):
            yield {"batch.exact_molecules": molecules, "optimizer.lr": lr}
"""


def command(folder, name, *more):
    return [
        *(sys.executable, "-m", "chemscale_jax", "sweep"),
        f"--config={folder / 'swept.py'}",
        f"--workdir={folder / name}",
        "--policy=halving",
        "--policy.first=0.2",
        "--policy.eta=2.0",
        *more,
    ]


def start(folder, name, *more):
    environ = {**os.environ, "XLA_FLAGS": QUICK}
    return subprocess.Popen(
        command(folder, name, *more), cwd=ROOT, env=environ, stdout=subprocess.PIPE
    )


def losses(folder):
    """Every training loss of every run."""
    return {
        path.name: Workdir(path).series("train", "loss")
        for path in folder.iterdir()
        if (path / "metrics.jsonl").exists()
    }


def everything_below(pid):
    """A process and those it started, whose session is another."""
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True
    )
    return [pid, *map(int, listed.stdout.split())]


@pytest.mark.slow
def test_a_sweep_of_lanes_killed_at_random_moments_ends_the_same(tmp_path):
    (tmp_path / "swept.py").write_text(CONFIG)
    whole = start(tmp_path, "whole")
    out, _ = whole.communicate()
    assert whole.returncode == 0, out.decode()
    with (tmp_path / "whole" / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert sorted(int(row["epochs"]) for row in rows) == [1, 1, 1, 2, 2, 5]
    assert [row["state"] for row in rows if row["picked"] == "1"] == ["finished"]
    journal = (tmp_path / "whole" / "journal.jsonl").read_text().splitlines()
    crews = [event for event in map(json.loads, journal) if event["event"] == "crew"]
    assert max(len(crew["targets"]) for crew in crews) == 3
    rng = random.Random(0)
    for _ in range(3):
        process = start(tmp_path, "cut")
        journal = tmp_path / "cut" / "journal.jsonl"
        while not journal.exists() and process.poll() is None:
            time.sleep(0.1)
        time.sleep(rng.uniform(5, 40))
        for pid in everything_below(process.pid):
            os.kill(pid, signal.SIGKILL)
        process.communicate()
    last = start(tmp_path, "cut")
    out, _ = last.communicate()
    assert last.returncode == 0, out.decode()
    # Bit for bit, through lanes that were resumed and a winner that went on alone.
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    assert (tmp_path / "cut" / "sweep.csv").read_text() == (
        tmp_path / "whole" / "sweep.csv"
    ).read_text()
