"""Metrics of a set of molecules, as MOSES defines them, from arrays alone.

Definitions are those of Polykovskiy et al. 2020 and of their program; each figure comes
with an interval, see `bootstrap`. An interval speaks of the sample that is measured:
what it is compared with is taken as fixed.
"""

import collections
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import linalg, sparse, stats

from chemscale_jax.analysis import bootstrap
from chemscale_jax.analysis.search.similarity import nearest, weighted_sums


class Estimate(NamedTuple):
    """A figure with its interval."""

    value: float
    interval: tuple[float, float] | None  # None where nothing can be said
    over: int  # molecules it was computed from


class Draws(NamedTuple):
    """How intervals are drawn."""

    seed: int = 0
    replicates: int = 200


def mean_of(values: np.ndarray, draws: Draws) -> Estimate:
    """A mean over molecules, such as the share of valid ones."""
    if not len(values):
        return Estimate(float("nan"), None, 0)
    interval = bootstrap.mean_interval(values, draws.seed, draws.replicates)
    return Estimate(float(np.mean(values)), interval, len(values))


def uniqueness(canonical: Sequence[str], k: int, draws: Draws) -> Estimate:
    """unique@k: distinct molecules among the first k, by the number of these.

    Where there are fewer than k, it is over those there are.

    Args:
        canonical: canonical SMILES of the valid molecules, as they were generated.
        k: how many to look at.
        draws: of the interval.
    """
    first = canonical[:k]
    if not first:
        return Estimate(float("nan"), None, 0)
    names = {name: i for i, name in enumerate(dict.fromkeys(first))}
    ids = np.array([names[name] for name in first])

    def share(places: np.ndarray) -> float:
        return len(np.unique(ids[places])) / len(places)

    return Estimate(
        *bootstrap.over_halves(share, len(ids), **draws._asdict()), len(ids)
    )


def novelty(keys: np.ndarray, known: np.ndarray, draws: Draws) -> Estimate:
    """The share of the distinct molecules that are not among known ones.

    Args:
        keys: (n,) uint64, of the valid molecules, repeated ones included.
        known: (m,) uint64, of the training molecules.
        draws: of the interval.
    """
    distinct = np.unique(keys)
    return mean_of(~np.isin(distinct, known), draws)


def internal_diversity(bits: np.ndarray, draws: Draws) -> dict[str, Estimate]:
    """IntDiv_p = 1 - (mean over all pairs of T^p)^(1/p), self pairs included.

    "IntDiv2 (program)" is what the program of MOSES computes in place of IntDiv_2: the
    root is taken for each molecule, and the mean of the roots after it. Halves hold a
    larger share of self pairs than the whole, which centring takes off.

    Args:
        bits: (n, bytes) uint8, packed fingerprints of the valid molecules.
        draws: of the intervals.
    """
    names = ("IntDiv", "IntDiv2", "IntDiv2 (program)")
    n = len(bits)
    if not n:
        return dict.fromkeys(names, Estimate(float("nan"), None, 0))
    halves = bootstrap.half_samples(n, *draws) if n > 1 else np.ones((0, 1), bool)
    weights = np.concatenate([np.full((1, n), 1 / n), halves / max(1, n // 2)]).T
    sums = weighted_sums(bits, weights, (1, 2))
    found = (
        1 - (weights * sums[1]).sum(axis=0),
        1 - np.sqrt((weights * sums[2]).sum(axis=0)),
        1 - (weights * np.sqrt(sums[2])).sum(axis=0),
    )
    return {
        name: Estimate(
            float(values[0]),
            bootstrap.half_sample_interval(
                float(values[0]), values[1:], n, lowest=0.0, highest=1.0
            ),
            n,
        )
        for name, values in zip(names, found, strict=True)
    }


def nearest_similarity(
    bits: np.ndarray, reference: np.ndarray, draws: Draws
) -> Estimate:
    """SNN: the mean similarity of a molecule to the nearest one of the reference.

    Args:
        bits: (n, bytes) uint8, packed fingerprints of the valid molecules.
        reference: (m, bytes) uint8.
        draws: of the interval.
    """
    return mean_of(nearest(bits, reference), draws)


def count_cosine(
    items: Sequence[Iterable[str]], reference: Sequence[Iterable[str]], draws: Draws
) -> Estimate:
    """Frag or Scaf: the cosine of the counts of pieces in two sets of molecules.

    NaN where one of the sets has no piece.

    Args:
        items: pieces of each molecule.
        reference: pieces of each molecule of the reference.
        draws: of the interval.
    """
    expected = collections.Counter(name for names in reference for name in names)
    places: dict[str, int] = {name: i for i, name in enumerate(expected)}
    rows, columns = [], []
    for row, names in enumerate(items):
        for name in names:
            rows.append(row)
            columns.append(places.setdefault(name, len(places)))
    shape = (len(items), max(1, len(places)))
    counts = sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=shape)
    other = np.zeros(shape[1])
    other[: len(expected)] = list(expected.values())

    def cosine(chosen: np.ndarray) -> float:
        found = counts[chosen].sum(axis=0)
        scale = np.linalg.norm(found) * np.linalg.norm(other)
        return float(found @ other / scale) if scale else float("nan")

    return Estimate(
        *bootstrap.over_halves(cosine, len(items), **draws._asdict()), len(items)
    )


def wasserstein(values: np.ndarray, reference: np.ndarray, draws: Draws) -> Estimate:
    """The 1-Wasserstein distance of two samples of a property, in its unit."""
    if not len(values) or not len(reference):
        return Estimate(float("nan"), None, len(values))

    def distance(places: np.ndarray) -> float:
        return float(stats.wasserstein_distance(reference, values[places]))

    found = bootstrap.over_halves(
        distance, len(values), **draws._asdict(), highest=np.inf
    )
    return Estimate(*found, len(values))


def frechet(activations: np.ndarray, reference: np.ndarray, draws: Draws) -> Estimate:
    """The Frechet distance of the normal distributions fitted to two samples.

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), Eq. 2 of Preuer et al. 2018. It falls
    with the size of the samples, so compare it at equal sizes only; the interval is of
    the spread alone.

    Args:
        activations: (n, d), of the generated molecules.
        reference: (m, d).
        draws: of the interval.
    """
    n = len(activations)
    if n < 2 or len(reference) < 2:
        return Estimate(float("nan"), None, n)
    mean, covariance = reference.mean(axis=0), np.cov(reference.T, ddof=1)
    root = _root(np.atleast_2d(covariance))

    def distance(places: np.ndarray) -> float:
        some = activations[places].astype(np.float64)
        own = np.atleast_2d(np.cov(some.T, ddof=1))
        # The eigenvalues of C1 C2 are those of the symmetric root(C2) C1 root(C2).
        shared = linalg.eigvalsh(root @ own @ root)
        between = some.mean(axis=0) - mean
        return float(
            between @ between
            + np.trace(own)
            + np.trace(np.atleast_2d(covariance))
            - 2 * np.sqrt(np.maximum(shared, 0)).sum()
        )

    found = bootstrap.over_halves(distance, n, **draws._asdict(), highest=np.inf)
    return Estimate(*found, n)


def _root(matrix: np.ndarray) -> np.ndarray:
    """The square root of a symmetric matrix without negative eigenvalues."""
    values, vectors = linalg.eigh(matrix)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
