"""How far cells are, from logs that a process writes or was killed in."""

import math
import shutil

import pytest

from chemscale_jax.core.workdir import Workdir
from chemscale_jax.studies import cell_status
from chemscale_jax.studies.cell_status import Statuses
from chemscale_jax.studies.cells import Cell
from tests.analysis.run_folders import leave_run

NOT_FINITE = "loss nan or gradient norm 1.0 is not finite at step 25"


@pytest.fixture
def cell(tmp_path):
    return Cell("a", (), {"train": {"epochs": 5}}, Workdir(tmp_path / "a"), {})


def test_a_cell_that_is_not_begun(cell):
    status = Statuses().of(cell)
    assert (status.state, status.curve, status.done) == ("new", None, False)
    seen = status.seen(cell, "tse")
    assert (seen.epochs, seen.done, seen.ended) == (5, 0, False)
    # Its process failed: it is last, and nobody waits for it.
    broken = status.seen(cell, "tse", broken=True)
    assert broken.ended
    assert broken.at(1) == broken.at(5) == math.inf


def test_a_cell_that_waits(cell):
    leave_run(cell.workdir.path, [3.0, 2.0], [3.0, 2.0], epochs=5, state="paused")
    status = Statuses().of(cell)
    assert status.waits_at(2)
    assert not status.waits_at(3)
    assert status.seen(cell, "tse").scores == (3.0, 5.0)
    broken = status.seen(cell, "tse", broken=True)
    assert broken.scores == (3.0, 5.0, math.inf, math.inf, math.inf)


def test_a_cell_that_diverged_has_nothing_more_to_do(cell):
    kept = {"epochs": 5, "state": "failed", "reason": NOT_FINITE}
    leave_run(cell.workdir.path, [2.0, 1.0], [2.0, 1.0], **kept)
    status = Statuses().of(cell)
    assert status.diverged
    assert status.seen(cell, "tse").ended


def test_an_epoch_that_a_kill_left_without_validation_does_not_count(cell):
    kept = {"epochs": 5, "state": "running"}
    leave_run(cell.workdir.path, [3.0, 2.0], [3.0, 2.0], **kept)
    log = cell.workdir.metrics_jsonl
    whole = log.read_text().splitlines(keepends=True)
    assert '"valid"' in whole[-1]
    log.write_text("".join(whole[:-1]))
    status = Statuses().of(cell)
    assert status.seen(cell, "valid").scores == (3.0,)
    assert not status.waits_at(1)  # its checkpoint may be older than its log


def epochs_read(statuses, cell):
    curve = statuses.of(cell).curve
    assert curve is not None
    return curve.epochs


def test_logs_that_grow_are_read_now_and_then_and_states_at_once(cell, monkeypatch):
    monkeypatch.setattr(cell_status, "_LOG_S", 1e9)
    statuses = Statuses()
    leave_run(cell.workdir.path, [3.0], [3.0], epochs=5, state="running")
    assert epochs_read(statuses, cell) == 1
    later = cell.workdir.path.with_name("b")
    leave_run(later, [3.0, 2.0], [3.0, 2.0], epochs=5, state="paused")
    shutil.copy(later / "metrics.jsonl", cell.workdir.path)
    assert epochs_read(statuses, cell) == 1
    shutil.copy(later / "run.json", cell.workdir.path)
    assert epochs_read(statuses, cell) == 2
