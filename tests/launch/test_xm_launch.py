"""The launcher for XManager; where its packages are needed, the mark is `xmanager`."""

import importlib.util
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from launch import xm_launch
from tests.launch.slurm_commands import Slurm

ROOT = pathlib.Path(__file__).parent.parent.parent
CONFIG = """
from chemscale_jax.configs import common

def get_config(arg=""):
    config = common.base()
    config.name = "four"
    return config

def sweep():
    for lr in (1e-2, 1e-3, 1e-4, 1e-5):
        yield {"optimizer.lr": lr}
"""
CELLS = [f"optimizer.lr={lr}" for lr in ("0.01", "0.001", "0.0001", "1e-05")]
# Saves on SIGTERM, as the trainer does.
PROGRAM = """
import json, os, pathlib, signal, sys, time
given = dict(argument.split("=", 1) for argument in sys.argv[1:])
folder = pathlib.Path(given["--workdir"])
with (folder / "starts.txt").open("a") as file:
    file.write(os.environ.get("CUDA_VISIBLE_DEVICES", "-") + "\\n")
print("hello from", folder.name, flush=True)
def save(state):
    text = json.dumps({"schema": 1, "state": state}, indent=2)
    (folder / "run.json").write_text(text)
def stop(*_):
    time.sleep(0.5)
    save("interrupted")
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
resumes = (folder / "run.json").exists()
save("running")
if os.environ.get("FAKE_SLOW") == folder.name and not resumes:
    slurm = os.environ.get("FAKE_SLURM")
    pathlib.Path(slurm or folder, "ready").touch()
    time.sleep(60)
if os.environ.get("FAKE_FAILS") == folder.name:
    sys.exit(3)
save("finished")
(folder / "card.md").write_text("card")
"""
# Runs the launcher with another trainer.
MAIN = """
import sys
from launch import xm_launch
sys.exit(xm_launch.main(sys.argv[2:], (sys.executable, sys.argv[1])))
"""


@pytest.fixture
def files(tmp_path):
    (tmp_path / "four.py").write_text(CONFIG)
    (tmp_path / "program.py").write_text(PROGRAM)
    return [f"--config={tmp_path}/four.py", f"--workdir={tmp_path}/runs"]


def missing(name):
    """As if no package were installed."""


def test_a_dry_run_needs_no_package(files, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", missing)
    arguments = [*files, "--dry-run", "--jobs=2", "--config.train.epochs=2"]
    assert xm_launch.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:5] == [
        "experiment 'four': 4 cells, 0 done, 4 work units",
        "executor: xm_local.Local()",
        f"executable: xm.Binary(path={sys.executable!r})",
        "requirements:",
        "  2 at a time, on the devices that JAX finds",
    ]
    assert [x.split(": ")[1] for x in lines if x.startswith("work unit")] == CELLS
    folder = f"{tmp_path}/runs/{CELLS[0]}"
    assert lines[6] == (
        f"  arguments: -m chemscale_jax.studies.cell_process {folder} {sys.executable} "
        f"-m chemscale_jax.main --config={tmp_path}/four.py --config.train.epochs=2 "
        f"--config.{CELLS[0]} --workdir={folder}"
    )
    assert lines[7] == (
        f"  environment: JAX_COMPILATION_CACHE_DIR={tmp_path}/runs/compiled"
    )
    assert not (tmp_path / "runs").exists()


def test_a_dry_run_for_a_cluster_shows_its_requirements(files, capsys):
    arguments = [
        *files,
        "--executor=slurm",
        "--dry-run",
        "--time=04:00:00",
        "--gpus-per-node=1",
        "--array-limit=2",
        "--setup=source venv/bin/activate",
        "--env=TMPDIR=/local",
    ]
    assert xm_launch.main(arguments) == 0
    out = capsys.readouterr().out
    assert "executor: xm_cluster.Slurm(), without its own --array\n" in out
    assert f"executable: xm_cluster.PythonPackage(path={str(ROOT)!r})\n" in out
    for line in (
        "--requeue",
        "--signal=TERM@300",
        "--time=04:00:00",
        "--gpus-per-node=1",
        "--array=1-4%2",
    ):
        assert f"  #SBATCH {line}\n" in out
    assert "entrypoint:\n  source venv/bin/activate\n" in out
    assert out.count("work unit ") == 4
    assert "TMPDIR=/local" in out


@pytest.mark.parametrize("executor", ["local", "slurm"])
def test_a_missing_package_is_named(files, tmp_path, capsys, monkeypatch, executor):
    monkeypatch.setattr(importlib.util, "find_spec", missing)
    assert xm_launch.main([*files, f"--executor={executor}"]) == 2
    error = capsys.readouterr().err
    package = xm_launch.PACKAGES[executor]
    assert f"error: this executor needs {package}; pip install" in error
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--config.optimizer.lrr=1",), "lr"),
        (("--epochs=2",), "--epochs=2"),
        (("--jobs=3", "--devices=0,1"), "devices"),
        (("--executor=slurm", "--nodes=2"), "launch/slurm.py"),
        (("--executor=slurm", "--workdir=runs"), "absolute path"),
        (("--executor=slurm", "--config.name=a'b"), "lxm3 changes quotes"),
    ],
)
def test_mistakes_launch_nothing(files, tmp_path, capsys, arguments, message):
    assert xm_launch.main([*files, *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert not (tmp_path / "runs").exists()


@pytest.fixture
def launch(files, tmp_path):
    """Starts the launcher in a process of its own, with the packages' own warnings."""

    def start(*more):
        command = [sys.executable, "-c", MAIN, str(tmp_path / "program.py"), *files]
        environment = os.environ | {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
        return subprocess.Popen(
            [*command, *more], env=environment, stdout=subprocess.PIPE, text=True
        )

    return start


def states(tmp_path):
    return {
        path.parent.name: json.loads(path.read_text())["state"]
        for path in (tmp_path / "runs").glob("*/run.json")
    }


@pytest.mark.xmanager
def test_the_local_executor_runs_four_cells(launch, tmp_path, monkeypatch):
    """Needs the extra `xmanager`."""
    monkeypatch.setenv("FAKE_FAILS", CELLS[1])
    process = launch("--devices=5,7")
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 1, out
    assert f"{CELLS[1]}: " in out
    assert states(tmp_path) == dict.fromkeys(CELLS, "finished") | {CELLS[1]: "running"}
    seen = [(tmp_path / "runs" / c / "starts.txt").read_text().strip() for c in CELLS]
    assert set(seen) == {"5", "7"}
    monkeypatch.delenv("FAKE_FAILS")
    process = launch()
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0, out
    assert "4 cells, 3 done, 1 work units" in out
    assert states(tmp_path) == dict.fromkeys(CELLS, "finished")
    log = (tmp_path / "runs" / CELLS[1] / "log.txt").read_text()
    assert log == f"hello from {CELLS[1]}\n" * 2


@pytest.mark.xmanager
def test_runs_of_the_local_executor_save_when_it_is_stopped(
    launch, tmp_path, monkeypatch
):
    """Needs the extra `xmanager`."""
    monkeypatch.setenv("FAKE_SLOW", CELLS[1])
    process = launch()
    for _ in range(1200):
        if (tmp_path / "runs" / CELLS[1] / "ready").exists():
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, out
    assert states(tmp_path) == {CELLS[0]: "finished", CELLS[1]: "interrupted"}
    process = launch("--jobs=2")
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0, out
    assert states(tmp_path) == dict.fromkeys(CELLS, "finished")


@pytest.mark.xmanager
@pytest.mark.network
def test_lxm3_submits_an_array_whose_tasks_come_back(launch, tmp_path, monkeypatch):
    """Needs the extra `lxm3`, whose pip fetches setuptools to pack the checkout."""
    cluster = Slurm(tmp_path, monkeypatch)
    (tmp_path / "lxm.toml").write_text(
        f'project = "chem"\n[[clusters]]\nname = "here"\n'
        f'[clusters.storage]\nstaging = "{tmp_path}/staging"\n'
    )
    monkeypatch.setenv("FAKE_SLOW", CELLS[0])
    process = launch(
        "--executor=slurm", f"--lxm_config={tmp_path}/lxm.toml", "--array-limit=2"
    )
    out, _ = process.communicate(timeout=240)
    assert process.returncode == 0, out
    assert cluster.queue == ["7_1", "7_2", "7_3", "7_4"]
    cluster.run(warn=("7_1",))
    assert cluster.queue == ["7_1"]
    cluster.run()
    assert cluster.queue == []
    assert states(tmp_path) == dict.fromkeys(CELLS, "finished")
