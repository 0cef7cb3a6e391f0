"""Regret of policies for readers: tables, a plot, and a file for programs."""

import csv
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from chemscale_jax.analysis import plots
from chemscale_jax.analysis.markdown import markdown_table
from chemscale_jax.analysis.tpe.run_curves import RunCurve
from chemscale_jax.core.errors import UserError
from chemscale_jax.studies.regret import NAMES, Result, default, shared_budgets

TABLE, ROWS, PLOT = "regret.md", "regret.csv", "regret"
_LEGEND = """\
- regret: how much higher the final loss of the run that a policy picks is than the
  lowest of the runs it had to choose from.
- cost, budget: epochs trained, of those that all these runs take; the winner's whole
  training is in it.
- Each task is tested with the settings that do best on the others within the budget;
  full is the random choice of as many runs as the budget pays for, trained to their
  ends.
- Intervals: 95 % of the resamplings, each of which draws tasks with replacement and
  runs of a task without; difference: the same of the regret less that of the policy
  with the lowest mean."""


def write_regret(
    results: Sequence[Result],
    tasks: Mapping[str, Sequence[RunCurve]],
    folder: pathlib.Path,
) -> str:
    """Writes regret.md, regret.csv and the plot as PNG and SVG; returns the text.

    Raises:
        UserError: the folder cannot be written.
    """
    text = report(results, tasks)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / TABLE).write_text(text + "\n", encoding="utf-8")
        write_rows(results, folder / ROWS)
        figure = regret_plot(results)
        for kind in ("png", "svg"):
            figure.savefig(folder / f"{PLOT}.{kind}", dpi=plots.DPI)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written ({error.strerror}); choose another --out"
        ) from None
    return text


def report(results: Sequence[Result], tasks: Mapping[str, Sequence[RunCurve]]) -> str:
    """Everything in words and tables."""
    best = default(results)
    first = results[0]
    sizes = ", ".join(f"{name} ({len(curves)} runs)" for name, curves in tasks.items())
    parts = [
        f"{first.regrets.shape[1]:,} resamplings of {sizes}.",
        f"Lowest mean regret over the budgets that all policies can keep to "
        f"({', '.join(f'{b:.0%}' for b in shared_budgets(results))}): {best}.",
    ]
    header = ("budget", "policy", "regret, %", "95 %", "difference, %", "cost, %")
    rows = []
    for budget in sorted({r.budget for r in results}):
        here = [r for r in results if r.budget == budget]
        lowest = min(here, key=lambda r: r.mean)
        for r in here:
            low, high = np.percentile(r.resampled - lowest.resampled, [2.5, 97.5])
            same = r is lowest
            rows.append(
                [
                    f"{budget:.0%}",
                    r.policy,
                    f"{100 * r.mean:.2f}",
                    " to ".join(f"{100 * end:.2f}" for end in r.interval),
                    "lowest" if same else f"{100 * low:+.2f} to {100 * high:+.2f}",
                    f"{100 * float(r.costs.mean()):.0f}",
                    *(f"{100 * x:.2f}" for x in r.regrets.mean(axis=1)),
                ]
            )
    parts.append(markdown_table((*header, *first.tasks), rows))
    header = ("policy", "budget", "settings that do best on all tasks")
    chosen = [[r.policy, f"{r.budget:.0%}", str(r.everywhere)] for r in results]
    parts.append(markdown_table(header, chosen))
    return "\n\n".join([*parts, _LEGEND])


def write_rows(results: Sequence[Result], path: pathlib.Path) -> None:
    """One line of a csv file for each policy, budget and task."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("policy", "budget", "task", "regret", "cost", "setting"))
        for r in results:
            for task, regrets, costs in zip(r.tasks, r.regrets, r.costs, strict=True):
                mean = (float(regrets.mean()), float(costs.mean()))
                writer.writerow((r.policy, r.budget, task, *mean, r.chosen[task]))


def regret_plot(results: Sequence[Result]) -> Figure:
    """Mean regret against the budget, a line per policy, with intervals."""
    figure = Figure(figsize=(6.0, 4.5), layout="constrained")
    axes = figure.subplots()
    for index, name in enumerate(NAMES):
        own = sorted((r for r in results if r.policy == name), key=lambda r: r.budget)
        if not own:
            continue
        style = plots.style_of(index)
        means = np.array([100 * r.mean for r in own])
        ends = 100 * np.array([r.interval for r in own])
        axes.errorbar(
            # Side by side, so that intervals do not hide one another.
            [100 * r.budget + 0.4 * (index - 2) for r in own],
            means,
            yerr=(
                np.maximum(means - ends[:, 0], 0),
                np.maximum(ends[:, 1] - means, 0),
            ),
            color=style.color if index < 4 else "k",
            marker=style.marker if index < 4 else "x",
            linestyle=style.line if index < 4 else (0, (1, 1)),
            capsize=2,
            linewidth=1.0,
            label=name,
        )
    axes.set_ylim(bottom=-0.02 * axes.get_ylim()[1])
    axes.set_xlabel("budget, % of training all runs")
    axes.set_ylabel("regret of the final loss, %")
    axes.legend(frameon=False, fontsize=9)
    return figure
