"""The report of finetuning: each metric beside those of simpler models."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from chemscale_jax.analysis import card, plots
from chemscale_jax.analysis.properties import plots as property_plots
from chemscale_jax.analysis.properties.metrics import (
    METRICS,
    difference,
    measure,
    over_seeds,
)
from chemscale_jax.analysis.properties.published import Value, published_section
from chemscale_jax.analysis.properties.runs import (
    FINGERPRINT,
    HELDOUT,
    NETWORK,
    OUT_OF_FOLD,
    SIZE,
    Finetuned,
    Split,
    member_split,
    read_finetuned,
)
from chemscale_jax.analysis.properties.tables import (
    LEVELS,
    Measured,
    coverage_table,
    members_table,
    metrics_table,
)
from chemscale_jax.analysis.report_files import Report
from chemscale_jax.core.workdir import Workdir

_ABOUT_DATA = """\
`rejected` lists molecules that could not be used, with the reason; `split.csv` has the
part of every molecule, and `--config.data.split=file` takes it."""


def property_report(workdir: Workdir) -> Report:
    """Tables, plots and card of a run, or of several of them in one folder.

    Raises:
        UserError: the run has made no predictions.
    """
    config, artifacts = workdir.config(), workdir.artifacts()
    found = read_finetuned(workdir)
    figures = {
        split: {
            model: measure(own.network.true, pred, found.kind)
            for model, pred in _all_models(own).items()
        }
        for split, own in found.splits.items()
    }
    parts = [
        metrics_table(found, figures),
        members_table(found),
        coverage_table(found),
        _published(found, figures, config, artifacts),
        "\n".join(f"- {line}" for line in _legend(found)),
    ]
    table = "\n\n".join(part for part in parts if part)
    shown = _plots(found)
    text = card.model_card(
        config,
        workdir.run(),
        artifacts,
        results=table,
        plots=shown,
        about_data=_ABOUT_DATA,
        limits=_limits(found),
    )
    return Report(table, shown, text)


def _published(
    found: Finetuned,
    figures: Mapping[str, Measured],
    config: Mapping[str, Any],
    artifacts: Mapping[str, Any],
) -> str:
    if found.kind != "regression" or found.tested not in (HELDOUT, OUT_OF_FOLD):
        return ""
    ours: dict[str, dict[str, Value]] = {}
    for model in (NETWORK, FINGERPRINT, SIZE):
        measured = figures[found.tested].get(model, [])
        ours[model] = {
            target: (x["mae"].value, None)
            for target, x in zip(found.targets, measured, strict=bool(measured))
        }
    if len(found.members) > 1 and not found.folds:
        ours["network, single runs"] = _over_members(found)
    split = artifacts.get("split", {})
    some = config["data"].get("train_molecules", 0)
    return published_section(
        config["name"],
        {model: errors for model, errors in ours.items() if errors},
        train=split.get("train", 0) if some else 0,
        test=split.get("heldout", 0),
    )


def _over_members(found: Finetuned) -> dict[str, Value]:
    """Mean and deviation of the error of single runs on the test set, as papers do."""
    own = [member_split(m, found.tested) for m in found.members]
    measured = [
        measure(p.true, p.pred, found.kind, replicates=0) for p in own if p is not None
    ]
    return {
        target: over_seeds([x[t]["mae"].value for x in measured])
        for t, target in enumerate(found.targets)
    }


def _all_models(own: Split) -> dict[str, np.ndarray]:
    return {NETWORK: own.network.pred, **own.rivals}


def _plots(found: Finetuned) -> dict[str, Figure]:
    runs = [m.workdir for m in found.members] or [found.workdir]
    curves = [plots.curves_of(run.metrics()) for run in runs]
    shown: dict[str, Figure] = {}
    if len(curves) == 1:
        names = curves[0].get("valid", {})
        metric = next((n for n in ("mae", "accuracy") if n in names), "loss")
        shown["learning_curves"] = plots.learning_curves(
            curves[0], metric, property_plots.CURVE_LABELS.get(metric, metric)
        )
    else:
        names = [f"fold {m.fold}, seed {m.seed}" for m in found.members]
        shown["learning_curves"] = property_plots.members_curves(
            dict(zip(names, curves, strict=True))
        )
    if found.kind == "regression":
        shown["parity"] = property_plots.parity(found)
    else:
        shown["reliability"] = property_plots.reliability(found)
    coverage = property_plots.coverage(found)
    if coverage is not None:
        shown["coverage"] = coverage
    return shown


def _legend(found: Finetuned) -> list[str]:
    lines = [
        "In brackets: 95 % intervals over molecules (bootstrap); a difference is of "
        "the same draws, so it can be certain where intervals overlap.",
    ]
    if found.chosen:
        chosen = sorted(set(found.chosen.values()))
        lines.append(
            f"fingerprint: {' or '.join(chosen)} on Morgan fingerprints, chosen on the "
            "validation set; trivial: the mean, or the frequencies, of the training "
            "labels. All know the training set of the network and nothing else."
        )
    if any(SIZE in own.rivals for own in found.splits.values()):
        lines.append("size: linear in the numbers of heavy atoms and of rings.")
    if found.kind == "regression":
        lines.append("R² is 1 - residual / total sum of squares, not a correlation.")
    if any(int(own.network.conformers.max()) > 1 for own in found.splits.values()):
        lines.append("Predictions are means over the conformers of each molecule.")
    if found.members:
        of = f"{len(found.members)} runs"
        lines.append(
            f"{OUT_OF_FOLD}: each molecule by the runs, of {of}, that did not train on "
            "it; runs on other parts of the data are not independent, so the deviation "
            "over folds is not that of a test set."
            if found.folds
            else f"network: the mean of {of}, which is better than one, as a rule."
        )
    return [*lines, *_on_intervals(found)]


def _on_intervals(found: Finetuned) -> list[str]:
    made = found.calibration
    if made is None:
        return []
    lines = []
    if made.source == "valid":
        lines.append(
            "Intervals are conformal, calibrated on the validation set, which also "
            "chose the checkpoint; they promise their level for molecules like those. "
            "Coverage is measured where they were not calibrated."
        )
    else:
        lines.append(
            "Intervals are conformal, calibrated by out-of-fold errors; as all "
            "molecules are used for it, their coverage is not measured."
        )
    if made.floors is not None:
        lines.append("Widths follow the spread over the runs.")
    lacking = [made.lacking(level) for level in LEVELS]
    return [*lines, *(line for line in lacking if line)]


def _limits(found: Finetuned) -> list[str]:
    lines = [
        "Measured on molecules like those of the data above; others may be far worse, "
        "and intervals do not notice.",
        "It knows heavy atoms only, and mirror images by their tags alone.",
    ]
    if found.tested not in (HELDOUT, OUT_OF_FOLD):
        lines.append(
            "No molecules were held out: the validation set also chose the checkpoint, "
            "so its errors are a little too small."
        )
    for split, own in found.splits.items():
        if split == found.tested and FINGERPRINT in own.rivals:
            lines += _verdicts(found, own)
    return lines


def _verdicts(found: Finetuned, own: Split) -> list[str]:
    """Targets for which the network is not clearly better than fingerprints."""
    metric = METRICS[found.kind][0]
    network = measure(own.network.true, own.network.pred, found.kind)
    rival = measure(own.network.true, own.rivals[FINGERPRINT], found.kind)
    doubtful = []
    for t, target in enumerate(found.targets):
        gap = difference(network[t][metric.name], rival[t][metric.name])
        worst = None if gap.interval is None else gap.interval[metric.lower_is_better]
        if worst is None or (worst >= 0 if metric.lower_is_better else worst <= 0):
            doubtful.append(target)
    if not doubtful:
        return []
    return [
        f"By {metric.title}, it is not clearly better than a fingerprint model for: "
        f"{', '.join(doubtful)}."
    ]
