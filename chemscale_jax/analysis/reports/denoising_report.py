"""The report of a pretrained Uni-Mol2: each loss beside that of no network."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from chemscale_jax.analysis import card, plots
from chemscale_jax.analysis.markdown import markdown_table
from chemscale_jax.analysis.report_files import Report
from chemscale_jax.core.workdir import Workdir


class Term(NamedTuple):
    """A loss and its baseline, by their names in the log."""

    name: str
    baseline: str
    title: str
    unit: str
    without: str  # what the baseline is


TERMS = (
    Term("token", "token_entropy", "masked elements", "nats", "element frequencies"),
    Term("coord", "coord_zero", "coordinates", "Å", "no displacement"),
    Term("dist", "dist_noised", "distances", "Å", "distances as noised"),
)
_HEADER = ("loss", "unit", "best", "last", "without a network", "best is below it by")
_LEGEND = """\
- best is the validation of least loss, whose weights are kept, at step {best}; last is
  step {last}; {molecules} molecules are validated with the same noise each time.
- masked elements: mean over masked atoms; without a network, {token}.
- coordinates: sum over axes, mean over atoms and molecules; without a network, {coord}:
  the noised molecule, turned onto the true one, is taken for the answer.
- distances: mean over all pairs of atoms; without a network, {dist}.
- at best, {top:.1%} of the masked elements are guessed right; coordinates are off by
  {solid:.3f} Å in conformers and by {flat:.3f} Å in drawings."""
_ABOUT_DATA = """\
Hydrogens are left out. `elements` counts the atoms of the training set, or of the first
20,000 molecules of it."""
_LIMITS = (
    "It knows heavy atoms only, and cannot tell mirror images apart by coordinates.",
    "It saw geometries alone: neither energies nor populations were learned.",
    "It restores noise of the deviation it was trained with, and no larger errors of a "
    "geometry.",
    "How good its representations are shows in fine-tuning, not in these losses.",
)


def denoising_report(workdir: Workdir) -> Report:
    """Table, plot and card from the log."""
    artifacts = workdir.artifacts()
    curves = plots.curves_of(workdir.metrics())
    table = results(curves, artifacts)
    figures = {"learning_curves": loss_curves(curves)}
    text = card.model_card(
        workdir.config(),
        workdir.run(),
        artifacts,
        results=table,
        plots=figures,
        about_data=_ABOUT_DATA,
        limits=_LIMITS,
    )
    return Report(table, figures, text)


def results(curves: plots.Curves, artifacts: Mapping[str, Any]) -> str:
    """The table of losses and baselines, with its legend.

    Args:
        curves: all metrics of the run.
        artifacts: the contents of artifacts.json.
    """
    valid = curves["valid"]
    steps, losses = valid["loss"]
    best, last = int(losses.argmin()), len(losses) - 1
    rows = []
    for term in TERMS:
        values, baseline = valid[term.name][1], valid[term.baseline][1][best]
        below = 1 - values[best] / baseline if baseline else 0.0
        numbers = [f"{value:.4f}" for value in (values[best], values[last], baseline)]
        rows.append((term.title, term.unit, *numbers, f"{below:.1%}"))
    return "\n\n".join(
        [
            markdown_table(_HEADER, rows),
            _LEGEND.format(
                best=int(steps[best]),
                last=int(steps[last]),
                molecules=f"{artifacts['validation_set']['molecules']:,}",
                top=valid["token_accuracy"][1][best],
                solid=valid["coord_3d"][1][best],
                flat=valid["coord_2d"][1][best],
                **{term.name: term.without for term in TERMS},
            ),
        ]
    )


def loss_curves(curves: plots.Curves) -> Figure:
    """The three losses against the step, with their baselines as horizontal lines.

    Args:
        curves: all metrics of the run.
    """
    figure = Figure(figsize=(7.0, 9.0), layout="constrained")
    *panels, lr_axes = figure.subplots(
        len(TERMS) + 1, 1, sharex=True, height_ratios=(*(3 for _ in TERMS), 1.2)
    )
    train = curves.get("train", {})
    for axes, term in zip(panels, TERMS, strict=True):
        _panel(axes, term, train, curves["valid"])
    if "lr" in train:
        lr_axes.plot(*train["lr"], color="black", linewidth=1.2)
    lr_axes.set_ylabel("learning rate")
    lr_axes.set_xlabel("step")
    lr_axes.set_ylim(bottom=0)
    lr_axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    lr_axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (*panels, lr_axes):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(visible=True, color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
    return figure


def _panel(axes: Axes, term: Term, train: Mapping, valid: Mapping) -> None:
    if term.name in train:
        axes.plot(
            *train[term.name],
            color="#7f7f7f",
            linewidth=0.8,
            alpha=0.7,
            label="training batch",
        )
    style, other = plots.style_of(0), plots.style_of(1)
    axes.plot(
        *valid[term.name], color=style.color, marker=style.marker, ms=4, label="valid"
    )
    level = valid[term.baseline][1][-1]
    label = f"{term.without}: {level:.3f} {term.unit}"
    axes.axhline(level, color=other.color, linestyle=other.line, label=label)
    axes.set_ylabel(f"{term.title} ({term.unit})")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=9)
