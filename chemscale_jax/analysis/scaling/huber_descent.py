"""Many small robust regressions at once: Levenberg-Marquardt over a batch.

Minimises ``sum_i w_i rho(f_i(theta) - y_i)`` with Huber's rho (quadratic up to delta,
linear beyond), by reweighting: each step solves a least-squares problem in which points
beyond delta weigh ``delta / |r|``. Fits from many starts, bootstrap draws and points of
a profile are one batch, so that none of them is a Python loop.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

# theta (b, p) -> values (b, n) and derivatives (b, n, p).
Model = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
# theta (b, p) -> g (b,) and derivatives (b, p).
Quantity = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


class Problem(NamedTuple):
    """What is minimised."""

    model: Model
    y: np.ndarray  # (n,) or (b, n)
    delta: float
    bounds: np.ndarray  # (p, 2)
    weights: np.ndarray | None = None  # (b, n)


class Fixed(NamedTuple):
    """Holds a quantity of each member where it is wanted, by a stiff spring."""

    quantities: Sequence[Quantity]
    picked: np.ndarray  # (b,) which of them is held
    target: np.ndarray  # (b,)
    stiffness: np.ndarray  # (b,)

    def look(
        self, theta: np.ndarray, members: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The quantities of some members, (w,), and derivatives, (w, p)."""
        g, slopes = np.empty(len(theta)), np.empty(theta.shape)
        for place in np.unique(self.picked[members]):
            rows = self.picked[members] == place
            g[rows], slopes[rows] = self.quantities[place](theta[rows])
        return g, slopes


def huber(residuals: np.ndarray, delta: float) -> np.ndarray:
    """Huber's rho: ``r^2 / 2`` up to delta, ``delta (|r| - delta / 2)`` beyond."""
    size = np.abs(residuals)
    if np.isinf(delta):
        return 0.5 * size**2
    return np.where(size <= delta, 0.5 * size**2, delta * (size - 0.5 * delta))


def descend(
    problem: Problem,
    theta: np.ndarray,
    fixed: Fixed | None = None,
    iterations: int = 100,
    tolerance: float = 1e-11,
    patience: int = 3,
) -> tuple[np.ndarray, np.ndarray]:
    """Local minima from starts.

    Args:
        problem: see `Problem`.
        theta: (b, p) starts.
        fixed: a condition.
        iterations: at most.
        tolerance: relative fall of the objective at which a member is done.
        patience: how many times in a row.

    Returns:
        The minima, (b, p), and their objectives, (b,), without the spring's part.
    """
    low, high = problem.bounds.T
    theta = np.clip(np.asarray(theta, np.float64), low, high)
    everyone = len(theta)
    y = np.broadcast_to(problem.y, (everyone, problem.y.shape[-1]))
    weights = (
        np.ones(y.shape)
        if problem.weights is None
        else np.broadcast_to(problem.weights, y.shape)
    )
    damping, calm = np.full(everyone, 1e-3), np.zeros(everyone, int)
    working = np.arange(everyone)
    state = _look(problem, theta, y, weights, fixed, working)
    for _ in range(iterations):
        if not len(working):
            break
        normal, slope = state.normal[working], state.slope[working]
        # A parameter at an end of its range that wants to leave it stays there.
        now = theta[working]
        stuck = ((now <= low) & (slope > 0)) | ((now >= high) & (slope < 0))
        step = _solve(normal, slope, stuck, damping[working])
        # In logarithms: a factor of e at most, so that no term vanishes at once.
        step *= np.minimum(1.0, 1.0 / np.maximum(np.abs(step).max(axis=1), 1e-300))[
            :, None
        ]
        tried = np.clip(now + step, low, high)
        found = _look(problem, tried, y, weights, fixed, working)
        before = state.total[working]
        better = found.total <= before
        fall = (before - found.total) / np.maximum(np.abs(before), 1e-300)
        chosen = working[better]
        theta[chosen] = tried[better]
        for kept, new in zip(state, found, strict=True):
            kept[chosen] = new[better]
        damping[working] = np.clip(
            np.where(better, damping[working] / 5, damping[working] * 4), 1e-9, 1e9
        )
        still = better & (fall < tolerance) | (~better & (damping[working] > 1e7))
        calm[working] = np.where(still, calm[working] + 1, 0)
        working = working[calm[working] < patience]
    return theta, state.loss


class _State(NamedTuple):
    loss: np.ndarray  # (b,) objective
    total: np.ndarray  # (b,) with the spring
    normal: np.ndarray  # (b, p, p)
    slope: np.ndarray  # (b, p)


def _look(
    problem: Problem,
    theta: np.ndarray,
    y: np.ndarray,
    weights: np.ndarray,
    fixed: Fixed | None,
    working: np.ndarray,
) -> _State:
    """Objective, gradient and Gauss-Newton matrix at ``theta`` of the working ones."""
    value, jacobian = problem.model(theta)
    residuals = value - y[working]
    w = weights[working]
    loss = (w * huber(residuals, problem.delta)).sum(axis=1)
    influence = np.minimum(1.0, problem.delta / np.maximum(np.abs(residuals), 1e-300))
    weighted = jacobian * (w * influence)[:, :, None]
    normal = np.swapaxes(weighted, 1, 2) @ jacobian
    slope = (np.swapaxes(weighted, 1, 2) @ residuals[:, :, None])[:, :, 0]
    total = loss
    if fixed is not None:
        g, by_theta = fixed.look(theta, working)
        off, k = g - fixed.target[working], fixed.stiffness[working]
        total = loss + 0.5 * k * off**2
        slope = slope + (k * off)[:, None] * by_theta
        normal = normal + k[:, None, None] * by_theta[:, :, None] * by_theta[:, None, :]
    bad = ~np.isfinite(total)
    if bad.any():
        total = np.where(bad, np.inf, total)
    return _State(loss, total, normal, slope)


def _solve(
    normal: np.ndarray, slope: np.ndarray, stuck: np.ndarray, damping: np.ndarray
) -> np.ndarray:
    """Damped Gauss-Newton steps: (b, p)."""
    p = slope.shape[1]
    free = ~stuck
    diagonal = np.einsum("bii->bi", normal)
    # Directions that nothing depends on get a step of zero, not one of any size.
    floor = 1e-12 * diagonal.max(axis=1, keepdims=True) + 1e-300
    matrix = normal * (free[:, :, None] & free[:, None, :])
    add = np.where(free, damping[:, None] * diagonal + floor, 1.0)
    matrix = matrix + add[:, :, None] * np.eye(p)
    return -np.linalg.solve(matrix, (slope * free)[:, :, None])[:, :, 0]
