"""Frames that occur twice: in training and in evaluation, or twice in training.

Frames are equal when they have the same atoms, charge and spin, and the same distances
between them within a tolerance. Rotated, translated, reflected and relabelled copies
count; a model that respects these symmetries learns one from the other.

Some lengths of a frame that the symmetries leave alone put it in a cell of a grid.
Cells are wider than twice any difference that counts, and each length is cut at two
offsets, so equal frames share a cell in at least one of eight grids. Only frames of one
cell with equal lengths are compared by all distances.
"""

import itertools
import json
import pathlib
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from chemscale_jax.data.cache import derived_folder
from chemscale_jax.data.frames.source import FrameSource
from chemscale_jax.data.frames.splits import Split

TOLERANCE_ANG = 1e-3
# No length of a frame changes by more when distances change by the tolerance.
_CELL_ANG = 8 * TOLERANCE_ANG
# Cost: frames that are looked at, followers of a frame in its cell, frames compared.
_MOST_FRAMES, _FOLLOWERS, _MOST_COMPARED = 2_000_000, 4, 50_000
_SCHEMA = 1


def find_duplicates(source: FrameSource, split: Split) -> dict[str, Any]:
    """How many frames occur more than once; kept per source and split.

    Args:
        source: the records.
        split: its parts.

    Returns:
        JSON-able: for each evaluation set the number of its frames that are in the
        training set, ``{"valid": 3, ...}``; ``within_train``, how many training
        frames repeat another one; ``tolerance_ang``; ``looked_at``, the frames that
        were compared (fewer than there are in sets beyond two million).
    """
    key = None
    if source.identity is not None:
        parts = {
            name: zlib.crc32(np.ascontiguousarray(part, np.int64).tobytes())
            for name, part in {"train": split.train, **split.evaluated}.items()
        }
        key = {"duplicates": _SCHEMA, "source": source.identity, "parts": parts}

    def fill(folder: pathlib.Path) -> None:
        (folder / "found.json").write_text(json.dumps(_find(source, split)))

    folder = derived_folder("duplicates", key, fill)
    return json.loads((folder / "found.json").read_text())


def summary_of(found: Mapping[str, Any]) -> str:
    """The counts as a few words for the line about the data."""
    counts = found["in_train"]
    shared = ", ".join(f"{n} of {part}" for part, n in counts.items() if n)
    text = f"duplicates of training frames: {shared or 'none evaluated'}"
    if found["within_train"]:
        text += f", {found['within_train']} in training itself"
    if not found["complete"]:
        text += f" (among {found['looked_at']:,} frames)"
    return text


def _find(source: FrameSource, split: Split) -> dict[str, Any]:
    names = ["train", *split.evaluated]
    part = np.full(len(source), -1, np.int8)
    for number, members in enumerate((split.train, *split.evaluated.values())):
        part[members] = number
    used = np.flatnonzero(part >= 0)
    complete = len(used) <= _MOST_FRAMES
    if not complete:
        rng = np.random.Generator(np.random.Philox(_SCHEMA))
        used = np.sort(rng.choice(used, _MOST_FRAMES, replace=False))
    frames, a, b = _candidates(source, used)
    if len(frames) > _MOST_COMPARED:
        complete = False
    equal = _equal(source, frames, a, b)
    label = _components(len(frames), a[equal], b[equal])
    table = np.zeros((label.max(initial=-1) + 1, len(names)), np.int64)
    np.add.at(table, (label, part[frames]), 1)
    trained = table[:, 0] > 0
    return {
        "in_train": {
            name: int(table[trained, number].sum())
            for number, name in enumerate(names)
            if number
        },
        "within_train": int(np.maximum(table[:, 0] - 1, 0).sum()),
        "tolerance_ang": TOLERANCE_ANG,
        "looked_at": len(used),
        "complete": complete,
    }


def _candidates(
    source: FrameSource, used: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frames that share a cell with another one, and pairs of positions in them."""
    lengths = _invariants(source)[used]
    atoms = _atoms_id(source)[source.group[used]]
    pairs = [np.zeros((0, 2), np.int64)]
    for offsets in itertools.product((0.0, 0.5), repeat=3):
        cells = np.floor(lengths[:, :3] / _CELL_ANG + np.array(offsets))
        key = atoms.astype(np.int64)
        for cell in cells.astype(np.int64).T:
            key = key * 1_000_003 + cell
        # Within a cell, frames are in order of a length, equal ones side by side.
        order = np.lexsort((lengths[:, 0], key))
        for step in range(1, min(_FOLLOWERS, len(order) - 1) + 1):
            left, right = order[:-step], order[step:]
            at = np.flatnonzero(key[left] == key[right])
            left, right = left[at], right[at]
            near = np.abs(lengths[left] - lengths[right]) < _CELL_ANG / 2
            alike = near.all(1) & (atoms[left] == atoms[right])
            pairs.append(np.stack([left[alike], right[alike]], 1))
    found = np.unique(np.sort(np.concatenate(pairs), 1), axis=0)
    members, places = np.unique(found, return_inverse=True)
    a, b = places.reshape(-1, 2).T
    return used[members], a, b


def _invariants(source: FrameSource) -> np.ndarray:
    """Lengths of each frame that do not depend on how it lies: (records, 8) angstrom.

    Means of powers of the distances from the centre, some weighted with atomic numbers,
    and their extremes. The first three tell most frames apart.
    """
    lengths = np.zeros((len(source), 8))
    for stack in source.stacks():
        x_FN3 = stack.positions.astype(np.float64)
        x_FN3 -= x_FN3.mean(1, keepdims=True)
        square_FN = np.einsum("fnk,fnk->fn", x_FN3, x_FN3)
        size_FN = np.sqrt(square_FN)
        weight_N = stack.species / stack.species.sum()
        columns = (
            np.sqrt(square_FN.mean(1)),
            np.sqrt(square_FN @ weight_N),
            size_FN.max(1),
            size_FN.min(1),
            size_FN.mean(1),
            size_FN @ weight_N,
            (square_FN**2).mean(1) ** 0.25,
            np.sqrt(size_FN).mean(1) ** 2,
        )
        lengths[stack.start : stack.start + len(x_FN3)] = np.stack(columns, 1)
    return lengths


def _atoms_id(source: FrameSource) -> np.ndarray:
    """One number per group; equal for groups with the same atoms in any order."""
    known: dict[bytes, int] = {}
    return np.array(
        [
            known.setdefault(np.sort(z).tobytes(), len(known))
            for z in source.group_species
        ]
    )


def _equal(
    source: FrameSource, frames: np.ndarray, a: np.ndarray, b: np.ndarray
) -> np.ndarray:
    """Which pairs of frames are equal in all distances, charge and spin: (pairs,)."""
    prints: dict[int, np.ndarray] = {}

    def fingerprint(place: int) -> np.ndarray:
        if place not in prints:
            prints[place] = _fingerprint(source, int(frames[place]))
        return prints[place]

    equal = np.zeros(len(a), bool)
    for number, (left, right) in enumerate(zip(a.tolist(), b.tolist(), strict=True)):
        if len(prints) > _MOST_COMPARED:
            break
        difference = fingerprint(left) - fingerprint(right)
        equal[number] = np.abs(difference).max() <= TOLERANCE_ANG
    return equal


def _fingerprint(source: FrameSource, index: int) -> np.ndarray:
    """Charge, spin and all distances, sorted within each pair of elements."""
    record = source[index]
    z, x = record.species.astype(np.int64), record.positions.astype(np.float64)
    i, j = np.triu_indices(len(z), 1)
    distance = np.linalg.norm(x[i] - x[j], axis=-1)
    kind = np.minimum(z[i], z[j]) * 256 + np.maximum(z[i], z[j])
    ordered = distance[np.lexsort((distance, kind))]
    return np.concatenate([[record.charge, record.spin], ordered])


def _components(n: int, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """A number for each of ``n`` frames, equal for those that pairs connect."""
    label = np.arange(n)
    while True:
        lowest = np.minimum(label[a], label[b])
        new = label.copy()
        np.minimum.at(new, a, lowest)
        np.minimum.at(new, b, lowest)
        new = new[new]
        if (new == label).all():
            return label
        label = new
