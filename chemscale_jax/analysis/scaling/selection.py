"""Which form: the one that predicts the largest runs, fitted without them.

A law is for extrapolation, so forms compete on runs that are larger than all that they
were fitted to, not on how well they pass through points that they have seen.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from chemscale_jax.analysis.scaling.data import Cells
from chemscale_jax.analysis.scaling.estimates import correlation
from chemscale_jax.analysis.scaling.fit import Fit, fit_form
from chemscale_jax.analysis.scaling.forms import (
    FORMS,
    Form,
    Inputs,
    make_inputs,
    one_variable,
)
from chemscale_jax.analysis.scaling.huber_descent import descend
from chemscale_jax.analysis.scaling.intervals import Interval, refits
from chemscale_jax.analysis.scaling.published_laws import Score, measures

# Share of the runs that is held out.
HELD_OUT = 0.2
# A form with fewer parameters wins where its error is within this factor.
_AS_GOOD = 1.1
# Passes over the data up to which repeats count as fresh (Muennighoff et al. 2023).
_FREE_EPOCHS = 4.0
_FEWEST_SIZES = 3
# Share of the points with the highest losses that a fit is repeated without.
_TOP = 0.02


class Trial(NamedTuple):
    """A form on held-out runs."""

    form: Form
    error: float  # root mean square of log residuals on the held-out runs; NaN if none
    held_out: int
    why_not: str = ""  # why it was not tried
    score: Score | None = None  # on the largest size, fitted to all others


def candidates(cells: Cells) -> list[Form]:
    """Forms whose variables the cells have, with at least two values each."""
    n, d = cells.varies("N"), cells.varies("D")
    if n > 1 and d > 1:
        forms = [FORMS["chinchilla"], FORMS["kaplan"]]
        if cells.has("epochs") and np.unique(cells.column("epochs")).size > 2:
            forms.append(FORMS["repeated"])
        return forms
    varying = [x for x in ("N", "D", "S", "C") if cells.varies(x) > 1]
    return [one_variable(name, x) for x in varying[:1] for name in ("floor", "power")]


def inputs_of(
    cells: Cells, form: Form, centres: Mapping[str, float] | None = None
) -> Inputs:
    """Where the cells are, for a form."""
    letters = {x for term in form.terms for x in _letters(term.variable)}
    repeats = None
    if form.repeats:
        repeats = np.maximum(cells.column("epochs") - 1, 0.0)
    return make_inputs({x: cells.column(x) for x in letters}, repeats, centres)


def _letters(variable: str) -> tuple[str, ...]:
    return ("M", "S") if variable == "MS" else (variable,)


def largest(inputs: Inputs, share: float = HELD_OUT) -> np.ndarray:
    """(n,) bool: the runs with the largest product of all variables."""
    total = np.sum([z for name, z in inputs.logs.items() if name != "MS"], axis=0)
    count = max(1, round(share * len(total)))
    chosen = np.zeros(len(total), bool)
    chosen[np.argsort(total, kind="stable")[-count:]] = True
    return chosen


def try_forms(
    forms: Sequence[Form], cells: Cells, delta: float | None = None
) -> list[Trial]:
    """Every form, fitted without the largest runs and scored on them."""
    trials = []
    for form in forms:
        inputs = inputs_of(cells, form)
        held = largest(inputs)
        kept = int((~held).sum())
        if kept < len(form.names) + 1:
            why = f"{kept} runs are left for {len(form.names)} parameters"
            trials.append(Trial(form, float("nan"), int(held.sum()), why))
            continue
        fit = fit_form(form, inputs.take(~held), cells.losses[~held], delta)
        off = fit.log_loss(inputs.take(held)) - np.log(cells.losses[held])
        error = float(np.sqrt((off**2).mean()))
        score = score_largest_size(form, cells, delta)
        trials.append(Trial(form, error, int(held.sum()), score=score))
    return trials


def score_largest_size(
    form: Form, cells: Cells, delta: float | None = None
) -> Score | None:
    """A form fitted without the largest size, on that size: Table 3 of Ji et al. 2024.

    None where sizes do not vary enough, or too few cells are left.
    """
    if not {"N", "M"} & set(form.variables) or cells.varies("N") < _FEWEST_SIZES:
        return None
    size = cells.column("N")
    held = size > size.max() * (1 - 1e-9)
    if (~held).sum() < len(form.names) + 1:
        return None
    inputs = inputs_of(cells, form)
    fit = fit_form(form, inputs.take(~held), cells.losses[~held], delta)
    return measures(np.exp(fit.log_loss(inputs.take(held))), cells.losses[held])


def choose(trials: Sequence[Trial]) -> Form:
    """The form with the lowest held-out error; of as good ones, the simplest."""
    scored = [trial for trial in trials if not trial.why_not]
    if not scored:
        return min((t.form for t in trials), key=lambda form: len(form.names))
    limit = _AS_GOOD * min(trial.error for trial in scored)
    good = [trial for trial in scored if trial.error <= limit]
    return min(good, key=lambda t: (len(t.form.names), t.error)).form


class Lever(NamedTuple):
    """Points that hold an exponent where it is."""

    what: str  # which points
    exponent: str
    value: float  # with all points
    without: float


def levers(fit: Fit, intervals: Mapping[str, Interval]) -> list[Lever]:
    """Exponents that leave their intervals when a few points are left out.

    Left out are the points with the highest losses (2 %, at least one) together, and
    every point alone.
    """
    n, form = len(fit.y), fit.form
    top = max(1, round(_TOP * n))
    highest = np.ones(n)
    highest[np.argsort(fit.y)[-top:]] = 0.0
    weights = np.concatenate([highest[None], 1.0 - np.eye(n)])
    if n - top <= len(form.names):
        return []
    thetas = refits(fit, weights=weights)
    # The loss at which the fit ends is rough for small deltas: go on from there.
    thetas, _ = descend(
        fit.problem._replace(
            y=np.broadcast_to(fit.y, (len(weights), n)), weights=weights
        ),
        thetas,
        iterations=300,
    )
    moved = form.constants(thetas, fit.inputs.centres)
    found = []
    for name in form.exponents:
        interval, value = intervals.get(name), fit.constants[name]
        if interval is None or not interval.closed:
            continue
        if not interval.holds(float(moved[name][0])):
            points = f"the {top} highest losses" if top > 1 else "the highest loss"
            found.append(Lever(points, name, value, float(moved[name][0])))
            continue
        alone = moved[name][1:]
        out = [i for i in range(n) if not interval.holds(float(alone[i]))]
        if out:
            worst = max(out, key=lambda i: abs(alone[i] - value))
            loss = float(np.exp(fit.y[worst]))
            found.append(
                Lever(
                    f"the point with loss {loss:.4g}",
                    name,
                    value,
                    float(alone[worst]),
                )
            )
    return found


def warnings_of(cells: Cells, form: Form) -> list[str]:
    """What the design of a study cannot support, before any fit."""
    said = []
    letters = sorted({x for term in form.terms for x in _letters(term.variable)})
    inputs = inputs_of(cells, form)
    p, n = len(form.names), len(cells)
    if n < 2 * p:
        said.append(
            f"{n} cells for the {p} parameters of {form.name}: intervals are wide, and "
            f"rest on the form; {2 * p} cells or more are wanted"
        )
    for x, y in itertools.combinations(letters, 2):
        r = correlation(inputs, x, y)
        if abs(r) > 0.9:
            said.append(
                f"{x} and {y} vary together (r = {r:.3f} of their logarithms): their "
                f"exponents cannot be told apart; vary one with the other fixed"
            )
    starved = [cell for cell in cells.cells if cell.limit == "step"]
    if starved:
        said.append(
            f"{len(starved)} of {n} cells are limited by their steps: their losses "
            "say how long they were trained, not how they scale"
        )
    single = [x for x in letters if cells.varies(x) == 2]
    if single:
        said.append(
            f"{' and '.join(single)}: two different values each, which fit any exponent"
        )
    if form.name in ("chinchilla", "kaplan") and cells.has("epochs"):
        epochs = cells.column("epochs")
        if epochs.max() > _FREE_EPOCHS and np.ptp(epochs) > 0:
            said.append(
                f"data are passed over {epochs.min():.0f} to {epochs.max():.0f} times, "
                f"which {form.name} takes for the same as once; with fixed numbers of "
                "passes, fit the form repeated"
            )
    if all(len(cell.losses) == 1 for cell in cells.cells):
        said.append("one seed per cell: noise is taken from the residuals of the fit")
    return said
