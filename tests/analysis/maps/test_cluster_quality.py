import numpy as np
import pytest
from sklearn.metrics import silhouette_score
from sklearn.neighbors import NearestNeighbors

from chemscale_jax.analysis.bootstrap import half_samples
from chemscale_jax.analysis.maps.cluster_quality import (
    difference,
    eligible,
    group_quality,
    kept_neighbors,
    nearest_neighbors,
    number_quality,
)

FEW = {"replicates": 40, "permutations": 40}


def planted(n=240, shift=2.0, seed=0):
    """Three groups of unequal size along the first axis."""
    rng = np.random.default_rng(seed)
    groups = rng.choice(3, size=n, p=(0.6, 0.3, 0.1))
    values = rng.normal(size=(n, 6))
    values[:, 0] += shift * groups
    return values.astype(np.float32), groups.astype(str)


def brute_purity(values, groups, k):
    near = NearestNeighbors(n_neighbors=k + 1).fit(values).kneighbors(values)[1]
    return (groups[near[:, 1:]] == groups[:, None]).mean(1)


def test_neighbors_are_those_of_brute_force_and_ties_keep_their_order():
    values, _ = planted()
    found = nearest_neighbors(values, 7)
    near = NearestNeighbors(n_neighbors=8).fit(values).kneighbors(values)[1]
    assert (found == near[:, 1:]).all()
    same = nearest_neighbors(np.zeros((5, 2), np.float32), 2)
    assert same.tolist() == [[1, 2], [0, 2], [0, 1], [0, 1], [0, 1]]


def test_measures_are_those_of_brute_force():
    values, groups = planted()
    found = group_quality(values, groups, **FEW)
    each = brute_purity(values, groups, 5)
    assert found["purity"].value == pytest.approx(each.mean())
    balanced = np.mean([each[groups == g].mean() for g in "012"])
    assert found["balanced"].value == pytest.approx(balanced)
    score = silhouette_score(values, groups)
    assert found["silhouette"].value == pytest.approx(score, abs=1e-5)
    assert {m.molecules for m in found.values()} == {240}


def test_neighbors_on_halves_are_found_anew():
    values, groups = planted()
    found = group_quality(values, groups, seed=3, **FEW)
    half = np.flatnonzero(half_samples(240, 3, 40)[7])
    own = brute_purity(values[half], groups[half], 5)
    assert found["purity"].halves[7] == pytest.approx(own.mean())
    score = silhouette_score(values[half], groups[half])
    assert found["silhouette"].halves[7] == pytest.approx(score, abs=1e-5)


def test_labels_without_relation_are_told_by_permutation():
    values, groups = planted()
    shuffled = np.random.default_rng(1).permutation(groups)
    known = group_quality(values, groups, **FEW)["balanced"]
    unknown = group_quality(values, shuffled, **FEW)["balanced"]
    assert known.p == pytest.approx(1 / 41)
    assert known.chance == pytest.approx(1 / 3, abs=0.03)  # of three groups
    assert unknown.p > 0.05
    assert unknown.chance_interval[0] <= unknown.value <= unknown.chance_interval[1]


def interval(quality):
    """Both ends, which every measure of more than a few molecules has."""
    assert quality.interval is not None
    return quality.interval


def test_intervals_are_as_wide_as_samples_vary():
    """95 % intervals against the spread over fresh samples of the population."""
    values, widths = [], []
    for seed in range(30):
        found = group_quality(*planted(160, seed=seed), replicates=60, permutations=1)
        values.append([found[name].value for name in ("purity", "silhouette")])
        widths.append([np.ptp(interval(found[n])) for n in ("purity", "silhouette")])
    ratio = np.mean(widths, axis=0) / (2 * 1.96 * np.std(values, axis=0))
    # Thirty samples tell a deviation to 13 %.
    assert (ratio > 0.7).all()
    assert (ratio < 1.6).all()


def test_differences_are_paired():
    values, groups = planted()
    clear = group_quality(values, groups, **FEW)["balanced"]
    noisy = values + np.random.default_rng(5).normal(size=values.shape) * 0.05
    near = group_quality(noisy, groups, **FEW)["balanced"]
    gap = difference(clear, near)
    assert gap.value == pytest.approx(clear.value - near.value)
    assert np.ptp(interval(gap)) < 0.7 * np.ptp(interval(clear))
    assert interval(gap)[0] < 0 < interval(gap)[1]
    lost = group_quality(values[:, 1:], groups, **FEW)["balanced"]
    assert interval(difference(clear, lost))[0] > 0
    fewer = group_quality(values[:200], groups[:200], **FEW)["balanced"]
    with pytest.raises(ValueError, match="240 and 200"):
        difference(clear, fewer)


def test_contrast_is_that_of_brute_force():
    values, _ = planted(120)
    numbers = values[:, 0].astype(np.float64)
    found = number_quality(values, numbers, **FEW)["contrast"]
    near = NearestNeighbors(n_neighbors=6).fit(values).kneighbors(values)[1][:, 1:]
    apart = np.abs(numbers[near] - numbers[:, None]).mean()
    pairs = np.abs(numbers[:, None] - numbers)[~np.eye(120, dtype=bool)].mean()
    assert found.value == pytest.approx(apart / pairs)
    assert found.chance == pytest.approx(1, abs=0.05)
    assert found.p == pytest.approx(1 / 41)
    assert interval(found)[0] < found.value < interval(found)[1] < 1


def test_small_groups_and_unknown_labels_are_left_out():
    groups = np.array(["a"] * 10 + ["b"] * 10 + ["c"] * 9 + [""] * 30)
    assert eligible(groups).tolist() == [True] * 20 + [False] * 39
    assert not eligible(groups[:10]).any()  # one group is not enough


def test_kept_neighbors():
    values, _ = planted(60)
    assert kept_neighbors(values, values * 3 + 1, 5) == 1
    assert (
        kept_neighbors(values, np.random.default_rng(0).normal(size=(60, 2)), 5) < 0.3
    )
