import numpy as np
import pytest

from chemscale_jax.analysis.generation import set_metrics
from chemscale_jax.analysis.generation.set_metrics import Draws
from tests.analysis.search.test_similarity import packed

DRAWS = Draws(seed=0, replicates=50)
# float32 similarities.
EXACT = 1e-6


def test_uniqueness_is_over_the_first_k():
    smiles = ["C", "C", "O", "N", "C", "F"]
    for k, expected in ((2, 1 / 2), (4, 3 / 4), (6, 4 / 6), (1000, 4 / 6)):
        found = set_metrics.uniqueness(smiles, k, DRAWS)
        assert found.value == pytest.approx(expected)
        assert found.over == min(k, 6)
    assert np.isnan(set_metrics.uniqueness([], 5, DRAWS).value)


def test_novelty_is_of_distinct_molecules():
    keys = np.array([3, 3, 3, 8, 9, 2**63 + 1], np.uint64)
    known = np.array([3, 2**63 + 1, 17], np.uint64)
    found = set_metrics.novelty(keys, known, DRAWS)
    assert (found.value, found.over) == (2 / 4, 4)


def test_diversity_of_three_molecules():
    # Similarities: 1/3 between the first two, 0 to the third, 1 to themselves.
    found = set_metrics.internal_diversity(packed({0, 1}, {1, 2}, {5}), DRAWS)
    expected = {
        "IntDiv": 1 - (3 + 2 / 3) / 9,
        "IntDiv2": 1 - np.sqrt((3 + 2 / 9) / 9),
        # Roots of the mean squares 10/27, 10/27 and 1/3.
        "IntDiv2 (program)": 1 - (2 * np.sqrt(10 / 27) + np.sqrt(1 / 3)) / 3,
    }
    assert {k: e.value for k, e in found.items()} == pytest.approx(expected, abs=EXACT)
    alone = set_metrics.internal_diversity(packed({0}), DRAWS)
    assert [e.value for e in alone.values()] == pytest.approx([0, 0, 0], abs=EXACT)
    empty = set_metrics.internal_diversity(packed({0})[:0], DRAWS)
    assert all(np.isnan(e.value) for e in empty.values())


def test_diversity_of_samples_lies_in_its_interval():
    rng = np.random.default_rng(0)
    bits = np.packbits(rng.random((400, 64)) < 0.2, axis=1)
    truth = set_metrics.internal_diversity(bits, DRAWS)["IntDiv"].value
    found = set_metrics.internal_diversity(bits[:100], DRAWS)["IntDiv"]
    low, high = found.interval or (np.nan, np.nan)
    # Self pairs: 1/100 of the pairs against 1/400, of similarity 1 against 0.12.
    assert low < found.value < high
    assert abs(truth - found.value) < 0.02
    assert high - low < 0.05


def test_nearest_similarity_is_a_mean_of_maxima():
    reference = packed({0, 1, 2}, {7})
    found = set_metrics.nearest_similarity(packed({0, 1}, {9}), reference, DRAWS)
    assert found.value == pytest.approx((2 / 3 + 0) / 2, abs=EXACT)


def test_cosine_of_counts():
    items = [("a", "b"), ("a",), ()]
    reference = [("a",), ("c",)]
    # (2, 1, 0) and (1, 0, 1).
    expected = 2 / np.sqrt(5 * 2)
    assert set_metrics.count_cosine(items, reference, DRAWS).value == pytest.approx(
        expected
    )
    same = set_metrics.count_cosine(items, items, DRAWS).value
    assert same == pytest.approx(1)
    assert set_metrics.count_cosine(items, [("d",)], DRAWS).value == 0
    assert np.isnan(set_metrics.count_cosine(items, [()], DRAWS).value)
    assert np.isnan(set_metrics.count_cosine([()], reference, DRAWS).value)


def test_cosine_interval_holds_the_value():
    rng = np.random.default_rng(0)
    names = rng.choice(list("abcdefgh"), size=(60, 2))
    found = set_metrics.count_cosine(names[:30].tolist(), names[30:].tolist(), DRAWS)
    assert found.interval is not None
    assert found.interval[0] < found.value < found.interval[1] <= 1


def test_distances_of_distributions():
    # Sorted and matched: |0 - 1| and |1 - 3|.
    found = set_metrics.wasserstein(np.array([1.0, 0.0]), np.array([1.0, 3.0]), DRAWS)
    assert found.value == pytest.approx(1.5)
    assert np.isnan(set_metrics.wasserstein(np.zeros(0), np.ones(2), DRAWS).value)
    # Means 0 and 2, variances 2 and 8.
    one = set_metrics.frechet(
        np.array([[-1.0], [1.0]]), np.array([[0.0], [4.0]]), DRAWS
    )
    assert one.value == pytest.approx(2**2 + (np.sqrt(2) - np.sqrt(8)) ** 2)
    # Two axes that do not mix: distances add up, whatever the rotation.
    axes = np.array([[1.0, 0], [-1, 0], [0, 2], [0, -2]])
    angle = 0.7
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    two = set_metrics.frechet(axes @ turn, 3 * axes @ turn + [0.0, 5.0], DRAWS)
    variances = np.array([2, 8]) / 3
    assert two.value == pytest.approx(25 + (4 * variances).sum())
    assert np.isnan(set_metrics.frechet(axes[:1], axes, DRAWS).value)


def test_means_count_their_molecules():
    found = set_metrics.mean_of(np.array([True, False, True, True]), DRAWS)
    assert (found.value, found.over) == (0.75, 4)
    assert np.isnan(set_metrics.mean_of(np.zeros(0), DRAWS).value)
