"""The launcher for Slurm: its scripts are run, with Slurm's commands replaced."""

import json
import sys

import pytest

from launch import slurm
from tests.launch.slurm_commands import Slurm
from tests.studies.fake_config import CONFIG

# Saves on SIGTERM, as the trainer does; says what it saw.
PROGRAM = """
import json, os, pathlib, signal, sys, time
given = dict(argument.split("=", 1) for argument in sys.argv[1:])
folder = pathlib.Path(given["--workdir"])
lead = os.environ["SLURM_PROCID"] == "0"
names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "JAX_COMPILATION_CACHE_DIR",
         "JAX_LOCAL_DEVICE_IDS", "WHERE")
seen = {name: os.environ.get(name) for name in names} | {"cwd": os.getcwd()}
with (folder / "starts.txt").open("a") as file:
    file.write(json.dumps(seen) + "\\n")
print("hello from", folder.name)
def save(state):
    if lead:
        path = folder / "run.json"
        path.write_text(json.dumps({"schema": 1, "state": state}, indent=2))
def stop(*_):
    save("interrupted")
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
resumes = (folder / "run.json").exists()
if os.environ.get("FAKE_FAILS") == folder.name:
    sys.exit(3)
if os.environ.get("FAKE_SLOW") in (folder.name, "always") and lead and (
    not resumes or os.environ["FAKE_SLOW"] == "always"
):
    (pathlib.Path(os.environ["FAKE_SLURM"]) / "ready").touch()
    time.sleep(60)
save("finished")
if lead:
    (folder / "card.md").write_text("card")
"""
CELLS = ("optimizer.lr=0.01", "optimizer.lr=0.001", "optimizer.lr=0.0001")


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    return Slurm(tmp_path, monkeypatch)


@pytest.fixture
def launch(tmp_path, monkeypatch):
    (tmp_path / "fake.py").write_text(CONFIG)
    (tmp_path / "program.py").write_text(PROGRAM)
    monkeypatch.chdir(tmp_path)
    program = (sys.executable, str(tmp_path / "program.py"))

    def run(*more):
        return slurm.main(["--config=fake.py", "--workdir=runs", *more], program)

    return run


def starts(tmp_path):
    """{cell: what each of its processes saw}."""
    return {
        path.parent.name: [json.loads(line) for line in path.read_text().splitlines()]
        for path in (tmp_path / "runs").glob("*/starts.txt")
    }


def state(tmp_path, cell):
    return json.loads((tmp_path / "runs" / cell / "run.json").read_text())["state"]


def test_a_run_saves_before_the_limit_and_goes_back_into_the_queue(
    cluster, launch, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("FAKE_SLOW", CELLS[1])
    assert launch("--array-limit=2") == 0
    assert "submitted job 7" in capsys.readouterr().out
    assert cluster.queue == ["7_0", "7_1", "7_2"]
    cluster.run(warn=("7_1",))
    assert [state(tmp_path, cell) for cell in CELLS] == [
        "finished",
        "interrupted",
        "finished",
    ]
    assert cluster.queue == ["7_1"]
    # Given again: one cell waits, and nothing is left to submit.
    assert launch() == 0
    assert "2 done, 1 queued or running, 0 to submit" in capsys.readouterr().out
    cluster.run()
    assert state(tmp_path, CELLS[1]) == "finished"
    assert cluster.queue == []
    assert {cell: len(seen) for cell, seen in starts(tmp_path).items()} == {
        CELLS[0]: 1,
        CELLS[1]: 2,
        CELLS[2]: 1,
    }
    log = (tmp_path / "runs" / CELLS[1] / "log.txt").read_text()
    assert log == f"hello from {CELLS[1]}\n" * 2
    output = (tmp_path / "runs" / "slurm" / "001" / "7_1.txt").read_text()
    assert "exit status 0, restart 0:" in output
    assert "exit status 0, restart 1:" in output
    assert launch() == 0
    assert "3 done, 0 queued" in capsys.readouterr().out
    assert sorted(p.name for p in (tmp_path / "runs" / "slurm").iterdir()) == ["001"]


def test_a_cancelled_run_saves_and_does_not_come_back(
    cluster, launch, tmp_path, monkeypatch
):
    monkeypatch.setenv("FAKE_SLOW", CELLS[0])
    assert launch() == 0
    cluster.run(cancel=("7_0",))
    assert state(tmp_path, CELLS[0]) == "interrupted"
    assert cluster.queue == []
    # A later command submits what is left.
    assert launch() == 0
    assert cluster.queue == ["8"] or cluster.queue == ["8_0"]
    cluster.run()
    assert state(tmp_path, CELLS[0]) == "finished"


def test_failed_runs_are_not_put_back_and_are_submitted_again(
    cluster, launch, tmp_path, monkeypatch
):
    monkeypatch.setenv("FAKE_FAILS", CELLS[2])
    assert launch() == 0
    cluster.run()
    assert cluster.exits == {"7_0": [0], "7_1": [0], "7_2": [3]}
    assert cluster.queue == []
    monkeypatch.delenv("FAKE_FAILS")
    assert launch() == 0
    lines = (tmp_path / "runs" / "slurm" / "002" / "cells.txt").read_text()
    assert [line.split()[0] for line in lines.splitlines()] == [
        str(tmp_path / "runs" / CELLS[2])
    ]


def test_a_run_that_never_ends_goes_back_a_number_of_times(
    cluster, launch, tmp_path, monkeypatch
):
    monkeypatch.setenv("FAKE_SLOW", "always")
    assert launch("--cells=single", "--requeues=1") == 0
    assert cluster.queue == ["7"]
    cluster.run(warn=("7",))
    cluster.run(warn=("7",))
    assert cluster.queue == []
    assert cluster.exits == {"7": [0, 1]}
    output = (tmp_path / "runs" / "slurm" / "001" / "7.txt").read_text()
    assert "not put back into the queue: that was done 1 times" in output


def test_processes_of_several_nodes_know_their_host_and_share_programs(
    cluster, launch, tmp_path
):
    assert (
        launch(
            "--cells=single",
            "--nodes=2",
            "--gpus-per-node=4",
            "--env=WHERE=node $SLURM_NODEID",
            "--setup=export SETUP=1",
        )
        == 0
    )
    script = (tmp_path / "runs" / "slurm" / "001" / "job.sh").read_text()
    # With --setup it is its python that runs the cells; none is needed here.
    assert "export SETUP=1" in script
    cluster.run()
    path = tmp_path / "runs" / "starts.txt"
    seen = sorted(map(json.loads, path.read_text().splitlines()), key=str)
    assert sorted(process.pop("SLURM_PROCID") for process in seen) == ["0", "1"]
    assert sorted(process.pop("WHERE") for process in seen) == ["node 0", "node 1"]
    assert seen[0] == seen[1]
    assert seen[0] == {
        "SLURM_STEP_NUM_TASKS": "2",
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "runs" / "compiled"),
        "JAX_LOCAL_DEVICE_IDS": "0,1,2,3",
        "cwd": str(tmp_path),
    }


def test_a_folder_that_another_process_writes_is_left_alone(
    cluster, launch, tmp_path, monkeypatch
):
    import fcntl

    assert launch("--cells=single") == 0
    with (tmp_path / "runs" / ".lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        cluster.run()
    assert not (tmp_path / "runs" / "starts.txt").exists()
    output = (tmp_path / "runs" / "slurm" / "001" / "7.txt").read_text()
    assert "another process writes" in output


def test_a_dry_run_prints_the_scripts_and_writes_nothing(launch, tmp_path, capsys):
    assert (
        launch(
            "--dry-run",
            "--nodes=2",
            "--gpus-per-node=8",
            "--process-per=gpu",
            "--time=04:00:00",
            "--partition=gpu",
            "--account=chem",
            "--array-limit=2",
            "--save-seconds=120",
            "--sbatch=mem=64G",
            "--sbatch=exclusive",
            "--config.train.epochs=2",
        )
        == 0
    )
    out = capsys.readouterr().out
    directives = [line for line in out.splitlines() if line.startswith("#SBATCH")]
    assert directives == [
        "#SBATCH --job-name=fake",
        f"#SBATCH --chdir={tmp_path}",
        f"#SBATCH --output={tmp_path}/runs/slurm/001/%A_%a.txt",
        "#SBATCH --array=0-2%2",
        "#SBATCH --requeue",
        "#SBATCH --open-mode=append",
        "#SBATCH --signal=TERM@120",
        "#SBATCH --nodes=2",
        "#SBATCH --ntasks-per-node=8",
        "#SBATCH --time=04:00:00",
        "#SBATCH --partition=gpu",
        "#SBATCH --account=chem",
        "#SBATCH --gpus-per-node=8",
        "#SBATCH --mem=64G",
        "#SBATCH --exclusive",
    ]
    assert "JAX_LOCAL_DEVICE_IDS" not in out
    for cell in CELLS:
        assert f"--config.train.epochs=2 --config.{cell} " in out
    assert not (tmp_path / "runs").exists()


def test_without_sbatch_the_scripts_are_left(launch, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert launch() == 2
    script = tmp_path / "runs" / "slurm" / "001" / "job.sh"
    assert f"where Slurm is: sbatch {script}" in capsys.readouterr().err
    assert script.read_text().startswith("#!/bin/bash\n#SBATCH ")


def test_a_study_is_an_array_without_its_diverged_cells(
    launch, tmp_path, monkeypatch, capsys
):
    study = """
def study(arg):
    for lr in (1e-2, 1.0):
        yield {"optimizer.lr": lr}
"""
    (tmp_path / "fake.py").write_text(CONFIG + study)
    failed = tmp_path / "runs" / "optimizer.lr=1.0"
    failed.mkdir(parents=True)
    run = {"schema": 1, "state": "failed", "stop_reason": "loss nan is not finite"}
    (failed / "run.json").write_text(json.dumps(run))
    (failed / "metrics.jsonl").write_text("")
    assert launch("--cells=study", "--dry-run") == 0
    out = capsys.readouterr().out
    assert "2 cells: 1 done" in out
    assert "#SBATCH --array=0-0\n" in out


def test_commands_of_many_runs_are_one_job(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command = ["sweep", "--config=configs/x.py", "--workdir=runs"]
    assert slurm.main(["--workdir=runs", "--dry-run", "--", *command]) == 0
    out = capsys.readouterr().out
    assert "#SBATCH --job-name=chemscale-sweep" in out
    assert "--array" not in out
    assert out.splitlines()[-1] == (
        f"{tmp_path}/runs {sys.executable} -m chemscale_jax {' '.join(command)}"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--config.optimizer.lrr=1",), "lr"),
        (("--epochs=2",), "--epochs=2"),
        (("--nodes=0",), "at least one node"),
        (("--process-per=gpu",), "--gpus-per-node"),
        (("--sbatch=mem 64G",), "no option of sbatch"),
        (("--env=A",), "NAME=VALUE"),
        (("--workdir=50%",), "replaces the %"),
        (("--", "swep"), "no command of chemscale"),
        (("--nodes=2", "--", "sweep"), "one process"),
    ],
)
def test_mistakes_submit_nothing(launch, tmp_path, capsys, arguments, message):
    assert launch(*arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert not (tmp_path / "runs").exists()
