"""Models of frozen embeddings, whose settings are chosen by folds of the training set.

Of the labels of each target, those that are missing are left out. Inner folds keep
together what the outer ones do, so that what is chosen is good for molecules as new as
those that it will be tested on. What the models of inner folds say of molecules that
they were not trained on comes along: it says which of several models to take, and how
wide intervals must be.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from chemscale_jax.analysis.probes import linear_probes
from chemscale_jax.analysis.probes.linear_probes import LinearProbe
from chemscale_jax.analysis.properties.fingerprint_baseline import (
    compared_by,
    fit_target,
    trivial,
)
from chemscale_jax.analysis.properties.simple_models import BOOSTING, FOREST, TREES

LINEAR = "linear"
# As they are asked for, and as they are called in results.
MODELS = {"linear": LINEAR, "boosting": BOOSTING, "forest": FOREST}
# Fewer labels of a target are not learned.
_LEAST_LABELS = 2
# So many weaker penalties in a row that were no better end the search; of logistic
# regression, where the weakest take most of the time.
_PATIENCE = 2

# (M, D) -> (M, P): values or chances of 1 of T targets, or chances of C classes.
Predict = Callable[[np.ndarray], np.ndarray]


class Labels(NamedTuple):
    """What is to be learned."""

    true: np.ndarray  # (M, T) float64; NaN where there is no label
    kind: str  # one of `core.property_predictions.KINDS`
    classes: int = 0  # C, of the one target of multiclass


class Fitting(NamedTuple):
    """How it is learned."""

    seed: int = 0
    trees: int = TREES  # of a forest
    processes: int = 1  # threads of a forest


class Probe(NamedTuple):
    """A fitted model.

    Attributes:
        predict: of other molecules.
        out_of_fold: (M, P), what models of inner folds say of the training set; NaN
            without a label.
        settings: T texts, what was chosen; "" where nothing was.
        linear: of a linear model, for each of P outputs; else None.
    """

    predict: Predict
    out_of_fold: np.ndarray
    settings: tuple[str, ...]
    linear: LinearProbe | None = None


def name_of(model: str, kind: str) -> str:
    """What a model of `MODELS` is called in results."""
    if model != LINEAR:
        return model
    return "ridge" if kind == "regression" else "logistic regression"


def outputs(labels: Labels) -> int:
    """P: of T targets, or C classes."""
    return labels.classes if labels.kind == "multiclass" else labels.true.shape[1]


def fit_probe(
    model: str,
    x: np.ndarray,
    labels: Labels,
    inner: np.ndarray,
    fitting: Fitting,
) -> Probe:
    """Fits a model to all targets.

    Args:
        model: a value of `MODELS`.
        x: (M, D).
        labels: of the M molecules.
        inner: (M,) int, fold of each molecule by which settings are chosen.
        fitting: seed and the like.
    """
    used = linear_probes.useful_features(x)
    own = x[:, used]
    fit = _fit_linear if model == LINEAR else _fit_trees
    found = fit(model, own, labels, inner, fitting)
    linear = found.linear
    if linear is not None:
        weights = np.zeros((x.shape[1], linear.weights.shape[1]))
        weights[used] = linear.weights
        linear = linear._replace(weights=weights)
        return found._replace(predict=linear, linear=linear)
    return found._replace(predict=lambda new: found.predict(new[:, used]))


def loss(true: np.ndarray, pred: np.ndarray, kind: str) -> float:
    """By which models are chosen: mean absolute error, or log loss; lower is better.

    Args:
        true: (M,) of one target; those without a label do not count.
        pred: (M,), or (M, C) for classes.
        kind: one of `core.property_predictions.KINDS`.
    """
    rows = np.isfinite(true)
    if not rows.any():
        return np.nan
    once = np.ones((1, int(rows.sum())))
    return float(compared_by(kind).statistic(true[rows], pred[rows], once)[0])


def _column(pred: np.ndarray, target: int, kind: str) -> np.ndarray:
    return pred if kind == "multiclass" else pred[:, target]


def _inner_folds(inner: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Folds of the molecules with a label, at least two of them."""
    own = inner[rows]
    return own if len(np.unique(own)) > 1 else np.arange(len(own)) % 2


def _fit_linear(
    model: str, x: np.ndarray, labels: Labels, inner: np.ndarray, fitting: Fitting
) -> Probe:
    del model, fitting  # there is one, and nothing about it is random
    true, kind = labels.true, labels.kind
    P, T = outputs(labels), true.shape[1]
    weights, offset = np.zeros((x.shape[1], P)), np.zeros(P)
    out_of_fold = np.full((len(x), P), np.nan)
    settings = [""] * T
    known = np.isfinite(true)
    masks, group = np.unique(known, axis=1, return_inverse=True)
    for number, mask in enumerate(masks.T):
        targets = np.flatnonzero(group.ravel() == number)
        # Least squares of all targets at once; others one by one.
        parts = [targets] if kind == "regression" else [np.array([t]) for t in targets]
        rows = np.flatnonzero(mask)
        for part in parts:
            columns = slice(None) if kind == "multiclass" else part
            constant = trivial(true[rows][:, part], kind, labels.classes)
            if len(rows) < _LEAST_LABELS:
                probe = LinearProbe(kind, weights[:, columns], _inverse(constant, kind))
                offset[columns] = probe.offset
                out_of_fold[np.ix_(rows, np.arange(P)[columns])] = constant
                continue
            chosen, held_out, names = _best_linear(
                x[rows], true[rows][:, part], labels, _inner_folds(inner, rows)
            )
            weights[:, columns] = chosen.weights
            offset[columns] = chosen.offset
            out_of_fold[np.ix_(rows, np.arange(P)[columns])] = held_out
            for t, name in zip(part, names, strict=True):
                settings[t] = name
    linear = LinearProbe(kind, weights, offset)
    return Probe(linear, out_of_fold, tuple(settings), linear)


def _best_linear(
    x: np.ndarray, true: np.ndarray, labels: Labels, inner: np.ndarray
) -> tuple[LinearProbe, np.ndarray, list[str]]:
    """The model of all rows with the best penalty of each target.

    Returns:
        The model; (M, P) what those of inner folds say; T texts.
    """
    kind = labels.kind
    features: Any = x
    penalties = linear_probes.RIDGE_PENALTIES
    if kind != "regression":
        penalties = linear_probes.LOGISTIC_PENALTIES
        if linear_probes.mostly_zero(x):
            features = sparse.csr_array(x.astype(np.float64))

    def path(rows: np.ndarray) -> Iterator[LinearProbe]:
        if kind == "regression":
            return linear_probes.fit_ridge(x[rows], true[rows])
        classes = labels.classes if kind == "multiclass" else 2
        label = true[rows, 0].astype(np.int64)
        return linear_probes.fit_logistic(features[rows], label, classes)

    parts = [inner == fold for fold in np.unique(inner)]
    paths = [path(~held_out) for held_out in parts]
    tried: list[np.ndarray] = []
    losses: list[list[float]] = []
    for steps in zip(*paths, strict=True):
        pred = np.empty((len(true), len(steps[0].offset)))
        for held_out, probe in zip(parts, steps, strict=True):
            pred[held_out] = probe(features[held_out])
        tried.append(pred)
        losses.append(
            [loss(y, _column(pred, t, kind), kind) for t, y in enumerate(true.T)]
        )
        passed = len(losses) - 1 - np.argmin(losses, axis=0)
        if kind != "regression" and passed.min() >= _PATIENCE:
            break
    bests = np.argmin(losses, axis=0).tolist()
    made = list(itertools.islice(path(np.ones(len(true), bool)), max(bests) + 1))
    weights, offset, found = [], [], []
    for t, best in enumerate(bests):
        columns = slice(None) if kind == "multiclass" else slice(t, t + 1)
        weights.append(made[best].weights[:, columns])
        offset.append(made[best].offset[columns])
        found.append(tried[best][:, columns])
    names = [f"penalty {penalties[best]:.3g}" for best in bests]
    whole = LinearProbe(kind, np.concatenate(weights, 1), np.concatenate(offset))
    return whole, np.concatenate(found, 1), names


def _inverse(constant: np.ndarray, kind: str) -> np.ndarray:
    """Offsets that give these numbers or chances."""
    if kind == "regression":
        return constant
    safe = np.clip(constant, 1e-6, 1 - 1e-6)
    return np.log(safe / (1 - safe)) if kind == "binary" else np.log(safe)


def _fit_trees(
    model: str, x: np.ndarray, labels: Labels, inner: np.ndarray, fitting: Fitting
) -> Probe:
    true, kind, classes = labels
    settings = fitting._asdict()
    P = outputs(labels)
    out_of_fold = np.full((len(x), P), np.nan)
    made: list[Predict] = []
    for t in range(true.shape[1]):
        rows = np.flatnonzero(np.isfinite(true[:, t]))
        y = true[rows, t]
        columns = np.arange(P) if kind == "multiclass" else np.array([t])
        if len(rows) < _LEAST_LABELS:
            constant = trivial(y[:, None], kind, classes)
            made.append(lambda new, c=constant: np.tile(c, (len(new), 1)))
            out_of_fold[np.ix_(rows, columns)] = constant
            continue

        def fit(part: np.ndarray, rows: np.ndarray = rows, y: np.ndarray = y):
            return fit_target(
                model, x[rows[part]], y[part], kind, classes, settings, balanced=True
            )

        folds = _inner_folds(inner, rows)
        for fold in np.unique(folds):
            held_out = folds == fold
            found = fit(~held_out)(x[rows[held_out]])
            out_of_fold[np.ix_(rows[held_out], columns)] = found
        made.append(fit(np.ones(len(rows), bool)))
    return Probe(
        lambda new: np.concatenate([predict(new) for predict in made], axis=1),
        out_of_fold,
        ("",) * true.shape[1],
    )
