"""A study whose trainer only writes the files of a run, slowly enough to be killed."""

import contextlib
import csv
import os
import pathlib
import signal
import subprocess
import sys
import time
from unittest import mock

import pytest

from chemscale_jax.core.workdir import Workdir
from chemscale_jax.studies import study_report
from chemscale_jax.studies.cells import Cell
from chemscale_jax.studies.local_processes import Place
from chemscale_jax.studies.planned_cell import PlannedCell
from chemscale_jax.studies.study import run_study
from chemscale_jax.studies.study_rows import CLOCKS, RESULTS, is_settled, state_of

STEPS = 6
PROGRAM = """
import json, math, os, pathlib, sys, time
given = dict(argument.split("=", 1) for argument in sys.argv[1:])
folder, width = pathlib.Path(given["--workdir"]), int(given["--width"])
frames, seeds = int(given["--frames"]), int(given["--seeds"])
with (folder / "starts.txt").open("a") as file:
    file.write("start\\n")
def write(path, content):
    path.with_suffix(".new").write_text(content)
    os.replace(path.with_suffix(".new"), path)
diverges = given["--diverges"] == "1"
for seed in range(seeds):
    own = folder / "lanes" / str(seed) if seeds > 1 else folder
    own.mkdir(parents=True, exist_ok=True)
    def note(state, reason=""):
        run = {"schema": 1, "state": state, "stop_reason": reason}
        write(own / "run.json", json.dumps(run))
    note("running")
    log = own / "metrics.jsonl"
    lines = log.read_text().splitlines() if log.exists() else []
    # A line stands for a checkpoint: what it has is not made again.
    for step in range(len(lines) // 3, 6):
        loss = 2 * frames ** -0.2 * width ** -0.1 * (1 + math.exp(-step) + 0.01 * seed)
        if diverges and seed == 1:
            loss = None
        for split, name, value in (
            ("epoch", "train_loss", loss and 0.9 * loss),
            ("valid", "loss", loss), ("heldout", "loss", loss and 1.2 * loss)):
            lines.append(json.dumps({"step": step + 1, "epoch": step, "split": split,
                "name": name, "value": value, "time": {"run_s": 0.1 * step}}))
        write(log, "".join(line + "\\n" for line in lines))
        time.sleep(float(os.environ.get("FAKE_STEP_S", "0")))
    if diverges and seed == 1:
        note("failed", "loss nan or gradient norm nan is not finite at step 3")
    else:
        note("finished", "6 steps done")
        (own / "card.md").write_text("card")
if seeds > 1:
    run = {"schema": 1, "state": "finished", "stop_reason": "6 steps done"}
    write(folder / "run.json", json.dumps(run))
    if not diverges:
        (folder / "card.md").write_text("card")
"""
DRIVER = """
import pathlib, sys
sys.path[:0] = [{root!r}]
from tests.studies.test_study import make, study
study(pathlib.Path({folder!r}))
"""


def make(folder, seeds=2, diverges=""):
    """Cells and plan: two widths on three amounts of data."""
    cells, plan = [], []
    for frames in (10, 100, 1000):
        for width in (2, 4):
            name = f"width={width},frames={frames}"
            config = {
                "task": "force_field",
                "seed": 0,
                "model": {"name": "painn", "width": width, "depth": 2},
                "data": {"stream": "graphs", "passes": 1},
                "train": {"ensemble": seeds, "epochs": STEPS, "max_steps": 0},
            }
            arguments = (
                f"--width={width}",
                f"--frames={frames}",
                f"--seeds={seeds}",
                f"--diverges={int(name == diverges)}",
                f"--workdir={folder / name}",
            )
            workdir = Workdir(folder / name)
            cells.append(Cell(name, arguments, config, workdir, {}))
            numbers = dict.fromkeys(
                (
                    "operations_per_step",
                    "traffic_per_step",
                    "eval_flops_per_step",
                    "eval_operations_per_step",
                    "eval_traffic_per_step",
                    "state_bytes",
                    "working_bytes",
                ),
                0.0,
            )
            plan.append(
                PlannedCell(
                    name=name,
                    config="",
                    seeds=seeds,
                    parameters=10 * width,
                    parameters_nonembedding=8 * width,
                    molecules=None,
                    frames=frames,
                    tokens=None,
                    batch=5.0,
                    epochs=STEPS,
                    steps=STEPS,
                    steps_per_epoch=1,
                    flops_per_step=100.0 * width,
                    eval_steps=STEPS,
                    rows=1,
                    dtype="float32",
                    stand_in=False,
                    **numbers,
                )
            )
    return cells, plan


def study(folder, report=False, **options):
    """Runs it, two cells at a time; the report takes longer than all else."""
    folder.mkdir(exist_ok=True)
    program = folder.parent / "program.py"
    program.write_text(PROGRAM)
    cells, plan = make(folder, **options)
    command = (sys.executable, str(program))
    places = [Place(), Place()]
    if not report:
        with mock.patch.object(study_report, "write_report", return_value=""):
            return run_study("fake", cells, plan, folder, command, places)
    return run_study("fake", cells, plan, folder, command, places)


def rows(folder):
    """The results without their clocks."""
    with (folder / RESULTS).open() as file:
        found = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if k not in CLOCKS} for row in found]


def starts(folder):
    return {p.parent.name: len(p.read_text().split()) for p in folder.glob("*/starts*")}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken") / "study"
    return folder, study(folder)


def test_results_have_a_row_for_each_run(unbroken):
    folder, ended = unbroken
    assert ended.received is None
    assert ended.unsettled == ()
    found = rows(folder)
    assert len(found) == 12
    first = found[0]
    assert first["cell"] == "width=2,frames=10"
    assert [row["seed"] for row in found[:4]] == ["0", "1", "0", "1"]
    assert (first["capacity"], first["data"], first["data_unit"]) == (
        "4",
        "10",
        "frames",
    )
    assert float(first["valid_loss"]) == pytest.approx(
        2 * 10**-0.2 * 2**-0.1 * (1 + 2.718281828**-5)
    )
    assert float(first["heldout_loss"]) == 1.2 * float(first["valid_loss"])
    assert first["best_step"] == "6"
    assert first["flops"] == "1200.0"
    assert first["loss_unit"] == "eV/A"
    assert first["state"] == "finished"
    assert first["limit"] in ("data", "capacity", "step", "none")


@pytest.mark.slow
def test_the_report_says_what_ran_and_has_the_fits(tmp_path):
    folder = tmp_path / "study"
    ended = study(folder, report=True)
    assert "6 cells, 12 runs: 12 finished" in ended.report
    assert "| painn | 6" in ended.report
    for column in ("valid_loss", "heldout_loss"):
        assert (folder / column / "report.md").exists()
        assert (folder / column / "plots" / "power_law_by_data.svg").exists()
    assert "0.200" in ended.report  # the planted exponent
    assert (folder / "study.md").read_text() == ended.report


def test_the_same_command_runs_nothing_twice(unbroken):
    folder, _ = unbroken
    before, known = starts(folder), rows(folder)
    assert set(before.values()) == {1}
    study(folder)
    assert starts(folder) == before
    assert rows(folder) == known


def test_a_study_that_was_killed_goes_on_to_the_same_results(
    unbroken, tmp_path, monkeypatch
):
    folder, _ = unbroken
    root = str(pathlib.Path(__file__).parents[2])
    broken = tmp_path / "study"
    driver = DRIVER.format(root=root, folder=str(broken))
    environment = os.environ | {"FAKE_STEP_S": "0.02"}
    finished: dict[str, int] = {}
    # Now, after a while, and with the process of a cell left behind.
    for kills, delay in ((True, 0.3), (False, 0.2)):
        process = subprocess.Popen(
            [sys.executable, "-c", driver],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 60
        known = set(finished)
        while time.monotonic() < deadline and process.poll() is None:
            if set(starts(broken)) - known if broken.exists() else False:
                break
            time.sleep(0.05)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        if kills:
            for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    if str(broken) in path.read_bytes().decode(errors="ignore"):
                        os.kill(int(path.parent.name), signal.SIGKILL)
        cells, _ = make(broken)
        for cell in cells:
            if cell.done:
                finished[cell.name] = starts(broken)[cell.name]
    ended = study(broken)
    assert ended.unsettled == ()
    assert {name: starts(broken)[name] for name in finished} == finished
    assert rows(broken) == rows(folder)


def test_a_seed_that_diverges_is_settled_and_has_no_loss(tmp_path):
    folder, name = tmp_path / "study", "width=4,frames=100"
    ended = study(folder, diverges=name)
    assert ended.unsettled == ()
    row = next(r for r in rows(folder) if r["cell"] == name and r["seed"] == "1")
    assert row["state"] == "diverged"
    assert row["valid_loss"] == ""
    study(folder, diverges=name)
    assert starts(folder)[name] == 1


def test_states_of_runs_that_did_not_start(tmp_path):
    cells, _ = make(tmp_path / "study", seeds=0)
    assert state_of(cells[0].workdir) == "new"
    assert not is_settled(cells[0])
