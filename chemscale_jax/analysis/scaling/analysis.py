"""Everything that is said about one group of runs of a scaling study.

Cells are labelled by what limits them (limits.py) before anything is fitted. Cells that
are limited by their steps are left out of laws where enough others remain; a power law
of data leaves out cells that are limited by capacity as well, and one of size those
limited by data. The line through all cells, as a plot by eye has it, is given beside.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from chemscale_jax.analysis.bootstrap import LEVEL
from chemscale_jax.analysis.scaling import limits, size_variables
from chemscale_jax.analysis.scaling import selection as scaling_selection
from chemscale_jax.analysis.scaling.allocation import (
    Allocation,
    NextRun,
    allocate,
    next_runs,
)
from chemscale_jax.analysis.scaling.data import Cells
from chemscale_jax.analysis.scaling.estimates import Estimate, estimate
from chemscale_jax.analysis.scaling.fit import Fit, fit_form
from chemscale_jax.analysis.scaling.forms import FORMS, Form, one_variable
from chemscale_jax.analysis.scaling.intervals import (
    Interval,
    cell_weights,
    covariance,
    draws_interval,
    refits,
    seed_draws,
)
from chemscale_jax.analysis.scaling.power import (
    Line,
    PowerLaw,
    Slope,
    fit_power,
    fit_window,
    lines_of,
    local_slopes,
)
from chemscale_jax.analysis.scaling.selection import Lever, Trial
from chemscale_jax.analysis.scaling.size_variables import Contest, RankCorrelation
from chemscale_jax.core.errors import UserError

AUTO = "auto"
# What a line along a variable leaves out, by what limits its cells.
_AGAINST = {
    "D": (limits.STEP, limits.CAPACITY),
    "S": (limits.CAPACITY,),
    "N": (limits.STEP, limits.DATA),
}
_FEWEST = 3


@dataclasses.dataclass(frozen=True, eq=False)
class LineLaw:
    """The power law along one line of the grid."""

    line: Line
    law: PowerLaw  # within the window, of the cells that the labels leave
    every: PowerLaw  # through all cells of the line
    slopes: Sequence[Slope]
    left_out: int  # cells that their labels exclude
    why_not: str = ""  # why labels were not followed

    @property
    def at(self) -> float:
        """The value of what is equal; NaN where nothing is."""
        return self.line.at[0][1] if self.line.at else float("nan")


@dataclasses.dataclass(frozen=True, eq=False)
class Law:
    """The chosen form, and how well its parameters are known."""

    fit: Fit
    estimates: Sequence[Estimate]
    seeds: Mapping[str, Interval]  # bootstrap; empty without repeated seeds
    cells: Mapping[str, Interval]  # bootstrap
    levers: Sequence[Lever]
    used: Cells
    left_out: str  # which cells it leaves out, and why

    @property
    def identified(self) -> list[str]:
        """Names of exponents that the data determine."""
        return [
            one.name
            for one in self.estimates
            if one.identified and one.name in self.fit.form.exponents
        ]


@dataclasses.dataclass(frozen=True, eq=False)
class Analysis:
    """One group."""

    cells: Cells
    by_data: Sequence[LineLaw]
    by_size: Sequence[LineLaw]
    trials: Sequence[Trial]
    law: Law | None
    why_no_law: str
    allocation: Allocation | None
    next_runs: Sequence[NextRun]
    ranks: Sequence[RankCorrelation]
    contests: Sequence[Contest]
    warnings: Sequence[str]


def analyse(
    cells: Cells,
    form: str = AUTO,
    delta: float | None = None,
    replicates: int = 1000,
    seed: int = 0,
) -> Analysis:
    """Labels, lines, forms and what follows from them, for one group.

    Args:
        cells: of the group.
        form: name of a form, or "auto": the one that predicts held-out runs best.
        delta: of Huber's loss, in log loss; None for twice the residuals' spread.
        replicates: of the bootstraps.
        seed: of the bootstraps.

    Raises:
        UserError: the form needs variables that the cells do not have.
    """
    forms = _forms(cells, form)
    left, said = _without_starved(cells, forms)
    trials = scaling_selection.try_forms(forms, left, delta)
    law, why = None, ""
    warnings: list[str] = []
    if not forms:
        why = "neither size nor data vary"
    else:
        chosen = forms[0] if len(forms) == 1 else scaling_selection.choose(trials)
        if len(left) < len(chosen.names) + 1:
            why = (
                f"{len(left)} cells are too few for the {len(chosen.names)} parameters "
                f"of {chosen.name}"
            )
        else:
            warnings = scaling_selection.warnings_of(left, chosen)
            law = fit_law(chosen, left, said, delta, replicates, seed)
    # Without amounts of data, steps stand for them, as in Ji et al. 2024.
    data = "S" if cells.varies("D") < 2 and cells.varies("S") > 1 else "D"
    two = law is not None and {"N", "D"} <= set(law.fit.form.variables)
    return Analysis(
        cells=cells,
        by_data=[_line_law(line) for line in lines_of(cells, data, "N")],
        by_size=[_line_law(line) for line in lines_of(cells, "N", data)],
        trials=trials,
        law=law,
        why_no_law=why,
        allocation=allocate(law.fit, law.estimates, law.used) if law and two else None,
        next_runs=next_runs(law.fit, law.used) if law and two else (),
        ranks=size_variables.rank_correlations(cells, seed),
        contests=size_variables.contests(cells),
        warnings=[*warnings, *_lever_warnings(law)],
    )


def fit_law(
    form: Form,
    cells: Cells,
    left_out: str = "",
    delta: float | None = None,
    replicates: int = 1000,
    seed: int = 0,
) -> Law:
    """A form fitted to cells, with every interval of its parameters."""
    fit = fit_form(form, scaling_selection.inputs_of(cells, form), cells.losses, delta)
    fit, estimates = estimate(fit)
    rng = np.random.default_rng(seed)
    drawn = seed_draws(cells.seeds, replicates, rng)
    weights = cell_weights(len(cells), replicates, rng)
    known = {one.name: one.interval for one in estimates if one.identified}
    return Law(
        fit=fit,
        estimates=estimates,
        seeds={} if drawn is None else _percentiles(fit, refits(fit, drawn)),
        cells=_percentiles(fit, refits(fit, weights=weights)),
        levers=scaling_selection.levers(fit, known),
        used=cells,
        left_out=left_out,
    )


def band(
    fit: Fit, cells: Cells, along: str, x: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A law along one variable, at the other values of the first of some cells.

    Args:
        fit: a law.
        cells: of one line of the grid.
        along: letter of the variable.
        x: (m,) its values.

    Returns:
        Losses, and the ends of the 95 % intervals of the linearised law: (m,) each.
    """
    first = cells.where([i == 0 for i in range(len(cells))])
    values = {
        letter: np.full(len(x), first.column(letter)[0])
        for letter in ("N", "M", "D", "S", "C")
    }
    for letter in ("N", "M") if along == "N" else (along,):
        values[letter] = x
    needed = {v for v in fit.inputs.logs if v != "MS"}
    inputs = scaling_selection.make_inputs(
        {letter: values[letter] for letter in needed},
        np.full(len(x), max(first.column("epochs")[0] - 1, 0.0))
        if fit.form.repeats
        else None,
        fit.inputs.centres,
    )

    log_loss, slopes = fit.form.log_loss(fit.theta[None], inputs)
    loss = np.exp(log_loss[0])
    if fit.freedom < 1:
        return loss, np.full(len(x), np.nan), np.full(len(x), np.nan)
    error = np.sqrt(np.einsum("ni,ij,nj->n", slopes[0], covariance(fit), slopes[0]))
    width = stats.t.ppf(0.5 + LEVEL / 2, fit.freedom) * error
    return loss, loss * np.exp(-width), loss * np.exp(width)


def _forms(cells: Cells, form: str) -> list[Form]:
    if form == AUTO:
        return scaling_selection.candidates(cells)
    if form not in FORMS:
        raise UserError(
            f"there is no form {form!r}; there are {AUTO}, {', '.join(FORMS)}"
        )
    if form in ("power", "floor"):
        varying = [x for x in ("N", "D", "S", "C") if cells.varies(x) > 1]
        if not varying:
            raise UserError(
                f"neither size nor data vary in {cells.group or 'the file'}; name "
                "their columns with --size and --data"
            )
        return [one_variable(form, varying[0])]
    chosen = FORMS[form]
    wanted = {x for term in chosen.terms for x in term.variable}
    wanted |= {"epochs"} if chosen.repeats else set()
    missing = sorted(x for x in wanted if not cells.has(x))
    if missing:
        options = {"N": "size", "M": "size", "D": "data", "S": "steps"}
        flags = ", ".join(f"--{options.get(x, x)}" for x in missing)
        raise UserError(
            f"the form {form} needs {', '.join(missing)}, which some runs do not have; "
            f"name their columns with {flags}"
        )
    return [chosen]


def _without_starved(cells: Cells, forms: Sequence[Form]) -> tuple[Cells, str]:
    """Cells that are not limited by their steps, if enough are left."""
    starved = np.array([cell.limit == limits.STEP for cell in cells.cells])
    if not starved.any():
        return cells, ""
    p = max((len(form.names) for form in forms), default=0)
    kept = cells.where(~starved)
    if len(kept) < p + _FEWEST:
        return cells, (
            f"cells limited by their steps, which stay in: {starved.sum()}; without "
            f"them {len(kept)} are left, and {p + _FEWEST} are needed"
        )
    return kept, f"cells limited by their steps, which are left out: {starved.sum()}"


def _line_law(line: Line) -> LineLaw:
    cells = line.cells
    x, losses = cells.column(line.along), cells.losses
    against = np.array([cell.limit in _AGAINST[line.along] for cell in cells.cells])
    kept, why = ~against, ""
    if against.any() and kept.sum() < _FEWEST:
        kept = np.ones(len(x), bool)
        why = f"labels would leave {int((~against).sum())} of {len(x)} cells"
    return LineLaw(
        line=line,
        law=fit_window(x[kept], losses[kept]),
        every=fit_power(x, losses),
        slopes=local_slopes(x, cells.seeds, cells.seed_noise),
        left_out=int((~kept).sum()),
        why_not=why,
    )


def _percentiles(fit: Fit, thetas: np.ndarray) -> dict[str, Interval]:
    found = fit.form.constants(thetas, fit.inputs.centres)
    return {name: draws_interval(draws) for name, draws in found.items()}


def _lever_warnings(law: Law | None) -> list[str]:
    return [
        f"leverage: without {one.what}, {one.exponent} is {one.without:.3g} instead of "
        f"{one.value:.3g}, outside of its interval"
        for one in (law.levers if law else ())
    ]
