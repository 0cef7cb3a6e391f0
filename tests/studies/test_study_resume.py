"""A real study that is killed again and again, beside one that is not."""

import csv
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest

from chemscale_jax.studies.study_rows import CLOCKS
from tests.xla_flags import QUICK

COMMAND = (
    "study",
    "--config=configs/scaling_force_fields.py:smoke,models=schnet",
    "--config.train.checkpoint_every_steps=2",
)


def start(folder):
    return subprocess.Popen(
        [sys.executable, "-m", "chemscale_jax", *COMMAND, f"--workdir={folder}"],
        env={**os.environ, "XLA_FLAGS": QUICK},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def rows(folder):
    with (folder / "results.csv").open() as file:
        found = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if k not in CLOCKS} for row in found]


def cell_processes(folder):
    """Processes of the study's cells, which outlive the one that started them."""
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().decode(errors="ignore")
        except OSError:
            continue
        if f"--workdir={folder}/" in line:
            yield int(path.parent.name)


@pytest.mark.slow
@pytest.mark.skipif(not pathlib.Path("/proc").exists(), reason="needs Linux")
def test_results_of_a_killed_study_equal_those_of_an_unbroken_one(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert start(whole).wait() == 0
    draw = random.Random(0)
    for _ in range(3):
        process = start(broken)
        time.sleep(draw.uniform(20, 60))
        process.send_signal(signal.SIGKILL)
        process.wait()
        for number in cell_processes(broken):
            os.kill(number, signal.SIGKILL)
    done = {path.parent: path.stat().st_mtime_ns for path in broken.glob("*/card.md")}
    assert start(broken).wait() == 0
    assert {path: (path / "card.md").stat().st_mtime_ns for path in done} == done
    assert len(rows(whole)) == 8
    assert rows(broken) == rows(whole)
