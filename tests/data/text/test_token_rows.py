"""Rows of tokens: every molecule once, full rows, exact content."""

import numpy as np
import pytest

from chemscale_jax.core.errors import UserError
from chemscale_jax.data.text import token_rows
from chemscale_jax.data.text.token_rows import RowShape
from tests.data.token_files import moses_lengths, pubchem_lengths, store_of, text_of


def _rng(seed=0):
    return np.random.default_rng(seed)


def _fill(plan, lengths, shapes):
    """Share of real tokens in the rows that hold a molecule, and their mean length."""
    row_length = np.array([s.length for s in shapes])[plan.batches[:, 0]]
    rows = np.diff(plan.batches[:, 1:]).ravel()
    used = lengths[plan.order].sum()
    return used / (rows * row_length).sum(), (rows * row_length).sum() / rows.sum()


def _best_fit_plainly(lengths, capacity):
    """Loads of the rows, molecule by molecule: the definition of best fit."""
    rooms: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [r for r in rooms if r >= length]
        if fitting:
            rooms.remove(best := min(fitting))
        else:
            best = capacity
        rooms.append(best - length)
    return sorted(capacity - room for room in rooms)


@pytest.mark.parametrize("seed", range(12))
def test_best_fit_is_that_of_going_molecule_by_molecule(seed):
    rng = _rng(seed)
    capacity = int(rng.integers(10, 200))
    lengths = rng.integers(1, capacity // int(rng.integers(1, 6)) + 1, 150)
    row_of = token_rows.best_fit(lengths, capacity)
    loads = np.bincount(row_of, lengths)
    assert sorted(loads) == _best_fit_plainly(lengths, capacity)
    assert loads.min() > 0  # no gaps in the numbers


def test_best_fit_of_nothing():
    assert token_rows.best_fit(np.zeros(0, np.int64), 8).shape == (0,)


@pytest.mark.parametrize("seed", range(20))
def test_a_plan_has_every_molecule_once_and_every_row_fits(seed):
    rng = _rng(seed)
    longest = int(rng.integers(20, 120))
    cuts = {longest, *rng.integers(8, longest + 1, rng.integers(0, 3)).tolist()}
    shapes = [RowShape(int(rng.integers(1, 6)), c) for c in sorted(cuts)]
    lengths = rng.integers(3, longest + 1, rng.integers(0, 400))
    order = rng.permutation(len(lengths))[: rng.integers(0, 400)]
    plan = token_rows.plan_rows(order, lengths, shapes, _rng(seed))
    assert sorted(plan.order) == sorted(order)
    assert plan.starts[0] == 0
    assert plan.starts[-1] == len(order)
    loads = np.add.reduceat(np.append(lengths[plan.order], 0), plan.starts)[:-1]
    seen = []
    partial = 0
    for number, first, stop in plan.batches:
        assert 0 < stop - first <= shapes[number].rows
        assert (loads[first:stop] <= shapes[number].length).all()
        assert all(len(m) for m in plan.members(first, stop))
        if stop - first < shapes[number].rows:
            assert number == len(shapes) - 1
            partial += 1
        seen += range(first, stop)
    assert partial <= 1
    assert sorted(seen) == list(range(plan.rows))


def test_a_plan_refuses_what_fits_no_row():
    with pytest.raises(ValueError, match="9 tokens do not fit a row of 8"):
        token_rows.plan_rows(np.arange(2), np.array([9, 4]), [RowShape(1, 8)], _rng())


@pytest.mark.parametrize(
    ("make", "least"), [(pubchem_lengths, 99), (moses_lengths, 97)]
)
def test_packed_rows_are_full(make, least):
    lengths = make(30_000)
    shapes = [RowShape(8, 512)]
    plan = token_rows.plan_rows(_rng().permutation(30_000), lengths, shapes, _rng())
    assert 100 * _fill(plan, lengths, shapes)[0] >= least


@pytest.mark.parametrize("make", [pubchem_lengths, moses_lengths])
def test_chosen_short_rows_are_full(make):
    lengths = make(20_000)
    chosen = token_rows.choose_lengths(lengths, 512)
    assert chosen[-1] >= lengths.max()
    shapes = [RowShape(8, length) for length in chosen]
    plan = token_rows.plan_rows(np.arange(20_000), lengths, shapes, _rng())
    fill, row = _fill(plan, lengths, shapes)
    assert fill > 0.96
    assert row < 100


def test_lengths_of_rows_are_checked():
    for wrong in ((), (2, 8), (8, 8), (16, 8)):
        with pytest.raises(UserError, match="give rising lengths"):
            token_rows.check_lengths(wrong)
    with pytest.raises(UserError, match=r"no molecule fits .*length=32"):
        token_rows.choose_lengths(np.array([40, 50]), 32)
    # The one length that is needed is no multiple of anything.
    assert token_rows.choose_lengths(np.array([40, 50]), 50) == (50,)


def test_the_order_is_that_of_the_generator():
    lengths = pubchem_lengths(500)
    shapes = [RowShape(4, 64), RowShape(2, 512)]
    plans = [
        token_rows.plan_rows(np.arange(500), lengths, shapes, _rng(s))
        for s in (1, 1, 2)
    ]
    for left, right in zip(plans[0], plans[1], strict=True):
        np.testing.assert_array_equal(left, right)
    assert not np.array_equal(plans[0].order, plans[2].order)
    # Short and long rows come mixed.
    kinds = plans[0].batches[:, 0]
    assert sorted(kinds) != list(kinds)


def test_rows_come_in_random_order():
    lengths = pubchem_lengths(5000)
    plan = token_rows.plan_rows(np.arange(5000), lengths, [RowShape(8, 512)], _rng())
    largest = np.maximum.reduceat(lengths[plan.order], plan.starts[:-1])
    # Packing goes from the longest molecule to the shortest; training must not.
    order = np.corrcoef(largest, np.arange(plan.rows))[0, 1]
    assert abs(order) < 4 / np.sqrt(plan.rows)


def test_rows_of_molecules_have_their_own_segments_and_positions():
    store = store_of([2, 4, 0, 3, 1])
    rows = [np.array([0, 1]), np.array([], np.int64), np.array([4, 2, 3])]
    batch = token_rows.packed_rows(store, rows, 12)
    for row, members in enumerate(rows):
        texts = [text_of(store, i) for i in members]
        rest = 12 - sum(map(len, texts))
        tokens = [t for text in texts for t in text] + [1] * rest
        segment = [k + 1 for k, text in enumerate(texts) for _ in text] + [0] * rest
        position = [p for text in texts for p in range(len(text))] + [0] * rest
        assert batch.tokens_BL[row].tolist() == tokens
        assert batch.segment_BL[row].tolist() == segment
        assert batch.position_BL[row].tolist() == position
    assert {x.dtype for x in batch} == {np.dtype(np.int32)}
    empty = token_rows.packed_rows(store, [rows[1]] * 2, 5)
    assert (empty.tokens_BL == 1).all()
    assert not empty.segment_BL.any()


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_cut_rows_are_one_long_text(seed, whole):
    rng = _rng(seed)
    lengths = rng.integers(0, 9, rng.integers(1, 40))
    store = store_of(lengths)
    order = rng.permutation(len(lengths))
    length = int(rng.integers(3, 20))
    text = [t for i in order for t in text_of(store, i)]
    plan = token_rows.plan_cut(order, lengths + 2, length, whole)
    assert plan.rows == (-(-len(text) // length) if whole else len(text) // length)
    text = text[: plan.rows * length]
    padded = text + [1] * ((plan.rows + 3) * length - len(text))
    # In pieces, some of them beyond the last row.
    for first in range(0, plan.rows + 1, 2):
        batch = token_rows.cut_rows(store, plan, first, first + 2, length)
        expected = np.array(padded[first * length : (first + 2) * length])
        places = np.arange(first * length, (first + 2) * length)
        real = (places < len(text)).astype(int)
        np.testing.assert_array_equal(batch.tokens_BL.ravel(), expected)
        np.testing.assert_array_equal(batch.segment_BL.ravel(), real)
        np.testing.assert_array_equal(batch.position_BL.ravel(), places % length * real)


def test_members_of_a_part_of_the_text():
    plan = token_rows.plan_cut(np.array([3, 1, 2]), np.array([0, 4, 2, 3]), 3, False)
    assert plan.stops.tolist() == [3, 7, 9]
    for first, stop, members in (
        (0, 3, [3]),
        (0, 4, [3, 1]),
        (3, 7, [1]),
        (6, 9, [1, 2]),
        (0, 9, [3, 1, 2]),
        (9, 9, []),
        (0, 0, []),
    ):
        assert plan.members(first, stop).tolist() == members
