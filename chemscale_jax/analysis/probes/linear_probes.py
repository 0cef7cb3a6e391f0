"""Linear models of embeddings: ridge and logistic regression, over all penalties.

Least squares are solved for all penalties by one decomposition, and for all targets
whose labels are there for the same molecules. Features are centred and each is scaled
to a deviation of 1; those that are mostly zero, such as counts of substructures, keep
their relative scale, since rare ones would become the largest. Both are of the training
set alone.
"""

import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy import sparse
from scipy.special import expit, softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

# Of the mean squared error or the mean log loss of features of deviation 1.
RIDGE_PENALTIES = tuple(np.logspace(-4, 3, 15).tolist())
LOGISTIC_PENALTIES = tuple(np.logspace(2, -4, 7).tolist())
# Features with more zeros than this share are counts that are mostly zero.
_SPARSE = 0.8
# A feature of fewer molecules teaches nothing.
_LEAST_MOLECULES = 3
# Up to so many features Newton's steps are cheaper than more of others.
_NEWTON_FEATURES = 300
_MOST_STEPS = 300
_TOLERANCE = 1e-3


class LinearProbe(NamedTuple):
    """Outputs ``x weights + offset``, or chances by a logistic or softmax function."""

    kind: str  # one of `core.property_predictions.KINDS`
    weights: np.ndarray  # (D, P) float64
    offset: np.ndarray  # (P,) float64

    def __call__(self, x: np.ndarray | sparse.csr_array) -> np.ndarray:
        """(M, P) numbers or chances for (M, D) features."""
        if not sparse.issparse(x):
            x = np.asarray(x, np.float64)
        found = np.asarray(x @ self.weights) + self.offset
        if self.kind == "regression":
            return found
        return expit(found) if self.kind == "binary" else softmax(found, axis=1)


class _Features(NamedTuple):
    """Centred and scaled features of a training set, and how they came about."""

    scaled: np.ndarray | sparse.csr_array  # (M, D)
    centre: np.ndarray  # (D,)
    factor: np.ndarray  # (D,)

    def probe(self, kind: str, weights: np.ndarray, offset: np.ndarray) -> LinearProbe:
        """A model of the scaled features as one of those that were given."""
        own = weights * self.factor[:, None]
        return LinearProbe(kind, own, offset - self.centre @ own)


def mostly_zero(x: np.ndarray) -> bool:
    """Whether features are counts of things that few molecules have."""
    return bool((x == 0).mean() > _SPARSE)


def useful_features(x: np.ndarray) -> np.ndarray:
    """(D,) bool: those that differ over the molecules (M, D), and not for one or two.

    At least one is useful.
    """
    used = x.min(0) < x.max(0)
    if mostly_zero(x):
        used &= (x != 0).sum(0) >= min(_LEAST_MOLECULES, len(x))
    used[0] |= not used.any()
    return used


def fit_ridge(x: np.ndarray, y: np.ndarray) -> Iterator[LinearProbe]:
    """Ridge regression with each of `RIDGE_PENALTIES`, one after the other.

    Minimises ``|y - x w - b|^2 / M + penalty |w|^2`` of scaled features.

    Args:
        x: (M, D).
        y: (M, T), without gaps.
    """
    features = _scaled(x)
    a = np.asarray(features.scaled)
    mean = y.mean(0)
    if len(a) <= a.shape[1]:
        values, vectors = np.linalg.eigh(a @ a.T)
        rotation, loads = a.T @ vectors, vectors.T @ (y - mean)
    else:
        values, rotation = np.linalg.eigh(a.T @ a)
        loads = rotation.T @ (a.T @ (y - mean))
    values = np.maximum(values, 0.0)[:, None]
    for penalty in RIDGE_PENALTIES:
        weights = rotation @ (loads / (values + len(a) * penalty))
        yield features.probe("regression", weights, mean)


def fit_logistic(
    x: np.ndarray | sparse.csr_array, y: np.ndarray, classes: int
) -> Iterator[LinearProbe]:
    """Logistic regression with each of `LOGISTIC_PENALTIES`, one after the other.

    Each starts from the one before; the weakest take most of the time.

    Classes weigh alike, whatever their numbers of molecules; offsets then take chances
    back to their frequencies, as `simple_models.at_frequencies` does.

    Args:
        x: (M, D); sparse where features are mostly zero.
        y: (M,) int, classes from 0.
        classes: how many there are; 2 gives a binary probe of one output.
    """
    binary = classes == 2
    kind = "binary" if binary else "multiclass"
    counted = isinstance(x, sparse.csr_array)
    own = _scaled_counts(x) if isinstance(x, sparse.csr_array) else _scaled(x)
    D = len(own.factor)
    counts = np.bincount(y, minlength=classes)
    known = np.flatnonzero(counts)
    if len(known) < 2:
        # As if there had been half a molecule of each class besides.
        prior = np.log(counts + 0.5)
        offset = prior[1:] - prior[:1] if binary else prior
        probe = LinearProbe(kind, np.zeros((D, len(offset))), offset)
        yield from [probe] * len(LOGISTIC_PENALTIES)
        return
    few = D <= _NEWTON_FEATURES and len(known) == 2
    model = LogisticRegression(
        solver="newton-cholesky" if few and not counted else "lbfgs",
        class_weight="balanced",
        max_iter=_MOST_STEPS,
        tol=_TOLERANCE,
        warm_start=True,
    )
    prior = np.log(counts[known] / len(y))
    for penalty in LOGISTIC_PENALTIES:
        model.C = 1 / (penalty * len(y))
        with warnings.catch_warnings():
            # What has not come to rest after so many steps is judged like others.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(own.scaled, y)
        slopes, intercept = np.asarray(model.coef_).T, np.asarray(model.intercept_)
        if binary:
            offset = intercept + prior[1] - prior[0]
            yield own.probe(kind, slopes, offset)
            continue
        if len(known) == 2:  # the first of which the other one is measured against
            slopes = np.concatenate([np.zeros_like(slopes), slopes], axis=1)
            intercept = np.concatenate([[0.0], intercept])
        weights = np.zeros((D, classes))
        weights[:, known] = slopes
        offset = np.full(classes, -np.inf)  # no chance of a class nobody has seen
        offset[known] = intercept + prior
        yield own.probe(kind, weights, offset)


def _scaled(x: np.ndarray) -> _Features:
    x = np.asarray(x, np.float64)
    counts = mostly_zero(x)
    centre, spread = x.mean(0), x.std(0)
    differs = spread > 1e-9 * max(float(np.abs(x).max(initial=0.0)), 1e-300)
    safe = np.where(differs, spread, 1.0)
    if counts and differs.any():
        safe = np.full_like(spread, np.sqrt((spread[differs] ** 2).mean()))
    factor = np.where(differs, 1 / safe, 0.0)
    return _Features((x - centre) * factor, centre, factor)


def _scaled_counts(x: sparse.csr_array) -> _Features:
    """The same of mostly zeros, which stay zero.

    They are not centred: offsets are not penalised, so it makes no difference.
    """
    mean = np.asarray(x.mean(axis=0))
    spread = np.asarray(x.power(2).mean(axis=0)) - mean**2
    differs = spread > 1e-12
    typical = np.sqrt(spread[differs].mean()) if differs.any() else 1.0
    factor = np.where(differs, 1 / typical, 0.0)
    return _Features(sparse.csr_array(x * factor), np.zeros_like(mean), factor)
