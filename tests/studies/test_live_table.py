"""What a sweep shows while it runs."""

import io
import math

import numpy as np
import pytest

from chemscale_jax.analysis.tpe.run_curves import RunCurve
from chemscale_jax.studies.cell_status import Status, forecast
from chemscale_jax.studies.cells import Cell
from chemscale_jax.studies.live_table import LiveTable, duration, remaining
from chemscale_jax.studies.policies import make_policy, unseen
from chemscale_jax.studies.sweep import Glance

POLICY = make_policy("tpe", fraction=0.2)


def curve(epochs, state, loss=1.0):
    steps = 5 * np.arange(1, epochs + 1)
    losses = np.full(epochs, loss)
    return RunCurve(
        name="run",
        settings={},
        epochs_planned=10,
        steps_planned=50,
        epoch_step=steps,
        epoch_seconds=2.0 * np.arange(1, epochs + 1),
        train_loss=losses,
        valid_step=steps,
        valid_loss=losses,
        warmup_steps=0,
        schedule="constant",
        batch=8,
        state=state,
        stop_reason="",
        diverged=math.isinf(loss),
        seconds=2.0 * epochs,
    )


def glance(running=(), **runs):
    cells = [Cell(n, (), {"train": {"epochs": 10}}, None, {}) for n in runs]  # pyright: ignore
    statuses = {
        n: Status(c.state if c else "new", c, bool(c) and c.state == "finished")
        for n, c in runs.items()
    }
    return Glance(
        cells=cells,
        statuses=statuses,
        seen={c.name: statuses[c.name].seen(c, "tse") for c in cells},
        targets=dict.fromkeys(runs, 0.2),
        running=[running] if running else [],
        before=[],
        broken={},
        complete=True,
    )


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_shows_a_table_that_is_drawn_over():
    out = Terminal()
    table = LiveTable(POLICY, 1, out)
    table(lambda: glance(["b"], a=curve(2, "paused"), b=curve(1, "running"), c=None))
    first = out.getvalue()
    lines = first.replace("\x1b[2K", "").replace("\x1b[J", "").splitlines()
    assert lines[1].split()[1:6:2] == ["cell", "state", "epochs"]
    assert [line.split()[1] for line in lines[3:]] == ["b", "a", "c"]
    assert "trains" in lines[3]
    assert "waits at epoch 2" in lines[4]
    assert "1 of 10" in lines[3]
    # Of b one epoch and of c two are left, and the best goes on for eight.
    assert "3 epochs done, 11 or so to come, ETA 0:22" in lines[0]
    table._due = 0
    table(lambda: glance(a=curve(10, "finished")))
    assert out.getvalue()[len(first) :].startswith("\x1b[6A")


def test_elsewhere_there_is_a_line_for_each_change():
    out = io.StringIO()
    table = LiveTable(POLICY, 1, out)
    for state, epochs in (("running", 1), ("running", 1), ("paused", 2)):
        table._due = 0
        running = ["a"] if state == "running" else []
        table(lambda r=running, e=epochs, s=state: glance(r, a=curve(e, s)))
    lines = out.getvalue().splitlines()
    assert [line for line in lines if line.startswith("a:")] == [
        "a: trains",
        "a: waits at epoch 2",
    ]


@pytest.mark.parametrize(
    ("name", "settings", "epochs"),
    [
        ("full", {}, 60),
        ("tpe", {"fraction": 0.2}, 6 * 2 + 8),
        ("halving", {"first": 0.1, "eta": 2.0}, 6 * 1 + 3 * 1 + 1 * 8),
        ("asha", {"first": 0.5, "eta": 2.0}, 6 * 5 + 3 * 5),
    ],
)
def test_what_is_to_come_follows_the_policy(name, settings, epochs):
    runs = {str(k): unseen(10) for k in range(6)}
    assert sum(forecast(make_policy(name, **settings), runs).values()) == epochs


def test_runs_that_are_over_cost_nothing_more():
    seen = glance(a=curve(10, "finished"), b=curve(2, "failed", math.inf))
    assert remaining(POLICY, seen) == 0


def test_durations():
    assert duration(61) == "1:01"
    assert duration(3723.4) == "1:02:03"
