"""The launcher, with a program that only writes the files a run would write."""

import json
import os
import signal
import sys
import threading
import time

import pytest

from launch import local

CONFIG = """
from chemscale_jax.configs import common

def get_config(arg=""):
    config = common.base()
    config.name = "fake"
    config.train.epochs = 4
    return config

def sweep():
    for lr in (1e-2, 1e-3, 1e-4):
        yield {"optimizer.lr": lr}
"""

PROGRAM = """
import json, os, pathlib, signal, sys, time
given = dict(argument.split("=", 1) for argument in sys.argv[1:])
folder = pathlib.Path(given["--workdir"])
with (folder / "starts.txt").open("a") as file:
    file.write(os.environ.get("CUDA_VISIBLE_DEVICES", "-") + "\\n")
def save(state):
    (folder / "run.json").write_text(json.dumps({"schema": 1, "state": state}))
def stop(*_):
    save("interrupted")
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
save("running")
lines = [
    {"step": e, "epoch": e, "split": "valid", "name": "loss", "value": value}
    for e, value in enumerate((3.0, float(given["--config.optimizer.lr"]), None))
]
(folder / "metrics.jsonl").write_text("".join(json.dumps(x) + "\\n" for x in lines))
print("hello from", folder.name)
if os.environ.get("FAKE_SLOW"):
    time.sleep(60)
if os.environ.get("FAKE_FAILS") == folder.name:
    sys.exit(3)
if hasattr(os, "sched_getaffinity"):
    cores = sorted(os.sched_getaffinity(0))
    (folder / "cores.json").write_text(json.dumps(cores))
save("finished")
(folder / "card.md").write_text("card")
"""


binds_to_cores = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="needs Linux and two cores",
)


@pytest.fixture
def run(tmp_path):
    """Runs the launcher on the fake config; arguments are added to the command."""
    (tmp_path / "fake.py").write_text(CONFIG)
    (tmp_path / "program.py").write_text(PROGRAM)
    arguments = [f"--config={tmp_path}/fake.py", f"--workdir={tmp_path}/sweep"]

    def run(*more):
        program = (sys.executable, str(tmp_path / "program.py"))
        return local.main([*arguments, *more], program=program)

    return run


def starts(tmp_path):
    """{cell: what each start of its process saw of CUDA_VISIBLE_DEVICES}."""
    return {
        path.parent.name: path.read_text().split()
        for path in (tmp_path / "sweep").glob("*/starts.txt")
    }


def test_runs_every_cell_and_shows_the_best_losses(run, tmp_path, capfd):
    assert run("--devices=5,7") == 0
    out = capfd.readouterr().out
    for lr in ("0.01", "0.001", "0.0001"):
        assert f"| optimizer.lr={lr}" in out
        assert out.count("| finished |") == 3
        log = tmp_path / "sweep" / f"optimizer.lr={lr}" / "log.txt"
        assert log.read_text() == f"hello from optimizer.lr={lr}\n"
        # The lowest of the logged values, of which one is missing.
        assert f" {lr} |" in out
    seen = sorted(device for devices in starts(tmp_path).values() for device in devices)
    assert len(seen) == 3
    assert set(seen) == {"5", "7"}


def cores_of_cells(tmp_path):
    """The cores on which the process of each cell could run."""
    files = (tmp_path / "sweep").glob("*/cores.json")
    return [set(json.loads(path.read_text())) for path in files]


@binds_to_cores
def test_cells_side_by_side_share_the_cores_out(run, tmp_path):
    cores = os.sched_getaffinity(0)
    assert run("--jobs=2") == 0
    shares = cores_of_cells(tmp_path)
    assert len(shares) == 3
    assert set().union(*shares) == cores
    half = len(cores) // 2
    assert {len(share) for share in shares} == {half, len(cores) - half}


@binds_to_cores
def test_one_cell_at_a_time_has_every_core(run, tmp_path):
    assert run() == 0
    assert cores_of_cells(tmp_path) == [os.sched_getaffinity(0)] * 3


def test_failed_cells_run_again_and_finished_ones_do_not(
    run, tmp_path, capfd, monkeypatch
):
    monkeypatch.setenv("FAKE_FAILS", "optimizer.lr=0.001")
    assert run("--jobs=2") == 1
    assert "failed (3), see log.txt" in capfd.readouterr().out
    monkeypatch.delenv("FAKE_FAILS")
    assert run("--jobs=2") == 0
    assert {name: len(lines) for name, lines in starts(tmp_path).items()} == {
        "optimizer.lr=0.01": 1,
        "optimizer.lr=0.001": 2,
        "optimizer.lr=0.0001": 1,
    }


def test_a_cell_killed_before_its_report_runs_again(run, tmp_path):
    assert run() == 0
    (tmp_path / "sweep" / "optimizer.lr=0.01" / "card.md").unlink()
    assert run() == 0
    assert len(starts(tmp_path)["optimizer.lr=0.01"]) == 2


def test_passes_signals_on_so_that_cells_save(run, tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("FAKE_SLOW", "1")

    def interrupt():
        started = tmp_path / "sweep" / "optimizer.lr=0.01" / "metrics.jsonl"
        for _ in range(300):
            time.sleep(0.1)
            if started.exists():
                os.kill(os.getpid(), signal.SIGTERM)
                break

    before = signal.getsignal(signal.SIGTERM)
    threading.Thread(target=interrupt).start()
    assert run() == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before
    saved = json.loads(
        (tmp_path / "sweep" / "optimizer.lr=0.01" / "run.json").read_text()
    )
    assert saved["state"] == "interrupted"
    # No other cell was started after the signal.
    assert list(starts(tmp_path)) == ["optimizer.lr=0.01"]
    assert "stopped by SIGTERM" in capfd.readouterr().out


def test_dry_run_prints_commands_that_the_trainer_reads(run, tmp_path, capsys):
    assert run("--dry-run", "--config.train.epochs=2") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[1].endswith(
        f"--config={tmp_path}/fake.py --config.train.epochs=2 "
        f"--config.optimizer.lr=0.001 --workdir={tmp_path}/sweep/optimizer.lr=0.001"
    )
    assert not (tmp_path / "sweep").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--config.optimizer.lrr=1",), "lr"),
        (("--epochs=2",), "--epochs=2"),
        (("--jobs=3", "--devices=0,1"), "devices"),
        (("--jobs=-1",), "job"),
    ],
)
def test_mistakes_start_nothing(run, tmp_path, capsys, arguments, message):
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert not (tmp_path / "sweep").exists()
