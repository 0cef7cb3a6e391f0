"""Training, validation and held-out records of a source, as functions of a seed."""

import hashlib
from typing import Any, NamedTuple

import numpy as np

from chemscale_jax.core.errors import UserError
from chemscale_jax.data.source import FrameSource

VALID_CAP = 50_000
VALID_FRACTION = 0.1
# Frames are compared for duplicates in sets up to this size; it takes a full pass.
_DUPLICATES_UP_TO = 100_000
# Keeps the split's random numbers apart from those of the epochs.
_SPLIT_STREAM = 1 << 32


class Split(NamedTuple):
    """Record indices of each part. Training sets of different sizes are nested."""

    train: np.ndarray  # (records,) int64, in the order of the permutation
    valid: np.ndarray
    heldout: np.ndarray  # every record of the held-out molecules; may be empty
    summary: dict[str, Any]  # JSON-able


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
    train_size: int = 0,
    valid_size: int = 0,
    heldout: str | float = "auto",
    max_frames: int = 0,
) -> Split:
    """Sets molecules apart, then frames for validation, then takes training frames.

    The frames that are not held out are permuted once. The first are the validation
    set, the next ``train_size`` the training set; so training sets of 10^2 to 10^6
    frames are nested and share one validation set.

    Args:
        source: the records.
        seed: of the permutation.
        train_size: frames to train on; 0 takes all.
        valid_size: frames to validate on; 0 takes min(50,000, 10 %).
        heldout: "auto" holds out the molecules that the source names, if any; "none"
            holds out nothing; a fraction holds out about that share of the groups.
        max_frames: goes on with this many random frames, and a quarter as many held
            out, for a quick look at a large file; 0 takes all.

    Raises:
        UserError: a part would be empty or larger than what there is.
    """
    apart = _held_out_records(source, heldout)
    seen = np.flatnonzero(~apart)
    rng = np.random.Generator(np.random.Philox(key=[seed, _SPLIT_STREAM]))
    seen = seen[rng.permutation(len(seen))][: max_frames or None]
    held = np.flatnonzero(apart)
    if max_frames:
        held = np.sort(rng.permutation(held)[: max_frames // 4])
    n_valid = valid_size or max(1, min(VALID_CAP, int(VALID_FRACTION * len(seen))))
    n_left = len(seen) - n_valid
    if n_left < 1:
        raise UserError(
            f"{n_valid} of {len(seen)} frames for validation leave none to train on: "
            "lower config.data.valid_size or config.data.heldout, or use more data"
        )
    if train_size < 0 or valid_size < 0 or train_size > n_left:
        raise UserError(
            f"config.data.train_size={train_size} cannot be had: {n_left} frames are "
            f"left after {n_valid} for validation and {len(held)} held out"
        )
    valid = seen[:n_valid]
    train = seen[n_valid : n_valid + (train_size or n_left)]
    summary = {
        "seed": seed,
        "train": len(train),
        "valid": len(valid),
        "heldout": len(held),
        "heldout_rule": str(heldout),
        "heldout_groups": len(np.unique(source.group[held])),
        "train_groups": len(np.unique(source.group[train])),
        "train_of_available": n_left,
    }
    if len(source) <= _DUPLICATES_UP_TO:
        summary["train_frames_also_evaluated"] = _shared_frames(
            source, train, np.concatenate([valid, held])
        )
    return Split(train, valid, held, summary)


def _held_out_records(source: FrameSource, heldout: str | float) -> np.ndarray:
    """Which records belong to held-out molecules: (records,) bool."""
    none = np.zeros(len(source), bool)
    if heldout == "none":
        return none
    if heldout == "auto":
        return none if source.held_out is None else np.asarray(source.held_out, bool)
    try:
        fraction = float(heldout)
    except ValueError:
        fraction = -1.0
    if not 0 < fraction < 1:
        raise UserError(
            f"config.data.heldout={heldout!r}: use 'auto', 'none', or a fraction "
            "between 0 and 1"
        )
    chosen = held_out_by_hash(source.group_names, fraction)[source.group]
    if not chosen.any() or chosen.all():
        raise UserError(
            f"config.data.heldout={heldout} sets apart {int(chosen.sum())} of "
            f"{len(source)} frames ({len(source.group_names)} groups): use another "
            "fraction, or 'none'"
        )
    return chosen


def _shared_frames(source: FrameSource, left: np.ndarray, right: np.ndarray) -> int:
    """How many records of ``left`` have the exact coordinates of one of ``right``."""

    def fingerprint(index: int) -> bytes:
        record = source[index]
        content = record.species.tobytes() + record.positions.tobytes()
        return hashlib.blake2b(content, digest_size=16).digest()

    known = {fingerprint(int(i)) for i in right}
    return sum(fingerprint(int(i)) in known for i in left)
