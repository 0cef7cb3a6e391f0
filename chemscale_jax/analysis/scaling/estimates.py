"""What the data say about each parameter of a law, and what they cannot say.

An exponent is identified when all of this holds:

1. its variable has at least three different values, and there are at least two points
   more than parameters;
2. its variable is not a power of another variable of the law: |r| of their logarithms
   is at most `MOST_CORRELATED`;
3. the law without its term fits significantly worse (F test at `TERM_LEVEL`, with as
   many degrees of freedom as the term has parameters);
4. its profile-likelihood interval is closed, and its ends are less than a factor of
   `WIDEST` apart.

Otherwise it is reported as unidentified, with the reason, and no interval is given.
"""

import dataclasses
import itertools

import numpy as np
from scipy import stats

from chemscale_jax.analysis.scaling.fit import Fit, fit_form, other_minima, polish
from chemscale_jax.analysis.scaling.forms import Form, Inputs
from chemscale_jax.analysis.scaling.huber_descent import Quantity, descend, huber
from chemscale_jax.analysis.scaling.intervals import (
    Interval,
    allowed_rise,
    derived,
    profile,
)

MOST_CORRELATED = 0.975
# Strict, since the exponents of terms that just pass are overrated.
TERM_LEVEL = 0.001
WIDEST = 10.0
_FEWEST_VALUES = 3
_FEWEST_FREE = 2
_OTHERS = 2


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A parameter of a law."""

    name: str
    value: float
    interval: Interval  # 95 %, profile likelihood; open where not identified
    why_not: str = ""  # why it is not identified

    @property
    def identified(self) -> bool:
        """Whether the data determine it."""
        return not self.why_not


def estimate(fit: Fit) -> tuple[Fit, list[Estimate]]:
    """All parameters of a fitted law, in published notation.

    Returns:
        The fit, which is a better one where the profiles met it, and an estimate of
        each parameter, in the order of ``fit.form.names``.
    """
    form, reasons = fit.form, unidentified(fit)
    for term in form.terms:
        # A coefficient is no better known than the exponent of its term.
        if term.exponent in reasons:
            reasons[term.coefficient] = reasons[term.exponent]
    asked = [name for name in form.names if name not in reasons]
    if fit.freedom < _FEWEST_FREE:
        asked = []
    fit, intervals = intervals_of(fit, [_log_constant(fit, name) for name in asked])
    known = dict(zip(asked, intervals, strict=True))
    values, found = fit.constants, []
    for name in form.names:
        interval = known.get(name, Interval(None, None))
        interval = interval.map(lambda log: float(np.exp(log)))
        why = reasons.get(name) or _why_wide(name, form, interval)
        if name == form.floor and not why:
            # A floor is at least nothing; an upper end alone is a statement.
            interval = Interval(interval.low or 0.0, interval.high)
        interval = Interval(None, None) if why else interval
        found.append(Estimate(name, values[name], interval, why))
    return fit, _with_coefficients(form, found)


def intervals_of(fit: Fit, quantities: list[Quantity]) -> tuple[Fit, list[Interval]]:
    """Profile-likelihood intervals.

    Where other minima are nearly as low, as when two terms can change their roles, the
    intervals hold what lies around those as well.

    Returns:
        The fit, replaced where a better one was met, and an interval per quantity.
    """
    if not quantities:
        return fit, []
    found, better = profile(fit, quantities)
    for _ in range(3):
        if better is None:
            break
        theta, objectives = descend(fit.problem, better[None])
        theta, objective = polish(fit.problem, theta[0], float(objectives[0]))
        if objective >= fit.objective:
            break
        fit = dataclasses.replace(fit, theta=theta, objective=objective)
        found, better = profile(fit, quantities)
    if fit.freedom < 1:
        return fit, list(found)
    for theta in other_minima(fit, allowed_rise(fit))[:_OTHERS]:
        around, _ = profile(fit, quantities, start=theta)
        found = [one.union(other) for one, other in zip(found, around, strict=True)]
    return fit, list(found)


def unidentified(fit: Fit) -> dict[str, str]:
    """Exponents, floor and R* that the design or the data cannot determine: why."""
    form, inputs = fit.form, fit.inputs
    by_exponent = {term.exponent: term.variable for term in form.terms}
    if fit.freedom < _FEWEST_FREE:
        why = f"{len(fit.y)} points for {len(form.names)} parameters"
        return {name: why for name in (*by_exponent, form.floor, form.repeats) if name}
    reasons = {}
    for name, variable in by_exponent.items():
        values = len(np.unique(np.round(inputs.logs[variable], 9)))
        if values < _FEWEST_VALUES:
            reasons[name] = f"{variable} has {values} different values"
    for (one, x), (other, y) in itertools.combinations(by_exponent.items(), 2):
        if "MS" in (x, y):
            continue
        r = correlation(inputs, x, y)
        if abs(r) > MOST_CORRELATED:
            why = f"{x} and {y} vary together (r = {r:.3f} of their logarithms)"
            reasons.setdefault(one, why)
            reasons.setdefault(other, why)
    for name in (*by_exponent, form.floor, form.repeats):
        if name and name not in reasons:
            p = needed(fit, name)
            limit = 0.05 if name == form.floor else TERM_LEVEL
            if p > limit:
                what = "floor" if name == form.floor else "term"
                reasons[name] = f"the law fits as well without its {what} (p = {p:.2g})"
    if form.repeats:
        data = next(term.exponent for term in form.terms if term.variable == "D")
        if data in reasons:
            reasons[form.repeats] = reasons[data]
    return reasons


def correlation(inputs: Inputs, one: str, other: str) -> float:
    """Of the logarithms of two variables; 1 where one of them does not vary."""
    x, y = inputs.logs[one], inputs.logs[other]
    if np.ptp(x) < 1e-9 or np.ptp(y) < 1e-9:
        return 1.0
    return float(np.corrcoef(x, y)[0, 1])


def needed(fit: Fit, name: str) -> float:
    """The p-value of the law without a term, its floor or its repeats."""
    reduced = fit.form.without(name)
    if reduced is None:
        around = fit.y - np.median(fit.y)
        objective, dropped = float(huber(around, fit.delta).sum()), 1
    else:
        other = fit_form(reduced, fit.inputs, np.exp(fit.y), fit.delta)
        objective = other.objective
        dropped = len(fit.form.names) - len(reduced.names)
    # allowed_rise is the rise that one degree of freedom allows at its level.
    unit = allowed_rise(fit) / stats.f.ppf(0.95, 1, fit.freedom)
    ratio = max(objective - fit.objective, 0.0) / max(unit, 1e-300) / dropped
    return float(stats.f.sf(ratio, dropped, fit.freedom))


def _why_wide(name: str, form: Form, interval: Interval) -> str:
    if name not in (*form.exponents, form.repeats):
        return ""
    if interval.low is None or interval.high is None:
        if not interval.closed and interval.low is not None:
            return f"only bounded from below, by {interval.low:.3g}"
        if interval.high is not None:
            return f"only bounded from above, by {interval.high:.3g}"
        return "the data do not bound it"
    if interval.high > WIDEST * interval.low:
        return (
            f"its interval, {interval.low:.3g} to {interval.high:.3g}, spans more than "
            f"a factor of {WIDEST:.0f}"
        )
    return ""


def _with_coefficients(form: Form, found: list[Estimate]) -> list[Estimate]:
    """A coefficient is no better known than the exponent of its term."""
    by_name = {one.name: one for one in found}
    for term in form.terms:
        exponent, coefficient = by_name[term.exponent], by_name[term.coefficient]
        if not exponent.identified:
            by_name[term.coefficient] = dataclasses.replace(
                coefficient, interval=Interval(None, None), why_not=exponent.why_not
            )
    return [by_name[one.name] for one in found]


def _log_constant(fit: Fit, name: str) -> Quantity:
    """The logarithm of a parameter in published notation."""
    form, centres = fit.form, fit.inputs.centres

    def logarithm(theta: np.ndarray) -> np.ndarray:
        return np.log(form.constants(theta, centres)[name])

    return derived(logarithm)
