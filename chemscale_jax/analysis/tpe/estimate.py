"""What the early losses of a sweep's runs say: ranks, Eq. 8, and how sure that is."""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from chemscale_jax.analysis.rank_correlation import spearman, spearman_interval
from chemscale_jax.analysis.tpe import fit as tpe_fit
from chemscale_jax.analysis.tpe import scores as tpe
from chemscale_jax.analysis.tpe import warnings as tpe_warnings
from chemscale_jax.analysis.tpe.cost import measured_cost
from chemscale_jax.analysis.tpe.run_curves import RunCurve, epochs_at, label, varying
from chemscale_jax.core.errors import UserError

# States of a run, as a report names them.
FINISHED, DIVERGED, UNFINISHED = "finished", "diverged", "unfinished"


@dataclasses.dataclass(frozen=True, eq=False)
class Row:
    """One run as it stands in the ranking."""

    curve: RunCurve
    label: str  # by what distinguishes it
    marked: bool
    epochs: int  # that the score is made of
    score: float  # infinite where a loss was not finite
    rank: float  # by the score, from 1; ties share their mean rank
    final: float  # lowest validation loss; infinite if diverged, NaN if unfinished
    final_rank: float  # among runs whose final loss is known; NaN otherwise
    predicted: float  # by Eq. 8 through the other finished runs; NaN without a line
    interval: tuple[float, float]  # of that prediction

    @property
    def state(self) -> str:
        """FINISHED, DIVERGED or UNFINISHED."""
        if self.curve.diverged:
            return DIVERGED
        return FINISHED if self.curve.ended else UNFINISHED


@dataclasses.dataclass(frozen=True, eq=False)
class Estimate:
    """A sweep seen through one score at one fraction of its budget."""

    score: str  # an entry of tpe.SCORES
    fraction: float  # of the epochs
    rows: tuple[Row, ...]  # the best score first
    late: tuple[str, ...]  # names of runs that have not come so far
    fields: tuple[str, ...]  # of the config, in which runs differ
    line: tpe_fit.Line | None
    r2: float  # in sample; NaN where not defined
    r2_left_out: float
    rho: float  # over finished and diverged runs
    rho_interval: tuple[float, float] | None
    covered: int | None  # finished runs within the interval that the others give them
    ties: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def finished(self) -> tuple[Row, ...]:
        """Runs that the line was fitted to."""
        return tuple(row for row in self.rows if _fits(row))

    @property
    def diverged(self) -> int:
        """How many runs diverged."""
        return sum(row.state == DIVERGED for row in self.rows)

    @property
    def winner(self) -> Row:
        """The run with the best score."""
        return self.rows[0]

    @property
    def best(self) -> Row | None:
        """The run with the lowest final loss, where all are known."""
        if any(row.state == UNFINISHED for row in self.rows):
            return None
        return min(self.rows, key=lambda row: row.final)

    @property
    def regret(self) -> float:
        """How much higher the winner's final loss is than the lowest, of the lowest."""
        if self.best is None or not math.isfinite(self.best.final):
            return math.nan
        return self.winner.final / self.best.final - 1

    @property
    def rho_within_batches(self) -> float:
        """Rho of runs of one batch size, a mean over sizes by their runs; else NaN."""
        groups: dict[int, list[Row]] = {}
        for row in self.rows:
            if not math.isnan(row.final):
                groups.setdefault(row.curve.batch, []).append(row)
        found = [
            (len(rows), spearman(*_scores_and_finals(rows)))
            for rows in groups.values()
            if len(rows) > 2
        ]
        known = [(n, rho) for n, rho in found if not math.isnan(rho)]
        if len(groups) < 2 or not known:
            return math.nan
        return sum(n * rho for n, rho in known) / sum(n for n, _ in known)

    def cost(self, calibrated: bool) -> tuple[float, float]:
        """Epochs spent to find the winner and train it to its end, and those of all.

        Args:
            calibrated: whether the runs that the line was fitted to are counted as
                trained to their ends for its sake.
        """
        names = [row.curve.name for row in self.finished] if calibrated else []
        curves = [row.curve for row in self.rows]
        return measured_cost(curves, self.fraction, names, self.winner.curve.name)


def estimate(
    curves: Sequence[RunCurve],
    fraction: float = 0.2,
    score: str = "tse",
    mark: Mapping[str, Any] | None = None,
) -> Estimate:
    """Ranks runs by an early score, and predicts the final losses of unfinished ones.

    Args:
        curves: of one sweep.
        fraction: of the planned epochs that the score may see.
        score: an entry of `tpe.SCORES`.
        mark: settings of the runs to mark, such as {"optimizer.lr": 5e-5}.

    Raises:
        UserError: no run has come that far, none is marked, or a fraction is less than
            one epoch.
    """
    _check_fraction(curves, fraction)
    fields = varying(curves)
    early = {curve.name: curve.upto(fraction) for curve in curves}
    there = [
        curve
        for curve in curves
        if curve.ended or curve.epochs >= epochs_at(fraction, curve.epochs_planned)
    ]
    if not there:
        raise UserError(
            f"no run has completed {fraction:.0%} of its epochs; the furthest is at "
            f"{max(curve.fraction for curve in curves):.0%}"
        )
    late = tuple(curve.name for curve in curves if curve not in there)
    scores = np.array([tpe.score_at(curve, fraction, score) for curve in there])
    finals = np.array([final_of(curve) for curve in there])
    known = np.isfinite(finals) & np.isfinite(scores)
    line = tpe_fit.fit_line(scores[known], finals[known])
    ranks = stats.rankdata(scores)
    final_ranks = np.full(len(there), math.nan)
    decided = ~np.isnan(finals)
    final_ranks[decided] = stats.rankdata(finals[decided])
    rows = []
    for i, curve in enumerate(there):
        others = known & (np.arange(len(there)) != i)
        predicted, interval = _predict(scores[others], finals[others], scores[i])
        rows.append(
            Row(
                curve=curve,
                label=label(curve, fields),
                marked=_matches(curve, mark),
                epochs=early[curve.name].epochs,
                score=float(scores[i]),
                rank=float(ranks[i]),
                final=float(finals[i]),
                final_rank=float(final_ranks[i]),
                predicted=predicted,
                interval=interval,
            )
        )
    if mark and not any(row.marked for row in rows):
        said = ", ".join(f"{field}={value}" for field, value in mark.items())
        raise UserError(
            f"no run has {said}; runs differ in {', '.join(fields) or 'nothing'}"
        )
    # Of tied scores, a run that did not diverge comes first.
    rows.sort(key=lambda row: (row.score, row.curve.diverged, row.curve.name))
    x, y = scores[known], finals[known]
    return Estimate(
        score=score,
        fraction=fraction,
        rows=tuple(rows),
        late=late,
        fields=fields,
        line=line,
        r2=tpe_fit.r_squared(x, y),
        r2_left_out=tpe_fit.r_squared_left_out(x, y),
        rho=spearman(scores[decided], finals[decided]),
        rho_interval=spearman_interval(scores[decided], finals[decided]),
        covered=tpe_fit.left_out_covered(x, y),
        ties=_ties(rows),
        warnings=tuple(tpe_warnings.warnings(there, fraction, score, int(known.sum()))),
    )


def final_of(curve: RunCurve) -> float:
    """The final loss: infinite where diverged, NaN where it is not known yet."""
    return curve.final if curve.ended else math.nan


def _check_fraction(curves: Sequence[RunCurve], fraction: float) -> None:
    shortest = min(curve.epochs_planned for curve in curves)
    if fraction * shortest < 1 - 1e-9:
        raise UserError(
            f"{fraction:.3g} of {shortest} epochs is less than one; give --fraction of "
            f"at least {1 / shortest:.3g}"
        )


def _predict(
    x: np.ndarray, y: np.ndarray, at: float
) -> tuple[float, tuple[float, float]]:
    line = tpe_fit.fit_line(x, y)
    if line is None or not math.isfinite(at):
        return math.nan, (math.nan, math.nan)
    low, high = line.interval(np.array(at))
    return float(line.at(np.array(at))), (float(low), float(high))


def _scores_and_finals(rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([r.score for r in rows]), np.array([r.final for r in rows])


def _fits(row: Row) -> bool:
    return row.state == FINISHED and math.isfinite(row.score + row.final)


def _matches(curve: RunCurve, mark: Mapping[str, Any] | None) -> bool:
    if not mark:
        return False
    for field, value in mark.items():
        found = curve.settings.get(field)
        if isinstance(found, int | float) and isinstance(value, int | float):
            if not math.isclose(found, value, rel_tol=1e-9):
                return False
        elif str(found) != str(value):
            return False
    return True


def _ties(rows: Sequence[Row]) -> tuple[str, ...]:
    """What the ranking cannot tell apart, in words."""
    said = []
    for what, value in (
        ("score", lambda r: r.score),
        ("final loss", lambda r: r.final),
    ):
        known = [row for row in rows if math.isfinite(value(row))]
        ordered = sorted(known, key=value)
        for number, group in itertools.groupby(ordered, value):
            names = [row.label for row in group]
            if len(names) > 1:
                said.append(f"the same {what} {number:.6g}: {'; '.join(names)}")
    diverged = sum(row.state == DIVERGED for row in rows)
    if diverged > 1:
        said.append(f"{diverged} runs diverged and share the last rank")
    winner, rest = rows[0], rows[1:]
    # The winner is not sure where another's interval holds what is expected of it.
    expected = winner.predicted if math.isnan(winner.final) else winner.final
    near = [
        row.label
        for row in rest
        if row.state == UNFINISHED and -math.inf < row.interval[0] <= expected
    ]
    if near:
        said.append(
            f"{len(near)} unfinished runs may end as low as the winner by their 95 % "
            f"intervals: {'; '.join(near[:4])}{'; ...' if len(near) > 4 else ''}"
        )
    return tuple(said)
