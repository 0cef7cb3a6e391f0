"""Training and evaluation records of a source, as functions of a seed.

Frames of one trajectory or one molecule resemble each other, so errors on randomly
chosen frames say little about anything else. The kinds of split, from easy to hard:

=========  ========================================================================
frames     validation frames at random among the others
blocks     validation frames in contiguous blocks of a trajectory, with a gap around
molecules  besides, molecules that are only evaluated
formulas   besides, formulas that are only evaluated, with all their isomers
atoms      besides, molecules with more atoms than any to train on
given      besides, the test part of a split that comes with the data
auto       given where the data have a split, else frames
=========  ========================================================================

Validation ("valid") steers training; "heldout" and "test" are only looked at.
"""

import hashlib
from typing import Any, NamedTuple

import numpy as np

from chemscale_jax.chem import elements
from chemscale_jax.core.errors import UserError
from chemscale_jax.data.frames.source import TEST, TRAIN, FrameSource

KINDS = ("auto", "frames", "blocks", "molecules", "formulas", "atoms", "given")
VALID_CAP = 50_000
VALID_FRACTION = 0.1
# Of molecules or formulas, and of frames where the number of atoms decides.
_HELD_OUT_FRACTION, _SMALL_FRACTION = 0.1, 0.8
_BLOCKS_OF_TRAJECTORY = 20
# Trajectories of fewer frames tell nothing about correlation; more are not needed.
_SHORTEST_TRAJECTORY, _MOST_TRAJECTORIES = 16, 200
# Keeps the split's random numbers apart from those of the epochs.
_SPLIT_STREAM = 1 << 32


class Split(NamedTuple):
    """Record indices of each part. Training sets of different sizes are nested."""

    train: np.ndarray  # (records,) int64, in the order of the permutation
    valid: np.ndarray
    heldout: np.ndarray  # every record of the held-out molecules; may be empty
    test: np.ndarray  # the test part of a given split; may be empty
    summary: dict[str, Any]  # JSON-able

    @property
    def evaluated(self) -> dict[str, np.ndarray]:
        """The evaluation sets that are not empty, "valid" first."""
        parts = {"valid": self.valid, "heldout": self.heldout, "test": self.test}
        return {name: part for name, part in parts.items() if len(part)}

    @property
    def used(self) -> np.ndarray:
        """Every record of the split."""
        return np.concatenate([self.train, *self.evaluated.values()])


def held_out_by_hash(group_names: tuple[str, ...], fraction: float) -> np.ndarray:
    """Which groups are held out: those whose names hash below ``fraction``.

    The choice for one group depends on no other, so it survives changes of the file.
    """
    digests = [hashlib.sha256(name.encode()).digest()[:8] for name in group_names]
    uniform = np.array([int.from_bytes(d, "big") for d in digests]) / 2.0**64
    return uniform < fraction


def split_records(
    source: FrameSource,
    seed: int,
    *,
    kind: str = "auto",
    train_size: int = 0,
    valid_size: int = 0,
    heldout: str | float = "auto",
    max_frames: int = 0,
    block_frames: int = 0,
    gap_frames: int = -1,
    max_train_atoms: int = 0,
) -> Split:
    """Sets records apart, then frames for validation, then takes training frames.

    What is not set apart is permuted once. The first frames are the validation set (or
    the first blocks, see `_cut_blocks`), the next ``train_size`` the training set; so
    training sets of 10^2 to 10^6 frames are nested and share one validation set.

    Args:
        source: the records.
        seed: of the permutation.
        kind: one of ``KINDS``.
        train_size: frames to train on; 0 takes all.
        valid_size: frames to validate on; 0 takes min(50,000, 10 %).
        heldout: "auto" holds out the molecules that the source names, if any; "none"
            holds out nothing; a fraction holds out about that share of the groups (of
            the formulas, where the kind says so; a tenth of them by "auto").
        max_frames: goes on with this many random frames, and a quarter as many of
            each set that is only evaluated, for a quick look at a large file; 0 takes
            all.
        block_frames: of kind "blocks", frames in a row; 0 for a twentieth of each
            trajectory.
        gap_frames: of kind "blocks", frames next to a block that nobody uses; -1 for
            the time over which energies of the trajectories are correlated.
        max_train_atoms: of kind "atoms", the largest molecules to train on; 0 for the
            size that about 80 % of the frames do not exceed.

    Raises:
        UserError: a part would be empty or larger than what there is, or the kind is
            unknown or impossible for this source.
    """
    kind = _resolve(source, kind)
    facts: dict[str, Any] = {}
    given = source.given_split if kind == "given" else None
    pool = np.ones(len(source), bool) if given is None else given == TRAIN
    if kind == "atoms":
        max_train_atoms = max_train_atoms or _size_limit(source)
        facts["max_train_atoms"] = max_train_atoms
        apart = source.n_atoms > max_train_atoms
    else:
        apart = _held_out_records(source, heldout, kind)
    seen = np.flatnonzero(pool & ~apart)
    rng = np.random.Generator(np.random.Philox(key=[seed, _SPLIT_STREAM]))
    seen = seen[rng.permutation(len(seen))][: max_frames or None]
    held = np.flatnonzero(pool & apart)
    test = np.flatnonzero(np.zeros(0) if given is None else given == TEST)
    if max_frames:
        held = np.sort(rng.permutation(held)[: max_frames // 4])
        test = np.sort(rng.permutation(test)[: max_frames // 4])
    n_valid = valid_size or max(1, min(VALID_CAP, int(VALID_FRACTION * len(seen))))
    left = seen[n_valid:]
    if len(left) and kind == "blocks" and valid_size >= 0:
        valid, left, facts = _cut_blocks(
            source, seen, n_valid, block_frames, gap_frames, rng
        )
    else:
        valid = seen[:n_valid]
    if not len(left):
        raise UserError(
            f"{n_valid} of {len(seen)} frames for validation leave none to train on: "
            "lower config.data.valid_size, config.data.heldout or "
            "config.data.gap_frames, or use more data"
        )
    if train_size < 0 or valid_size < 0 or train_size > len(left):
        raise UserError(
            f"config.data.train_size={train_size} cannot be had: {len(left)} frames "
            f"are left after {n_valid} for validation and {len(held) + len(test)} "
            "held out"
        )
    train = left[: train_size or None]
    summary = {
        "kind": kind,
        "seed": seed,
        "train": len(train),
        "valid": len(valid),
        "heldout": len(held),
        "test": len(test),
        "heldout_rule": str(heldout),
        "heldout_groups": len(np.unique(source.group[held])),
        "train_groups": len(np.unique(source.group[train])),
        "train_of_available": len(left),
        **facts,
    }
    return Split(train, valid, held, test, summary)


def _resolve(source: FrameSource, kind: str) -> str:
    """The kind that "auto" stands for."""
    if kind not in KINDS:
        raise UserError(f"config.data.split={kind!r} is unknown: use one of {KINDS}")
    if kind == "given" and source.given_split is None:
        raise UserError(
            "config.data.split='given', but the data come without a split: use one of "
            f"{KINDS[1:-1]}, or name a file of test frames with config.data.test_path"
        )
    if kind != "auto":
        return kind
    return "frames" if source.given_split is None else "given"


def _held_out_records(
    source: FrameSource, heldout: str | float, kind: str
) -> np.ndarray:
    """Which records belong to held-out molecules or formulas: (records,) bool."""
    needed = kind in ("molecules", "formulas")
    none = np.zeros(len(source), bool)
    if heldout == "none" and not needed:
        return none
    if heldout == "auto":
        if source.held_out is not None and kind != "formulas":
            return np.asarray(source.held_out, bool)
        if not needed:
            return none
        heldout = _HELD_OUT_FRACTION
    try:
        fraction = float(heldout)
    except ValueError:
        fraction = -1.0
    if not 0 < fraction < 1:
        choices = "'auto' or" if needed else "'auto', 'none', or"
        raise UserError(
            f"config.data.heldout={heldout!r}: use {choices} a fraction between 0 and 1"
        )
    names = _formulas(source) if kind == "formulas" else source.group_names
    chosen = held_out_by_hash(names, fraction)[source.group]
    if not chosen.any() or chosen.all():
        raise UserError(
            f"config.data.heldout={heldout} sets apart {int(chosen.sum())} of "
            f"{len(source)} frames ({len(set(names))} names): use another fraction, "
            "or another config.data.split"
        )
    return chosen


def _formulas(source: FrameSource) -> tuple[str, ...]:
    """The formula of each group, by atomic number: "H6C2O1"."""
    formulas = []
    for species in source.group_species:
        numbers, counts = np.unique(species, return_counts=True)
        parts = zip(numbers, counts, strict=True)
        formulas.append("".join(f"{_symbol(int(z))}{n}" for z, n in parts))
    return tuple(formulas)


def _symbol(number: int) -> str:
    # Groups without usable records may have numbers that no element has.
    known = 1 <= number <= elements.MAX_ATOMIC_NUMBER
    return elements.symbol_of(number) if known else f"Z{number}-"


def _size_limit(source: FrameSource) -> int:
    """Atoms of the largest molecules to train on, so that some are larger."""
    sizes = np.unique(source.n_atoms)
    if len(sizes) < 2:
        raise UserError(
            f"config.data.split='atoms', but all molecules have {sizes[0]} atoms: use "
            "another split"
        )
    limit = np.quantile(source.n_atoms, _SMALL_FRACTION, method="lower")
    return int(min(limit, sizes[-2]))


def _cut_blocks(
    source: FrameSource,
    seen: np.ndarray,
    n_valid: int,
    block_frames: int,
    gap_frames: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Validation blocks, frames left to train on in the order of ``seen``, and facts.

    The frames of a group, in the order of the data, are taken for a trajectory.
    """
    ordered = np.sort(seen)
    ordered = ordered[np.argsort(source.group[ordered], kind="stable")]
    starts = np.flatnonzero(np.diff(source.group[ordered], prepend=-1))
    lengths = np.diff(starts, append=len(ordered))
    trajectory = np.repeat(np.arange(len(starts)), lengths)
    place = np.arange(len(ordered)) - np.repeat(starts, lengths)
    size = np.maximum(1, lengths // _BLOCKS_OF_TRAJECTORY)
    size = np.full(len(lengths), block_frames) if block_frames > 0 else size
    within = place // size[trajectory]
    # The frames of a block follow each other, and so do the numbers of blocks.
    first = (np.diff(within, prepend=-1) != 0) | (place == 0)
    block = np.cumsum(first) - 1
    order = rng.permutation(block[-1] + 1)
    counts = np.cumsum(np.bincount(block)[order])
    chosen = order[: np.searchsorted(counts, n_valid) + 1]
    is_valid = np.isin(block, chosen)
    # The last block is cut to size where it begins.
    surplus = int(is_valid.sum()) - n_valid
    last = np.flatnonzero(block == chosen[-1])
    is_valid[last[len(last) - surplus :]] = False

    correlated = _correlation_frames(source, ordered, starts, lengths)
    gap = gap_frames if gap_frames >= 0 else min(correlated or 0, int(size.max()))
    near = is_valid.copy()
    for shift in range(1, gap + 1):
        same = trajectory[shift:] == trajectory[:-shift]
        near[shift:] |= is_valid[:-shift] & same
        near[:-shift] |= is_valid[shift:] & same
    unused = np.zeros(len(source), bool)
    unused[ordered[near]] = True
    facts = {
        "block_frames": [int(size.min()), int(size.max())],
        "gap_frames": gap,
        "frames_in_gaps": int(near.sum() - is_valid.sum()),
        "correlation_frames": correlated,
    }
    return ordered[is_valid], seen[~unused[seen]], facts


def _correlation_frames(
    source: FrameSource, ordered: np.ndarray, starts: np.ndarray, lengths: np.ndarray
) -> int | None:
    """After how many frames the autocorrelation of energies is below 1/e.

    The median over trajectories; None where all are short or lack energies.
    """
    found = []
    long = np.flatnonzero(lengths >= _SHORTEST_TRAJECTORY)
    for number in long[
        np.linspace(0, len(long) - 1, min(len(long), _MOST_TRAJECTORIES), dtype=int)
    ]:
        n = int(lengths[number])
        energy = source.total_energy[ordered[starts[number] : starts[number] + n]]
        energy = energy - energy.mean()
        if not np.isfinite(energy).all() or not energy.any():
            continue
        power = np.abs(np.fft.rfft(energy, 2 * n)) ** 2
        correlation = np.fft.irfft(power)[:n]
        found.append(int(np.argmax(correlation < correlation[0] / np.e)) or n)
    return int(np.median(found)) if found else None
