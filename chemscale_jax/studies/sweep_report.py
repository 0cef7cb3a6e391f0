"""What came of a sweep: a table for readers, files for programs, one plot."""

import csv
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from chemscale_jax.analysis import plots
from chemscale_jax.analysis.markdown import markdown_table
from chemscale_jax.analysis.tpe.warnings import FEW, warnings
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.workdir import write_json
from chemscale_jax.studies.live_table import duration, number
from chemscale_jax.studies.policies import Policy, unseen
from chemscale_jax.studies.sweep import Glance

TABLE, CSV, JSON, PLOT = "sweep.md", "sweep.csv", "sweep.json", "sweep.png"
# Of sweep.csv, after the settings; all of it is a function of what the sweep was told.
COLUMNS = (
    "state",
    "epochs",
    "epochs_planned",
    "steps",
    "score",
    "train_loss",
    "valid_loss",
    "best_step",
    "picked",
)


def write_sweep(
    folder: pathlib.Path,
    plan: Mapping[str, Any],
    policy: Policy,
    glance: Glance,
    seconds: float,
) -> str:
    """Writes sweep.md, sweep.csv, sweep.json and sweep.png; returns the text.

    Args:
        folder: of the sweep.
        plan: what the sweep was told.
        policy: of the sweep.
        glance: the sweep as it is now.
        seconds: that its processes have run, all of them together.

    Raises:
        UserError: the folder cannot be written, or no run completed an epoch.
    """
    if len(glance.broken) == len(glance.cells):
        raise UserError(
            f"all {len(glance.cells)} runs failed: see the end of log.txt in each "
            f"folder of {folder}, such as {folder / glance.cells[0].name}; the same "
            "command tries them again"
        )
    picked = policy.pick(glance.seen)
    rows = rows_of(glance, picked)
    spent = cost(glance, seconds)
    text = describe(folder, policy, glance, rows, spent)
    try:
        (folder / TABLE).write_text(text + "\n", encoding="utf-8")
        with (folder / CSV).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(rows[0])
            writer.writerows(row.values() for row in rows)
        write_json(
            folder / JSON,
            {"plan": dict(plan), "picked": picked, "cost": spent, "cells": rows},
        )
        figure = curves_plot(glance, picked)
        figure.savefig(folder / PLOT, dpi=plots.DPI)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written ({error.strerror}); make it writable"
        ) from None
    return text


def rows_of(glance: Glance, picked: str) -> list[dict[str, Any]]:
    """One row per cell; None where there is nothing to say.

    Args:
        glance: the sweep.
        picked: name of the best cell.
    """
    settings = list(dict.fromkeys(key for c in glance.cells for key in c.chosen))
    rows = []
    for cell in glance.cells:
        status, seen = glance.statuses[cell.name], glance.seen[cell.name]
        curve = status.curve
        chosen = {key.removeprefix(":"): cell.chosen.get(key) for key in settings}
        values: tuple[Any, ...] = (None,) * 5
        if curve is not None and curve.epochs:
            losses = np.where(np.isfinite(curve.valid_loss), curve.valid_loss, np.inf)
            best = int(curve.valid_step[losses.argmin()]) if len(losses) else None
            values = (
                int(curve.epoch_step[-1]),
                _finite(seen.scores[curve.epochs - 1]),
                _finite(curve.train_loss[-1]),
                _finite(curve.final),
                best,
            )
        made = (_state(glance, cell.name), seen.done, seen.epochs, *values)
        found = (*made, int(cell.name == picked))
        rows.append(
            {"cell": cell.name, **chosen, **dict(zip(COLUMNS, found, strict=True))}
        )
    return rows


def cost(glance: Glance, seconds: float) -> dict[str, float]:
    """Epochs of all runs, those that lost and those that diverged included."""
    done = sum(seen.done for seen in glance.seen.values())
    planned = sum(seen.epochs for seen in glance.seen.values())
    return {
        "epochs": done,
        "epochs_of_all_runs_to_the_end": planned,
        "share": done / planned,
        "process_seconds": round(seconds, 1),
    }


def describe(
    folder: pathlib.Path,
    policy: Policy,
    glance: Glance,
    rows: Sequence[Mapping[str, Any]],
    spent: Mapping[str, float],
) -> str:
    """The table and what it says, in Markdown."""
    header = ("cell", "state", "epochs", policy.score, "train loss", "best valid loss")
    rank = {"finished": 0, "stopped": 1, "diverged": 2, "failed": 3, "unfinished": 4}

    def order(row: Mapping[str, Any]) -> tuple[float, ...]:
        loss = row["valid_loss"] if row["state"] == "finished" else row["score"]
        return (
            -row["picked"],
            rank[row["state"]],
            -row["epochs"],
            math.inf if loss is None else loss,
        )

    table = markdown_table(
        header,
        [
            (
                row["cell"],
                row["state"],
                f"{row['epochs']} of {row['epochs_planned']}",
                number(row["score"]),
                number(row["train_loss"]),
                number(row["valid_loss"]),
            )
            for row in sorted(rows, key=order)
        ],
    )
    (picked,) = (row for row in rows if row["picked"])
    lines = [
        f"Best: {picked['cell']}, valid loss {number(picked['valid_loss'])}, in "
        f"{folder / picked['cell']}.",
        f"Trained {spent['epochs']} of {spent['epochs_of_all_runs_to_the_end']} epochs "
        f"({spent['share']:.0%}), runs that lost included, in "
        f"{duration(spent['process_seconds'])} of processes. Policy {policy.name}, "
        f"score {policy.score}.",
        "stopped: the policy wanted no more of it; chemscale train goes on with it. "
        f"{policy.score} is the score after the last of its epochs, so it compares "
        "runs of as many epochs only.",
    ]
    curves = [s.curve for s in glance.statuses.values() if s.curve is not None]
    first = policy.targets({name: unseen(s.epochs) for name, s in glance.seen.items()})
    doubts = warnings(curves, min(first.values()), policy.score, fitted=FEW)
    lines += [f"Doubt: {text}." for text in doubts]
    if glance.broken:
        names = ", ".join(sorted(glance.broken))
        lines.append(
            f"Failed, and left out of the ranking: {names}. Their log.txt says why; "
            "the same command tries them again."
        )
    return "\n\n".join([table, "\n".join(f"- {line}" for line in lines)])


def curves_plot(glance: Glance, picked: str) -> Figure:
    """Validation loss of every run against the epoch; the best one stands out."""
    figure = Figure(figsize=(6.0, 4.5), layout="constrained")
    axes = figure.subplots()
    best = plots.style_of(0)
    for name, status in glance.statuses.items():
        curve = status.curve
        if curve is None or not curve.epochs:
            continue
        at = np.searchsorted(curve.epoch_step, curve.valid_step) + 1
        if name == picked:
            axes.plot(
                at,
                curve.valid_loss,
                color=best.color,
                marker=best.marker,
                linewidth=2,
                zorder=3,
                label=name,
            )
        else:
            axes.plot(at, curve.valid_loss, color="#7f7f7f", linewidth=0.8)
            axes.plot(at[-1:], curve.valid_loss[-1:], "x", color="#7f7f7f")
    axes.set_yscale("log")
    axes.set_xlabel("epoch")
    axes.set_ylabel("validation loss")
    axes.legend(frameon=False, fontsize=9)
    return figure


def _state(glance: Glance, name: str) -> str:
    """As it is in the end, however often the sweep was interrupted."""
    status = glance.statuses[name]
    if name in glance.broken:
        return "failed"
    if status.diverged:
        return "diverged"
    if status.done:
        return "finished"
    return "stopped" if status.state == "paused" else "unfinished"


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
