"""Whether networks with directions learn more from more data than one without.

Frey et al. 2023 compare exponents of the loss in the amount of data at equal capacity
(Fig. A.5): 0.17 for SchNet, which sees distances alone, 0.26 for PaiNN and 0.23 for
Allegro, which carry vectors and tensors. Two comparisons are made here. The first is of
power laws in windows, whose errors are those of points about a line. The second is of
mean slopes over all amounts of data, one for each seed: it assumes no law, and its
errors are those of seeds.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from chemscale_jax.analysis.bootstrap import LEVEL
from chemscale_jax.analysis.markdown import markdown_table
from chemscale_jax.analysis.scaling import limits
from chemscale_jax.analysis.scaling.intervals import Interval
from chemscale_jax.analysis.scaling.plots import nearest
from chemscale_jax.analysis.scaling.published_laws import FREY_DATA_EXPONENTS
from chemscale_jax.analysis.scaling.report import Study
from chemscale_jax.analysis.scaling.tables import interval, number
from chemscale_jax.studies.study_rows import Row

INVARIANT, EQUIVARIANT = "schnet", ("painn", "allegro")


class SeedSlopes(NamedTuple):
    """Least-squares slopes of one model over all amounts of data, a number a seed."""

    slopes: np.ndarray  # (k,), positive where the loss falls

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return float(self.slopes.mean())

    @property
    def interval(self) -> Interval:
        """95 %, Student's t over the seeds; open for one seed."""
        k = len(self.slopes)
        if k < 2:
            return Interval(None, None)
        half = stats.t.ppf(0.5 + LEVEL / 2, k - 1) * self.slopes.std(ddof=1) / k**0.5
        return Interval(self.mean - float(half), self.mean + float(half))


def seed_slopes(
    rows: Sequence[Row], model: str, capacity: float, loss: str
) -> SeedSlopes | None:
    """Slopes of the seeds that have a loss for every amount of data; None without.

    Args:
        rows: of results.csv.
        model: name of the network.
        capacity: width times depth; where several shapes have it, the widest counts.
        loss: column of the losses.
    """
    chosen = [
        row
        for row in rows
        if row["model"] == model and float(row["capacity"]) == capacity and row[loss]
    ]
    if not chosen:
        return None
    widest = max(int(row["width"]) for row in chosen)
    chosen = [row for row in chosen if int(row["width"]) == widest]
    amounts = sorted({float(row["data"]) for row in chosen})
    slopes = []
    for seed in sorted({row["seed"] for row in chosen}):
        at = {float(r["data"]): float(r[loss]) for r in chosen if r["seed"] == seed}
        if len(amounts) > 1 and set(at) == set(amounts):
            y = np.log([at[amount] for amount in amounts])
            slopes.append(-np.polyfit(np.log(amounts), y, 1)[0])
    return SeedSlopes(np.array(slopes)) if slopes else None


def slopes_difference(first: SeedSlopes, second: SeedSlopes) -> Interval:
    """95 % interval of the second mean less the first, by Welch's t over the seeds."""
    if min(len(first.slopes), len(second.slopes)) < 2:
        return Interval(None, None)
    found = stats.ttest_ind(second.slopes, first.slopes, equal_var=False)
    ends = found.confidence_interval(LEVEL)
    return Interval(float(ends.low), float(ends.high))


def exponents(study: Study, capacity: float) -> str:
    """The data exponent of every model at the capacity nearest to one, as a table."""
    table = []
    for analysis in study.analyses:
        one = nearest(analysis.by_data, capacity)
        if one is None:
            continue
        law, name = one.law, analysis.cells.group
        paper = FREY_DATA_EXPONENTS.get(name)
        table.append(
            (
                name,
                number(one.at),
                f"{law.beta:.3f}",
                interval(law.interval),
                f"{number(law.low)} to {number(law.high)}",
                f"{one.every.beta:.3f}",
                "-" if paper is None else f"{paper[0]:.2f} +- {paper[1]:.2f}",
            )
        )
    if not table:
        return "No model has a line along the amount of data."
    header = (
        "model",
        "capacity",
        "beta",
        "95 %",
        "window, frames",
        "beta, all sizes",
        "paper, capacity 64",
    )
    return markdown_table(header, table)


def verdict(
    study: Study, rows: Sequence[Row], loss: str, capacity: float, where: str
) -> str:
    """Whether equivariance raised the data exponent, in words.

    Args:
        study: fits of the loss, by capacity.
        rows: of results.csv.
        loss: column of the losses.
        capacity: of the comparison; the nearest one of each model is taken.
        where: what the loss is of, for the text.
    """
    at = {
        analysis.cells.group: one.at
        for analysis in study.analyses
        if (one := nearest(analysis.by_data, capacity)) is not None
    }
    if INVARIANT not in at:
        return ""
    sentences = []
    for model in EQUIVARIANT:
        if model not in at:
            continue
        if at[model] != at[INVARIANT]:
            sentences.append(f"{model} has no cells at the capacity of {INVARIANT}.")
            continue
        sentences.append(_compared(study, rows, loss, at[model], model))
    if not sentences:
        return ""
    sentences.append(_flattened(study, at))
    heading = f"### Did equivariance raise the data exponent on {where}?"
    return f"{heading}\n\n{' '.join(sentences)}"


def _flattened(study: Study, at: Mapping[str, float]) -> str:
    """How many of the compared cells are not limited by their data."""
    cells = [
        cell
        for analysis in study.analyses
        for cell in analysis.cells.cells
        if cell.values["N"] == at.get(analysis.cells.group)
    ]
    others = [cell for cell in cells if cell.limit in (limits.STEP, limits.CAPACITY)]
    if not others:
        return f"All {len(cells)} cells that are compared are limited by their data."
    return (
        f"Of the {len(cells)} cells that are compared, {len(others)} are limited by "
        "steps or capacity and not by their data, which makes their lines flatter than "
        "a law of data."
    )


def _compared(
    study: Study, rows: Sequence[Row], loss: str, capacity: float, model: str
) -> str:
    window = next(
        one
        for one in study.differences
        if {one.first, one.second} == {INVARIANT, model}
    )
    sign = 1.0 if window.second == model else -1.0
    low, high = window.interval
    if sign < 0:
        low, high = (None if end is None else -end for end in (high, low))
    ends = Interval(low, high)
    first = seed_slopes(rows, INVARIANT, capacity, loss)
    second = seed_slopes(rows, model, capacity, loss)
    text = (
        f"the exponents of the fitted windows differ by {sign * window.value:+.3f} "
        f"(95 % {interval(ends)})"
    )
    if first is None or second is None:
        return f"{model}: {_answer(ends)}; {text}."
    slopes = slopes_difference(first, second)
    return (
        f"{model} against {INVARIANT} at capacity {number(capacity)}: "
        f"{_answer(slopes)} over all amounts of data, where the mean slopes are "
        f"{second.mean:.3f} and {first.mean:.3f}, a difference of "
        f"{second.mean - first.mean:+.3f} (95 % over {len(second.slopes)} seeds "
        f"{interval(slopes)}); as a power law {_answer(ends)}, {text}."
    )


def _answer(found: Interval) -> str:
    """Of a difference: what its interval says."""
    if found.low is None or found.high is None:
        return "it cannot be said"
    if found.low > 0:
        return "yes, higher"
    return "no, lower" if found.high < 0 else "it is open"
