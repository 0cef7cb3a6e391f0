"""How good predicted properties are: metrics of each target, with intervals.

Every metric is a function of weights of molecules: of ones it is the metric, and of the
multinomial weights of a bootstrap (Efron 1979) a draw of it. Draws depend on the seed
and on the number of molecules alone, so those of two models on the same molecules are
paired, and their difference has an interval too.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from chemscale_jax.analysis import bootstrap

REPLICATES = 400
# Draws whose weights are in memory together, times molecules.
_BLOCK = 4_000_000
# Probabilities are not taken to be closer to 0 or 1, as one mistake would be infinite.
_LEAST_CHANCE = 1e-7
_UNDEFINED = math.nan

# (true (M,), pred (M,) or (M, C), weights (R, M)) -> (R,)
Statistic = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


class Metric(NamedTuple):
    """A figure of merit."""

    name: str
    title: str
    statistic: Statistic
    lower_is_better: bool
    has_unit: bool = False  # that of the target


class Figure(NamedTuple):
    """A metric of one target on some molecules."""

    value: float  # NaN where it is not defined, such as an AUC of one class
    interval: tuple[float, float] | None  # None where nothing can be said
    molecules: int  # with a label
    draws: np.ndarray  # (replicates,) of the bootstrap


def measure(
    true: np.ndarray,
    pred: np.ndarray,
    kind: str,
    *,
    seed: int = 0,
    replicates: int = REPLICATES,
) -> list[dict[str, Figure]]:
    """All metrics of a kind, for each target: {name: figure}.

    Args:
        true: (M, T); NaN where there is no label.
        pred: (M, P): values of T targets, probabilities of 1 of T targets, or
            probabilities of C classes.
        kind: "regression", "binary" or "multiclass".
        seed: of the bootstrap.
        replicates: its draws; 0 for no intervals.
    """
    found = []
    for t in range(true.shape[1]):
        rows = np.isfinite(true[:, t])
        column = pred[rows] if kind == "multiclass" else pred[rows, t]
        found.append(
            _measure(true[rows, t], column.astype(np.float64), kind, seed, replicates)
        )
    return found


def difference(first: Figure, second: Figure) -> Figure:
    """The first less the second, measured on the same molecules with the same seed."""
    if first.molecules != second.molecules or len(first.draws) != len(second.draws):
        raise ValueError("figures of different molecules or draws cannot be paired")
    draws = first.draws - second.draws
    return Figure(
        first.value - second.value,
        bootstrap.percentile_interval(draws),
        first.molecules,
        draws,
    )


def over_seeds(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample deviation of a metric over runs; no deviation (NaN) of one."""
    found = np.asarray(values, np.float64)
    if not len(found):
        return _UNDEFINED, _UNDEFINED
    deviation = float(found.std(ddof=1)) if len(found) > 1 else _UNDEFINED
    return float(found.mean()), deviation


def _measure(
    true: np.ndarray, pred: np.ndarray, kind: str, seed: int, replicates: int
) -> dict[str, Figure]:
    n = len(true)
    if not n or not np.isfinite(pred).all():
        nothing = np.full(replicates, _UNDEFINED)
        return {m.name: Figure(_UNDEFINED, None, n, nothing) for m in METRICS[kind]}
    rng = np.random.default_rng(seed)
    blocks: dict[str, list[np.ndarray]] = {m.name: [] for m in METRICS[kind]}
    done, size = 0, max(1, _BLOCK // n)
    while done < replicates:
        some = min(size, replicates - done)
        weights = rng.multinomial(n, np.full(n, 1 / n), size=some).astype(np.float64)
        for m in METRICS[kind]:
            blocks[m.name].append(m.statistic(true, pred, weights))
        done += some
    once = np.ones((1, n))
    figures = {}
    for m in METRICS[kind]:
        value = float(m.statistic(true, pred, once)[0])
        draws = np.concatenate(blocks[m.name]) if blocks[m.name] else np.zeros(0)
        interval = bootstrap.percentile_interval(draws) if n > 1 else None
        figures[m.name] = Figure(
            value, interval if math.isfinite(value) else None, n, draws
        )
    return figures


# Of numbers


def _mae(true: np.ndarray, pred: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return weights @ np.abs(pred - true) / weights.sum(1)


def _rmse(true: np.ndarray, pred: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return np.sqrt(weights @ (pred - true) ** 2 / weights.sum(1))


def _r2(true: np.ndarray, pred: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """1 - residual / total sum of squares, the latter about the mean of these labels.

    Not the square of a correlation: it is negative for what is worse than the mean.
    """
    centred = true - true.mean()
    total = weights @ centred**2 - (weights @ centred) ** 2 / weights.sum(1)
    # All labels equal, up to rounding.
    constant = total <= 1e-12 * np.maximum(weights @ true**2, 1e-300)
    return _ratio(weights @ (pred - true) ** 2, total, ~constant, 1.0, -1.0)


def _spearman(true: np.ndarray, pred: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Pearson's correlation of ranks, ties sharing their mean rank."""
    a, b = (_weighted_ranks(x, weights) for x in (true, pred))
    mean = weights.sum(1, keepdims=True)
    a = a - (weights * a).sum(1, keepdims=True) / mean
    b = b - (weights * b).sum(1, keepdims=True) / mean
    norm = np.sqrt((weights * a**2).sum(1) * (weights * b**2).sum(1))
    return _ratio((weights * a * b).sum(1), norm, norm > 1e-9)


def _weighted_ranks(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(R, M): mean rank of each molecule, were each there as often as its weight."""
    _, place = np.unique(x, return_inverse=True)
    counts = _grouped(weights, place)
    return (np.cumsum(counts, 1) - (counts - 1) / 2)[:, place]


# Of yes or no


def _roc_auc(true: np.ndarray, pred: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The chance that a positive is ranked above a negative, ties counting half."""
    positive, negative = _by_chance(true, pred, weights)
    below = np.cumsum(negative, 1) - negative / 2
    pairs = positive.sum(1) * negative.sum(1)
    return _ratio((positive * below).sum(1), pairs, pairs > 0)


def _pr_auc(true: np.ndarray, pred: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Average precision: mean over positives of the precision at their threshold."""
    positive, negative = (x[:, ::-1] for x in _by_chance(true, pred, weights))
    hits, all_ = np.cumsum(positive, 1), np.cumsum(positive + negative, 1)
    precision = hits / np.maximum(all_, 1e-300)
    total = positive.sum(1)
    return _ratio((positive * precision).sum(1), total, total > 0)


def _balanced(true: np.ndarray, pred: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean of the shares of positives and of negatives that are told right, at 0.5."""
    right = (pred >= 0.5) == (true > 0.5)
    shares = []
    for label in (0, 1):
        of = weights * (true == label)
        shares.append(_ratio(of @ right, of.sum(1), of.sum(1) > 0))
    return (shares[0] + shares[1]) / 2


def _brier(true: np.ndarray, pred: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return weights @ (pred - true) ** 2 / weights.sum(1)


def _binary_log_loss(
    true: np.ndarray, pred: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    right = np.where(true > 0.5, pred, 1 - pred)
    return weights @ -np.log(np.maximum(right, _LEAST_CHANCE)) / weights.sum(1)


def _by_chance(
    true: np.ndarray, pred: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Weights of positives and of negatives at each distinct prediction, ascending."""
    _, place = np.unique(pred, return_inverse=True)
    positive = _grouped(weights * (true > 0.5), place)
    return positive, _grouped(weights * (true <= 0.5), place)


# Of one of several classes


def _accuracy(true: np.ndarray, pred: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return weights @ (pred.argmax(1) == true) / weights.sum(1)


def _macro_f1(true: np.ndarray, pred: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean of F1 = 2 tp / (2 tp + fp + fn) over classes that occur or are predicted."""
    chosen = pred.argmax(1)
    total, classes = np.zeros(len(weights)), np.zeros(len(weights))
    for c in range(pred.shape[1]):
        hits = weights @ ((chosen == c) & (true == c))
        all_ = weights @ (chosen == c) + weights @ (true == c)
        total += np.where(all_ > 0, 2 * hits / np.maximum(all_, 1e-300), 0.0)
        classes += all_ > 0
    return total / classes


def _class_log_loss(
    true: np.ndarray, pred: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    right = np.take_along_axis(pred, true.astype(np.int64)[:, None], 1)[:, 0]
    return weights @ -np.log(np.maximum(right, _LEAST_CHANCE)) / weights.sum(1)


# The first is what models are compared by.
METRICS: Mapping[str, tuple[Metric, ...]] = {
    "regression": (
        Metric("mae", "MAE", _mae, True, has_unit=True),
        Metric("rmse", "RMSE", _rmse, True, has_unit=True),
        Metric("r2", "R²", _r2, False),
        Metric("spearman", "Spearman", _spearman, False),
    ),
    "binary": (
        Metric("roc_auc", "ROC-AUC", _roc_auc, False),
        Metric("pr_auc", "PR-AUC", _pr_auc, False),
        Metric("balanced_accuracy", "balanced accuracy", _balanced, False),
        Metric("brier", "Brier", _brier, True),
        Metric("log_loss", "log loss", _binary_log_loss, True),
    ),
    "multiclass": (
        Metric("accuracy", "accuracy", _accuracy, False),
        Metric("macro_f1", "macro F1", _macro_f1, False),
        Metric("log_loss", "log loss", _class_log_loss, True),
    ),
}


def _grouped(weights: np.ndarray, place: np.ndarray) -> np.ndarray:
    """(R, groups): sums of weights over the molecules of each group."""
    order = np.argsort(place, kind="stable")
    starts = np.flatnonzero(np.diff(place[order], prepend=-1))
    return np.add.reduceat(weights[:, order], starts, axis=1)


def _ratio(
    above: np.ndarray,
    below: np.ndarray,
    defined: np.ndarray,
    start: float = 0.0,
    factor: float = 1.0,
) -> np.ndarray:
    """Start + factor * above / below, NaN where it is not defined."""
    safe = np.where(defined, below, 1.0)
    return np.where(defined, start + factor * above / safe, _UNDEFINED)
