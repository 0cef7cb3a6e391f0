"""Scores, Eq. 8 and the estimate of a sweep."""

import csv
import dataclasses
import math
import os
import pathlib

import jax
import numpy as np
import pytest

from chemscale_jax import commands
from chemscale_jax.analysis.tpe import fit as tpe_fit
from chemscale_jax.analysis.tpe import scores as tpe
from chemscale_jax.analysis.tpe.cost import halving_cost, tpe_cost
from chemscale_jax.analysis.tpe.estimate import DIVERGED, UNFINISHED, estimate
from chemscale_jax.analysis.tpe.report import report, write_estimate
from chemscale_jax.core.errors import UserError
from chemscale_jax.training import tse as accumulator
from tests.analysis.run_folders import leave_run
from tests.studies.curves import made


def test_scores_are_what_the_accumulator_of_the_step_holds():
    rng = np.random.default_rng(0)
    lengths = (3, 5, 4, 5)  # epochs of unequal length
    epochs = [rng.uniform(1.0, 3.0, n).astype(np.float32) for n in lengths]
    update = jax.jit(accumulator.update)
    state, means = accumulator.init(), []
    for losses in epochs:
        for i, loss in enumerate(losses):
            state = update(state, loss, np.bool_(True), np.bool_(i + 1 == len(losses)))
        means.append(float(state.last))
        curve = made("a", means, planned=9, state="paused")
        for name, held in (
            ("tse", state.tse),
            ("tse_last", state.last),
            ("tse_ema", state.ema),
        ):
            # The accumulator is float32.
            assert tpe.score(curve, name) == pytest.approx(float(held), rel=3e-7)
    assert tpe.EMA_DECAY == accumulator.EMA_DECAY


@pytest.mark.shared
def test_the_log_of_litmatter():
    path = (
        pathlib.Path(os.environ["CHEMSCALE_SHARED"]) / "data/ref/litmatter_metrics.csv"
    )
    losses: dict[int, list[float]] = {}
    with path.open() as file:
        for row in csv.DictReader(file):
            if row["train_loss_step"]:
                losses.setdefault(int(row["epoch"]), []).append(
                    float(row["train_loss_step"])
                )
    assert [len(epoch) for epoch in losses.values()] == [63] * 30
    means = np.array([np.mean(epoch) for epoch in losses.values()])
    # Eq. 7 over the first T = 10 epochs; that code's other two are one epoch further.
    assert tpe.tse(means)[9] == pytest.approx(129.8276312691825, rel=1e-14)
    assert tpe.tse_last(means)[10] == pytest.approx(5.670970326378232, rel=1e-14)
    assert tpe.tse_ema(means)[10] == pytest.approx(134.53728970599116, rel=1e-14)


def test_scores_of_runs_that_ended_before_the_window():
    bad = made("bad", [3.0], planned=4, diverged=True)
    assert tpe.scores(bad, "tse").tolist() == [3.0, math.inf, math.inf, math.inf]
    assert tpe.score_at(bad, 0.25, "tse") == 3.0
    short = made("short", [3.0, 2.0], planned=4)
    assert tpe.scores(short, "tse").tolist() == [3.0, 5.0, 7.0, 9.0]
    slow = made("slow", [3.0], planned=4, state="paused")
    assert tpe.score_at(slow, 0.5, "tse") == math.inf
    with pytest.raises(UserError, match="expected one of tse"):
        tpe.scores(slow, "mean")


# Eq. 8.


def test_a_line_and_its_left_out_points_against_refits():
    rng = np.random.default_rng(1)
    x = rng.uniform(0, 10, 12)
    y = 0.5 * x + 1 + rng.normal(0, 0.3, 12)
    line = tpe_fit.fit_line(x, y)
    assert line is not None
    np.testing.assert_allclose([line.slope, line.intercept], np.polyfit(x, y, 1))
    refits = [
        np.polyval(np.polyfit(np.delete(x, i), np.delete(y, i), 1), x[i])
        for i in range(12)
    ]
    left_out = tpe_fit.left_out(x, y)
    assert left_out is not None
    np.testing.assert_allclose(left_out, refits)
    assert tpe_fit.r_squared_left_out(x, y) < tpe_fit.r_squared(x, y) < 1


def test_prediction_intervals_hold_what_they_promise():
    rng = np.random.default_rng(2)
    held = 0
    for _ in range(1000):
        x = rng.uniform(0, 1, 6)
        y = 2 * x + rng.normal(0, 0.2, 6)
        line = tpe_fit.fit_line(x[:5], y[:5])
        assert line is not None
        low, high = line.interval(x[5])
        held += low <= y[5] <= high
    assert 930 <= held <= 968  # 95 % of 1000, within 2.7 standard errors


def test_two_points_or_equal_scores_promise_nothing():
    two = tpe_fit.fit_line(np.array([1.0, 2.0]), np.array([1.0, 2.0]))
    assert two is not None
    assert two.interval(np.array(3.0)) == (-math.inf, math.inf)
    assert tpe_fit.fit_line(np.ones(3), np.arange(3.0)) is None
    assert math.isnan(
        tpe_fit.r_squared_left_out(np.array([1.0, 2]), np.array([1.0, 2]))
    )
    # Without the last point, the others have the same x.
    x = np.array([1.0, 1.0, 2.0])
    assert tpe_fit.left_out(x, np.arange(3.0)) is None


# Estimates.


def grid(n=12, epochs=10):
    """Runs whose final loss is a line in their early one, with a little noise."""
    rng = np.random.default_rng(3)
    curves = []
    for i in range(n):
        early = 2.0 + 0.3 * i
        losses = np.linspace(early, 0.4 * early + rng.normal(0, 0.02), epochs)
        lr = {"optimizer.lr": 0.1 / (i + 1)}
        curves.append(made(f"r{i:02d}", losses, settings=lr))
    return curves


def test_estimate_of_a_finished_grid():
    found = estimate(grid(), 0.2, "tse", {"optimizer.lr": 0.05})
    assert found.winner.curve.name == "r00"
    assert found.rho == pytest.approx(1.0)
    assert found.r2 > found.r2_left_out > 0.95
    assert found.regret == pytest.approx(0.0)
    assert [row.curve.name for row in found.rows if row.marked] == ["r01"]
    assert found.covered is not None
    assert found.covered >= 10
    assert not found.warnings
    assert not found.ties


def test_unfinished_runs_get_predictions_from_the_finished():
    curves = grid()
    mixed = [c if i % 2 else c.upto(0.2) for i, c in enumerate(curves)]
    found = estimate(mixed, 0.2)
    assert len(found.finished) == 6
    for row in found.rows:
        if row.state == UNFINISHED:
            true = next(c.final for c in curves if c.name == row.curve.name)
            assert row.interval[0] <= true <= row.interval[1]
            assert row.predicted == pytest.approx(true, abs=0.1)
            assert math.isnan(row.final_rank)
    assert math.isnan(found.regret)
    # 12 x 2 epochs, 8 more of the six finished ones and of the winner, of 120.
    assert found.cost(calibrated=True) == (24 + 7 * 8, 120)
    assert found.cost(calibrated=False) == (24 + 8, 120)


def test_diverged_runs_are_last_and_tied():
    curves = [*grid(6), made("x", [0.1], planned=10, diverged=True)]
    curves.append(made("y", [0.1] * 5, planned=10, diverged=True))
    found = estimate(curves, 0.2)
    # y was the best until it diverged, x was lost within the window.
    assert found.winner.curve.name == "y"
    assert [row.curve.name for row in found.rows][-1] == "x"
    assert {row.final_rank for row in found.rows if row.state == DIVERGED} == {7.5}
    assert found.rho < 1
    assert found.r2 > 0.95  # of the others
    assert found.regret == math.inf
    assert any("2 runs diverged" in text for text in found.ties)


def test_rank_correlation_within_batch_sizes():
    # Large batches end lower than their early losses say, all by the same.
    curves = grid(6)
    for i in range(4):
        losses = np.linspace(5.0 + 0.2 * i, 0.1 + 0.01 * i, 10)
        curves.append(made(f"large{i}", losses, batch=64))
    found = estimate(curves, 0.2)
    assert found.rho < 0.2
    assert found.rho_within_batches == pytest.approx(1.0)
    assert math.isnan(estimate(grid(6), 0.2).rho_within_batches)
    assert "rho is 1.00 on average" in report(curves, found, [])


def test_ties_are_said():
    curves = grid(4)
    curves.append(made("again", curves[0].train_loss, settings={"optimizer.lr": 1.0}))
    found = estimate(curves, 0.2)
    assert found.rows[0].rank == found.rows[1].rank == 1.5
    assert any("same score" in text for text in found.ties)
    assert any("same final loss" in text for text in found.ties)


def warned(curves, **options):
    return " | ".join(
        estimate(curves, options.pop("fraction", 0.2), **options).warnings
    )


def change(curves, **fields):
    """The same runs, the last with other fields."""
    last = curves[-1]
    losses = last.train_loss
    return [
        *curves[:-1],
        made(last.name, losses, **{"settings": last.settings, **fields}),
    ]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"warmup_steps": 25}, "1 of 12 runs the early window (20 steps) lies inside"),
        ({"warmup_steps": 15}, "is mostly the warm-up (15 steps)"),
        ({"schedule": "cosine"}, "schedules differ (constant, cosine)"),
        ({"batch": 16}, "batch sizes differ (8, 16)"),
        ({"settings": {"loss.power": "l2"}}, "runs differ in loss.power"),
        ({"planned": 12, "state": "paused"}, "planned for 10 to 12 epochs"),
    ],
)
def test_warnings(fields, said):
    assert not warned(grid(12))
    assert said in warned(change(grid(12), **fields))


def test_warns_of_few_runs_and_of_annealing_of_another_length():
    assert "only 5 finished runs" in warned(grid(5))
    curves = [made(c.name, c.train_loss, schedule="cosine") for c in grid(12)]
    assert not warned(curves)
    other = {"settings": {"optimizer.decay_steps": 50}, "schedule": "cosine"}
    assert "after 50% to 100%" in warned(change(curves, **other))


def test_what_cannot_be_estimated():
    with pytest.raises(
        UserError, match="less than one; give --fraction of at least 0.1"
    ):
        estimate(grid(), 0.05)
    with pytest.raises(UserError, match="no run has optimizer.lr=7"):
        estimate(grid(), 0.2, "tse", {"optimizer.lr": 7})
    with pytest.raises(UserError, match="the furthest is at 10%"):
        estimate([curve.first(1) for curve in grid()], 0.2)


def test_costs_of_the_papers_claims():
    # Trainings for n = 16, 27, 50: winner finished; with 5 and 10 calibration runs.
    table = {16: (4.0, 8.0, 12.0), 27: (6.2, 10.2, 14.2), 50: (10.8, 14.8, 18.8)}
    for n, costs in table.items():
        found = [tpe_cost(n, 0.2, k) for k in (0, 5, 10)]
        assert found == pytest.approx(costs)
    assert halving_cost(16, 1 / 16, 4) == pytest.approx(2.5)
    assert halving_cost(27, 1 / 27, 3) == pytest.approx(3.0)


def test_report_and_its_files(tmp_path):
    curves = [*grid(8), *(c.upto(0.3) for c in grid(12)[8:])]
    lost = made("x", [9.0], settings={"optimizer.lr": 1.0}, planned=10, diverged=True)
    curves.append(dataclasses.replace(lost, batch=4))
    found = estimate(curves, 0.2, "tse_last", {"optimizer.lr": 0.1})
    text = write_estimate(curves, found, tmp_path)
    assert "13 runs ranked by tse_last over the first 1 to 2 of 10 epochs" in text
    assert "lr 0.1 (marked)" in text
    assert "not finite" in text
    assert "it is finished, others are not." in text
    for name in ("tpe.md", "tpe.png", "tpe.svg", "tpe_windows.png"):
        assert (tmp_path / name).stat().st_size > 500
    with (tmp_path / "tpe.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 13
    assert rows[-1]["final"] == "inf"
    assert [row["marked"] for row in rows].count("1") == 1
    assert "0.91" in report(curves, found, [])  # R^2 of PaiNN in the paper


def test_command_on_two_sweeps(tmp_path, capsys):
    for sweep, model in (("one", "schnet"), ("two", "painn")):
        for i in range(5):
            losses = [3.0 + i, 2.0 + i, 1.5 + i, 1.2 + i, 1.0 + i]
            folder = tmp_path / sweep / f"r{i}"
            leave_run(folder, losses, losses, lr=0.1 / (i + 1), model=model)
    runs = f"--runs={tmp_path / 'one'},{tmp_path / 'two'}"
    command = commands.load("tpe")
    assert command.main([runs, "--mark=optimizer.lr=0.05", f"--out={tmp_path}"]) == 0
    shown = capsys.readouterr().out
    assert "| two" in shown
    assert (tmp_path / "one/tpe.png").exists()
    assert "0.99" in (tmp_path / "tpe_summary.md").read_text()
    with pytest.raises(UserError, match="write FIELD=VALUE"):
        command.main([runs, "--mark=lr"])
    with pytest.raises(UserError, match="above 0 and at most 1"):
        command.main([runs, "--fraction=0"])
