"""Decisions of the policies on scores made by hand."""

import itertools
import math

import pytest

from chemscale_jax.core.errors import UserError
from chemscale_jax.studies.policies import (
    POLICIES,
    Seen,
    arrived,
    best,
    make_policy,
    rungs,
    seen,
    unseen,
)
from tests.studies.curves import made


def run_all(policy, curves, one_at_a_time=False):
    """Asks until nothing is left to do; the epochs of each run, and all targets."""
    at, history = dict.fromkeys(curves, 0), []
    for _ in range(200):
        now = look(policy, curves, at)
        targets = policy.targets(now)
        assert set(targets) == set(curves)
        history.append(targets)
        waiting = [n for n in targets if not arrived(now[n], targets[n])]
        if not waiting:
            return at, history
        for name in waiting[:1] if one_at_a_time else waiting:
            epochs = targets[name] * curves[name].epochs_planned
            assert epochs == pytest.approx(round(epochs))
            at[name] = min(round(epochs), curves[name].epochs + curves[name].diverged)
    raise AssertionError("it never ends")


def look(policy, curves, at):
    return {
        name: seen(curve.first(at[name]), policy.score)
        if at[name]
        else unseen(curve.epochs_planned)
        for name, curve in curves.items()
    }


def flat(losses, epochs=9):
    """Runs whose losses never change."""
    return {f"r{i}": made(f"r{i}", [loss] * epochs) for i, loss in enumerate(losses)}


def test_tpe_trains_all_for_a_fraction_and_the_best_to_its_end():
    curves = flat([3.0, 1.0, 2.0, 4.0], epochs=10)
    at, _ = run_all(make_policy("tpe", fraction=0.2), curves)
    assert at == {"r0": 2, "r1": 10, "r2": 2, "r3": 2}
    at, _ = run_all(make_policy("tpe", fraction=0.2, keep=2), curves)
    assert at == {"r0": 2, "r1": 10, "r2": 10, "r3": 2}


def test_nobody_goes_on_before_all_have_arrived():
    policy = make_policy("tpe", fraction=0.2)
    curves = flat([3.0, 1.0, 2.0], epochs=10)
    now = look(policy, curves, {"r0": 2, "r1": 2, "r2": 1})
    assert set(policy.targets(now).values()) == {0.2}


def test_halving_keeps_a_third_on_each_rung():
    at, _ = run_all(make_policy("halving", first=1 / 9, eta=3), flat(range(1, 10)))
    assert sorted(at.values()) == [1] * 6 + [3, 3, 9]
    assert at["r0"] == 9


def test_scores_at_a_rung_are_those_of_the_rung():
    # r1 is worse on the first rung, though it would be better later: halving that let
    # r0 go on must not take that back once r0 has become worse than r1 was.
    curves = {"r0": made("r0", [1.0, 9, 9, 9]), "r1": made("r1", [2.0, 1, 1, 1])}
    policy = make_policy("halving", first=0.25, eta=2)
    at, history = run_all(policy, curves)
    assert at == {"r0": 4, "r1": 1}
    for before, after in itertools.pairwise(history):
        assert all(after[name] >= before[name] for name in after)


@pytest.mark.parametrize("name", POLICIES)
def test_targets_never_fall_and_a_run_reaches_its_end(name):
    losses = [5.0, 2.0, 7.0, 1.0, 4.0, 8.0, 3.0, 6.0, 9.0, 2.5, 1.5]
    policy = make_policy(name)
    curves = flat(losses, epochs=18)
    at, history = run_all(policy, curves, one_at_a_time=True)
    assert max(at.values()) == 18
    for before, after in itertools.pairwise(history):
        assert all(after[run] >= before[run] for run in after)
    assert policy.pick(look(policy, curves, at)) == "r3"


def test_asha_goes_on_before_the_rung_is_full():
    policy = make_policy("asha", first=1 / 9, eta=3)
    curves = flat([3.0, 1.0, 2.0, 0.5, 0.7, 0.6])
    now = look(policy, curves, {"r0": 1, "r1": 1, "r2": 1, "r3": 0, "r4": 0, "r5": 0})
    targets = policy.targets(now)
    assert targets["r1"] == pytest.approx(3 / 9)
    assert next(iter(targets)) == "r1"  # promotions are urgent
    assert all(targets[n] == pytest.approx(1 / 9) for n in targets if n != "r1")


def test_the_next_best_takes_the_place_of_a_run_that_diverges():
    curves = flat([1.0, 2.0, 3.0], epochs=10)
    curves["r0"] = made("r0", [1.0] * 4, planned=10, diverged=True)
    for name in ("tpe", "halving", "asha"):
        policy = make_policy(name)
        at, _ = run_all(policy, curves)
        assert at["r1"] == 10, name
        assert policy.pick(look(policy, curves, at)) == "r1"


def test_runs_that_diverge_at_once_are_last():
    curves = flat([5.0, 6.0], epochs=10)
    curves["a"] = made("a", [], [], planned=10, diverged=True)
    at, _ = run_all(make_policy("tpe"), curves)
    assert at == {"a": 1, "r0": 10, "r1": 2}


def test_all_diverge():
    curves = {n: made(n, [1.0], planned=10, diverged=True) for n in "ab"}
    policy = make_policy("tpe")
    at, _ = run_all(policy, curves)
    with pytest.raises(UserError, match="no run has completed"):
        policy.pick(look(policy, curves, at))


def test_early_stopped_runs_do_not_hold_up_the_others():
    curves = flat([2.0, 3.0], epochs=10)
    curves["short"] = made("short", [1.0], planned=10)
    at, _ = run_all(make_policy("tpe", fraction=0.5, score="tse"), curves)
    # Its sum goes on with its last loss, so it is not the best for being short.
    assert at == {"short": 1, "r0": 5, "r1": 5}
    curves["short"] = made("short", [2.5], planned=10)
    at, _ = run_all(make_policy("tpe", fraction=0.5, score="tse"), curves)
    assert at["r0"] == 10


def test_the_best_is_chosen_by_final_loss_where_runs_ended():
    ended = Seen((2.0,), 1, 1, True, 2.0)
    assert best({"a": ended, "b": ended._replace(final=1.0)}) == "b"
    assert best({"a": ended, "b": Seen((0.1,), 2, 1, False, 0.1)}) == "a"
    ahead = Seen((3.0, 2.0), 4, 2, False, 9.0)
    assert best({"a": ahead, "b": Seen((0.1,), 4, 1, False, 0.1)}) == "a"


def test_rungs():
    assert rungs(1 / 9, 3) == pytest.approx((1 / 9, 1 / 3, 1.0))
    assert rungs(0.2, 2) == pytest.approx((0.2, 0.4, 0.8, 1.0))
    assert rungs(1.0, 2) == (1.0,)


def test_too_few_epochs_for_the_first_rung():
    policy = make_policy("tpe", fraction=0.1)
    with pytest.raises(UserError, match="at least 10 epochs"):
        policy.targets({"a": unseen(4)})


@pytest.mark.parametrize(
    ("name", "settings", "match"),
    [
        ("best", {}, "expected one of tpe"),
        ("tpe", {"eta": 2}, "no setting 'eta'"),
        ("tpe", {"score": "loss"}, "score"),
        ("tpe", {"fraction": 0.0}, "0 to 1"),
        ("halving", {"eta": 1.0}, "eta is above 1"),
        ("tpe", {"keep": 0}, "keep"),
    ],
)
def test_settings_that_cannot_be(name, settings, match):
    with pytest.raises(UserError, match=match):
        make_policy(name, **settings)


def test_diverged_is_what_ended_without_a_loss():
    assert Seen((), 4, 0, True, math.inf).diverged
    assert not unseen(4).diverged
