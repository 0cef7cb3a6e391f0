"""Validation and training molecules of a set with conformers.

Everything is one permutation. What is left besides the validation set is the training
set in this order, so that smaller training sets are beginnings of larger ones and all
share one validation set. A validation set of whole scaffolds asks for more: that none
of its frameworks was seen.
"""

from typing import Any, NamedTuple

import numpy as np

from chemscale_jax.core.errors import UserError

KINDS = ("random", "scaffold")
# Keeps the split's random numbers apart from those of the epochs.
_SPLIT_STREAM = 1 << 32
# A scaffold of more than this share of the validation set stays in training, so that
# the set is not mostly of one kind.
_LARGEST_SCAFFOLD = 0.1
# Molecules looked up at once: bounds memory.
_CHUNK = 1 << 20


class MoleculeSplit(NamedTuple):
    """Numbers of the molecules of each part."""

    train: np.ndarray  # (molecules,) int64, in the order of the permutation
    valid: np.ndarray  # (molecules,) int64
    summary: dict[str, Any]  # JSON-able


def split_molecules(
    members: np.ndarray,
    keys: np.ndarray,
    scaffold: np.ndarray,
    *,
    kind: str = "random",
    seed: int = 0,
    valid_fraction: float = 0.05,
    valid_max: int = 520_000,
    train_max: int = 0,
) -> MoleculeSplit:
    """Splits molecules; none to train on has the key of one to validate on.

    Args:
        members: (molecules,) numbers of those that can be used.
        keys: (all,) uint64, equal for equal molecules.
        scaffold: (all,) number of each one's scaffold.
        kind: of the validation set, one of ``KINDS``.
        seed: of the permutation.
        valid_fraction: share of the molecules to validate on.
        valid_max: molecules to validate on at most.
        train_max: molecules to train on at most; 0: all.

    Raises:
        UserError: an argument makes no sense, or a part would be empty.
    """
    if kind not in KINDS:
        raise UserError(f"config.data.split={kind!r} is unknown: use one of {KINDS}")
    if not 0 < valid_fraction < 1 or valid_max < 1 or train_max < 0:
        raise UserError(
            f"config.data has valid_fraction={valid_fraction}, valid_molecules_max="
            f"{valid_max} and train_molecules={train_max}: give a fraction between 0 "
            "and 1, at least 1 molecule to validate on, and 0 or more to train on"
        )
    rng = np.random.Generator(np.random.Philox(key=[seed, _SPLIT_STREAM]))
    order = rng.permutation(members)
    wanted = max(1, min(valid_max, int(valid_fraction * len(order))))
    if kind == "random":
        is_valid = np.arange(len(order)) < wanted
    else:
        is_valid = _of_chosen_scaffolds(scaffold[order], wanted, rng)
    valid, rest = order[is_valid], order[~is_valid]
    repeated = _is_in(keys, rest, np.unique(keys[valid]))
    rest = rest[~repeated]
    if not len(valid) or not len(rest):
        raise UserError(
            f"of {len(members)} molecules, {len(valid)} are left to validate and "
            f"{len(rest)} to train on (split {kind!r}): use more data, another "
            "config.data.valid_fraction or config.data.split"
        )
    if train_max > len(rest):
        raise UserError(
            f"config.data.train_molecules={train_max} cannot be had: {len(rest)} are "
            "left after validation; ask for fewer, or 0 for all"
        )
    train = rest[: train_max or len(rest)]
    summary = {
        "kind": kind,
        "seed": seed,
        "valid_fraction": valid_fraction,
        "valid_molecules_max": valid_max,
        "molecules": len(members),
        "train": len(train),
        "train_of_available": len(rest),
        "valid": len(valid),
        "train_in_valid": int(repeated.sum()),
        "scaffolds_in_both": len(np.intersect1d(scaffold[train], scaffold[valid])),
    }
    return MoleculeSplit(train, valid, summary)


def _of_chosen_scaffolds(
    scaffold: np.ndarray, wanted: int, rng: np.random.Generator
) -> np.ndarray:
    """Which molecules have one of the scaffolds that are chosen to validate on."""
    numbers, place, counts = np.unique(
        scaffold, return_inverse=True, return_counts=True
    )
    drawn = rng.permutation(len(numbers))
    small = counts[drawn] <= max(1, _LARGEST_SCAFFOLD * wanted)
    # All small ones together may be too few.
    drawn = np.concatenate([drawn[small], drawn[~small]])
    before = np.cumsum(counts[drawn]) - counts[drawn]
    chosen = np.zeros(len(numbers), bool)
    chosen[drawn[before < wanted]] = True
    return chosen[place]


def _is_in(keys: np.ndarray, members: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Whether the key of each member is among the sorted ``known``: bool."""
    found = np.zeros(len(members), bool)
    for start in range(0, len(members) if len(known) else 0, _CHUNK):
        own = keys[members[start : start + _CHUNK]]
        place = np.minimum(np.searchsorted(known, own), len(known) - 1)
        found[start : start + _CHUNK] = known[place] == own
    return found
