"""Batches of exactly n molecules: every record once, within the budget."""

import numpy as np
import pytest

from chemscale_jax.core.errors import UserError
from chemscale_jax.data.frames.splits import split_records
from chemscale_jax.data.packs.exact_batches import choose_exact_budget, plan_exact
from chemscale_jax.data.packs.packing import PackBudget
from chemscale_jax.data.packs.stream import GraphStream
from tests.data.ani_files import array_source
from tests.data.packs.test_packing import ani_like


@pytest.mark.parametrize(("molecules", "rows"), [(1, 1), (4, 4), (16, 4), (64, 2)])
@pytest.mark.parametrize("records", [3, 1001])
def test_every_batch_has_exactly_so_many_molecules(records, molecules, rows):
    n, e = ani_like(records)
    sizes = {"molecules": molecules, "rows": rows}
    budget = choose_exact_budget(n, e, **sizes)
    permutation = np.random.default_rng(1).permutation(records)
    plan = plan_exact(permutation, n, e, budget, **sizes)
    assert sorted(plan.order) == sorted(permutation)
    assert len(plan) % rows == 0
    counts = np.diff(plan.starts).reshape(-1, rows)
    assert (counts[:-1] == molecules // rows).all()
    assert counts[-1].sum() == records - molecules * (len(counts) - 1)
    for pack in (plan.pack(p) for p in range(len(plan))):
        assert n[pack].sum() < budget.nodes
        assert e[pack].sum() <= budget.edges
    # Batches are stretches of the permutation, but for records that were swapped.
    for b in range(len(counts)):
        batch = plan.order[plan.starts[b * rows] : plan.starts[(b + 1) * rows]]
        stretch = permutation[b * molecules : (b + 1) * molecules]
        assert len(set(batch) & set(stretch)) >= 0.9 * len(stretch)


def test_a_batch_that_is_too_heavy_swaps_records():
    # Two large records cannot share a row, and the permutation puts them into one.
    n, e = np.array([9, 9, 1, 1, 1, 1]), np.ones(6, int)
    plan = plan_exact(np.arange(6), n, e, PackBudget(11, 9, 3), molecules=2, rows=1)
    assert sorted(plan.order) == list(range(6))
    assert max(n[plan.pack(p)].sum() for p in range(3)) == 10
    with pytest.raises(UserError, match="exactly 2 molecules in 1 rows do not fit"):
        plan_exact(
            np.arange(2),
            np.array([9, 9]),
            e[:2],
            PackBudget(11, 9, 3),
            molecules=2,
            rows=1,
        )
    with pytest.raises(UserError, match=r"exact_molecules=6 cannot be spread"):
        choose_exact_budget(n, e, molecules=6, rows=4)


def test_a_stream_has_exact_batches_to_train_on():
    source = array_source(60)
    split = split_records(source, 0, valid_size=10, heldout="none")
    stream = GraphStream(
        source, split, cutoff_ang=2.0, molecules=3, rows=2, exact_molecules=8
    )
    for number in (0, 1):
        epoch = stream.train_epoch(number)
        held = [int(epoch[i].molecule_mask_M.sum()) for i in range(len(epoch))]
        assert held == [8] * (50 // 8) + [50 % 8]
        seen = np.concatenate([epoch.record_indices(i) for i in range(len(epoch))])
        assert sorted(seen) == sorted(split.train)
    valid = stream.evals["valid"]
    assert sum(int(valid[i].molecule_mask_M.sum()) for i in range(len(valid))) == 10
