"""Tables of finetuning: metrics of all models, of single runs, and of intervals."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from chemscale_jax.analysis.markdown import markdown_table
from chemscale_jax.analysis.properties.metrics import (
    METRICS,
    Figure,
    Metric,
    difference,
    measure,
    over_seeds,
)
from chemscale_jax.analysis.properties.runs import (
    FINGERPRINT,
    HELDOUT,
    NETWORK,
    OUT_OF_FOLD,
    SIZE,
    TRIVIAL,
    Finetuned,
    member_split,
)

# At which coverage is shown.
LEVELS = (0.8, 0.9)
# Of more targets, only the metrics that come first are shown.
_FEW_TARGETS = 4
_SHOWN_OF_MANY = 2
_MODELS = (NETWORK, FINGERPRINT, SIZE, TRIVIAL)
# {model: for each target {metric: figure}}
Measured = Mapping[str, Sequence[Mapping[str, Figure]]]


def metrics_table(found: Finetuned, figures: Mapping[str, Measured]) -> str:
    """Every metric of every model, with intervals, for each split and target."""
    models = [m for m in _MODELS if any(m in own for own in figures.values())]
    compared = [FINGERPRINT] if FINGERPRINT in models else []
    header = ("split", "target", "metric", "unit", "labels", *models)
    rows = []
    for split, own in figures.items():
        for t, target in enumerate(found.targets):
            for metric in shown_metrics(found):
                cells = [
                    _cell(own[m][t][metric.name]) if m in own else "-" for m in models
                ]
                network = own[NETWORK][t][metric.name]
                for rival in compared:
                    cells.append(
                        _cell(difference(network, own[rival][t][metric.name]))
                        if rival in own
                        else "-"
                    )
                unit = found.units[t] if metric.has_unit else ""
                rows.append(
                    (
                        split,
                        target,
                        metric.title,
                        unit or "-",
                        f"{network.molecules:,}",
                        *cells,
                    )
                )
        rows += _means(found, split, own, models, len(compared))
    return markdown_table((*header, *(f"network - {m}" for m in compared)), rows)


def members_table(found: Finetuned) -> str:
    """Mean and deviation over seeds and folds of single runs; "" of one run."""
    if len(found.members) < 2:
        return ""
    rows = []
    splits = [HELDOUT] if found.folds else list(found.splits)
    for split in splits:
        own = [(m, member_split(m, split)) for m in found.members]
        measured = [
            (m, measure(p.true, p.pred, found.kind, replicates=0))
            for m, p in own
            if p is not None
        ]
        if not measured:
            continue
        for t, target in enumerate(found.targets):
            for metric in shown_metrics(found):
                values = [(m, x[t][metric.name].value) for m, x in measured]
                by_seed = _grouped([(m.seed, v) for m, v in values])
                by_fold = _grouped([(m.fold, v) for m, v in values])
                rows.append(
                    (
                        "test part of each fold" if found.folds else split,
                        target,
                        metric.title,
                        (found.units[t] if metric.has_unit else "") or "-",
                        str(len(values)),
                        _spread(by_seed),
                        *([_spread(by_fold)] if found.folds else []),
                    )
                )
    header = ("split", "target", "metric", "unit", "runs", "over seeds")
    if found.folds:
        header = (*header, "over folds")
    return "Single runs, mean ± standard deviation:\n\n" + markdown_table(header, rows)


def coverage_table(found: Finetuned) -> str:
    """How many labels the intervals or sets held, on molecules they do not know."""
    made = found.calibration
    if made is None:
        return ""
    rows = []
    for split, own in found.splits.items():
        if split in (made.source, OUT_OF_FOLD):
            continue
        p = own.network
        std = p.member_std if made.floors is not None else None
        for level in LEVELS:
            covered = made.coverage(level, p.true, p.pred, std)
            for t, (target, one) in enumerate(zip(found.targets, covered, strict=True)):
                if not one.molecules:
                    continue
                inside = round(one.share * one.molecules)
                low, high = _share_interval(inside, one.molecules)
                rows.append(
                    (
                        split,
                        target,
                        f"{level:.0%}",
                        f"{one.share:.1%} [{low:.1%}, {high:.1%}]",
                        f"{one.molecules:,}",
                        f"{made.counts[t]:,}",
                        _size(one.size, found, t),
                    )
                )
    if not rows:
        return ""
    what = "mean width" if found.kind == "regression" else "mean classes"
    header = ("split", "target", "level", "labels inside", "of", "calibrated by", what)
    return markdown_table(header, rows)


def _means(
    found: Finetuned,
    split: str,
    own: Measured,
    models: Sequence[str],
    compared: int,
) -> list[tuple[str, ...]]:
    """Rows of means over targets, where these have one unit or the metric has none."""
    rows = []
    for metric in shown_metrics(found):
        if len(found.targets) < 2 or (metric.has_unit and len(set(found.units)) > 1):
            continue
        cells = []
        for model in models:
            values = [x[metric.name].value for x in own.get(model, [])]
            mean = float(np.mean(values)) if values else math.nan
            cells.append(f"{mean:.4g}" if math.isfinite(mean) else "-")
        unit = (found.units[0] if metric.has_unit else "") or "-"
        title = f"mean of {len(found.targets)}"
        rows.append((split, title, metric.title, unit, "-", *cells, *["-"] * compared))
    return rows


def _grouped(values: Sequence[tuple[int, float]]) -> list[float]:
    """The mean of each group, by its number."""
    groups: dict[int, list[float]] = {}
    for key, value in values:
        groups.setdefault(key, []).append(value)
    return [float(np.mean(groups[key])) for key in sorted(groups)]


def _spread(values: Sequence[float]) -> str:
    mean, deviation = over_seeds(values)
    if not math.isfinite(mean):
        return "-"
    more = f" ± {deviation:.2g}" if math.isfinite(deviation) else ""
    return f"{mean:.4g}{more} ({len(values)})"


def _cell(figure: Figure) -> str:
    if not math.isfinite(figure.value):
        return "-"
    if figure.interval is None:
        return f"{figure.value:.4g}"
    low, high = figure.interval
    return f"{figure.value:.4g} [{low:.3g}, {high:.3g}]"


def _size(size: float, found: Finetuned, target: int) -> str:
    if found.kind != "regression":
        return f"{size:.2f}"
    if math.isinf(size):
        return "infinite"
    return f"{size:.4g} {found.units[target]}".strip()


def _share_interval(inside: int, of: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927)."""
    share, extra = inside / of, z**2 / of
    centre = (share + extra / 2) / (1 + extra)
    half = z * math.sqrt(share * (1 - share) / of + extra / (4 * of)) / (1 + extra)
    return max(centre - half, 0.0), min(centre + half, 1.0)


def shown_metrics(found: Finetuned) -> tuple[Metric, ...]:
    """All metrics of few targets; of many, those that come first."""
    every = METRICS[found.kind]
    return every if len(found.targets) <= _FEW_TARGETS else every[:_SHOWN_OF_MANY]
