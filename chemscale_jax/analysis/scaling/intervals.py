"""Intervals of fitted laws: profile likelihood, and bootstraps of seeds and of cells.

The profile of a quantity g (a parameter, or anything computed from parameters) is the
lowest objective at each value of g, all parameters free. Its 95 % interval holds the
values at which twice the rise of the objective, in units of the residual variance, is
below the 95 % point of F(1, n - p). Unlike a standard error it is not symmetric, and it
stays open where the data do not bound g (Bates and Watts 1988, chapter 6). With Huber's
loss the rise is corrected as in Ronchetti's tau test.

The bootstraps answer narrower questions. Over seeds: what would other seeds of the same
cells give? Over cells: what would other cells of the same kind give? With few cells
both are too narrow; they are given beside the profile, never instead of it.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from chemscale_jax.analysis.bootstrap import LEVEL, percentile_interval
from chemscale_jax.analysis.scaling.fit import Fit
from chemscale_jax.analysis.scaling.huber_descent import Fixed, Quantity, descend

_STEPS = 60
# A quantity is followed this far, in its own (mostly logarithmic) units.
_FAR = 40.0
_STIFFNESS = 1e6


class Interval(NamedTuple):
    """Ends of an interval; None where the data do not bound it."""

    low: float | None
    high: float | None

    @property
    def closed(self) -> bool:
        """Whether both ends are there."""
        return self.low is not None and self.high is not None

    @property
    def ends(self) -> tuple[float, float]:
        """Both ends of a closed interval."""
        if self.low is None or self.high is None:
            raise ValueError(f"{self} is open")
        return self.low, self.high

    def holds(self, value: float) -> bool:
        """Whether a value is inside."""
        return (self.low is None or self.low <= value) and (
            self.high is None or value <= self.high
        )

    def union(self, other: "Interval") -> "Interval":
        """The smallest interval that holds both."""
        lows, highs = (self.low, other.low), (self.high, other.high)
        return Interval(
            None if None in lows else min(x for x in lows if x is not None),
            None if None in highs else max(x for x in highs if x is not None),
        )

    def map(self, function: Callable[[float], float]) -> "Interval":
        """Both ends through an increasing function."""
        ends = (None if end is None else function(end) for end in self)
        return Interval(*ends)


class Profile(NamedTuple):
    """Intervals, and a lower minimum than that of the fit if one was met."""

    intervals: Sequence[Interval]
    better: np.ndarray | None  # (p,)


def parameter(place: int, p: int) -> Quantity:
    """The parameter at a place of theta."""
    unit = np.eye(p)[place]

    def quantity(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return theta[:, place], np.broadcast_to(unit, theta.shape)

    return quantity


def derived(function: Callable[[np.ndarray], np.ndarray]) -> Quantity:
    """A smooth function of theta, (b, p) -> (b,), with numerical derivatives."""

    def quantity(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        b, p = theta.shape
        steps = 1e-5 * np.concatenate([np.zeros((1, p)), np.eye(p), -np.eye(p)])
        moved = (theta[None] + steps[:, None]).reshape(-1, p)
        values = function(moved).reshape(2 * p + 1, b)
        return values[0], (values[1 : p + 1] - values[p + 1 :]).T / 2e-5

    return quantity


def covariance(fit: Fit) -> np.ndarray:
    """(p, p) of the parameters, from the linearised law; huge where unidentified."""
    _, jacobian = fit.problem.model(fit.theta[None])
    influence = np.minimum(1.0, fit.delta / np.maximum(np.abs(fit.residuals), 1e-300))
    normal = (jacobian[0] * influence[:, None]).T @ jacobian[0]
    ridge = 1e-10 * np.trace(normal) / len(normal) + 1e-300
    return fit.noise**2 * np.linalg.inv(normal + ridge * np.eye(len(normal)))


def allowed_rise(fit: Fit, level: float = LEVEL) -> float:
    """How far the objective may rise inside the interval."""
    if fit.freedom < 1:
        return math.inf
    quadratic = max(float((np.abs(fit.residuals) <= fit.delta).mean()), 0.05)
    limit = float(stats.f.ppf(level, 1, fit.freedom))
    return 0.5 * limit * fit.noise**2 * quadratic


def profile(
    fit: Fit,
    quantities: Sequence[Quantity],
    level: float = LEVEL,
    start: np.ndarray | None = None,
) -> Profile:
    """Profile-likelihood intervals of several quantities at once.

    Walkers leave the fit in both directions of each quantity, in growing steps, until
    the objective has risen too far or the search ends; then the crossing is bracketed.

    Args:
        fit: see `Fit`.
        quantities: of its parameters.
        level: of the intervals.
        start: (p,) another minimum to leave from; its rise is within the interval.
    """
    if fit.freedom < 1:
        return Profile([Interval(None, None)] * len(quantities), None)
    rise = allowed_rise(fit, level)
    walk = _Walk.start(fit, quantities, fit.theta if start is None else start)
    better, lowest = None, fit.objective * (1 - 1e-6) - 1e-3 * rise
    for _ in range(_STEPS):
        going = walk.going()
        if not len(going):
            break
        theta, objective, target = walk.descend(going, rise)
        if objective.min() < lowest:
            lowest = float(objective.min())
            better = theta[int(objective.argmin())]
        walk.move(going, theta, objective, target, rise)
    return Profile(walk.intervals(), better)


@dataclasses.dataclass(eq=False)
class _Walk:
    """Walkers (w = two per quantity, first all downward), and how far they came."""

    fit: Fit
    quantities: Sequence[Quantity]
    picked: np.ndarray  # (w,) of the quantities
    sides: np.ndarray  # (w,) -1 or 1
    error: np.ndarray  # (w,) standard error of the linearised law
    direction: np.ndarray  # (w, p) how theta moves with the quantity, linearised
    theta: np.ndarray  # (w, p) at ``inside``
    origin: np.ndarray  # (w,) the quantity at the fit
    inside: np.ndarray  # (w,) the farthest value that is in the interval
    at_inside: np.ndarray  # (w,) rise of the objective there
    outside: np.ndarray  # (w,) the nearest value that is not; NaN where none is known
    at_outside: np.ndarray
    step: np.ndarray  # (w,)
    open: np.ndarray  # (w,) bool: the search ended inside

    @classmethod
    def start(
        cls, fit: Fit, quantities: Sequence[Quantity], origin: np.ndarray
    ) -> "_Walk":
        count = len(quantities)
        picked = np.tile(np.arange(count), 2)
        theta = np.repeat(origin[None], 2 * count, axis=0)
        nothing = np.zeros(2 * count)
        fixed = Fixed(quantities, picked, nothing, nothing)
        g, slopes = fixed.look(theta, np.arange(2 * count))
        cov = covariance(dataclasses.replace(fit, theta=origin))
        error = np.sqrt(np.einsum("wi,ij,wj->w", slopes, cov, slopes))
        direction = (slopes @ cov) / np.maximum(error**2, 1e-300)[:, None]
        error = np.clip(error, 1e-9, 3.0)
        return cls(
            fit=fit,
            quantities=quantities,
            picked=picked,
            sides=np.repeat([-1.0, 1.0], count),
            error=error,
            direction=direction,
            theta=theta,
            origin=g,
            inside=g.copy(),
            at_inside=nothing.copy(),
            outside=np.full(2 * count, np.nan),
            at_outside=np.full(2 * count, np.nan),
            step=0.7 * error,
            open=np.zeros(2 * count, bool),
        )

    def going(self) -> np.ndarray:
        """Places of walkers that are not done."""
        bracketed = np.abs(self.outside - self.inside) <= 0.01 * self.error
        return np.flatnonzero(~(self.open | bracketed))

    def descend(
        self, going: np.ndarray, rise: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The lowest points at the next values: theta, objective, those values."""
        ahead = self.inside + self.sides * self.step
        low, high = np.sqrt(self.at_inside), np.sqrt(self.at_outside)
        # Where the root of the rise crosses on a line, well inside the bracket.
        share = (math.sqrt(rise) - low) / np.maximum(high - low, 1e-300)
        between = self.inside + np.clip(share, 0.1, 0.9) * (self.outside - self.inside)
        target = np.where(np.isfinite(self.outside), between, ahead)[going]
        move = (target - self.inside[going])[:, None] * self.direction[going]
        longest = np.maximum(np.abs(move).max(axis=1, keepdims=True), 1e-300)
        move *= np.minimum(1.0, 1.0 / longest)
        fixed = Fixed(
            self.quantities,
            self.picked[going],
            target,
            _STIFFNESS * self.fit.noise**2 / self.error[going] ** 2,
        )
        theta, objective = descend(
            self.fit.problem,
            self.theta[going] + move,
            fixed,
            iterations=60,
            tolerance=1e-7,
            patience=2,
        )
        return theta, objective, target

    def move(
        self,
        going: np.ndarray,
        theta: np.ndarray,
        objective: np.ndarray,
        target: np.ndarray,
        rise: float,
    ) -> None:
        """Takes in where the walkers came."""
        nothing = np.zeros(len(self.picked))
        fixed = Fixed(self.quantities, self.picked, nothing, nothing)
        reached, _ = fixed.look(theta, going)
        risen = objective - self.fit.objective
        gap = np.abs(target - self.inside[going])
        # Not reached: a parameter is at the end of its range.
        short = np.abs(reached - target) > 0.05 * gap + 1e-9
        over = (risen > rise) & ~short
        inside = ~over & ~short
        self.outside[going[over]] = target[over]
        self.at_outside[going[over]] = risen[over]
        kept = going[inside]
        self.inside[kept] = target[inside]
        self.at_inside[kept] = np.maximum(risen[inside], 0.0)
        self.theta[kept] = theta[inside]
        self.step[kept] = np.minimum(1.6 * self.step[kept], 1.0)
        far = np.abs(self.inside - self.origin) > _FAR
        self.open[kept] |= far[kept]
        # Once more in smaller steps before giving up.
        stopped = going[short]
        self.step[stopped] /= 4
        tiny = self.step[stopped] < 0.02 * np.minimum(self.error[stopped], 1.0)
        known = np.isfinite(self.outside[stopped])
        self.open[stopped] |= tiny & ~known
        # Between a value inside and one beyond, the range ended: the end is there.
        self.outside[stopped[known]] = target[short][known]

    def intervals(self) -> list[Interval]:
        """What the walkers found."""
        ends = np.where(
            self.open | ~np.isfinite(self.outside),
            np.nan,
            0.5 * (self.inside + self.outside),
        )
        count = len(self.quantities)
        return [
            Interval(*(None if np.isnan(end) else float(end) for end in pair))
            for pair in zip(ends[:count], ends[count:], strict=True)
        ]


def seed_draws(
    logs: Sequence[np.ndarray], replicates: int, rng: np.random.Generator
) -> np.ndarray | None:
    """(r, n): means of cells over seeds that are drawn with replacement.

    Deviations of k seeds are widened by ``sqrt(k / (k - 1))``, for the mean of their
    own cell took part of their spread. None where no cell has two seeds.

    Args:
        logs: log losses of the seeds of each of n cells.
        replicates: r.
        rng: of the draws.
    """
    if not any(len(values) > 1 for values in logs):
        return None
    drawn = []
    for values in logs:
        k = len(values)
        chosen = values[rng.integers(k, size=(replicates, k))].mean(axis=1)
        widen = math.sqrt(k / (k - 1)) if k > 1 else 1.0
        drawn.append(values.mean() + widen * (chosen - values.mean()))
    return np.stack(drawn, axis=1)


def cell_weights(n: int, replicates: int, rng: np.random.Generator) -> np.ndarray:
    """(r, n): how often each of n cells is drawn with replacement."""
    return rng.multinomial(n, np.full(n, 1 / n), size=replicates).astype(np.float64)


def refits(
    fit: Fit, y: np.ndarray | None = None, weights: np.ndarray | None = None
) -> np.ndarray:
    """(r, p): the law fitted to other losses, or with other weights, from the fit on.

    Args:
        fit: of n points.
        y: (r, n) log losses.
        weights: (r, n); draws with too few different points give NaN.
    """
    n = len(fit.y)
    count = len(y) if y is not None else len(weights if weights is not None else ())
    targets = fit.y if y is None else y
    problem = fit.problem._replace(
        y=np.broadcast_to(targets, (count, n)), weights=weights
    )
    theta, _ = descend(
        problem, np.repeat(fit.theta[None], count, axis=0), tolerance=1e-8
    )
    if weights is not None:
        theta[(weights > 0).sum(axis=1) < len(fit.theta)] = np.nan
    return theta


def draws_interval(draws: np.ndarray) -> Interval:
    """The percentile interval of bootstrap draws."""
    ends = percentile_interval(draws)
    return Interval(None, None) if ends is None else Interval(*ends)
