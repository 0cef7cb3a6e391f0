"""Replays policies over recorded curves: what each choice of runs costs and regrets.

Every run of every task was trained to its end, so what a policy would have done is
known. A task (a sweep over one model) is resampled by drawing a share of its runs
without replacement, in random order; a policy then decides on these as it would have
in a sweep.

- regret: how much higher the final loss of the run it picks is than the lowest of the
  runs drawn, of the lowest; of no run at all where every one it trained diverged, the
  regret of the worst that did not;
- cost: epochs that it had runs trained for, of those that all runs drawn take.

At equal cost: of the settings of a policy that cost no more than a budget on the other
tasks, those with the lowest mean regret there are tried on the task left out. So no
policy is tuned on what it is tested on.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from chemscale_jax.analysis.tpe import scores as tpe
from chemscale_jax.analysis.tpe.run_curves import RunCurve
from chemscale_jax.core.errors import UserError
from chemscale_jax.studies.policies import (
    Policy,
    Seen,
    arrived,
    make_policy,
    seen,
    unseen,
)

# Budgets, of the cost of training all runs to their ends.
BUDGETS = (0.2, 0.3, 0.4, 0.6)
DRAWN = 0.75  # of a task's runs in a resampling
RESAMPLINGS = 1000
TUNING = 200  # resamplings from which settings are chosen
# A policy that has not come to a decision after so many questions never will.
_MOST_CALLS = 10_000

Tasks = Mapping[str, Sequence[RunCurve]]


class Outcome(NamedTuple):
    """Of one policy on one draw of runs."""

    regret: float  # relative
    cost: float  # relative


@dataclasses.dataclass(frozen=True)
class Setting:
    """A policy with its numbers, on all runs or on the first few of a draw."""

    policy: Policy
    share: float = 1.0  # of the runs; the others are not begun

    def __str__(self) -> str:
        """``tpe fraction=0.2 keep=1 score=tse``."""
        parts = [f"{k}={_short(v)}" for k, v in self.policy.settings().items()]
        if self.share < 1:
            parts = [f"{self.share:.0%} of the runs"]
        return " ".join([self.policy.name, *parts])


class Result(NamedTuple):
    """Of one policy at one budget."""

    policy: str
    budget: float
    tasks: tuple[str, ...]
    everywhere: Setting  # tuned on all tasks: what to use on a new one
    chosen: Mapping[str, Setting]  # {task left out: what was tuned on the others}
    regrets: np.ndarray  # (tasks, resamplings)
    costs: np.ndarray  # (tasks, resamplings)

    @property
    def mean(self) -> float:
        """The mean regret over tasks and resamplings."""
        return float(self.regrets.mean())

    @property
    def interval(self) -> tuple[float, float]:
        """95 % of the means over tasks, over resamplings of tasks and of their runs."""
        low, high = np.percentile(self.resampled, [2.5, 97.5])
        return float(low), float(high)

    @property
    def resampled(self) -> np.ndarray:
        """(resamplings,) the mean over tasks that are drawn with replacement."""
        tasks, draws = self.regrets.shape
        chosen = np.random.default_rng(0).integers(tasks, size=(draws, tasks))
        return self.regrets[chosen, np.arange(draws)[:, None]].mean(axis=1)


class Recorded:
    """The curves of a task, with what policies see of them at every epoch."""

    def __init__(self, curves: Sequence[RunCurve]) -> None:
        """Looks at all prefixes of all curves.

        Args:
            curves: of runs that ended.
        """
        self.curves = {curve.name: curve for curve in curves}
        self._seen: dict[str, dict[str, list[Seen]]] = {}

    def seen(self, score: str) -> Mapping[str, list[Seen]]:
        """{run: [after 0, 1, ... epochs]}."""
        if score not in self._seen:
            self._seen[score] = {
                name: list(_prefixes(curve, score))
                for name, curve in self.curves.items()
            }
        return self._seen[score]


def _prefixes(curve: RunCurve, score: str) -> Iterator[Seen]:
    yield unseen(curve.epochs_planned)
    for epochs in range(1, curve.epochs + 1):
        yield seen(curve.first(epochs), score)
    if curve.ended_within_epoch:
        yield seen(curve, score)


def replay(task: Recorded, setting: Setting, names: Sequence[str]) -> Outcome:
    """What a policy would have done.

    Args:
        task: the recorded runs.
        setting: the policy.
        names: runs that there are, in the order in which they are begun.

    Raises:
        UserError: the policy asks for more than there is, such as less than an epoch.
    """
    known = task.seen(setting.policy.score)
    allowed = names[: max(math.floor(setting.share * len(names) + 1e-9), 1)]
    at = dict.fromkeys(allowed, 0)  # places in the lists of what is seen
    for _ in range(_MOST_CALLS):
        now = {name: known[name][place] for name, place in at.items()}
        targets = setting.policy.targets(now)
        waiting = [n for n, target in targets.items() if not arrived(now[n], target)]
        if not waiting:
            break
        # As with one process, which takes up one run at a time.
        for name in waiting[:1] if setting.policy.asynchronous else waiting:
            at[name] = _reach(known[name], targets[name])
    else:
        raise RuntimeError(f"{setting} never decides on {', '.join(names)}")
    finals = {name: task.curves[name].final for name in names}
    lowest = min(finals.values())
    # A place is a number of epochs; the last may be cut short by a divergence.
    spent = sum(at.values())
    whole = sum(len(known[name]) - 1 for name in names)
    try:
        picked = finals[setting.policy.pick(now)]
    except UserError:  # every run that was trained diverged
        picked = math.inf
    if not math.isfinite(picked):
        picked = max(v for v in finals.values() if math.isfinite(v))
    return Outcome(picked / lowest - 1, spent / whole)


def _reach(states: Sequence[Seen], target: float) -> int:
    """The place of the first state that has arrived."""
    for place, state in enumerate(states):
        if arrived(state, target):
            return place
    return len(states) - 1


def settings(name: str, budget: float) -> list[Setting]:
    """The settings of a policy that are tried within a budget."""
    if name == "full":
        return [Setting(make_policy("full"), budget)]
    grid = [
        dict(zip(_GRIDS[name], values, strict=True))
        for values in itertools.product(*_GRIDS[name].values())
    ]
    return [Setting(make_policy(name, **chosen)) for chosen in grid]


_RUNGS = {"first": (1 / 16, 1 / 9, 1 / 6, 0.2), "eta": (2.0, 3.0, 4.0)}
_GRIDS: dict[str, dict[str, tuple[Any, ...]]] = {
    "tpe": {
        "fraction": (0.05, 0.1, 0.15, 0.2, 0.3, 0.4),
        "keep": (1, 2, 3),
        "score": tpe.SCORES,
    },
    "halving": {**_RUNGS, "score": ("valid",)},
    "tpe_halving": {**_RUNGS, "score": ("tse", "tse_last", "tse_ema")},
    "asha": {**_RUNGS, "score": ("valid",)},
}
NAMES = (*_GRIDS, "full")


def compare(
    tasks: Tasks,
    budgets: Sequence[float] = BUDGETS,
    resamplings: int = RESAMPLINGS,
    tuning: int = TUNING,
    seed: int = 0,
) -> list[Result]:
    """Every policy at every budget, tuned without the task that it is tested on.

    Args:
        tasks: at least two, {name: curves of runs that ended}.
        budgets: of the cost of all runs.
        resamplings: draws of runs to test on.
        tuning: draws of runs to tune on.
        seed: of the draws.

    Returns:
        Those with settings that cost no more than the budget on the other tasks.

    Raises:
        UserError: there are too few tasks, or runs.
    """
    recorded = _recorded(tasks)
    rng = np.random.default_rng(seed)
    tests = {name: _draws(task, resamplings, rng) for name, task in recorded.items()}
    trials = {name: _draws(task, tuning, rng) for name, task in recorded.items()}
    cache: dict[tuple[str, Setting], tuple[float, float] | None] = {}

    def tried(name: str, setting: Setting) -> tuple[float, float] | None:
        """Mean regret and cost; None where the task's epochs are too few."""
        if (name, setting) not in cache:
            cache[name, setting] = _mean(recorded[name], setting, trials[name])
        return cache[name, setting]

    def tuned(left_out: str, name: str, budget: float) -> Setting | None:
        able = []
        for order, setting in enumerate(settings(name, budget)):
            found = {task: tried(task, setting) for task in recorded}
            # The task that is left out says no more than whether it has the epochs.
            means = [v for task, v in found.items() if v and task != left_out]
            if None in found.values():
                continue
            regret, cost = np.mean(means, axis=0)
            if cost <= budget + 1e-9 or name == "full":
                able.append((regret, cost, order, setting))
        return min(able)[-1] if able else None

    results = []
    for budget, name in itertools.product(budgets, NAMES):
        chosen = {task: tuned(task, name, budget) for task in recorded}
        everywhere = tuned("", name, budget)
        if None in chosen.values() or everywhere is None:
            continue
        outcomes = np.array(
            [
                [replay(recorded[task], setting, draw) for draw in tests[task]]
                for task, setting in chosen.items()
                if setting is not None
            ]
        )
        kept = {task: s for task, s in chosen.items() if s is not None}
        results.append(
            Result(
                policy=name,
                budget=budget,
                tasks=tuple(recorded),
                everywhere=everywhere,
                chosen=kept,
                regrets=outcomes[..., 0],
                costs=outcomes[..., 1],
            )
        )
    return results


def default(results: Sequence[Result]) -> str:
    """The policy with the lowest mean regret, over budgets that all can keep to.

    Raises:
        UserError: there is no such budget.
    """
    shared = shared_budgets(results)
    if not shared:
        raise UserError(
            "there is no budget that every policy can keep to; give a larger --budgets"
        )
    means = {
        name: np.mean(
            [r.mean for r in results if r.policy == name and r.budget in shared]
        )
        for name in dict.fromkeys(r.policy for r in results)
    }
    return min(means, key=lambda name: means[name])


def shared_budgets(results: Sequence[Result]) -> list[float]:
    """The budgets at which every policy has a result."""
    names = {r.policy for r in results}
    budgets = sorted({r.budget for r in results})
    return [b for b in budgets if {r.policy for r in results if r.budget == b} == names]


def _recorded(tasks: Tasks) -> dict[str, Recorded]:
    if len(tasks) < 2:
        raise UserError(
            "regret is measured on a task that policies were not tuned on: give the "
            "folders of at least two sweeps, separated by commas"
        )
    for name, curves in tasks.items():
        open_runs = [curve.name for curve in curves if not curve.ended]
        if open_runs:
            raise UserError(
                f"{len(open_runs)} runs of {name} have not ended, such as "
                f"{open_runs[0]}; only curves of whole runs can be replayed"
            )
        if any(curve.final <= 0 for curve in curves):
            raise UserError(
                f"{name} has final losses of zero or less, of which a relative regret "
                "means nothing"
            )
        if sum(math.isfinite(curve.final) for curve in curves) < 4:
            raise UserError(
                f"{name} has fewer than 4 runs with a final loss; there is little to "
                "choose from"
            )
    return {name: Recorded(curves) for name, curves in tasks.items()}


def _draws(task: Recorded, number: int, rng: np.random.Generator) -> list[list[str]]:
    """Shares of the runs in random order; some of each have a final loss."""
    names, found = list(task.curves), []
    size = max(math.ceil(DRAWN * len(names)), 2)
    while len(found) < number:
        drawn = [names[i] for i in rng.permutation(len(names))[:size]]
        if any(math.isfinite(task.curves[name].final) for name in drawn):
            found.append(drawn)
    return found


def _mean(
    task: Recorded, setting: Setting, draws: Sequence[Sequence[str]]
) -> tuple[float, float] | None:
    try:
        found = np.array([replay(task, setting, names) for names in draws])
    except UserError:
        return None
    regret, cost = found.mean(axis=0)
    return float(regret), float(cost)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
