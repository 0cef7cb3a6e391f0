"""How to spend compute under a fitted law, and which run to make next.

Compute is ``C = k N^p D^q``, fitted to what the runs were counted to cost, not assumed
to be 6 N D. For a law that is (a power of) ``E + A / N^a + B / D^b``, the best split of
a budget has a closed form: with u = log N,

    u = (log(a A q / (b B p)) + b (log C - log k) / q) / (a + b p / q),

so N grows as ``C^(b / (a q + b p))`` (Hoffmann et al. 2022 for p = q = 1). Intervals
are profiles of the optimum itself.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from chemscale_jax.analysis.scaling.data import Cells
from chemscale_jax.analysis.scaling.estimates import Estimate, intervals_of
from chemscale_jax.analysis.scaling.fit import Fit
from chemscale_jax.analysis.scaling.forms import Kaplan, make_inputs
from chemscale_jax.analysis.scaling.huber_descent import Quantity
from chemscale_jax.analysis.scaling.intervals import Interval, covariance, derived

# Budgets, as multiples of the largest that was run.
BUDGETS = (1.0, 10.0, 100.0)
_FORMS = ("chinchilla", "kaplan", "repeated")


class Cost(NamedTuple):
    """``log C = intercept + p log N + q log D``."""

    intercept: float
    p: float
    q: float
    error: float  # largest error of log C over the runs
    counted: bool  # whether from counted compute, or 6 N D

    def of(self, n: np.ndarray, d: np.ndarray) -> np.ndarray:
        """Compute of runs."""
        return np.exp(self.intercept + self.p * np.log(n) + self.q * np.log(d))


class Optimum(NamedTuple):
    """The best split of a budget, with 95 % intervals by profile likelihood."""

    compute: float
    multiple: float  # of the largest budget that was run
    size: float
    size_interval: Interval
    data: float
    data_interval: Interval
    loss: float
    loss_interval: Interval


class Allocation(NamedTuple):
    """Compute-optimal models."""

    cost: Cost
    exponent: float  # N grows as C to this power
    exponent_interval: Interval
    optima: tuple[Optimum, ...]
    why_not: str = ""  # why there is none


class NextRun(NamedTuple):
    """A cell that is not there yet."""

    size: float
    data: float
    compute: float
    narrower: float  # factor on the width of the target's interval
    beyond: bool  # whether it is outside of the grid


def cost_of(cells: Cells) -> Cost:
    """Compute as a power law of size and data; 6 N D where none was counted."""
    n, d = np.log(cells.column("N")), np.log(cells.column("D"))
    if not cells.has("C"):
        return Cost(math.log(6.0), 1.0, 1.0, 0.0, counted=False)
    c = np.log(cells.column("C"))
    design = np.stack([np.ones(len(c)), n, d], axis=1)
    found = np.linalg.lstsq(design, c, rcond=None)[0]
    error = float(np.abs(design @ found - c).max())
    return Cost(*(float(x) for x in found), error=error, counted=True)


def _balance(
    fit: Fit, theta: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Log A, a, log B, b of what is minimised, around the centres: (m,) each."""
    places = {name: i for i, name in enumerate(fit.form.names)}
    if isinstance(fit.form, Kaplan):
        a_n, a_d = np.exp(theta[:, places["aN"]]), np.exp(theta[:, places["aD"]])
        return (
            theta[:, places["Nc"]] / a_d,
            a_n / a_d,
            theta[:, places["Dc"]] / a_d,
            np.ones(len(theta)),
        )
    return (
        theta[:, places["A"]],
        np.exp(theta[:, places["a"]]),
        theta[:, places["B"]],
        np.exp(theta[:, places["b"]]),
    )


def _log_size(fit: Fit, cost: Cost, compute: float) -> Callable:
    """Theta (m, p) -> log N of the optimum."""
    centres = fit.inputs.centres

    def log_size(theta: np.ndarray) -> np.ndarray:
        log_a, a, log_b, b = _balance(fit, theta)
        # The budget in centred logarithms: p u + q v = budget.
        budget = math.log(compute) - cost.intercept
        budget = budget - cost.p * centres["N"] - cost.q * centres["D"]
        first = log_a + np.log(a * cost.q) - log_b - np.log(b * cost.p)
        u = (first + b * budget / cost.q) / (a + b * cost.p / cost.q)
        return u + centres["N"]

    return log_size


def allocate(fit: Fit, estimates: Sequence[Estimate], cells: Cells) -> Allocation:
    """Compute-optimal sizes under a fitted law of size and data."""
    nothing = Cost(0.0, 0.0, 0.0, 0.0, counted=False)
    refused = Allocation(nothing, math.nan, Interval(None, None), ())
    if fit.form.name not in _FORMS:
        return refused._replace(why_not=f"{fit.form.name} is no law of N and D")
    bad = [e for e in estimates if e.name in fit.form.exponents and not e.identified]
    if bad:
        said = "; ".join(f"{e.name}: {e.why_not}" for e in bad)
        return refused._replace(why_not=f"an exponent is not identified ({said})")
    cost = cost_of(cells)
    if cost.p <= 0.05 or cost.q <= 0.05:
        return refused._replace(
            why_not=f"compute does not grow with size and data here (as N^{cost.p:.2f} "
            f"D^{cost.q:.2f}): the runs took steps by another rule",
        )

    def exponent(theta: np.ndarray) -> np.ndarray:
        _, a, _, b = _balance(fit, theta)
        return b / (a * cost.q + b * cost.p)

    most = float(cost.of(cells.column("N"), cells.column("D")).max())
    quantities: list[Quantity] = [derived(exponent)]
    for multiple in BUDGETS:
        log_size = _log_size(fit, cost, multiple * most)
        quantities += [derived(log_size)]
        quantities += [_log_loss(fit, cost, multiple * most)]
    fit, intervals = intervals_of(fit, quantities)
    here = fit.theta[None]
    optima = []
    for place, multiple in enumerate(BUDGETS):
        compute = multiple * most
        log_n = float(_log_size(fit, cost, compute)(here)[0])
        by_size, by_loss = intervals[1 + 2 * place : 3 + 2 * place]
        log_d = _log_data(cost, compute, log_n)
        # More size is less data.
        ends = [
            None if end is None else float(np.exp(_log_data(cost, compute, end)))
            for end in (by_size.high, by_size.low)
        ]
        optima.append(
            Optimum(
                compute,
                multiple,
                float(np.exp(log_n)),
                by_size.map(lambda x: float(np.exp(x))),
                float(np.exp(log_d)),
                Interval(*ends),
                float(np.exp(_log_loss(fit, cost, compute)(here)[0][0])),
                by_loss.map(lambda x: float(np.exp(x))),
            )
        )
    return Allocation(cost, float(exponent(here)[0]), intervals[0], tuple(optima))


def _log_data(cost: Cost, compute: float, log_n: float) -> float:
    return (math.log(compute) - cost.intercept - cost.p * log_n) / cost.q


def _log_loss(fit: Fit, cost: Cost, compute: float) -> Quantity:
    """Log loss of the optimum, every theta at its own.

    The optimum does not change to first order with where it is, so its derivatives are
    those of the law there.
    """
    log_size = _log_size(fit, cost, compute)

    def quantity(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        log_n = log_size(theta)
        log_d = (math.log(compute) - cost.intercept - cost.p * log_n) / cost.q
        inputs = make_inputs(
            {"N": np.exp(log_n), "D": np.exp(log_d)}, centres=fit.inputs.centres
        )
        value, slopes = fit.form.log_loss(theta, inputs)
        own = np.arange(len(theta))
        return value[own, own], slopes[own, own]

    return quantity


def next_runs(fit: Fit, cells: Cells) -> list[NextRun]:
    """Cells that would narrow the exponents most, best first.

    Each candidate is a combination of sizes and data of the grid, extended by one step
    in both, that was not run. Its worth is by how much one more cell, as noisy as the
    others, shrinks the mean interval of log a and log b in the linearised law; cells
    that exist can be repeated, but seldom win.

    Args:
        fit: a law of N and D.
        cells: that it was fitted to.
    """
    form = fit.form
    places = [i for i, name in enumerate(form.names) if name in form.exponents]
    sizes, amounts = (
        _extended(np.unique(cells.column(letter))) for letter in ("N", "D")
    )
    there = set(
        zip(cells.column("N").tolist(), cells.column("D").tolist(), strict=True)
    )
    wanted = [c for c in itertools.product(sizes, amounts) if c not in there]
    if not wanted:
        return []
    n, d = np.array(wanted).T
    repeats = np.full(len(n), float(np.median(fit.inputs.repeats)))
    inputs = make_inputs({"N": n, "D": d}, repeats, fit.inputs.centres)
    rows = form.log_loss(fit.theta[None], inputs)[1][0] / fit.noise
    before = covariance(fit)
    width = np.sqrt(np.diag(before)[places])
    cost = cost_of(cells)
    compute = cost.of(n, d)
    found = []
    for (size, data), row, price in zip(wanted, rows, compute, strict=True):
        gain = before @ row
        after = before - np.outer(gain, gain) / (1 + row @ gain)
        narrowed = np.sqrt(np.maximum(np.diag(after)[places], 0)) / width
        beyond = size > cells.column("N").max() or data > cells.column("D").max()
        found.append(
            NextRun(
                float(size),
                float(data),
                float(price),
                float(np.exp(np.log(np.maximum(narrowed, 1e-9)).mean())),
                bool(beyond),
            )
        )
    return sorted(found, key=lambda run: run.narrower)


def _extended(values: np.ndarray) -> list[float]:
    """Values of a grid, with one more on each side in their mean ratio."""
    if len(values) < 2:
        return [float(values[0] / 4), float(values[0]), float(values[0] * 4)]
    ratio = (values[-1] / values[0]) ** (1 / (len(values) - 1))
    return [float(v) for v in (values[0] / ratio, *values, values[-1] * ratio)]
