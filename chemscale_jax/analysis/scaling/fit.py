"""Fits scaling laws: variable projection, many starts, Huber loss on log residuals.

1. Variable projection (Golub and Pereyra 1973): given the exponents, a law is linear in
   its coefficients (Kaplan's after a power), so a grid of exponents is searched with
   the best non-negative coefficients of each.
2. The best points of the grid, one per region, start a descent in all parameters.
3. The best of these is polished by L-BFGS-B with analytic gradients, on an objective
   scaled to one at the start and with ftol 1e-14. Unscaled means of tiny Huber losses
   stop too early, which is how the constants of Hoffmann et al. 2022 went wrong
   (Besiroglu et al. 2024).

Residuals are those of the log loss, so errors are relative.
"""

import dataclasses
import itertools
import math
from collections.abc import Mapping

import numpy as np
from scipy import optimize

from chemscale_jax.analysis.scaling.forms import Form, Inputs
from chemscale_jax.analysis.scaling.huber_descent import Problem, descend, huber
from chemscale_jax.core.errors import UserError

# Hoffmann et al. 2022; with it the fit is nearly one of least absolute deviations.
CHINCHILLA_DELTA = 1e-3
_STARTS = 10
# A coefficient that the grid finds to be zero starts at this share of the loss.
_SMALLEST_SHARE = 1e-4
# Minima that differ by less in all logarithms of parameters are the same.
_APART = 0.1
# Residuals below this are rounding.
_EXACT = 1e-9


@dataclasses.dataclass(frozen=True, eq=False)
class Fit:
    """A fitted law."""

    form: Form
    inputs: Inputs  # n points
    y: np.ndarray  # (n,) log losses
    theta: np.ndarray  # (p,)
    objective: float  # sum of Huber losses
    delta: float

    @property
    def problem(self) -> Problem:
        """What theta minimises."""
        return problem_of(self.form, self.inputs, self.y, self.delta)

    @property
    def constants(self) -> dict[str, float]:
        """The parameters in published notation."""
        found = self.form.constants(self.theta, self.inputs.centres)
        return {name: float(value) for name, value in found.items()}

    @property
    def residuals(self) -> np.ndarray:
        """(n,) of the log loss, fit less data."""
        return self.log_loss(self.inputs) - self.y

    @property
    def freedom(self) -> int:
        """Points less parameters."""
        return len(self.y) - len(self.theta)

    @property
    def noise(self) -> float:
        """Standard deviation of the log residuals, as the fit weighs them."""
        r = np.clip(self.residuals, -self.delta, self.delta)
        slope = max(float((np.abs(self.residuals) <= self.delta).mean()), 0.05)
        total = float((r**2).sum()) / max(self.freedom, 1)
        return max(math.sqrt(total) / slope, _EXACT)

    @property
    def r_squared(self) -> float:
        """1 - (sum of squared log residuals) / (that around the mean)."""
        around = ((self.y - self.y.mean()) ** 2).sum()
        return float(1 - (self.residuals**2).sum() / around) if around else math.nan

    def log_loss(self, inputs: Inputs) -> np.ndarray:
        """(m,) log losses of the law at other points, made with the same centres."""
        return self.form.log_loss(self.theta[None], inputs)[0][0]


def problem_of(form: Form, inputs: Inputs, y: np.ndarray, delta: float) -> Problem:
    """The regression of a form."""
    return Problem(lambda theta: form.log_loss(theta, inputs), y, delta, form.bounds(y))


def fit_form(
    form: Form, inputs: Inputs, losses: np.ndarray, delta: float | None = None
) -> Fit:
    """Fits one form.

    Args:
        form: the law.
        inputs: of n points.
        losses: (n,) positive.
        delta: of Huber's loss, in log loss; None for twice the spread of the residuals,
            which only tempers outliers.

    Raises:
        UserError: fewer points than parameters, or a loss that has no logarithm.
    """
    losses = np.asarray(losses, np.float64)
    if len(losses) < len(form.names):
        raise UserError(
            f"{form.name} has {len(form.names)} parameters and {len(losses)} points "
            "are given; give more runs, or a form with fewer parameters"
        )
    if not (np.isfinite(losses).all() and (losses > 0).all()):
        raise UserError(
            f"losses must be positive and finite to fit their logarithms; found "
            f"{losses[~(losses > 0)][:3].tolist()}"
        )
    y = np.log(losses)
    starts = starts_of(form, inputs, y)
    if delta is not None:
        return _best(form, inputs, y, delta, starts)
    fit = _best(form, inputs, y, math.inf, starts)
    for _ in range(2):
        fit = _best(form, inputs, y, _spread(fit), fit.theta[None])
    return fit


def other_minima(fit: Fit, rise: float) -> np.ndarray:
    """(m, p): minima elsewhere whose objective is at most ``rise`` above the fit's."""
    starts = starts_of(fit.form, fit.inputs, fit.y)
    theta, objective = descend(fit.problem, starts, tolerance=1e-8)
    kept = [fit.theta]
    for place in np.argsort(objective):
        if objective[place] > fit.objective + rise:
            break
        if all(np.abs(theta[place] - one).max() > _APART for one in kept):
            kept.append(theta[place])
    return np.array(kept[1:]).reshape(-1, len(fit.theta))


def _spread(fit: Fit) -> float:
    """A delta: where Huber's loss becomes linear, in standard deviations about two.

    Not below the root mean square, since the residuals of few points with many
    parameters have a median near zero.
    """
    r = np.abs(fit.residuals)
    inflate = math.sqrt(len(r) / max(fit.freedom, 1))
    robust = 1.4826 * float(np.median(r)) * inflate
    rms = math.sqrt(float((r**2).mean())) * inflate
    return max(2.0 * robust, rms, _EXACT)


def _best(
    form: Form, inputs: Inputs, y: np.ndarray, delta: float, starts: np.ndarray
) -> Fit:
    problem = problem_of(form, inputs, y, delta)
    found, objectives = descend(problem, starts)
    best = int(np.argmin(objectives))
    theta, objective = polish(problem, found[best], float(objectives[best]))
    return Fit(form, inputs, y, theta, objective, delta)


def polish(
    problem: Problem, theta: np.ndarray, objective: float
) -> tuple[np.ndarray, float]:
    """L-BFGS-B from a minimum; whichever is lower."""
    if objective < 1e-24:
        return theta, objective

    def scaled(x: np.ndarray) -> tuple[float, np.ndarray]:
        value, jacobian = problem.model(x[None])
        r = value[0] - problem.y
        gradient = np.clip(r, -problem.delta, problem.delta) @ jacobian[0]
        return huber(r, problem.delta).sum() / objective, gradient / objective

    result = optimize.minimize(
        scaled,
        theta,
        jac=True,
        method="L-BFGS-B",
        bounds=problem.bounds,
        options={"ftol": 1e-14, "gtol": 1e-10, "maxiter": 2000, "maxcor": 20},
    )
    if result.fun < 1:
        return result.x, float(result.fun * objective)
    return theta, objective


def starts_of(form: Form, inputs: Inputs, y: np.ndarray) -> np.ndarray:
    """The best exponents of a grid with their coefficients, one per region: (s, p)."""
    design = form.design(inputs, y)
    linear, objective = nonnegative(design.phi)
    objective = objective * design.scale**2
    smallest = _SMALLEST_SHARE / np.maximum(np.abs(design.phi).mean(axis=1), 1e-300)
    linear = np.maximum(linear, smallest)
    # Regions: below and above the middle in every exponent.
    middle = design.exponents.mean(axis=0)
    region = (design.exponents > middle).astype(int) @ (
        2 ** np.arange(design.exponents.shape[1])
    )
    order = np.argsort(objective)
    first = [order[region[order] == r][0] for r in np.unique(region)]
    chosen = list(dict.fromkeys([*order[:4], *first]))[:_STARTS]
    return form.from_design(design.exponents[chosen], linear[chosen])


def nonnegative(phi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least squares of ``phi @ c = 1`` with ``c >= 0``, by trying all supports.

    Args:
        phi: (g, n, m), m of at most a few.

    Returns:
        c, (g, m), and half the sum of squared residuals, (g,).
    """
    g, _, m = phi.shape
    # Columns differ by many orders of magnitude at the ends of the grid.
    size = np.maximum(np.sqrt((phi**2).sum(axis=1)), 1e-300)
    unit = phi / size[:, None, :]
    best, found = np.full(g, 0.5 * phi.shape[1]), np.zeros((g, m))
    for support in itertools.product((False, True), repeat=m):
        chosen = np.flatnonzero(support)
        if not len(chosen):
            continue
        part = unit[:, :, chosen]
        normal = np.swapaxes(part, 1, 2) @ part + 1e-12 * np.eye(len(chosen))
        right = part.sum(axis=1)[:, :, None]
        c = np.linalg.solve(normal, right)[:, :, 0]
        off = (part @ c[:, :, None])[:, :, 0] - 1
        objective = 0.5 * (off**2).sum(axis=1)
        better = (c >= 0).all(axis=1) & (objective < best)
        best[better] = objective[better]
        found[better] = 0.0
        found[np.ix_(better, chosen)] = c[better]
    return found / size, best


def prediction(
    form: Form, constants: Mapping[str, float], inputs: Inputs
) -> np.ndarray:
    """(n,) losses of a law with given constants."""
    theta = form.theta_of(constants, inputs.centres)
    return np.exp(form.log_loss(theta[None], inputs)[0][0])
