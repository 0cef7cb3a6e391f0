"""Sweeps with a trainer that only writes the files of runs."""

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

from chemscale_jax import main as trainer
from chemscale_jax.core.errors import UserError
from chemscale_jax.studies.live_table import LiveTable
from chemscale_jax.studies.sweep import Programs
from chemscale_jax.studies.sweep_setup import Told, dry_run, run_sweep

FAKE = pathlib.Path(__file__).parent / "fake_trainer.py"
PROGRAMS = Programs((sys.executable, str(FAKE)), (sys.executable, str(FAKE), "lanes"))
RATES = (0.1, 0.03, 0.01, 0.003, 0.001, 0.0003)
CONFIG = """
from chemscale_jax.configs import common

def get_config(arg=""):
    config = common.base()
    config.name = "fake"
    config.task = "force_field"
    config.train.epochs = 9
    return config

def sweep():
    for lr in {rates}:
        yield {{"optimizer.lr": lr}}
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Writes a config file with some learning rates; returns what a sweep is told."""

    def write(rates=RATES, **told):
        file = tmp_path / "fake.py"
        file.write_text(CONFIG.format(rates=tuple(rates)))
        resolved = tmp_path / "resolved.json"
        config = trainer.parse(["x", f"--config={file}"]).to_dict()
        resolved.write_text(json.dumps(config))
        monkeypatch.setenv("FAKE_CONFIG", str(resolved))
        given = {"workdir": tmp_path / "sweep", **told}
        return Told(config=str(file), **given)

    return write


def run(told, jobs=1, lanes=16):
    return run_sweep(told, jobs, "", lanes, PROGRAMS)


def rows(folder):
    with (folder / "sweep.csv").open() as file:
        return {row["cell"]: row for row in csv.DictReader(file)}


def epochs(folder):
    return {
        float(n.partition("=")[2]): int(r["epochs"]) for n, r in rows(folder).items()
    }


def steps_taken(folder):
    """{cell: every step it took, in order; with those that it took again}."""
    return {
        path.parent.name: list(map(int, path.read_text().split()))
        for path in folder.glob("*/steps.txt")
    }


@pytest.mark.parametrize(
    ("jobs", "lanes"), [(1, 16), pytest.param(2, 1, marks=pytest.mark.slow)]
)
def test_losers_stop_and_the_winner_goes_on(fake, tmp_path, jobs, lanes):
    told = fake(policy="tpe", settings=["--policy.fraction=0.34"])
    received, broken, text = run(told, jobs, lanes)
    folder = tmp_path / "sweep"
    assert received is None
    assert not broken
    assert epochs(folder) == {lr: 9 if lr == 0.003 else 3 for lr in RATES}
    found = rows(folder)
    assert {row["state"] for row in found.values()} == {"finished", "stopped"}
    assert [n for n, row in found.items() if row["picked"] == "1"] == [
        "optimizer.lr=0.003"
    ]
    assert "Best: optimizer.lr=0.003" in text
    # No step was taken twice, whatever processes took them.
    for steps in steps_taken(folder).values():
        assert steps == [*range(1, len(steps) + 1)]
    cost = json.loads((folder / "sweep.json").read_text())["cost"]
    assert cost["epochs"] == 9 + 5 * 3
    assert cost["epochs_of_all_runs_to_the_end"] == 54
    # The same command finds nothing left to do.
    before = steps_taken(folder)
    run(told, jobs, lanes)
    assert steps_taken(folder) == before


def test_lanes_go_on_together_until_half_of_them_or_fewer_are_left(fake, tmp_path):
    told = fake(policy="halving", settings=["--policy.first=0.34", "--policy.eta=1.4"])
    run(told)
    # Of 6 runs 4, 3, 2 and 1: four of six stay together, three start anew, of which
    # two stay, and one goes on alone.
    assert (tmp_path / "sweep" / "lanes.log").read_text().split() == ["6", "3"]
    assert epochs(tmp_path / "sweep")[0.003] == 9


def test_one_that_diverges_is_last_and_one_that_fails_is_left_out(fake, tmp_path):
    told = fake((9, 7, 0.01, 0.1), policy="tpe", settings=["--policy.fraction=0.34"])
    _, broken, text = run(told, lanes=2)
    assert broken == {"optimizer.lr=7": 1}
    found = rows(tmp_path / "sweep")
    states = {name.partition("=")[2]: row["state"] for name, row in found.items()}
    assert states == {
        "9": "diverged",
        "7": "failed",
        "0.01": "finished",
        "0.1": "stopped",
    }
    assert "Failed, and left out of the ranking: optimizer.lr=7" in text
    taken = steps_taken(tmp_path / "sweep")
    # The same command tries the failed one again, and only that one.
    assert run(told, lanes=2)[1] == broken
    assert steps_taken(tmp_path / "sweep") == taken
    starts = tmp_path / "sweep" / "optimizer.lr=7" / "starts.txt"
    assert len(starts.read_text().split()) > 1


def test_where_all_fail_it_says_where_their_logs_are(fake):
    with pytest.raises(UserError, match=r"all 1 runs failed.*optimizer.lr=7"):
        run(fake((7,)))


@pytest.mark.parametrize("status", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_lanes_that_fail_are_trained_one_by_one(fake, tmp_path, monkeypatch, status):
    monkeypatch.setenv("FAKE_LANES_EXIT", str(status))
    _, broken, _ = run(fake((0.1, 0.003), policy="full"))
    assert not broken
    assert epochs(tmp_path / "sweep") == {0.1: 9, 0.003: 9}
    journal = (tmp_path / "sweep" / "journal.jsonl").read_text()
    assert '"event": "apart"' in journal


PARENT = """
import pathlib, sys
from chemscale_jax.studies.sweep_setup import Told, run_sweep
from tests.studies.test_sweep import PROGRAMS
told = Told(config=sys.argv[1], workdir=pathlib.Path(sys.argv[2]), policy="halving",
            settings=["--policy.first=0.2", "--policy.eta=2.0"])
sys.exit(128 if run_sweep(told, 2, "", int(sys.argv[3]), PROGRAMS)[0] else 0)
"""


def processes_of(pid):
    """The process and those it started, whose group is another."""
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True
    )
    return [pid, *map(int, listed.stdout.split())]


@pytest.mark.parametrize(
    ("lanes", "children", "kills"),
    [
        (16, True, 1),
        pytest.param(16, False, 4, marks=pytest.mark.slow),
        pytest.param(1, True, 4, marks=pytest.mark.slow),
        pytest.param(1, False, 4, marks=pytest.mark.slow),
    ],
)
def test_killed_and_started_again_it_ends_as_if_it_had_not_been(
    fake, tmp_path, monkeypatch, lanes, children, kills
):
    """Both the sweep and its processes are killed, or the sweep alone."""
    monkeypatch.setenv("FAKE_STEP_S", "0.03")
    told = fake(policy="halving", settings=["--policy.first=0.2", "--policy.eta=2.0"])
    run(told, 2, lanes)
    command = [sys.executable, "-c", PARENT, told.config, tmp_path / "cut", str(lanes)]
    rng = random.Random(lanes)
    killed = 0
    while True:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        with process.stdout as out:
            out.readline()  # it has begun
            time.sleep(rng.uniform(0.1, 0.9))
            if killed < kills and process.poll() is None:
                killed += 1
                for pid in processes_of(process.pid) if children else [process.pid]:
                    os.kill(pid, signal.SIGKILL)
            out.read()
        if process.wait() == 0:
            break
        assert process.returncode == -signal.SIGKILL
    assert killed
    whole, cut = tmp_path / "sweep", tmp_path / "cut"
    assert (cut / "sweep.csv").read_text() == (whole / "sweep.csv").read_text()
    once, again = steps_taken(whole), steps_taken(cut)
    for name, steps in again.items():
        # A step is taken again only if it was not saved when the kill came.
        assert len(steps) <= len(once[name]) + kills, name
        assert {*steps} == {*once[name]}


def test_asked_to_stop_it_lets_its_runs_save(fake, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_STEP_S", "0.05")
    told = fake((0.1, 0.003), policy="full")

    def ask(table, glance):
        if steps_taken(tmp_path / "sweep"):
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(LiveTable, "__call__", ask)
        received, _, text = run(told)
    assert received == signal.SIGTERM
    assert text == ""
    assert run(told)[0] is None
    assert {*epochs(tmp_path / "sweep").values()} == {9}


def test_a_folder_is_of_one_sweep(fake, tmp_path):
    run(fake((0.1, 0.003), policy="full"))
    with pytest.raises(UserError, match="policy.*another --workdir"):
        run(fake((0.1, 0.003), policy="tpe"))
    with pytest.raises(
        UserError, match="cells: optimizer.lr=0.003 -> optimizer.lr=0.004"
    ):
        run(fake((0.1, 0.004), policy="full"))


def test_random_settings_are_the_same_each_time(fake, tmp_path):
    told = fake(
        policy="tpe",
        settings=["--policy.fraction=0.34"],
        space=["optimizer.lr=log(1e-4, 1e-1)"],
        trials=5,
    )
    text = dry_run(told, 1, "", 16, PROGRAMS)
    assert "5 cells; lanes of one program: 5" in text
    assert "policy tpe: 21 of 45 epochs" in text
    run(told)
    names = rows(tmp_path / "sweep").keys()
    assert len(names) == 5
    assert all(name in text for name in names)


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"policy": "tpee"}, "tpee"),
        ({"settings": ["--policy.fractoin=1"], "policy": "tpe"}, "fractoin"),
        ({"overrides": ["--config.train.max_steps=9"]}, "max_steps"),
        ({"overrides": ["--config.train.ensemble=2"]}, "ensemble"),
        ({"overrides": ["--config.train.epochs=2"]}, "at least"),
        ({"search": "rondom"}, "rondom"),
        ({"search": "optuna"}, "search"),
        ({"space": ["optimizer.lr=log(0, 1)"]}, "above 0 in log"),
    ],
)
def test_mistakes_start_nothing(fake, tmp_path, told, message):
    with pytest.raises(UserError, match=message):
        run(fake(**told))
    assert not (tmp_path / "sweep").exists()
