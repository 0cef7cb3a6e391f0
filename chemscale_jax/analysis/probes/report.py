"""What is kept of a comparison of probes: report, figures, rows, folds, leaderboard.

====================  ===============================================================
report.md             which representation is better, with intervals, and all tables
report.json           the same for programs
leaderboard.csv       every metric of every model on every fold
rows.csv              what became of each row of the input
predictions.npz       of each molecule by the models that did not train on it
splits/SEED-FOLD.csv  rows that are trained on and tested, as finetuning reads them
metrics.png           the metric that comes first, of each representation
differences.png       its differences
cells/                what a stopped command goes on from
====================  ===============================================================
"""

import csv
import json
import math
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

import chemscale_jax
from chemscale_jax.analysis import plots
from chemscale_jax.analysis.probes import folds as probe_folds
from chemscale_jax.analysis.probes import plots as probe_plots
from chemscale_jax.analysis.probes import probes
from chemscale_jax.analysis.probes import tables as probe_tables
from chemscale_jax.analysis.probes.cells import BASELINE, ProbeSettings
from chemscale_jax.analysis.probes.figures import (
    REPLICATES,
    TRIVIAL,
    ProbeResults,
)
from chemscale_jax.analysis.probes.rows import ProbeRows, write_rows
from chemscale_jax.analysis.probes.tables import Comparison, Measured
from chemscale_jax.analysis.properties.metrics import Figure
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.workdir import write_json
from chemscale_jax.data.labels.split_files import write_split

REPORT, JSON, LEADERBOARD, ROWS = (
    "report.md",
    "report.json",
    "leaderboard.csv",
    "rows.csv",
)
PREDICTIONS, CELLS, SPLITS = "predictions.npz", "cells", "splits"
_COLUMNS = (
    *("data_set", "task", "split", "fold", "seed"),
    *("representation", "model", "metric", "value"),
)


def begin_report(
    folder: pathlib.Path, rows: ProbeRows, settings: ProbeSettings, folds: np.ndarray
) -> None:
    """Writes what is known before anything is learned: rows and folds.

    Raises:
        UserError: the folder cannot be written.
    """
    try:
        (folder / SPLITS).mkdir(parents=True, exist_ok=True)
        write_rows(rows, folder / ROWS)
        for place, seed in enumerate(settings.seeds):
            for fold in range(settings.folds):
                test = folds[place] == fold
                write_split(
                    folder / SPLITS / f"{seed}-{fold}.csv",
                    rows.row,
                    rows.where[rows.row],
                    np.zeros(len(rows), bool),
                    {"train": np.flatnonzero(~test), "test": np.flatnonzero(test)},
                )
    except OSError as error:
        raise _not_writable(folder, error) from None


def write_report(folder: pathlib.Path, results: ProbeResults) -> str:
    """Writes all files of a finished comparison; returns the text of the report.

    Raises:
        UserError: the folder cannot be written.
    """
    weights = results.weights()
    best = probe_tables.measure_best(results, weights)
    found = probe_tables.comparisons(results, best)
    text = report_text(results, best, found)
    try:
        (folder / REPORT).write_text(text, encoding="utf-8")
        write_json(folder / JSON, report_json(results, best, found))
        _write_leaderboard(results, folder / LEADERBOARD)
        _write_predictions(results, folder / PREDICTIONS)
        for name, figure in (
            ("metrics", probe_plots.metrics_plot(results, best)),
            ("differences", probe_plots.differences_plot(results, found)),
        ):
            figure.savefig(folder / f"{name}.png", dpi=plots.DPI, bbox_inches="tight")
    except OSError as error:
        raise _not_writable(folder, error) from None
    return text


def report_text(
    results: ProbeResults, best: Sequence[Measured], found: Sequence[Comparison]
) -> str:
    """The report as Markdown."""
    settings = results.settings
    verdicts = probe_tables.verdict_lines(results, found)
    parts = [
        f"# Probes of {results.rows.data_set}: {settings.split} split, "
        f"{settings.folds} folds x {len(settings.seeds)} seeds",
        "\n".join(f"- {line}" for line in verdicts) or "One representation alone.",
        f"## Metrics\n\n{probe_tables.metrics_table(results, best)}",
        f"## Differences\n\n{probe_tables.differences_table(results, found)}"
        if found
        else "",
        f"## Single models\n\n{probe_tables.models_table(results)}",
        f"## Intervals\n\n{probe_tables.coverage_table(results)}",
        "## Molecules\n\n" + "\n".join(f"- {line}" for line in _molecules(results)),
        "## How to read this\n\n" + "\n".join(f"- {x}" for x in _legend(results)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def report_json(
    results: ProbeResults, best: Sequence[Measured], found: Sequence[Comparison]
) -> dict[str, Any]:
    """The report for programs."""
    rows = results.rows
    return {
        "data_set": rows.data_set,
        "kind": rows.kind,
        "targets": list(rows.targets),
        "units": list(rows.units),
        "classes": list(rows.classes),
        "settings": {**results.settings._asdict()},
        "representations": {name: dict(about) for name, about in rows.about.items()},
        "rows": rows.statuses,
        "molecules": len(rows),
        "measured": int(results.measured.sum()),
        "metrics": [
            {
                "representation": m.arm.representation,
                "model": m.arm.model,
                "target": target,
                "metric": name,
                **_figure(one),
            }
            for m in best
            for target, own in zip(rows.targets, m.figures, strict=True)
            for name, one in own.items()
        ],
        "comparisons": [
            {
                "first": c.first,
                "second": c.second,
                "metric": c.metric.name,
                "targets": [
                    {"target": t, "first_is": verdict, **_figure(gap)}
                    for t, gap, verdict in zip(
                        rows.targets, c.differences, c.verdicts, strict=True
                    )
                ],
                "mean": None
                if c.mean is None
                else {"first_is": c.verdict, **_figure(c.mean)},
            }
            for c in found
        ],
        "version": chemscale_jax.__version__,
    }


def _figure(one: Figure) -> dict[str, Any]:
    value = one.value if math.isfinite(one.value) else None
    return {
        "value": value,
        "interval": None if one.interval is None else list(one.interval),
        "labels": one.molecules,
    }


def _molecules(results: ProbeResults) -> list[str]:
    rows = results.rows
    counts = ", ".join(f"{n:,} {status}" for status, n in rows.statuses.items())
    lines = [f"{len(rows.status):,} rows: {counts}; {ROWS} has each of them."]
    distinct = len(np.unique(rows.smiles))
    if distinct < len(rows):
        lines.append(
            f"Rows with the molecule of an earlier row: {len(rows) - distinct}; equal "
            "molecules are in one fold."
        )
    if lacking := int((~results.measured).sum()):
        lines.append(
            f"{lacking} molecules lack a prediction of a finetuned network and are "
            "left out of all metrics."
        )
    sizes = [
        np.bincount(own, minlength=results.settings.folds) for own in results.folds
    ]
    shown = "; ".join(", ".join(f"{n:,}" for n in own) for own in sizes)
    lines.append(f"Molecules tested in each fold, by seed: {shown}.")
    names = probe_folds.scaffolds(rows.smiles.tolist())
    shares = [
        float(np.isin(names[own == fold], names[own != fold]).mean())
        for own in results.folds
        for fold in range(results.settings.folds)
    ]
    lines.append(
        f"Of test molecules, {np.mean(shares):.1%} have a scaffold that was trained on."
    )
    if rows.kind == "binary":
        for t, target in enumerate(rows.targets):
            own = rows.true[np.isfinite(rows.true[:, t]), t]
            lines.append(f"{target}: {int(own.sum()):,} of {len(own):,} labels are 1.")
    return lines


def _legend(results: ProbeResults) -> list[str]:
    settings = results.settings
    split = probe_folds.SPLITS[settings.split]
    lines = [
        f"Split: {split}. Every molecule is tested once for each seed, by models that "
        "saw neither it nor any molecule that is kept together with it.",
        "Metrics are taken on each fold and averaged over folds by their labels, then "
        "over seeds. In brackets: 95 % intervals of the bootstrap over molecules, with "
        f"{REPLICATES} draws; a difference is of the same draws. They do not speak of "
        "other training sets, for which the deviation over seeds is a hint.",
        f"Of each representation, the model that {settings.inner_folds} inner folds of "
        "the training set found best is shown, for each fold and target; all settings "
        "were chosen in the same way.",
        "Each comparison is one of several: of 20 that hold no difference, one is "
        "taken for one.",
        "Missing labels are left out. Classes weigh alike when models are fitted; "
        "chances are then brought back to the frequencies in the training set.",
        "Intervals and sets are conformal, by the errors of inner folds; they promise "
        "their level where test molecules are like those that were trained on, which "
        "those of other scaffolds are not: what they held is measured.",
        f"{TRIVIAL}: the mean of the training labels, or the frequency of each class.",
    ]
    if settings.baseline:
        lines.append(
            f"{BASELINE}: Morgan fingerprints with counts (radius 2, 2048 places), "
            f"learned by {_models(results)}; forests have {settings.trees} trees."
        )
    return lines


def _models(results: ProbeResults) -> str:
    names = [probes.name_of(m, results.rows.kind) for m in results.settings.baseline]
    return " or ".join(names)


def _write_leaderboard(results: ProbeResults, path: pathlib.Path) -> None:
    rows, settings = results.rows, results.settings
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(_COLUMNS)
        for seed, fold, t, arm, metric, value in probe_tables.fold_rows(results):
            known = f"{value:.9g}" if math.isfinite(value) else ""
            data = (rows.data_set, rows.targets[t], settings.split, fold, seed)
            writer.writerow((*data, arm.representation, arm.model, metric.name, known))


def _write_predictions(results: ProbeResults, path: pathlib.Path) -> None:
    names = [json.dumps([arm.representation, arm.model]) for arm in results.arms]
    with path.open("wb") as file:
        np.savez_compressed(
            file,
            allow_pickle=False,
            row=results.rows.row,
            smiles=results.rows.smiles.astype(np.str_),
            true=results.rows.true,
            targets=np.array(results.rows.targets),
            seeds=np.array(results.settings.seeds),
            folds=results.folds,
            arms=np.array(names),
            pred=np.stack([arm.pred for arm in results.arms]).astype(np.float32),
        )


def _not_writable(folder: pathlib.Path, error: OSError) -> UserError:
    return UserError(
        f"{folder} cannot be written ({error.strerror}): choose another --out"
    )
