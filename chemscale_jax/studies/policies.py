"""Which runs of a sweep go on, and how far: pure decisions, nothing is started here.

A policy is asked again and again. It gets what is known of every run and says up to
which epoch each is to be trained; a run that is there waits. It remembers nothing: all
it knows is in the scores after each epoch, so a sweep that was killed goes on as if it
had not been. Once every run is where it is to be, the sweep is over.

    tpe          all runs to a fixed fraction, the best to the end (Frey et al. 2023)
    halving      successive halving (Jamieson and Talwalkar 2016), by validation loss
    tpe_halving  the same with scores of training losses
    asha         asynchronous halving (Li et al. 2018): nobody waits for a rung to fill
    full         all runs to the end

A run that diverges is last, and its place goes to the next best.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

from chemscale_jax.analysis.tpe import scores as tpe
from chemscale_jax.analysis.tpe.run_curves import RunCurve, epochs_at
from chemscale_jax.core.errors import UserError


class Seen(NamedTuple):
    """What is known of one run. One that is not begun has no scores."""

    scores: Sequence[float]  # after each completed epoch, lower is better, see `seen`
    epochs: int  # planned
    done: int  # completed
    ended: bool  # finished or diverged: nothing more will come
    final: float  # the lowest validation loss; infinite where none, or diverged

    @property
    def fraction(self) -> float:
        """Completed epochs of the planned ones."""
        return self.done / self.epochs

    @property
    def diverged(self) -> bool:
        """Whether the run ended by a loss that is not finite."""
        return self.ended and math.isinf(self.final)

    def at(self, epochs: int) -> float:
        """The score after so many epochs, which must be known."""
        return self.scores[epochs - 1]

    def knows(self, epochs: int) -> bool:
        """Whether the score after so many epochs is known."""
        return len(self.scores) >= epochs


class Policy(Protocol):
    """Decides which runs go on."""

    # Whether its decisions depend on the order in which runs arrive.
    asynchronous: ClassVar[bool]

    @property
    def name(self) -> str:
        """An entry of `POLICIES`."""
        ...

    @property
    def score(self) -> str:
        """The score it wants in `Seen`, an entry of `tpe.SCORES`."""
        ...

    def settings(self) -> dict[str, Any]:
        """What `make_policy` takes besides the name, with all defaults."""
        ...

    def targets(self, seen: Mapping[str, Seen]) -> dict[str, float]:
        """Up to which fraction of its epochs each run is to be trained.

        Fractions are of whole epochs. They never fall from one call to the next, where
        scores only have been added. The most urgent runs come first.
        """
        ...

    def pick(self, seen: Mapping[str, Seen]) -> str:
        """The best run: the lowest final loss of those that ended, else the score."""
        ...


def seen(curve: RunCurve, score: str) -> Seen:
    """What a policy sees of a run.

    Args:
        curve: of the epochs trained so far.
        score: an entry of `tpe.SCORES`.
    """
    return Seen(
        scores=tuple(tpe.scores(curve, score).tolist()),
        epochs=curve.epochs_planned,
        done=curve.epochs,
        ended=curve.ended,
        final=curve.final,
    )


def unseen(epochs: int) -> Seen:
    """What a policy sees of a run of so many epochs that is not begun."""
    return Seen((), epochs, 0, False, math.inf)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Settings:
    """Gives the fields of a policy."""

    def settings(self) -> dict[str, Any]:
        """{field: value}, without the name."""
        found = dataclasses.asdict(self)
        return {key: value for key, value in found.items() if key != "name"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Full(_Settings):
    """Every run is trained to its end."""

    score: str = "valid"
    name: str = "full"
    asynchronous: ClassVar[bool] = False

    def targets(self, seen: Mapping[str, Seen]) -> dict[str, float]:
        """All to 1."""
        return dict.fromkeys(seen, 1.0)

    def pick(self, seen: Mapping[str, Seen]) -> str:
        """The lowest final loss."""
        return best(seen)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tpe(_Settings):
    """All runs are trained for a fixed fraction, the best of them to the end."""

    fraction: float = 0.2  # of the epochs
    keep: int = 1  # runs that go on
    score: str = "tse"
    name: str = "tpe"
    asynchronous: ClassVar[bool] = False

    def targets(self, seen: Mapping[str, Seen]) -> dict[str, float]:
        """All to the fraction, then the best to 1."""
        return _by_rungs(seen, (self.fraction, 1.0), lambda rung, n: self.keep)

    def pick(self, seen: Mapping[str, Seen]) -> str:
        """The lowest final loss of those that went on."""
        return best(seen)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Halving(_Settings):
    """Successive halving: of n runs, n / eta go on to a budget eta times as large."""

    first: float = 1 / 9  # fraction of the epochs of the first rung
    eta: float = 3.0
    score: str = "valid"
    name: str = "halving"
    asynchronous: ClassVar[bool] = False

    def targets(self, seen: Mapping[str, Seen]) -> dict[str, float]:
        """Rung by rung, each once all runs of the one before have arrived."""

        def kept(rung: int, n: int) -> int:
            return max(math.floor(n / self.eta**rung + 1e-9), 1)

        return _by_rungs(seen, rungs(self.first, self.eta), kept)

    def pick(self, seen: Mapping[str, Seen]) -> str:
        """The lowest final loss of those that went on to the end."""
        return best(seen)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asha(_Settings):
    """Asynchronous halving: a run goes on as soon as it is in the top 1 / eta.

    Promotions come first in `targets`. Where all wait and none was trained to its end,
    as with few runs, the best of the highest rung goes on.
    """

    first: float = 1 / 9  # fraction of the epochs of the first rung
    eta: float = 3.0
    score: str = "valid"
    name: str = "asha"
    asynchronous: ClassVar[bool] = True

    def targets(self, seen: Mapping[str, Seen]) -> dict[str, float]:
        """For each run the highest rung it was promoted to."""
        steps = rungs(self.first, self.eta)
        _check(seen, steps[0])
        level = dict.fromkeys(seen, 0)
        for rung, fraction in enumerate(steps[:-1]):
            here = [n for n, s in seen.items() if s.knows(_epochs(fraction, s))]
            order = _ranked(seen, here, fraction)
            for name in order[: math.floor(len(here) / self.eta + 1e-9)]:
                if level[name] == rung and not seen[name].diverged:
                    level[name] = rung + 1
            for name in here:  # it has gone on, whatever was known then
                if seen[name].done > _epochs(fraction, seen[name]):
                    level[name] = max(level[name], rung + 1)
        if all(arrived(s, _target(s, steps[level[n]])) for n, s in seen.items()):
            self._go_on(seen, steps, level)
        order = sorted(seen, key=lambda n: -level[n])
        return {n: _target(seen[n], steps[level[n]]) for n in order}

    def _go_on(
        self, seen: Mapping[str, Seen], steps: Sequence[float], level: dict[str, int]
    ) -> None:
        able = [n for n, s in seen.items() if not s.diverged]
        top = max((level[n] for n in able), default=len(steps) - 1)
        if top < len(steps) - 1:
            highest = [n for n in able if level[n] == top]
            level[_ranked(seen, highest, steps[top])[0]] += 1

    def pick(self, seen: Mapping[str, Seen]) -> str:
        """The lowest final loss of those that went on to the end."""
        return best(seen)


def _tpe_halving(**settings: Any) -> Halving:
    return Halving(**{"score": "tse_last", "name": "tpe_halving", **settings})


# Of sweeps that are not told otherwise.
DEFAULT = "tpe_halving"
POLICIES: dict[str, Callable[..., Policy]] = {
    "tpe": Tpe,
    "halving": Halving,
    "tpe_halving": _tpe_halving,
    "asha": Asha,
    "full": Full,
}


def make_policy(name: str, **settings: Any) -> Policy:
    """A policy by its name.

    Args:
        name: an entry of `POLICIES`.
        **settings: of the policy; those left out have its defaults.
    """
    if name not in POLICIES:
        raise UserError(
            f"the policy is {name!r}, expected one of {', '.join(POLICIES)}"
        )
    known = POLICIES[name]().settings()
    for key in settings:
        if key not in known:
            raise UserError(
                f"policy {name} has no setting {key!r}, it has {', '.join(known)}"
            )
    policy = POLICIES[name](**settings)
    if policy.score not in tpe.SCORES:
        raise UserError(
            f"the score is {policy.score!r}, expected one of {', '.join(tpe.SCORES)}"
        )
    for key in ("fraction", "first"):
        if not 0 < settings.get(key, 1.0) <= 1:
            raise UserError(f"{key} is {settings[key]} of the epochs, expected 0 to 1")
    if settings.get("eta", 2) <= 1 or settings.get("keep", 1) < 1:
        raise UserError(f"{settings} cannot be; eta is above 1, keep at least 1")
    return policy


def arrived(run: Seen, target: float) -> bool:
    """Whether a run is where it is to be, or has ended before."""
    return run.ended or run.fraction >= target


def rungs(first: float, eta: float) -> tuple[float, ...]:
    """``first``, ``eta first``, ``eta^2 first``, ... and 1."""
    found = []
    while first < 1 - 1e-9:
        found.append(first)
        first *= eta
    return (*found, 1.0)


def best(seen: Mapping[str, Seen]) -> str:
    """The run with the lowest final loss of those that ended; else of the furthest."""
    able = [name for name, s in seen.items() if not s.diverged and s.done]
    if not able:
        raise UserError(
            "no run has completed an epoch with a finite loss; lower "
            "config.optimizer.lr or set config.optimizer.clip_norm"
        )
    ended = [name for name in able if seen[name].ended]
    if ended:
        return min(ended, key=lambda name: (seen[name].final, name))
    furthest = max(seen[name].fraction for name in able)
    there = [name for name in able if seen[name].fraction == furthest]
    return min(there, key=lambda name: (seen[name].scores[-1], name))


def _by_rungs(
    seen: Mapping[str, Seen],
    steps: Sequence[float],
    kept: Callable[[int, int], int],
) -> dict[str, float]:
    """Rungs that are left together; ``kept(rung, n)`` of n runs enter a rung."""
    _check(seen, steps[0])
    inside, targets = list(seen), dict.fromkeys(seen, steps[0])
    for rung, (fraction, above) in enumerate(itertools.pairwise(steps), 1):
        if not all(seen[name].knows(_epochs(fraction, seen[name])) for name in inside):
            break
        inside = _ranked(seen, inside, fraction)[: kept(rung, len(seen))]
        # A run without a rival need not wait on the rungs that are left.
        target = above if len(inside) > 1 else 1.0
        targets.update(dict.fromkeys(inside, target))
    order = sorted(seen, key=lambda name: -targets[name])
    return {name: _target(seen[name], targets[name]) for name in order}


def _ranked(seen: Mapping[str, Seen], names: Sequence[str], at: float) -> list[str]:
    """Names by their scores at a fraction; those that diverged later are last."""
    return sorted(
        names,
        key=lambda n: (seen[n].diverged, seen[n].at(_epochs(at, seen[n])), n),
    )


def _epochs(fraction: float, run: Seen) -> int:
    return epochs_at(fraction, run.epochs)


def _target(run: Seen, fraction: float) -> float:
    """A fraction of whole epochs, no less than what is done."""
    return max(_epochs(fraction, run), run.done) / run.epochs


def _check(seen: Mapping[str, Seen], first: float) -> None:
    for name, run in seen.items():
        if first * run.epochs < 1 - 1e-9:
            raise UserError(
                f"{name} is planned for {run.epochs} epochs, and the first decision "
                f"is made after {first:.3g} of them, which is less than one; give it "
                f"at least {math.ceil(1 / first - 1e-9)} epochs or decide later"
            )
