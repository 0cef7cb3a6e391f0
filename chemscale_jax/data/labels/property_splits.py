"""Which labelled molecules to train on, to validate and to test.

Molecules are dealt out in blocks that stay together, such as all of one scaffold; equal
molecules always share a block. Where the parts are given (a column, a file, a test
set), training and validation lose what a later part has too, and this is counted.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from chemscale_jax.chem.similarity_clusters import similarity_clusters
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.types import Config
from chemscale_jax.data.labels.labelled_molecules import LabelledMolecules
from chemscale_jax.data.labels.split_files import read_split
from chemscale_jax.data.labels.split_folds import deal_folds, sizes_of

KINDS = {
    "random": "molecules at random",
    "scaffold": "whole Murcko scaffolds, the largest to train on",
    "cluster": "whole clusters of similar scaffolds, at random",
    "stratified": "at random within each tenth of the first target, or each class",
    "group": "whole groups of a column, at random",
    "column": "a column says train, valid or test",
    "file": "the split.csv of an earlier run",
}
GIVEN = ("column", "file")
# Keeps these random numbers apart from those of epochs and of rows.
_SPLIT_STREAM = 2 << 32
# Blocks of more than this share of a part stay in training, where they can.
_LARGEST_BLOCK = 0.5
_STRATA = 10
_WORDS = {
    "train": ("train", "training"),
    "valid": ("valid", "validation", "val", "dev"),
    "test": ("test", "testing", "heldout"),
}


class PropertySplit(NamedTuple):
    """Numbers of the molecules of each part."""

    train: np.ndarray  # int64, in random order
    valid: np.ndarray  # int64
    heldout: np.ndarray  # int64, the test set; may be empty
    summary: dict[str, Any]  # JSON-able


def split_properties(molecules: LabelledMolecules, data: Config) -> PropertySplit:
    """The split that ``config.data`` describes.

    Args:
        molecules: with their labels.
        data: ``split`` and all fields that begin like it, ``valid_fraction``,
            ``test_fraction``, ``folds``, ``fold`` and ``train_molecules`` are read.

    Raises:
        UserError: a field makes no sense, or a part would be empty.
    """
    _check(data, bool(molecules.is_test.any()))
    rng = np.random.Generator(np.random.Philox(key=[data.split_seed, _SPLIT_STREAM]))
    own = np.flatnonzero(~molecules.is_test)
    facts: dict[str, Any] = {}
    if data.split in GIVEN:
        parts = _given(molecules, own, data)
        if not len(parts[1]):
            parts = _with_valid(parts, molecules.keys, data.valid_fraction, rng)
    else:
        blocks, facts = _blocks(molecules, own, data.split)
        parts = _dealt(blocks, own, molecules, data, rng)
    train, valid, heldout = parts
    if molecules.is_test.any():
        if len(heldout):
            raise UserError(
                f"config.data.split={data.split!r} names {len(heldout)} molecules to "
                "test, and config.data.test_path has others: use one of both"
            )
        heldout = np.flatnonzero(molecules.is_test)
    keys = molecules.keys
    kept_valid = valid[~np.isin(keys[valid], keys[heldout])]
    repeated = np.isin(keys[train], keys[np.concatenate([kept_valid, heldout])])
    train = rng.permutation(train[~repeated])
    if not len(train) or not len(kept_valid):
        raise UserError(
            f"of {len(own)} molecules, {len(train)} are left to train on and "
            f"{len(kept_valid)} to validate (split {data.split!r}): use more data, "
            "another config.data.valid_fraction or config.data.split"
        )
    if data.train_molecules > len(train):
        raise UserError(
            f"config.data.train_molecules={data.train_molecules} cannot be had: "
            f"{len(train)} are left to train on; ask for fewer, or 0 for all"
        )
    available = len(train)
    train = train[: data.train_molecules or available]
    scaffold = molecules.scaffold
    summary = {
        "kind": data.split,
        "seed": data.split_seed,
        "valid_fraction": data.valid_fraction,
        "test_fraction": data.test_fraction,
        "folds": data.folds,
        "fold": data.fold,
        "train": len(train),
        "train_of_available": available,
        "valid": len(kept_valid),
        "heldout": len(heldout),
        "left_out_equal": len(valid) - len(kept_valid) + int(repeated.sum()),
        "heldout_scaffolds_in_train": _share(scaffold[heldout], scaffold[train]),
        "valid_scaffolds_in_train": _share(scaffold[kept_valid], scaffold[train]),
        **facts,
    }
    return PropertySplit(train, kept_valid, heldout, summary)


def _share(members: np.ndarray, known: np.ndarray) -> float:
    """Share of the members that are known."""
    return round(float(np.isin(members, known).mean()), 4) if len(members) else 0.0


def _check(data: Config, has_test: bool) -> None:
    if data.split not in KINDS:
        raise UserError(
            f"config.data.split={data.split!r} is unknown: use one of {(*KINDS,)}"
        )
    if data.split in ("group", "column") and not data.split_col:
        raise UserError(f"config.data.split={data.split!r} needs config.data.split_col")
    if (data.split == "file") != bool(data.split_file):
        raise UserError(
            f"config.data has split={data.split!r} and split_file={data.split_file!r}: "
            "split 'file' needs one, others have none"
        )
    low = not 0 <= data.test_fraction < 1 or not 0 < data.valid_fraction < 1
    if low or data.valid_fraction + data.test_fraction >= 1 or data.train_molecules < 0:
        raise UserError(
            f"config.data has valid_fraction={data.valid_fraction}, test_fraction="
            f"{data.test_fraction} and train_molecules={data.train_molecules}: give "
            "fractions that leave something to train on, and 0 or more molecules"
        )
    if data.folds and (data.split in GIVEN or has_test):
        raise UserError(
            f"config.data.folds={data.folds} deals out all molecules, but "
            + ("there is a config.data.test_path" if has_test else "the split is given")
            + ": use folds=0"
        )
    if data.folds and not (data.folds >= 2 and 0 <= data.fold < data.folds):
        raise UserError(
            f"config.data has folds={data.folds} and fold={data.fold}: use 2 or more "
            "folds (0: none), and a fold from 0"
        )


def _blocks(
    molecules: LabelledMolecules, own: np.ndarray, kind: str
) -> tuple[np.ndarray, dict[str, Any]]:
    """Number of each molecule's block, and facts for the summary."""
    keys, scaffold = molecules.keys[own], molecules.scaffold[own]
    if kind == "scaffold":
        return scaffold.astype(np.int64), {"blocks": len(np.unique(scaffold))}
    if kind == "cluster":
        numbers, place, counts = np.unique(
            scaffold, return_inverse=True, return_counts=True
        )
        names = molecules.scaffolds
        clusters = similarity_clusters([names[n] for n in numbers], counts)
        blocks = clusters.number[place]
        return blocks, {
            "blocks": len(np.unique(blocks)),
            "similarity": clusters.similarity,
        }
    if kind == "group":
        words = molecules.group[own]
        if (words == "").any():
            raise UserError(
                f"{(words == '').sum()} of {len(own)} molecules have no group in "
                "config.data.split_col: fill in all cells"
            )
        blocks = _joined(np.unique(words, return_inverse=True)[1], keys)
        return blocks, {"blocks": len(np.unique(blocks))}
    return np.unique(keys, return_inverse=True)[1], {}


def _joined(blocks: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Blocks with those joined that have an equal molecule."""
    while True:
        _, place = np.unique(keys, return_inverse=True)
        least = np.full(place.max() + 1, blocks.max())
        np.minimum.at(least, place, blocks)
        # Each block becomes the lowest one that any of its molecules is in.
        new = np.full(blocks.max() + 1, blocks.max())
        np.minimum.at(new, blocks, least[place])
        joined = new[blocks]
        if (joined == blocks).all():
            return blocks
        blocks = joined


Parts = tuple[np.ndarray, np.ndarray, np.ndarray]


def _dealt(
    blocks: np.ndarray,
    own: np.ndarray,
    molecules: LabelledMolecules,
    data: Config,
    rng: np.random.Generator,
) -> Parts:
    """Molecules to train on, to validate and to test."""
    strata = np.zeros(len(own), np.int64)
    if data.split == "stratified":
        strata = _strata(molecules.targets_MT[own], molecules.kind)
    fixed = data.split == "scaffold"
    if data.folds:
        fold = deal_folds(blocks, strata, data.folds, None if fixed else rng)
        if len(np.unique(fold)) < data.folds:
            raise UserError(
                f"of config.data.folds={data.folds}, some would be empty, since too "
                "many molecules stay together: use fewer folds"
            )
        test = fold == data.fold
        # Which is the same however many folds are asked for one after the other.
        rng = np.random.Generator(
            np.random.Philox(key=[data.split_seed, _SPLIT_STREAM + 1 + data.fold])
        )
    else:
        wanted = 0 if molecules.is_test.any() else round(data.test_fraction * len(own))
        test = _part(blocks, strata, wanted, None if fixed else rng)
    rest = np.flatnonzero(~test)
    wanted = max(
        1, round(data.valid_fraction * (len(rest) if data.folds else len(own)))
    )
    valid = np.zeros(len(own), bool)
    valid[rest] = _part(blocks[rest], strata[rest], wanted, None if fixed else rng)
    return own[~test & ~valid], own[valid], own[test]


def _strata(targets_MT: np.ndarray, kind: str) -> np.ndarray:
    """Tenth of the first target, or class; one more for those without a label."""
    first = targets_MT[:, 0]
    known = np.isfinite(first)
    strata = np.full(len(first), -1)
    if kind != "regression":
        strata[known] = first[known].astype(np.int64)
    elif known.any():
        edges = np.quantile(first[known], np.arange(1, _STRATA) / _STRATA)
        strata[known] = np.searchsorted(edges, first[known], side="right")
    return strata + 1


def _part(
    blocks: np.ndarray,
    strata: np.ndarray,
    wanted: int,
    rng: np.random.Generator | None,
) -> np.ndarray:
    """Which molecules are in a part of about so many: bool.

    Args:
        blocks: of each molecule.
        strata: of each molecule; shares of all are taken.
        wanted: molecules.
        rng: draws blocks, large ones last; None: the smallest blocks, last ones first.
    """
    chosen = np.zeros(len(blocks), bool)
    if not wanted or not len(blocks):
        return chosen
    first, place, sizes = sizes_of(blocks)
    if rng is None:
        order = np.lexsort((-first, sizes))
    elif strata.any():
        order = _spread(strata[first], wanted / len(blocks), rng)
    else:
        order = rng.permutation(len(sizes))
        large = sizes[order] > max(1, _LARGEST_BLOCK * wanted)
        order = np.concatenate([order[~large], order[large]])
    taken = np.zeros(len(sizes), bool)
    missing = wanted
    for block in order.tolist():
        # Only what brings the part nearer to its size.
        if sizes[block] < 2 * missing:
            taken[block] = True
            missing -= sizes[block]
        if missing <= 0:
            break
    if not taken.any():
        taken[sizes.argmin()] = True
    return taken[place]


def _spread(strata: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Blocks in an order whose beginning has all strata by their share."""
    drawn = rng.permutation(len(strata))
    drawn = drawn[np.argsort(strata[drawn], kind="stable")]
    # Systematic sampling: where the running share passes a whole number.
    steps = np.floor(share * np.arange(len(drawn) + 1) + rng.random())
    passes = np.diff(steps) > 0
    others = rng.permutation(drawn[~passes])
    return np.concatenate([rng.permutation(drawn[passes]), others])


def _given(molecules: LabelledMolecules, own: np.ndarray, data: Config) -> Parts:
    """Parts that a column or a file tells."""
    if data.split == "file":
        known = read_split(data.split_file)
        words: Sequence[str] = [known.get(int(row), "") for row in molecules.row[own]]
        if not any(words):
            raise UserError(
                f"{data.split_file} names no row of {data.path}: give the split.csv of "
                "a run on this file"
            )
    else:
        words = [word.lower() for word in molecules.group[own].tolist()]
        spellings = {word for all_of in _WORDS.values() for word in all_of}
        if wrong := sorted({*words} - spellings - {""}):
            raise UserError(
                f"column {data.split_col!r} says {wrong[0]!r}: give train, valid or "
                "test, nothing for rows to leave out, or use config.data.split='group'"
            )
    train, valid, test = (own[np.isin(words, _WORDS[part])] for part in _WORDS)
    return train, valid, test


def _with_valid(
    parts: Parts, keys: np.ndarray, fraction: float, rng: np.random.Generator
) -> Parts:
    """Molecules to validate taken from those to train on, where none are given."""
    train, _, test = parts
    blocks = np.unique(keys[train], return_inverse=True)[1]
    wanted = max(1, round(fraction * len(train)))
    valid = _part(blocks, np.zeros(len(train), np.int64), wanted, rng)
    return train[~valid], train[valid], test
