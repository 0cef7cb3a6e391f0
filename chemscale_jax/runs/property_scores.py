"""Metrics of predicted properties, for those who ask for a few by name."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from chemscale_jax.analysis.properties.metrics import METRICS, measure
from chemscale_jax.core.embedding_readers import COLUMN
from chemscale_jax.core.errors import UserError
from chemscale_jax.data.labels.label_columns import read_labels

ALL = ("none", "all", "")
# What else they are called.
_OTHER_NAMES = {
    "auc": "roc_auc",
    "auroc": "roc_auc",
    "auprc": "pr_auc",
    "acc": "accuracy",
}


def metric_names(metrics: str, kind: str) -> tuple[str, ...]:
    """Names of the metrics that are asked for.

    Args:
        metrics: with commas; one of `ALL` for all there are.
        kind: of the targets.

    Raises:
        UserError: one is unknown.
    """
    known = tuple(metric.name for metric in METRICS[kind])
    if metrics in ALL:
        return known
    words = [word.strip().lower() for word in metrics.split(",") if word.strip()]
    wanted = tuple(_OTHER_NAMES.get(word, word) for word in words)
    if unknown := [name for name in wanted if name not in known]:
        raise UserError(f"metrics {unknown} are unknown for {kind}: use {known}")
    return wanted


def scores(
    true: np.ndarray, pred: np.ndarray, targets: Mapping[str, Any], names: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Metrics of each target, over molecules with a label and a prediction.

    Args:
        true: (M, T), NaN where there is no label.
        pred: (M, P), NaN where nothing is predicted.
        targets: the artifact of this name.
        names: of metrics.
    """
    kept = np.isfinite(pred).all(1)
    figures = measure(true[kept], pred[kept], targets["kind"])
    return {
        target: {name: figure[name].value for name in names}
        for target, figure in zip(targets["names"], figures, strict=True)
    }


def labels(targets: Mapping[str, Any], part: Mapping[str, np.ndarray]) -> np.ndarray:
    """(M, T) labels in columns of the input that are called like the targets.

    Args:
        targets: the artifact of this name.
        part: has the columns as fields "input/NAME".

    Raises:
        UserError: a column is missing, or holds no labels.
    """
    names = targets["names"]
    if lacking := [name for name in names if f"{COLUMN}{name}" not in part]:
        raise UserError(
            f"metrics need the column {lacking[0]!r}, which the data do not have: "
            "leave metrics out"
        )
    table = {name: part[f"{COLUMN}{name}"].tolist() for name in names}
    found = read_labels(table, targets=tuple(names), kind=targets["kind"])
    if targets["kind"] != "multiclass":
        return found.values_RT
    # Numbers of these classes among those that the network knows.
    known = {text: float(place) for place, text in enumerate(targets["classes"])}
    numbers = np.array([known.get(text, np.nan) for text in found.classes])
    missing = np.isnan(found.values_RT)
    return np.where(
        missing, np.nan, numbers[np.where(missing, 0, found.values_RT).astype(int)]
    )
