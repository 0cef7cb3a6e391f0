"""Validation set, duplicates and nested training sets of a corpus of molecules.

All molecules are permuted once. The first few percent validate; what is left, without
the molecules that the validation set has in another spelling, charge or stereo form,
is the training set in this order, so smaller training sets are beginnings of larger
ones and all share one validation set.
"""

from typing import Any, NamedTuple

import numpy as np

from chemscale_jax.core.errors import UserError

# Keeps the split's random numbers apart from those of the epochs.
_SPLIT_STREAM = 1 << 32
# Molecules looked up at once: bounds memory.
_CHUNK = 1 << 20


class CorpusSplit(NamedTuple):
    """Numbers of the molecules of each part, in the order of the permutation."""

    train: np.ndarray  # (molecules,) int32
    valid: np.ndarray  # (molecules,) int32
    too_long: np.ndarray  # (molecules,) int32, of either, for no row holds them
    summary: dict[str, Any]  # JSON-able


class Subset(NamedTuple):
    """How much of the training set to take; at most one is not 0, which takes all."""

    molecules: int = 0
    tokens: int = 0
    rows: int = 0  # times ``row_tokens`` tokens
    row_tokens: int = 512


def split_corpus(
    keys: np.ndarray,
    lengths: np.ndarray,
    *,
    seed: int,
    valid_fraction: float = 0.05,
    valid_max: int = 500_000,
    longest: int = 0,
    subset: Subset = Subset(),  # noqa: B008
    deduplicate: bool = True,
) -> CorpusSplit:
    """Splits a corpus into a validation set and a training set.

    Training molecules that are in the validation set are always left out.

    Args:
        keys: (molecules, 2) uint64: of the canonical form, and of the neutralised form
            without stereo and isotopes.
        lengths: (molecules,) tokens of each molecule, the special ones included.
        seed: of the permutation.
        valid_fraction: share of the molecules to validate on.
        valid_max: molecules to validate on at most.
        longest: tokens of the longest row; longer molecules are left out. 0: none are.
        subset: how much of the training set to take.
        deduplicate: keep molecules that occur several times once, in either set.

    Raises:
        UserError: a part would be empty, or there is less to train on than asked for.
    """
    if not 0 < valid_fraction < 1 or valid_max < 1:
        raise UserError(
            f"config.data.valid_fraction={valid_fraction} with valid_molecules_max="
            f"{valid_max}: give a fraction between 0 and 1, and at least 1 molecule"
        )
    n_molecules = len(lengths)
    rng = np.random.Generator(np.random.Philox(key=[seed, _SPLIT_STREAM]))
    order = rng.permutation(np.arange(n_molecules, dtype=np.int32))
    n_valid = max(1, min(valid_max, int(valid_fraction * n_molecules)))
    valid, rest = order[:n_valid], order[n_valid:]

    facts: dict[str, Any] = {"removed": deduplicate}
    # Of ten million molecules a column of keys is 80 MB: one at a time.
    for column, name in ((0, "canonical"), (1, "neutral_only")):
        known = np.sort(keys[valid, column])
        found = _is_in(keys, column, rest, known)
        facts[f"train_in_valid_{name}"] = int(found.sum())
        rest = rest[~found]
    parts = {"train": rest, "valid": valid}
    too_long = {}
    for name, members in parts.items():
        first = _first_of_each(keys[members, 0])
        facts[f"repeats_in_{name}"] = int(len(members) - first.sum())
        if deduplicate:
            members = members[first]
        fits = lengths[members] <= (longest or np.inf)
        too_long[name] = members[~fits]
        parts[name] = members[fits]
    left, valid = parts["train"], parts["valid"]
    n_too_long = {name: len(members) for name, members in too_long.items()}
    if not len(left) or not len(valid):
        raise UserError(
            f"of {n_molecules} molecules, {len(valid)} are left to validate and "
            f"{len(left)} to train on, without duplicates and "
            f"{sum(n_too_long.values())} that are longer than a row of {longest} "
            "tokens: use more data, another config.data.valid_fraction, or longer rows"
        )
    train = left[: _size_of(subset, left, lengths)]
    summary = {
        "seed": seed,
        "valid_fraction": valid_fraction,
        "valid_molecules_max": valid_max,
        "molecules": n_molecules,
        "train": len(train),
        "train_of_available": len(left),
        "valid": len(valid),
        "duplicates": facts,
        "subset": subset._asdict(),
        "too_long": n_too_long,
    }
    return CorpusSplit(train, valid, np.concatenate(list(too_long.values())), summary)


def _is_in(
    keys: np.ndarray, column: int, members: np.ndarray, known: np.ndarray
) -> np.ndarray:
    """Whether the key of each member is among the sorted ``known``: bool."""
    found = np.empty(len(members), bool)
    for start in range(0, len(members), _CHUNK):
        # Sorted, a chunk walks through ``known`` once, which is many times faster.
        own = keys[members[start : start + _CHUNK], column]
        order = np.argsort(own)
        own = own[order]
        place = np.minimum(np.searchsorted(known, own), len(known) - 1)
        found[start + order] = known[place] == own
    return found


def _first_of_each(keys: np.ndarray) -> np.ndarray:
    """True where a key occurs for the first time."""
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    first = np.ones(len(keys), bool)
    first[order[1:]] = keys[1:] != keys[:-1]
    return first


def _size_of(subset: Subset, left: np.ndarray, lengths: np.ndarray) -> int:
    """How many of the molecules left to train on the subset has."""
    asked = {
        "molecules": subset.molecules,
        "tokens": subset.tokens,
        "rows": subset.rows,
    }
    given = {name: amount for name, amount in asked.items() if amount}
    if len(given) > 1 or any(amount < 0 for amount in given.values()):
        fields = ", ".join(f"config.data.train_{n}={a}" for n, a in given.items())
        raise UserError(f"{fields}: set one of them, and leave the others at 0")
    if not given:
        return len(left)
    ((unit, amount),) = given.items()
    if unit == "molecules":
        available, size = len(left), amount
    else:
        tokens = np.cumsum(lengths[left], dtype=np.int64)
        per_unit = subset.row_tokens if unit == "rows" else 1
        available = int(tokens[-1]) // per_unit
        size = int(np.searchsorted(tokens, amount * per_unit)) + 1
    if amount > available:
        raise UserError(
            f"config.data.train_{unit}={amount} cannot be had: {available} {unit} are "
            "left after validation and duplicates; ask for fewer, or 0 for all"
        )
    return size
