"""Forests and boosted trees of scikit-learn, behind one function."""

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from threadpoolctl import threadpool_limits

FOREST, BOOSTING = "random forest", "boosted trees"
TREES = 100
# Fewer labels are not parted again to tell when boosting should stop.
_LEAST_TO_STOP = 200
_LEAST_OF_CLASS = 10

# (M, features) -> (M, 1), or (M, C) chances of classes
Predict = Callable[[np.ndarray], np.ndarray]


def fit_numbers(
    model: str, x: np.ndarray, y: np.ndarray, *, seed: int, trees: int, processes: int
) -> Predict:
    """Learns numbers.

    Args:
        model: FOREST or BOOSTING.
        x: (M, features).
        y: (M,), at least one.
        seed: of all that is random.
        trees: of a forest.
        processes: threads of a forest.
    """
    if model == BOOSTING:
        settings = _boosting(len(y), len(y) >= _LEAST_TO_STOP, seed)
        with threadpool_limits(1, "openmp"):  # more wait for each other
            boosted = HistGradientBoostingRegressor(**settings).fit(x, y)
        return lambda new: boosted.predict(new)[:, None]
    forest = RandomForestRegressor(
        trees, max_features=1 / 3, n_jobs=processes, random_state=seed
    ).fit(x, y)
    # Threads add up the trees in any order, so sums would differ in the last place.
    forest.set_params(n_jobs=1)
    return lambda new: forest.predict(new)[:, None]


def fit_classes(
    model: str,
    x: np.ndarray,
    y: np.ndarray,
    classes: int,
    *,
    seed: int,
    trees: int,
    processes: int,
    balanced: bool = False,
) -> Predict:
    """Learns chances of classes 0 ... C - 1, at least one of which occurs.

    Chances are mixed with the frequencies in the training set, as if one more tree
    knew nothing else: so none is 0 for sure, which one mistake would make infinitely
    wrong.

    Args:
        model: FOREST or BOOSTING.
        x: (M, features).
        y: (M,) int.
        classes: C.
        seed: of all that is random.
        trees: of a forest.
        processes: threads of a forest.
        balanced: whether all classes that occur weigh the same when trees are grown;
            chances are brought back to the frequencies, see `at_frequencies`.
    """
    weight = "balanced" if balanced else None
    if model == BOOSTING:
        # Stopping parts the labels, and needs two of each class.
        rarest = np.unique_counts(y).counts.min()
        stop = len(y) >= _LEAST_TO_STOP and rarest >= _LEAST_OF_CLASS
        settings = _boosting(len(y), bool(stop), seed)
        with threadpool_limits(1, "openmp"):  # more wait for each other
            made = HistGradientBoostingClassifier(class_weight=weight, **settings)
            made.fit(x, y)
    else:
        made = RandomForestClassifier(
            trees, class_weight=weight, n_jobs=processes, random_state=seed
        ).fit(x, y)
        made.set_params(n_jobs=1)
    known = np.asarray(made.classes_, np.int64)
    frequent = np.bincount(y, minlength=classes) / len(y)

    def chances(new: np.ndarray) -> np.ndarray:
        found = np.zeros((len(new), classes))
        found[:, known] = made.predict_proba(new)
        if balanced:
            found = at_frequencies(found, frequent)
        return (found * trees + frequent) / (trees + 1)

    return chances


def at_frequencies(chances: np.ndarray, frequencies: np.ndarray) -> np.ndarray:
    """Chances where classes are as frequent as they are, not all alike.

    A model whose classes were weighted by 1 / frequency gives chances of a world in
    which they are equally frequent; Bayes' rule takes them to the real one (Saerens,
    Latinne and Decaestecker 2002). The order of molecules by the chance of one
    of two classes stays.

    Args:
        chances: (M, C), each row with some chance of a class that occurs.
        frequencies: (C,) in the training set.
    """
    found = chances * frequencies
    return found / found.sum(1, keepdims=True)


def _boosting(molecules: int, stop: bool, seed: int) -> dict[str, Any]:
    """Settings: without a part that tells when to stop, it goes on for less long."""
    return {
        "learning_rate": 0.1,
        "max_iter": 300 if stop else 60,
        # As good as with all, in a third of the time.
        "max_features": 0.2,
        # Trees of small sets could not split with the usual 20.
        "min_samples_leaf": min(20, max(1, molecules // 10)),
        "early_stopping": stop,
        "random_state": seed,
    }
