import numpy as np
import pytest

from chemscale_jax.analysis import bootstrap

REPLICATES = 400


def test_intervals_of_means_are_those_of_the_theory():
    values = np.random.default_rng(0).normal(size=500)
    low, high = bootstrap.mean_interval(values, 0, 4000) or (np.nan, np.nan)
    half_width = 1.96 * values.std() / np.sqrt(len(values))
    # Ends of 4000 draws scatter by some 2 % of the width.
    assert low == pytest.approx(values.mean() - half_width, abs=0.1 * half_width)
    assert high == pytest.approx(values.mean() + half_width, abs=0.1 * half_width)


@pytest.mark.parametrize("n", [400, 401, 25])
def test_halves_vary_as_samples_do(n):
    values = np.random.default_rng(1).normal(size=n)
    value, interval = bootstrap.over_halves(
        lambda places: values[places].mean(),
        n,
        seed=0,
        replicates=4000,
        lowest=-np.inf,
        highest=np.inf,
    )
    assert value == pytest.approx(values.mean())
    low, high = interval or (np.nan, np.nan)
    half_width = 1.96 * values.std() / np.sqrt(n - 1)
    # As above; and few values are not quite normal.
    assert (high - low) / 2 == pytest.approx(half_width, rel=0.07)


def test_halves_cover_the_uniqueness_of_samples():
    rng = np.random.default_rng(2)
    n, kinds = 200, 500

    def share(ids):
        return len(np.unique(ids)) / len(ids)

    samples = rng.integers(kinds, size=(2000, n))
    truth = np.mean([share(sample) for sample in samples])
    covered = 0
    for sample in samples[:150]:
        _, interval = bootstrap.over_halves(
            lambda places, sample=sample: share(sample[places]),
            n,
            seed=0,
            replicates=100,
        )
        assert interval is not None
        covered += interval[0] <= truth <= interval[1]
    # 95 % of 150 are 142; binomial scatter, and the ends of 100 draws.
    assert 130 <= covered <= 150


def test_ends_stay_where_figures_can_be():
    found = bootstrap.half_sample_interval(0.99, np.linspace(0.9, 1, 50), 100, 0, 1)
    assert found is not None
    assert found[1] == 1


def test_few_molecules_have_no_interval():
    assert bootstrap.mean_interval(np.ones(1), 0, REPLICATES) is None
    assert bootstrap.half_sample_interval(0.5, np.ones(9), 3, 0, 1) is None
    assert bootstrap.half_sample_interval(np.nan, np.ones(9), 30, 0, 1) is None
    assert bootstrap.half_sample_interval(0.5, np.full(9, np.nan), 30, 0, 1) is None


def test_seeds_decide():
    values = np.random.default_rng(3).normal(size=50)
    first, again, other = (
        bootstrap.mean_interval(values, seed, REPLICATES) for seed in (0, 0, 1)
    )
    assert first == again != other
    halves = bootstrap.half_samples(7, 0, 5)
    np.testing.assert_array_equal(halves, bootstrap.half_samples(7, 0, 5))
    assert halves.sum(axis=1).tolist() == [3] * 5
