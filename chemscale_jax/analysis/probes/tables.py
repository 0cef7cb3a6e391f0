"""Tables of probes, and what they say about which representation is better."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from chemscale_jax.analysis.markdown import markdown_table
from chemscale_jax.analysis.probes.cells import BASELINE, LEVELS
from chemscale_jax.analysis.probes.figures import (
    CHOSEN,
    TRIVIAL,
    Arm,
    ProbeResults,
    coverage_of,
    figure,
    fold_value,
    mean_over_targets,
)
from chemscale_jax.analysis.properties.metrics import (
    METRICS,
    Figure,
    Metric,
    difference,
    over_seeds,
)

BETTER, WORSE, OPEN = "better", "worse", "open"
# Of more targets, only the metrics that come first are shown.
_FEW_TARGETS = 4
_SHOWN_OF_MANY = 2


class Comparison(NamedTuple):
    """Two representations, each with its chosen model, by one metric."""

    first: str
    second: str
    metric: Metric
    differences: tuple[Figure, ...]  # first less second, of each target
    mean: Figure | None  # over targets; None where their units differ
    values: tuple[float, float] | None  # of which it is the difference

    @property
    def verdicts(self) -> tuple[str, ...]:
        """Whether the first is better, worse or cannot be told apart, by target."""
        return tuple(_verdict(d, self.metric) for d in self.differences)

    @property
    def verdict(self) -> str:
        """The same of the mean; "" where there is none."""
        return "" if self.mean is None else _verdict(self.mean, self.metric)


class Measured(NamedTuple):
    """Figures of one arm of each representation: of each target and metric."""

    arm: Arm
    figures: tuple[dict[str, Figure], ...]  # by target, {metric: figure}


def measure_best(results: ProbeResults, weights: np.ndarray) -> list[Measured]:
    """Every shown metric of each representation, with intervals."""
    return [
        Measured(
            arm,
            tuple(
                {
                    m.name: figure(results, arm, m, t, weights)
                    for m in shown_metrics(results)
                }
                for t in range(len(results.rows.targets))
            ),
        )
        for arm in results.best
    ]


def comparisons(results: ProbeResults, best: Sequence[Measured]) -> list[Comparison]:
    """Each representation against fingerprints, and the first against each other.

    By the metric that comes first: mean absolute error, ROC-AUC or accuracy.
    """
    own = [m for m in best if m.arm.model != TRIVIAL]
    base = [m for m in own if m.arm.representation == BASELINE]
    pairs = [(m, base[0]) for m in own if base and m is not base[0]]
    pairs += [(own[0], m) for m in own[1:] if m not in base]
    return [_compared(results, *pair) for pair in pairs]


def shown_metrics(results: ProbeResults) -> tuple[Metric, ...]:
    """All metrics of few targets; of many, those that come first."""
    every = METRICS[results.rows.kind]
    few = len(results.rows.targets) <= _FEW_TARGETS
    return every if few else every[:_SHOWN_OF_MANY]


def verdict_lines(results: ProbeResults, found: Sequence[Comparison]) -> list[str]:
    """What each comparison says, as sentences."""
    return [_sentence(results, one) for one in found]


def metrics_table(results: ProbeResults, best: Sequence[Measured]) -> str:
    """Metrics of each representation with its chosen model."""
    rows = []
    names = [m.arm.name for m in best]
    for t, target in enumerate(results.rows.targets):
        for metric in shown_metrics(results):
            figures = [m.figures[t][metric.name] for m in best]
            unit = results.rows.units[t] if metric.has_unit else ""
            cells = [_cell(f) for f in figures]
            labels = f"{figures[0].molecules:,}"
            rows.append((target, metric.title, unit or "-", labels, *cells))
    for metric in shown_metrics(results):
        means = [_mean(results, [f[metric.name] for f in m.figures]) for m in best]
        if len(results.rows.targets) > 1 and not (
            metric.has_unit and len(set(results.rows.units)) > 1
        ):
            title = f"mean of {len(results.rows.targets)}"
            rows.append((title, metric.title, "-", "-", *map(_cell, means)))
    return markdown_table(("target", "metric", "unit", "labels", *names), rows)


def differences_table(results: ProbeResults, found: Sequence[Comparison]) -> str:
    """Differences of the metric that comes first, of each target."""
    rows = []
    for one in found:
        names = (f"{one.first} - {one.second}", one.metric.title)
        triples = zip(results.rows.targets, one.differences, one.verdicts, strict=True)
        rows += [(*names, t, _cell(d), verdict) for t, d, verdict in triples]
        if one.mean is not None and len(results.rows.targets) > 1:
            title = f"mean of {len(results.rows.targets)}"
            rows.append((*names, title, _cell(one.mean), one.verdict))
    header = ("representations", "metric", "target", "difference", "the first is")
    return markdown_table(header, rows)


def models_table(results: ProbeResults) -> str:
    """Every model by the metric that comes first, and how far seeds differ."""
    metric = METRICS[results.rows.kind][0]
    rows = []
    counts = Counter(arm.representation for arm in results.arms)
    for arm in results.arms:
        if arm.model == CHOSEN and counts[arm.representation] == 2:
            continue  # the only model
        values = []
        for t in range(len(results.rows.targets)):
            values.append(
                [
                    _weighted(results, arm, metric, t, place, of_seed)
                    for place, of_seed in enumerate(results.tested(t))
                ]
            )
        for t, target in enumerate(results.rows.targets):
            mean, deviation = over_seeds(values[t])
            spread = f"{deviation:.2g}" if math.isfinite(deviation) else "-"
            chosen = _settings(arm, t)
            rows.append(
                (target, arm.representation, arm.model, f"{mean:.4g}", spread, chosen)
            )
    rows.sort(key=lambda row: results.rows.targets.index(row[0]))
    seeds = len(results.settings.seeds)
    header = ("target", "representation", "model", metric.title)
    return markdown_table((*header, f"deviation over {seeds} seeds", "chosen"), rows)


def coverage_table(results: ProbeResults) -> str:
    """How many test labels the intervals or sets by inner folds held."""
    regression = results.rows.kind == "regression"
    rows = []
    for arm in results.arms:
        if arm.model != CHOSEN:
            continue
        for t, target in enumerate(results.rows.targets):
            for level in LEVELS:
                labels, share, size = coverage_of(arm, level, t)
                unit = results.rows.units[t] if regression else ""
                width = "infinite" if math.isinf(size) else f"{size:.4g} {unit}".strip()
                cells = (f"{level:.0%}", f"{share:.1%}", f"{labels:,}", width)
                rows.append((target, arm.representation, *cells))
    size = "mean width" if regression else "mean classes"
    header = ("target", "representation", "level", "labels inside", "of", size)
    return markdown_table(header, rows)


def fold_rows(results: ProbeResults) -> Iterator[tuple]:
    """Every metric of every arm on every fold: seed, fold, target, arm, metric, value.

    Metrics that are not defined, such as an AUC of one class, are NaN.
    """
    for t in range(len(results.rows.targets)):
        for place, of_seed in enumerate(results.tested(t)):
            for fold, some in enumerate(of_seed):
                for arm in results.arms:
                    for metric in METRICS[results.rows.kind]:
                        value = fold_value(results, arm, metric, t, place, some)
                        seed = results.settings.seeds[place]
                        yield seed, fold, t, arm, metric, float(value[0])


def _compared(results: ProbeResults, first: Measured, second: Measured) -> Comparison:
    metric = METRICS[results.rows.kind][0]
    one, two = ([f[metric.name] for f in m.figures] for m in (first, second))
    gaps = tuple(difference(a, b) for a, b in zip(one, two, strict=True))
    names = first.arm.name, second.arm.name
    if metric.has_unit and len(set(results.rows.units)) > 1:
        return Comparison(*names, metric, gaps, None, None)
    means = [_mean(results, figures) for figures in (one, two)]
    values = means[0].value, means[1].value
    return Comparison(*names, metric, gaps, _mean(results, gaps), values)


def _mean(results: ProbeResults, figures: Sequence[Figure]) -> Figure:
    return figures[0] if len(results.rows.targets) == 1 else mean_over_targets(figures)


def _verdict(gap: Figure, metric: Metric) -> str:
    if gap.interval is None or gap.interval[0] <= 0 <= gap.interval[1]:
        return OPEN
    return BETTER if (gap.value < 0) == metric.lower_is_better else WORSE


def _sentence(results: ProbeResults, one: Comparison) -> str:
    targets = results.rows.targets
    said = {
        BETTER: f"**{one.first} is better than {one.second}**",
        WORSE: f"**{one.first} is worse than {one.second}**",
        OPEN: f"{one.first} and {one.second} cannot be told apart",
        "": f"{one.first} against {one.second}",
    }[one.verdict]
    parts = []
    if one.mean is not None and one.values is not None:
        of = "" if len(targets) == 1 else f"mean of {len(targets)} targets, "
        unit = results.rows.units[0] if one.metric.has_unit else ""
        first, second = (f"{value:.4g}" for value in one.values)
        parts.append(
            f"{of}{one.metric.title} {first} against {second} {unit}".rstrip()
            + f", difference {_cell(one.mean)}"
        )
    if len(targets) > 1:
        counts = Counter(one.verdicts)
        parts.append(
            f"of single targets better for {counts[BETTER]}, worse for "
            f"{counts[WORSE]}, open for {counts[OPEN]}"
        )
    return f"{said}: {'; '.join(parts)}."


def _weighted(
    results: ProbeResults,
    arm: Arm,
    metric: Metric,
    target: int,
    place: int,
    of_seed: Sequence[np.ndarray],
) -> float:
    """Mean over folds of one seed by their numbers of labels."""
    values = np.array(
        [fold_value(results, arm, metric, target, place, s)[0] for s in of_seed]
    )
    counts = np.array([len(s) for s in of_seed]) * np.isfinite(values)
    return float(np.nansum(values * counts) / counts.sum()) if counts.any() else np.nan


def _settings(arm: Arm, target: int) -> str:
    """What was chosen most often, and how often."""
    if arm.chosen is None:
        return "-"
    texts = arm.chosen[:, :, target].ravel().tolist()
    text, count = Counter(texts).most_common(1)[0]
    return f"{text} ({count} of {len(texts)})" if text else "-"


def _cell(one: Figure) -> str:
    if not math.isfinite(one.value):
        return "-"
    if one.interval is None:
        return f"{one.value:.4g}"
    low, high = one.interval
    return f"{one.value:.4g} [{low:.3g}, {high:.3g}]"
