"""Plans: every record once, within the budget, and full."""

import numpy as np
import pytest

from chemscale_jax.core.errors import UserError
from chemscale_jax.data.packs.packing import (
    PackBudget,
    check_budget,
    choose_budget,
    fill_fractions,
    plan_epoch,
)


def ani_like(records, seed=0):
    """Atoms and edges distributed as in ANI-1x: 15 atoms, few far apart."""
    rng = np.random.default_rng(seed)
    n = np.clip(rng.normal(15.3, 5, records).round(), 2, 63).astype(np.int32)
    near = np.clip(1 - 0.012 * (n - 5), 0.35, 1) * rng.normal(1, 0.06, records)
    e = np.minimum(n * (n - 1), (n * (n - 1) * near).astype(np.int32) // 2 * 2)
    return n, e


def _check(plan, permutation, n, e, budget):
    assert sorted(plan.order) == sorted(permutation)
    sizes = np.diff(plan.starts)
    assert sizes.min() >= 1
    assert sizes.max() < budget.molecules
    for pack in (plan.pack(p) for p in range(len(plan))):
        assert n[pack].sum() < budget.nodes
        assert e[pack].sum() <= budget.edges


@pytest.mark.parametrize("molecules", [1, 2, 8, 32])
@pytest.mark.parametrize("records", [1, 7, 1000, 9000])
def test_every_record_once_and_within_the_budget(records, molecules):
    n, e = ani_like(records)
    permutation = np.random.default_rng(1).permutation(records)
    budget = choose_budget(n, e, molecules)
    plan = plan_epoch(permutation, n, e, budget)
    _check(plan, permutation, n, e, budget)
    assert len(plan.pack(len(plan))) == 0
    again = plan_epoch(permutation, n, e, budget)
    np.testing.assert_array_equal(plan.order, again.order)


@pytest.mark.parametrize("molecules", [8, 16, 32, 128])
def test_shuffled_packs_are_at_least_nine_tenths_full(molecules):
    n, e = ani_like(30_000)
    budget = choose_budget(n, e, molecules)
    plan = plan_epoch(np.random.default_rng(1).permutation(len(n)), n, e, budget)
    fill = fill_fractions(plan, n, e, budget)
    assert min(fill["nodes"], fill["edges"]) >= 0.9, fill
    if molecules >= 16:
        assert np.diff(plan.starts).max() == molecules
        assert fill["molecules"] >= 0.99


def test_a_tight_budget_is_filled_with_what_fits():
    n, e = ani_like(20_000)
    budget = PackBudget(int(16 * n.mean()) + 1, int(16 * e.mean()), 40)
    permutation = np.random.default_rng(1).permutation(len(n))
    plan = plan_epoch(permutation, n, e, budget)
    _check(plan, permutation, n, e, budget)
    assert min(list(fill_fractions(plan, n, e, budget).values())[:2]) >= 0.95


def test_the_order_stays_shuffled():
    """A record moves by at most about two windows, and packs mix all sizes."""
    n, e = ani_like(20_000)
    permutation = np.random.default_rng(1).permutation(len(n))
    plan = plan_epoch(permutation, n, e, choose_budget(n, e, 32), window=2000)
    place = np.empty(len(n), int)
    place[permutation] = np.arange(len(n))
    assert np.abs(place[plan.order] - np.arange(len(n))).max() < 2 * 2000
    means = [n[plan.pack(p)].mean() for p in range(len(plan))]
    assert np.std(means) < 0.5


def test_a_second_pair_list_is_a_third_limit():
    n, e = ani_like(3000)
    pairs = n * (n - 1)
    budget = choose_budget(n, e, 32, n_pairs=pairs)
    plan = plan_epoch(np.arange(3000), n, e, budget, n_pairs=pairs)
    most = max(pairs[plan.pack(p)].sum() for p in range(len(plan)))
    assert 0.9 * budget.pairs < most <= budget.pairs


def test_records_that_fit_no_row():
    n, e = np.array([5, 9]), np.array([20, 72])
    names = ["methane/0", "ethanol/3"]
    everything = np.arange(2)
    for budget, message in (
        (PackBudget(9, 100, 5), r"ethanol/3 has 9 atoms.*batch.nodes.*at least 10"),
        (PackBudget(10, 71, 5), r"ethanol/3 has 72 edges.*batch.edges.*at least 72"),
        (PackBudget(10, 72, 1), "batch.molecules to at least 1"),
    ):
        with pytest.raises(UserError, match=message):
            check_budget(budget, n, e, names.__getitem__, everything)
    check_budget(PackBudget(10, 72, 2), n, e, names.__getitem__, everything)
    check_budget(PackBudget(6, 20, 2), n, e, names.__getitem__, np.array([0]))
    with pytest.raises(ValueError, match="does not fit"):
        plan_epoch(everything, n, e, PackBudget(9, 100, 5))
