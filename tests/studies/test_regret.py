"""Policies replayed over made-up curves with a planted winner."""

import csv

import numpy as np
import pytest

from chemscale_jax.core.errors import UserError
from chemscale_jax.studies import regret, regret_report
from chemscale_jax.studies.policies import make_policy
from tests.studies.curves import family, made

FEW = {"resamplings": 30, "tuning": 8}


@pytest.mark.parametrize(
    ("winner", "budget"),
    [
        ("tpe", 0.3),
        ("halving", 0.26),
        ("tpe_halving", 0.3),
        ("asha", 0.3),
        ("full", 0.3),
    ],
)
def test_each_policy_can_win(winner, budget):
    tasks = {f"task {seed}": family(winner, seed) for seed in range(2)}
    results = regret.compare(tasks, (budget,), **FEW)
    assert {r.policy for r in results} == set(regret.NAMES)
    assert regret.default(results) == winner
    means = sorted(r.mean for r in results)
    assert means[1] > 1.15 * means[0]
    for r in results:
        low, high = r.interval
        assert low <= r.mean <= high
        if r.policy != "full":
            assert r.costs.mean() <= budget + 0.03


def test_replay_of_a_choice_counted_by_hand():
    curves = [made(f"r{i}", [loss] * 10) for i, loss in enumerate((3.0, 2.0, 4.0))]
    task = regret.Recorded(curves)
    names = ["r0", "r1", "r2"]
    # 3 x 2 epochs and 8 more of the winner, of 30.
    tpe = regret.Setting(make_policy("tpe", fraction=0.2))
    assert regret.replay(task, tpe, names) == pytest.approx((0.0, 14 / 30))
    # Only the first run: its loss is 3 where 2 could be had.
    one = regret.Setting(make_policy("full"), 0.4)
    assert regret.replay(task, one, names) == pytest.approx((0.5, 10 / 30))


def test_diverged_runs_cost_what_they_took_and_are_not_picked():
    curves = [made("a", [2.0] * 10), made("b", [3.0] * 10)]
    curves.append(made("c", [1.0], planned=10, diverged=True))
    task = regret.Recorded(curves)
    setting = regret.Setting(make_policy("tpe", fraction=0.3))
    found = regret.replay(task, setting, ["a", "b", "c"])
    assert found == pytest.approx((0.0, (10 + 3 + 2) / (10 + 10 + 2)))
    only = regret.replay(
        task, regret.Setting(make_policy("full"), 0.4), ["c", "a", "b"]
    )
    assert only.regret == pytest.approx(0.5)  # as the worst of the others


def test_the_task_tested_on_is_not_tuned_on():
    # Training losses tell in one task and validation losses in the other, so each is
    # tested with what is right for the other.
    tasks = {"train": family("tpe", 0), "valid": family("halving", 0)}
    results = {r.policy: r for r in regret.compare(tasks, (0.35,), **FEW)}
    chosen = results["tpe"].chosen
    assert chosen["train"].policy.score == "valid"
    assert chosen["valid"].policy.score != "valid"
    assert results["tpe"].regrets[0].mean() > 0.3


def test_report(tmp_path):
    tasks = {f"task {seed}": family("tpe", seed) for seed in range(2)}
    results = regret.compare(tasks, (0.3, 0.35), resamplings=20, tuning=5)
    text = regret_report.write_regret(results, tasks, tmp_path)
    assert "all policies can keep to (30%, 35%): tpe." in text
    for name in ("regret.md", "regret.png", "regret.svg"):
        assert (tmp_path / name).stat().st_size > 500
    with (tmp_path / "regret.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5 * 2 * 2
    tpe = [r for r in rows if r["policy"] == "tpe" and r["budget"] == "0.3"]
    assert np.mean([float(r["regret"]) for r in tpe]) == pytest.approx(0.0, abs=1e-9)


def test_budgets_that_not_all_can_keep_to():
    tasks = {f"task {seed}": family("full", seed) for seed in range(2)}
    results = regret.compare(tasks, (0.1,), resamplings=4, tuning=2)
    assert {r.policy for r in results} == {"full"}


@pytest.mark.parametrize(
    ("tasks", "match"),
    [
        ({"a": family("tpe", 0)}, "at least two"),
        ({"a": family("tpe", 0), "b": family("tpe", 1)[:3]}, "fewer than 4"),
        (
            {"a": family("tpe", 0), "b": [made("x", [1.0], state="paused", planned=2)]},
            "have not ended",
        ),
        ({"a": family("tpe", 0), "b": [made("x", [-1.0])]}, "zero or less"),
    ],
)
def test_what_cannot_be_replayed(tasks, match):
    with pytest.raises(UserError, match=match):
        regret.compare(tasks, (0.3,), 2, 2)
