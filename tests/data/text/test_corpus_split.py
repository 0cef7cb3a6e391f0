"""The split of a corpus: fixed validation, no leaks, nested training sets."""

import json

import numpy as np
import pytest

from chemscale_jax.core.errors import UserError
from chemscale_jax.data.text.corpus_split import Subset, split_corpus


def _keys(canonical, neutral=None):
    canonical = np.asarray(canonical, np.uint64)
    neutral = canonical if neutral is None else np.asarray(neutral, np.uint64)
    return np.stack([canonical, neutral], 1)


def _split(keys, lengths=None, **options):
    lengths = np.full(len(keys), 10) if lengths is None else lengths
    return split_corpus(keys, lengths, **{"seed": 3, **options})


def test_without_duplicates_all_molecules_are_in_one_part():
    split = _split(_keys(np.arange(1000)))
    assert len(split.valid) == 50
    assert sorted([*split.train, *split.valid]) == list(range(1000))
    assert split.summary["train"] == 950
    again, other = (
        _split(_keys(np.arange(1000))),
        _split(_keys(np.arange(1000)), seed=4),
    )
    assert split.train.tolist() == again.train.tolist()
    assert split.valid.tolist() != other.valid.tolist()
    assert split.train.tolist() != sorted(split.train)
    json.dumps(split.summary)


def test_the_size_of_the_validation_set():
    keys = _keys(np.arange(1000))
    few, many = (_split(keys, valid_max=m) for m in (20, 500))
    assert len(few.valid) == 20
    assert len(many.valid) == 50
    assert few.valid.tolist() == many.valid[:20].tolist()
    assert len(_split(keys, valid_fraction=0.0001).valid) == 1


@pytest.mark.parametrize("seed", range(15))
@pytest.mark.parametrize("deduplicate", [True, False])
def test_no_molecule_leaks_in_any_form(seed, deduplicate):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(20, 400))
    canonical = rng.integers(0, 2 * n, n)
    # Every neutral form has some canonical ones, and sometimes many.
    neutral = canonical // int(rng.integers(1, 5)) * 7
    keys = _keys(canonical, neutral)
    split = _split(keys, seed=seed, valid_fraction=0.1, deduplicate=deduplicate)
    order = _split(_keys(np.arange(n)), seed=seed, valid_fraction=0.1)
    seen = set(canonical[split.valid]), set(neutral[split.valid])
    expected, own = [], set()
    counts = {"same": 0, "alike": 0, "repeats": 0}
    for i in order.train:
        if canonical[i] in seen[0]:
            counts["same"] += 1
        elif neutral[i] in seen[1]:
            counts["alike"] += 1
        elif canonical[i] in own and deduplicate:
            counts["repeats"] += 1
        else:
            counts["repeats"] += canonical[i] in own
            expected.append(i)
            own.add(canonical[i])
    assert split.train.tolist() == expected
    facts = split.summary["duplicates"]
    assert facts["train_in_valid_canonical"] == counts["same"]
    assert facts["train_in_valid_neutral_only"] == counts["alike"]
    assert facts["repeats_in_train"] == counts["repeats"]
    distinct = len(set(canonical[order.valid]))
    assert facts["repeats_in_valid"] == len(order.valid) - distinct
    assert len(split.valid) == (distinct if deduplicate else len(order.valid))


@pytest.mark.parametrize("unit", ["molecules", "tokens", "rows"])
def test_subsets_are_nested_and_as_large_as_asked(unit):
    rng = np.random.default_rng(0)
    lengths = rng.integers(5, 60, 2000)
    keys = _keys(rng.integers(0, 1500, 2000))
    whole = _split(keys, lengths)
    for amount in (1, 7, 30, 31):
        subset = Subset(**{unit: amount}, row_tokens=64)
        part = _split(keys, lengths, subset=subset)
        assert part.train.tolist() == whole.train[: len(part.train)].tolist()
        assert part.valid.tolist() == whole.valid.tolist()
        size = {
            "molecules": lambda m: len(m),
            "tokens": lambda m: lengths[m].sum(),
            "rows": lambda m: lengths[m].sum() // 64,
        }[unit]
        # The shortest beginning that has enough.
        assert size(part.train) >= amount > size(part.train[:-1])
        assert part.summary["train_of_available"] == len(whole.train)
    available = size(whole.train)
    part = _split(keys, lengths, subset=Subset(**{unit: available}, row_tokens=64))
    assert size(part.train) == available
    with pytest.raises(UserError, match=f"train_{unit}={available + 1} cannot be had"):
        _split(keys, lengths, subset=Subset(**{unit: available + 1}, row_tokens=64))


def test_molecules_longer_than_a_row_are_left_out_and_counted():
    lengths = np.full(200, 10)
    lengths[::8] = 33
    split = _split(_keys(np.arange(200)), lengths, longest=32, valid_fraction=0.5)
    assert sorted(split.too_long) == list(range(0, 200, 8))
    assert sum(split.summary["too_long"].values()) == 25
    assert split.summary["too_long"]["valid"] == 100 - len(split.valid)
    assert (lengths[split.train] == 10).all()
    assert not len(_split(_keys(np.arange(200)), lengths).too_long)


def test_what_cannot_be_split():
    keys = _keys(np.arange(20))
    for field in ({"valid_fraction": 0.0}, {"valid_fraction": 1.0}, {"valid_max": 0}):
        with pytest.raises(UserError, match="give a fraction between 0 and 1"):
            _split(keys, **field)
    with pytest.raises(UserError, match="are left to validate and 0 to train on"):
        _split(_keys(np.zeros(20)))
    with pytest.raises(UserError, match="longer than a row of 9 tokens"):
        _split(keys, longest=9)
    with pytest.raises(UserError, match=r"train_molecules=3, config.data.train_rows=2"):
        _split(keys, subset=Subset(molecules=3, rows=2))
    with pytest.raises(UserError, match="leave the others at 0"):
        _split(keys, subset=Subset(tokens=-1))
