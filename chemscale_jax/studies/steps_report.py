"""Loss with model size and steps, as Ji et al. 2024 fit it to Uni-Mol2, and tested.

The paper fits ``L = A / M^a + B / S^b + G / (M S)^c`` to losses along single runs whose
learning rate decays (Fig. 3) and scores it on the ends of runs of larger models, which
the fit did not see (Fig. 4, Table 3). Here the same is done with the largest size left
out, and beside it the fit to runs that were annealed each for itself, whose points are
ends of training. Both are scored on the same held-out size.
"""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from chemscale_jax.analysis.markdown import markdown_table
from chemscale_jax.analysis.scaling import plots as scaling_plots
from chemscale_jax.analysis.scaling.estimates import Estimate, estimate
from chemscale_jax.analysis.scaling.fit import Fit, fit_form
from chemscale_jax.analysis.scaling.forms import FORMS, make_inputs
from chemscale_jax.analysis.scaling.published_laws import TABLE_3, Score, measures
from chemscale_jax.analysis.scaling.tables import interval
from chemscale_jax.core.errors import UserError
from chemscale_jax.studies.study_rows import Row

FORM = "unimol2"
# Of the steps of a trajectory: those at the start that the paper leaves out, and those
# at the end over which it scores the held-out sizes.
LEFT_OUT, SCORED = 200 / 818.359, 100 / 818.359
_FOLDER = "steps"
_TERMS = {
    "loss": "all terms",
    "token": "masked elements",
    "coord": "coordinates",
    "dist": "distances",
}


class Points(NamedTuple):
    """Losses after steps of models of some sizes."""

    millions: np.ndarray  # (n,) parameters
    steps: np.ndarray  # (n,)
    losses: np.ndarray  # (n,)

    def where(self, chosen: np.ndarray) -> "Points":
        """Some of them."""
        return Points(*(values[chosen] for values in self))


class Tested(NamedTuple):
    """A law that was fitted without the largest size, and what it says of it."""

    fit: Fit
    score: Score
    points: int  # fitted
    scored: int


def sections(
    rows: Sequence[Row], trajectories: Sequence[Row], folder: pathlib.Path
) -> list[str]:
    """The parts of the report, with their plots in a folder of their own."""
    done = [row for row in rows if row["state"] == "finished"]
    sizes = {row["cell"]: float(row["parameters"]) / 1e6 for row in done}
    planned = {row["cell"]: float(row["steps"]) for row in done}
    if len(set(sizes.values())) < 2:
        return ["One size alone gives no law of size."]
    longest = {
        cell
        for cell, steps in planned.items()
        if steps == max(n for c, n in planned.items() if sizes[c] == sizes[cell])
    }
    parts = [
        "## Loss with size and steps",
        "L = A / M^a + B / S^b + G / (M S)^c, M in millions of parameters, S in steps. "
        "The largest size is left out of the fit and predicted; R^2 is that of Eq. 15 "
        "of the paper (1 - SSE / SST), r is Pearson's. trajectory: losses along the "
        "longest run of each size without the first "
        f"{LEFT_OUT:.0%} of its steps, scored over the last {SCORED:.0%} or the last "
        "four validations. annealed: the ends of runs with schedules of their own "
        "length, scored on those of the largest size.",
    ]
    table, laws = [], []
    for term, title in _TERMS.items():
        column = f"valid_{term}"
        along = _points(
            [r for r in trajectories if r["cell"] in longest], sizes, column
        )
        ends = _points(_ends(trajectories, done), sizes, column)
        for kind, points in (("trajectory", along), ("annealed", ends)):
            if points is None:
                continue
            try:
                tested = test(points, kind == "trajectory")
                found = constants(points, kind == "trajectory")
            except UserError as error:
                parts.append(f"{title}, {kind}: {error}.")
                continue
            table.append(_scores(title, kind, tested))
            laws += [_law(title, kind, one) for one in found]
            if term == "loss":
                _plot(points, tested, folder / _FOLDER, kind)
    parts.append(markdown_table(_SCORES, [*table, *_published()]))
    parts.append("### Constants, fitted to all sizes")
    parts.append(markdown_table(("loss", "points", "constant", "value", "95 %"), laws))
    parts.append(
        f"Plots: `{_FOLDER}/trajectory` and `{_FOLDER}/annealed`, which correspond to "
        "Fig. 3 and 4 of the paper: points are losses, lines the law, dotted for the "
        "size that was left out."
    )
    return parts


def test(points: Points, trajectory: bool) -> Tested:
    """Fits all sizes but the largest and scores the law on that one.

    Args:
        points: of at least two sizes.
        trajectory: points lie along single runs: the start of each run is left out,
            and the last part of the largest one's is scored.

    Raises:
        UserError: too few points for the law.
    """
    if trajectory:
        points = _without_start(points)
    largest = points.millions == points.millions.max()
    fit = _fit(points.where(~largest))
    held = points.where(largest)
    order = np.argsort(held.steps, kind="stable")
    held = held.where(order)
    if trajectory:
        late = held.steps > (1 - SCORED) * held.steps.max()
        late[-4:] = True
        held = held.where(late)
    predicted = np.exp(fit.log_loss(_inputs(held, fit)))
    return Tested(
        fit,
        measures(predicted, held.losses),
        int((~largest).sum()),
        len(held.steps),
    )


def constants(points: Points, trajectory: bool) -> list[Estimate]:
    """The constants of the law fitted to all sizes, with their intervals."""
    return estimate(_fit(_without_start(points) if trajectory else points))[1]


def _without_start(points: Points) -> Points:
    last = {m: points.steps[points.millions == m].max() for m in set(points.millions)}
    of = np.array([last[m] for m in points.millions])
    return points.where(points.steps > LEFT_OUT * of)


def _fit(points: Points) -> Fit:
    inputs = make_inputs({"M": points.millions, "S": points.steps})
    return fit_form(FORMS[FORM], inputs, points.losses)


def _inputs(points: Points, fit: Fit):
    return make_inputs(
        {"M": points.millions, "S": points.steps}, centres=fit.inputs.centres
    )


def _ends(trajectories: Sequence[Row], done: Sequence[Row]) -> list[Row]:
    """The best validation of each run."""
    best = {(row["cell"], row["seed"]): row["best_step"] for row in done}
    return [
        row
        for row in trajectories
        if best.get((row["cell"], row["seed"])) == row["step"]
    ]


def _points(rows: Sequence[Row], sizes: dict[str, float], column: str) -> Points | None:
    kept = [row for row in rows if row["cell"] in sizes and row.get(column)]
    if not kept:
        return None
    return Points(
        np.array([sizes[row["cell"]] for row in kept]),
        np.array([float(row["step"]) for row in kept]),
        np.array([float(row[column]) for row in kept]),
    )


_SCORES = (
    "loss",
    "fit",
    "points",
    "scored",
    "RMAE",
    "MSE",
    "R^2",
    "r",
    "predicted",
    "measured",
)


def _scores(title: str, kind: str, tested: Tested) -> tuple[str, ...]:
    return (title, kind, str(tested.points), str(tested.scored), *_four(tested.score))


def _published() -> list[tuple[str, ...]]:
    return [
        ("all terms", f"paper, {size}", "-", "-", *_four(score))
        for size, score in TABLE_3.items()
    ]


def _four(score: Score) -> tuple[str, ...]:
    def text(value: float) -> str:
        return "-" if np.isnan(value) else f"{value:.3g}"

    return tuple(map(text, score))


def _law(title: str, kind: str, one: Estimate) -> tuple[str, ...]:
    known = one.identified
    return (
        title,
        kind,
        one.name,
        f"{one.value:.4g}" if known else "-",
        interval(one.interval) if known else f"not identified: {one.why_not}",
    )


def _plot(points: Points, tested: Tested, folder: pathlib.Path, kind: str) -> None:
    """Losses of every size with the law, which did not see the largest."""
    figure = Figure(figsize=(5.4, 4.2), layout="constrained")
    axes = figure.subplots()
    sizes = np.unique(points.millions)
    for index, millions in enumerate(sizes):
        own = points.where(points.millions == millions)
        shade = str(0.6 * index / max(len(sizes) - 1, 1))
        axes.plot(
            own.steps,
            own.losses,
            "os^Dv<>"[index % 7],
            color=shade,
            markersize=4,
            fillstyle="none" if millions == sizes[-1] else "full",
            label=f"{millions:.3g}M",
        )
        at = np.geomspace(own.steps.min(), own.steps.max(), 50)
        line = Points(np.full(50, millions), at, at)
        law = np.exp(tested.fit.log_loss(_inputs(line, tested.fit)))
        style = ":" if millions == sizes[-1] else "-"
        axes.plot(at, law, style, color=shade)
    axes.set(xscale="log", yscale="log", xlabel="steps", ylabel="validation loss")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, which="both", color="#dddddd", linewidth=0.6)
    axes.legend(frameon=False, fontsize=8, title="parameters")
    folder.mkdir(parents=True, exist_ok=True)
    scaling_plots.save(figure, folder / kind)
