import pickle
from typing import Any

import numpy as np
import pytest
from scipy import stats

from chemscale_jax.core.errors import UserError
from chemscale_jax.data.conformers.scaffold_sampling import (
    KINDS,
    TAU,
    ScaffoldSampler,
    scaffold_probabilities,
)

# Scaffolds of 60, 25, 10, 4 and 1 molecules, in no order; number 3 has none.
COUNTS = {0: 25, 1: 60, 2: 1, 4: 10, 5: 4}
SCAFFOLD = np.random.default_rng(0).permutation(
    np.repeat(list(COUNTS), list(COUNTS.values()))
)
# A right sampler fails once in so many runs; the seed is fixed, so it does not.
UNLIKELY = 1e-3
DRAWS = 20_000


def exact(kind, tau, temperature):
    """Probability of each molecule, by the definition."""
    share = {s: n / len(SCAFFOLD) for s, n in COUNTS.items()}
    weight = {
        "softmax": lambda p: np.exp(p / tau),
        "natural": lambda p: p,
        "tempered": lambda p: p ** (1 / temperature),
    }[kind]
    total = sum(weight(p) for p in share.values())
    return np.array([weight(share[s]) / total / COUNTS[s] for s in SCAFFOLD])


@pytest.mark.parametrize("kind", KINDS)
def test_molecules_are_drawn_as_often_as_they_should(kind):
    tau, temperature = 0.3, 3.0
    sampler = ScaffoldSampler(SCAFFOLD, kind, seed=3, tau=tau, temperature=temperature)
    wanted = exact(kind, tau, temperature)
    np.testing.assert_allclose(wanted.sum(), 1.0)
    drawn = sampler.draw(0, 0, DRAWS)
    assert drawn.dtype == np.int64
    found = np.bincount(drawn, minlength=len(SCAFFOLD))
    assert stats.chisquare(found, wanted * DRAWS).pvalue > UNLIKELY
    # The test can tell the kinds apart.
    for other in KINDS:
        if other != kind:
            wrong = exact(other, tau, temperature) * DRAWS
            assert stats.chisquare(found, wrong).pvalue < 1e-9
    # Consecutive draws know nothing of each other.
    table = np.zeros((6, 6))
    np.add.at(table, (SCAFFOLD[drawn[:-1]], SCAFFOLD[drawn[1:]]), 1)
    table = table[list(COUNTS)][:, list(COUNTS)]
    independent: Any = stats.chi2_contingency(table)
    assert independent.pvalue > UNLIKELY


def test_a_draw_is_a_function_of_seed_epoch_and_number():
    sampler = ScaffoldSampler(SCAFFOLD, "tempered", seed=1)
    whole = sampler.draw(2, 0, 100)
    parts = [sampler.draw(2, i, j) for i, j in ((0, 1), (1, 34), (34, 99), (99, 100))]
    assert np.array_equal(np.concatenate(parts), whole)
    assert np.array_equal(
        pickle.loads(pickle.dumps(sampler)).draw(2, 50, 60), whole[50:60]
    )
    assert len(sampler.draw(2, 5, 5)) == 0
    assert not np.array_equal(sampler.draw(3, 0, 100), whole)
    other = ScaffoldSampler(SCAFFOLD, "tempered", seed=2)
    assert not np.array_equal(other.draw(2, 0, 100), whole)
    far = sampler.draw(2, 10**12, 10**12 + 3)
    assert far.min() >= 0
    assert far.max() < len(SCAFFOLD)


def test_probabilities_of_the_paper():
    # A scaffold of 1 % comes exp(0.01 / 0.005) = 7.4 times as often as a rare one.
    counts = np.array([10_000, *[1] * 990_000])
    likely = scaffold_probabilities(counts)
    np.testing.assert_allclose(likely[0] / likely[1], np.exp(0.01 / TAU), rtol=2e-3)
    np.testing.assert_allclose(likely.sum(), 1.0)
    np.testing.assert_allclose(scaffold_probabilities(counts, "natural"), counts / 1e6)
    flat = scaffold_probabilities(counts, "tempered", temperature=1e9)
    np.testing.assert_allclose(flat, 1 / len(counts), rtol=1e-6)
    # No overflow where one scaffold has all.
    likely = scaffold_probabilities(np.array([10**9, 1]), tau=1e-5)
    assert likely.tolist() == [1.0, 0.0]


def test_what_makes_no_sense():
    for options, complaint in (
        ({"kind": "even"}, "no scaffold sampling 'even': use softmax, natural, temp"),
        ({"tau": 0.0}, "tau=0.0 and temperature=2.0: both must be greater than 0"),
        ({"temperature": -1.0}, "must be greater than 0"),
        ({"scaffold": SCAFFOLD[:0]}, "no molecule to draw"),
    ):
        with pytest.raises(UserError, match=complaint):
            ScaffoldSampler(**{"scaffold": SCAFFOLD, **options})
