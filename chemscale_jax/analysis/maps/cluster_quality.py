"""How well neighbours in a space agree in a label: numbers for what a map shows.

- purity: of a molecule's k nearest, the share in its own group, as a mean over the
  molecules; balanced: a mean over groups of the group's mean, so that the largest does
  not decide;
- silhouette (Rousseeuw 1987): (b - a) / max(a, b) of a molecule's mean distance a to
  its own group and b to the nearest other one, as a mean over molecules; -1 to 1;
- contrast, of numbers: the mean difference of a molecule's value from those of its k
  nearest, over that of all pairs: 1 by chance, 0 where neighbours are equal.

All depend on pairs of molecules, so intervals are from random halves (see `bootstrap`),
on each of which neighbours are found anew. Control: the same with labels permuted.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from chemscale_jax.analysis.bootstrap import half_sample_interval, half_samples

NEIGHBORS = 5
# Of a smaller group, half would have fewer members than there are neighbours.
LEAST_MEMBERS = 10
REPLICATES = 200
PERMUTATIONS = 200
# More molecules than this are thinned for the silhouette, which takes all distances.
_MOST_SILHOUETTE = 2000
# Sorted neighbours that are kept of each molecule, so that halves have enough.
_LISTED = 10
_BLOCK = 1024


class Measure(NamedTuple):
    """One number, how sure it is, and what it is without any relation.

    Attributes:
        value: on all molecules.
        interval: 95 %, over molecules; None of very few.
        chance: mean with permuted labels.
        chance_interval: where 95 % of the permutations lie.
        p: share of permutations that do as well, counting the labels themselves.
        molecules: it was measured on.
        halves: (r,) the values on halves, by which others are compared.
        lowest: it can be.
        highest: it can be.
    """

    value: float
    interval: tuple[float, float] | None
    chance: float
    chance_interval: tuple[float, float]
    p: float
    molecules: int
    halves: np.ndarray
    lowest: float
    highest: float


class Gap(NamedTuple):
    """A difference of two measures of the same molecules, with its paired interval."""

    value: float
    interval: tuple[float, float] | None


def difference(first: Measure, second: Measure) -> Gap:
    """First less second; both on the same molecules, and so on the same halves.

    Raises:
        ValueError: they are not.
    """
    if first.molecules != second.molecules:
        raise ValueError(
            f"measured on {first.molecules} and {second.molecules} molecules"
        )
    width = first.highest - first.lowest
    value = first.value - second.value
    halves = first.halves - second.halves
    return Gap(
        value, half_sample_interval(value, halves, first.molecules, -width, width)
    )


def nearest_neighbors(values: np.ndarray, count: int) -> np.ndarray:
    """The nearest other points of each, by Euclidean distance, the nearest first.

    Args:
        values: (n, D).
        count: of neighbours, at most n - 1.

    Returns:
        (n, count) int32; of equal distances, the first in the order of the points.
    """
    n = len(values)
    count = min(count, n - 1)
    values = np.ascontiguousarray(values - values.mean(axis=0), np.float32)
    squares = np.einsum("nd,nd->n", values, values)
    found = np.empty((n, count), np.int32)
    for start in range(0, n, _BLOCK):
        own = slice(start, min(start + _BLOCK, n))
        distance = squares - 2 * (values[own] @ values.T)
        distance[np.arange(len(distance)), np.arange(start, own.stop)] = np.inf
        near = np.sort(np.argpartition(distance, count - 1, axis=1)[:, :count], axis=1)
        order = np.argsort(np.take_along_axis(distance, near, 1), axis=1, kind="stable")
        found[own] = np.take_along_axis(near, order, 1)
    return found


def eligible(groups: np.ndarray, least: int = LEAST_MEMBERS) -> np.ndarray:
    """Which molecules are in a group of enough members.

    Args:
        groups: (n,) str; "" is unknown.
        least: members.

    Returns:
        (n,) bool; none, unless there are two such groups.
    """
    names, codes, counts = np.unique(groups, return_inverse=True, return_counts=True)
    large = (counts >= least) & (names != "")
    return large[codes] if large.sum() > 1 else np.zeros(len(groups), bool)


def group_quality(
    values: np.ndarray,
    groups: np.ndarray,
    *,
    neighbors: int = NEIGHBORS,
    seed: int = 0,
    replicates: int = REPLICATES,
    permutations: int = PERMUTATIONS,
) -> dict[str, Measure]:
    """How well groups part in a space: "balanced", "purity" and "silhouette".

    Args:
        values: (n, D), of molecules that are all `eligible`.
        groups: (n,) their groups, at least two.
        neighbors: k.
        seed: of halves and permutations.
        replicates: number of halves.
        permutations: of the labels.
    """
    codes = np.unique(groups, return_inverse=True)[1].astype(np.int32)
    lists = nearest_neighbors(values, neighbors * _LISTED)

    def purity(codes: np.ndarray, chosen: np.ndarray | None) -> np.ndarray:
        rows = slice(None) if chosen is None else chosen
        use = _nearest_chosen(lists, neighbors, chosen)
        same = codes[lists[rows][:, : use.shape[1]]] == codes[rows][:, None]
        return (same & use).sum(1) / np.maximum(use.sum(1), 1)

    def balanced(codes: np.ndarray, chosen: np.ndarray | None) -> float:
        rows = slice(None) if chosen is None else chosen
        sums = np.bincount(codes[rows], purity(codes, chosen))
        counts = np.bincount(codes[rows])
        return float((sums[counts > 0] / counts[counts > 0]).mean())

    found = {}
    measure = _Measuring(seed, replicates, permutations)
    found["balanced"] = measure(balanced, codes, 0.0, 1.0)
    found["purity"] = measure(lambda *a: float(purity(*a).mean()), codes, 0.0, 1.0)
    rng = np.random.default_rng(seed)
    some = np.sort(rng.permutation(len(codes))[:_MOST_SILHOUETTE])
    distances = _distances(values[some])
    found["silhouette"] = measure(
        lambda codes, chosen: _silhouette(distances, codes, chosen),
        codes[some],
        -1.0,
        1.0,
    )
    return found


def number_quality(
    values: np.ndarray,
    numbers: np.ndarray,
    *,
    neighbors: int = NEIGHBORS,
    seed: int = 0,
    replicates: int = REPLICATES,
    permutations: int = PERMUTATIONS,
) -> dict[str, Measure]:
    """How much closer numbers of neighbours are in a space: "contrast".

    Args:
        values: (n, D).
        numbers: (n,) finite, not all equal.
        neighbors: see `group_quality`, also for what follows.
        seed: see there.
        replicates: see there.
        permutations: see there.
    """
    lists = nearest_neighbors(values, neighbors * _LISTED)

    def contrast(numbers: np.ndarray, chosen: np.ndarray | None) -> float:
        rows = slice(None) if chosen is None else chosen
        use = _nearest_chosen(lists, neighbors, chosen)
        own = numbers[rows]
        apart = np.abs(numbers[lists[rows][:, : use.shape[1]]] - own[:, None])
        near = (apart * use).sum(1) / np.maximum(use.sum(1), 1)
        all_pairs = _mean_difference(own)
        return float(near.mean() / all_pairs) if all_pairs > 0 else np.nan

    measure = _Measuring(seed, replicates, permutations)
    return {"contrast": measure(contrast, numbers, 0.0, np.inf, lower_is_better=True)}


def kept_neighbors(first: np.ndarray, second: np.ndarray, neighbors: int) -> float:
    """Share of the k nearest in one space that are so in another: (n, D), (n, C)."""
    one = np.sort(nearest_neighbors(first, neighbors), axis=1)
    two = nearest_neighbors(second, neighbors)
    return float((one[:, :, None] == two[:, None, :]).any(2).mean())


class _Measuring(NamedTuple):
    """A statistic (labels, rows or None for all) -> float, with all that is around."""

    seed: int
    replicates: int
    permutations: int

    def __call__(
        self,
        statistic: Callable[[np.ndarray, np.ndarray | None], float],
        labels: np.ndarray,
        lowest: float,
        highest: float,
        *,
        lower_is_better: bool = False,
    ) -> Measure:
        n = len(labels)
        value = statistic(labels, None)
        halves = np.array(
            [
                statistic(labels, np.flatnonzero(half))
                for half in half_samples(n, self.seed, self.replicates)
            ]
        )
        rng = np.random.default_rng(self.seed)
        permuted = np.array(
            [statistic(rng.permutation(labels), None) for _ in range(self.permutations)]
        )
        as_good = permuted <= value if lower_is_better else permuted >= value
        return Measure(
            value,
            half_sample_interval(value, halves, n, lowest, highest),
            float(permuted.mean()),
            (float(np.quantile(permuted, 0.025)), float(np.quantile(permuted, 0.975))),
            float((1 + as_good.sum()) / (1 + len(permuted))),
            n,
            halves,
            lowest,
            highest,
        )


def _nearest_chosen(
    lists: np.ndarray, neighbors: int, chosen: np.ndarray | None
) -> np.ndarray:
    """Which entries of the chosen rows' lists are their k nearest chosen points."""
    if chosen is None:
        return np.ones((len(lists), min(neighbors, lists.shape[1])), bool)
    inside = np.zeros(len(lists), bool)
    inside[chosen] = True
    found = inside[lists[chosen]]
    return found & (np.cumsum(found, axis=1, dtype=np.int16) <= neighbors)


def _distances(values: np.ndarray) -> np.ndarray:
    """(n, n) float32."""
    values = values - values.mean(axis=0)
    squares = np.einsum("nd,nd->n", values, values)
    found = squares[:, None] + squares - 2 * (values @ values.T)
    np.fill_diagonal(found, 0)
    return np.sqrt(np.maximum(found, 0))


def _silhouette(
    distances: np.ndarray, codes: np.ndarray, chosen: np.ndarray | None
) -> float:
    if chosen is not None:
        distances, codes = distances[np.ix_(chosen, chosen)], codes[chosen]
    codes = np.unique(codes, return_inverse=True)[1]
    counts = np.bincount(codes)
    if len(counts) < 2:
        return np.nan
    n = len(codes)
    members = np.zeros((n, len(counts)), np.float32)
    members[np.arange(n), codes] = 1
    sums = distances @ members
    rows = np.arange(n)
    own = sums[rows, codes] / np.maximum(counts[codes] - 1, 1)
    other = sums / counts
    other[rows, codes] = np.inf
    nearest = other.min(axis=1)
    widest = np.maximum(own, nearest)
    scores = (nearest - own) / np.where(widest > 0, widest, 1)
    return float(np.where(counts[codes] > 1, scores, 0).mean())


def _mean_difference(numbers: np.ndarray) -> float:
    """Mean of |a - b| over all pairs of different molecules."""
    n = len(numbers)
    ranked = np.sort(numbers)
    weights = 2 * np.arange(n) - n + 1
    return float(2 * (weights * ranked).sum() / (n * (n - 1)))
