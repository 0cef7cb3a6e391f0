"""What simpler models predict of the same molecules: the least a network has to beat.

- fingerprint: Morgan fingerprints with counts (radius 2, 2048 places) in a random
  forest or in boosted trees, whichever is better on the validation set, by target;
- size: least squares in the numbers of heavy atoms and rings, for numbers. Where it
  comes close, as for dispersion of polycyclic hydrocarbons, little was learned of
  structure;
- trivial: the mean of the training labels, or how frequent each class is in them.

All are trained on the molecules that the network was trained on, and on no others.
"""

import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from chemscale_jax.analysis.properties import simple_models
from chemscale_jax.analysis.properties.metrics import METRICS, Metric
from chemscale_jax.analysis.properties.simple_models import BOOSTING, FOREST, TREES
from chemscale_jax.chem.count_fingerprints import count_fingerprints, sizes
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.property_predictions import KINDS
from chemscale_jax.core.workdir import write_json
from chemscale_jax.core.worker_processes import usable_processes

# More molecules are thinned: they would take minutes, for little.
MOST_MOLECULES = 20_000
# A substructure of fewer training molecules teaches nothing.
_LEAST_MOLECULES = 3
# What forest and boosting are compared by.
_COMPARED_BY = {"regression": "mae", "binary": "log_loss", "multiclass": "log_loss"}


class Labelled(NamedTuple):
    """Molecules and their labels."""

    smiles: Sequence[str]
    true: np.ndarray  # (M, T) float64; NaN where there is no label


class Baseline(NamedTuple):
    """What simple models predict, and facts about them.

    Facts, all JSON-able: "targets" (a list of {"name", "model", "molecules": trained
    on, "valid": {model: metric}}), "metric" (by which models were compared), "trivial"
    (P values), "size" (T rows of coefficients, the constant last; empty for classes),
    "features" and "seconds".
    """

    predictions: dict[str, np.ndarray]  # {split: (M, P)}, as PropertyPredictions.pred
    facts: dict[str, Any]

    def save(self, path: pathlib.Path) -> None:
        """Writes the facts; predictions are kept with those of the network."""
        write_json(path, self.facts)


def fit_baseline(
    train: Labelled,
    others: Mapping[str, Labelled],
    kind: str,
    targets: Sequence[str],
    *,
    classes: int = 0,
    seed: int = 0,
    trees: int = TREES,
    most_molecules: int = MOST_MOLECULES,
    processes: int | None = None,
    say: Callable[[str], None] | None = None,
) -> Baseline:
    """Trains the simple models on a training set, and predicts other molecules.

    Args:
        train: the training set of the network.
        others: {split: molecules}; "valid" decides between forest and boosting.
        kind: one of KINDS.
        targets: T names.
        classes: how many there are, for multiclass.
        seed: of the trees, and of what is left out of large sets.
        trees: of a forest.
        most_molecules: that are trained on.
        processes: that may be kept busy; default all.
        say: called with a line for each target.

    Raises:
        UserError: no molecule of the training set has a label.
    """
    if kind not in KINDS or (kind == "multiclass" and classes < 2):
        raise ValueError(f"kind {kind!r} with {classes} classes")
    if not np.isfinite(train.true).any():
        raise UserError("no training molecule has a label: check the names of targets")
    began = time.monotonic()
    facts = {
        "metric": compared_by(kind).title,
        "trivial": trivial(train.true, kind, classes).tolist(),
        "size": _fit_sizes(train, processes) if kind == "regression" else [],
    }
    train = _thinned(train, most_molecules, seed)
    counts = count_fingerprints(train.smiles, processes=processes)
    used = (counts > 0).sum(0) >= min(_LEAST_MOLECULES, len(counts))
    used[0] |= not used.any()
    x = {"train": counts[:, used]} | {
        split: count_fingerprints(some.smiles, processes=processes)[:, used]
        for split, some in others.items()
    }
    parts: dict[str, list[np.ndarray]] = {split: [] for split in others}
    chosen = []
    for t, name in enumerate(targets):
        fact, predict = _best(
            x["train"],
            train.true[:, t],
            x.get("valid", x["train"][:0]),
            others["valid"].true[:, t] if "valid" in others else np.zeros(0),
            kind,
            classes,
            {
                "seed": seed,
                "trees": trees,
                "processes": processes or usable_processes(),
            },
        )
        chosen.append({"name": name, **fact})
        for split in others:
            parts[split].append(predict(x[split]))
        if say is not None:
            say(f"fingerprint baseline of {name}: {fact['model']}")
    facts |= {
        "targets": chosen,
        "features": int(used.sum()),
        "seconds": time.monotonic() - began,
    }
    return Baseline({s: np.concatenate(p, axis=1) for s, p in parts.items()}, facts)


def trivial(true: np.ndarray, kind: str, classes: int = 0) -> np.ndarray:
    """(P,): means of labels, or how frequent classes are; 0 where nothing is known."""
    if kind != "multiclass":
        labelled = np.isfinite(true)
        return np.where(labelled, true, 0.0).sum(0) / np.maximum(labelled.sum(0), 1)
    label = true[np.isfinite(true[:, 0]), 0].astype(np.int64)
    return np.bincount(label, minlength=classes) / max(len(label), 1)


def size_predictions(facts: Mapping[str, Any], smiles: Sequence[str]) -> np.ndarray:
    """(M, T): numbers that the sizes of molecules alone predict, by facts."""
    return _with_constant(sizes(smiles)) @ np.array(facts["size"], np.float64).T


def _best(
    x: np.ndarray,
    true: np.ndarray,
    valid_x: np.ndarray,
    valid_true: np.ndarray,
    kind: str,
    classes: int,
    settings: Mapping[str, int],
) -> tuple[dict[str, Any], simple_models.Predict]:
    """The better model of one target, and its facts."""
    rows, judged = np.isfinite(true), np.isfinite(valid_true)
    made = {}
    for model in (FOREST, BOOSTING) if judged.any() else (FOREST,):
        made[model] = fit_target(model, x[rows], true[rows], kind, classes, settings)
    metric, values = compared_by(kind), {}
    for model, predict in made.items() if judged.any() else ():
        found = predict(valid_x[judged])
        column = found if kind == "multiclass" else found[:, 0]
        once = np.ones((1, len(column)))
        values[model] = float(metric.statistic(valid_true[judged], column, once)[0])
    model = min(made, key=lambda m: values.get(m, 0.0))
    fact = {"model": model, "molecules": int(rows.sum()), "valid": values}
    return fact, made[model]


def fit_target(
    model: str,
    x: np.ndarray,
    true: np.ndarray,
    kind: str,
    classes: int,
    settings: Mapping[str, int],
    *,
    balanced: bool = False,
) -> simple_models.Predict:
    """A forest or boosted trees of one target; a constant where all labels are equal.

    Args:
        model: FOREST or BOOSTING of `simple_models`.
        x: (M, features).
        true: (M,) without gaps, at least one.
        kind: one of KINDS.
        classes: how many there are, for multiclass.
        settings: "seed", "trees" and "processes" of `simple_models`.
        balanced: whether classes count alike, see `simple_models.fit_classes`.
    """
    if len(np.unique(true)) < 2:
        constant = trivial(true[:, None], kind, classes)
        return lambda new: np.tile(constant, (len(new), 1))
    if kind == "regression":
        return simple_models.fit_numbers(model, x, true, **settings)
    label = true.astype(np.int64)
    if kind == "multiclass":
        return simple_models.fit_classes(
            model, x, label, classes, balanced=balanced, **settings
        )
    chances = simple_models.fit_classes(
        model, x, label, 2, balanced=balanced, **settings
    )
    return lambda new: chances(new)[:, 1:]


def compared_by(kind: str) -> Metric:
    """The metric by which one of several models is chosen; lower is better."""
    (metric,) = (m for m in METRICS[kind] if m.name == _COMPARED_BY[kind])
    return metric


def _thinned(molecules: Labelled, most: int, seed: int) -> Labelled:
    n = len(molecules.smiles)
    if n <= most:
        return molecules
    kept = np.sort(np.random.default_rng(seed).choice(n, most, replace=False))
    smiles: list[str] = [molecules.smiles[int(i)] for i in kept]
    return Labelled(smiles, molecules.true[kept])


def _fit_sizes(train: Labelled, processes: int | None) -> list[list[float]]:
    x = _with_constant(sizes(train.smiles, processes=processes))
    rows = []
    for column in train.true.T:
        labelled = np.isfinite(column)
        # The least of all solutions, where sizes are the same.
        solution, *_ = np.linalg.lstsq(x[labelled], column[labelled], rcond=None)
        rows.append(solution.tolist())
    return rows


def _with_constant(counts: np.ndarray) -> np.ndarray:
    return np.concatenate([counts, np.ones((len(counts), 1))], axis=1)
