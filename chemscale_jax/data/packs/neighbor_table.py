"""Neighbour lists of all records of a source, computed once and kept on disk."""

import math
import pathlib
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from chemscale_jax.chem import neighbors
from chemscale_jax.data.cache import derived_folder
from chemscale_jax.data.frames.flat import FlatFile
from chemscale_jax.data.frames.source import FrameSource

_SCHEMA = 1


class Pairs(NamedTuple):
    """Directed pairs of one record, sorted by receiver, atoms numbered from 0."""

    receivers_E: np.ndarray
    senders_E: np.ndarray
    shifts_E3: np.ndarray | None  # None for a record without a cell


class NeighborTable:
    """Pairs of every record of a source within a cutoff.

    Attributes:
        cutoff_ang: the cutoff; infinite for all pairs of a molecule.
        counts: (records,) int32, how many pairs each record has.
    """

    def __init__(self, source: FrameSource, cutoff_ang: float):
        self.cutoff_ang = cutoff_ang
        self._files: tuple[FlatFile, FlatFile | None] | None = None
        if math.isinf(cutoff_ang):
            n = source.n_atoms
            self.counts = (n * (n - 1)).astype(np.int32)
            self._n_atoms = n
            return
        key = None
        if source.identity is not None:
            key = {
                "source": source.identity,
                "cutoff_ang": cutoff_ang,
                "schema": _SCHEMA,
            }
        # Atoms are numbered within a record, so one byte is nearly always enough.
        dtype = np.uint8 if source.n_atoms.max() <= 256 else np.uint32
        folder = derived_folder(
            "neighbors", key, lambda new: _compute(source, cutoff_ang, dtype, new)
        )
        self.counts = np.load(folder / "counts.npy")
        self._starts = np.concatenate([[0], np.cumsum(self.counts, dtype=np.int64)])
        shifts = folder / "shifts.i8"
        self._files = (
            FlatFile(folder / "pairs.bin", dtype),
            FlatFile(shifts, np.int8) if shifts.exists() else None,
        )

    def __getitem__(self, index: int) -> Pairs:
        if self._files is None:
            return Pairs(*neighbors.all_pairs(int(self._n_atoms[index])), None)
        pairs, shifts = self._files
        start, count = int(self._starts[index]), int(self.counts[index])
        pair_2E = pairs.read(start * 2 * pairs.dtype.itemsize, 2 * count).reshape(2, -1)
        shifts_E3 = None
        if shifts is not None:
            shifts_E3 = shifts.read(start * 3, 3 * count).reshape(-1, 3)
        return Pairs(pair_2E[0], pair_2E[1], shifts_E3)


def _compute(
    source: FrameSource, cutoff_ang: float, dtype: type, folder: pathlib.Path
) -> None:
    """Writes, record after record, the receivers and then the senders of its pairs."""
    counts = np.zeros(len(source), np.int32)
    bar = tqdm(
        total=len(source), desc="Neighbour lists", unit="frame", delay=2.0, disable=None
    )
    with open(folder / "pairs.bin", "wb") as pairs_file, bar:
        if source.periodic:
            with open(folder / "shifts.i8", "wb") as shifts_file:
                for i in range(len(source)):
                    receivers, senders, shifts = _of_record(source, i, cutoff_ang)
                    counts[i] = len(receivers)
                    pairs_file.write(
                        np.stack([receivers, senders]).astype(dtype).tobytes()
                    )
                    shifts_file.write(shifts.astype(np.int8).tobytes())
                    bar.update()
        else:
            for stack in source.stacks():
                found = neighbors.radius_pairs(stack.positions, cutoff_ang)
                stop = stack.start + len(stack.positions)
                counts[stack.start : stop] = found.counts_F
                _write_ragged(found, dtype, pairs_file)
                bar.update(len(stack.positions))
    np.save(folder / "counts.npy", counts)


def _write_ragged(found: neighbors.FramePairs, dtype: type, file) -> None:
    """Writes receivers and senders of each frame side by side."""
    counts = found.counts_F
    pairs = np.empty(2 * len(found.receivers_E), dtype)
    # Entry e of frame f moves behind the senders of all frames before f.
    before = np.repeat(np.cumsum(counts) - counts, counts)
    at = np.arange(len(before)) + before
    pairs[at] = found.receivers_E
    pairs[at + np.repeat(counts, counts)] = found.senders_E
    file.write(pairs.tobytes())


def _of_record(source: FrameSource, index: int, cutoff_ang: float):
    """Pairs of one record with integer shifts, which are 0 without a cell."""
    record = source[index]
    if record.cell is not None:
        return neighbors.periodic_pairs(record.positions, record.cell, cutoff_ang)
    found = neighbors.radius_pairs(record.positions[None], cutoff_ang)
    shifts = np.zeros((len(found.receivers_E), 3), np.int64)
    return found.receivers_E, found.senders_E, shifts
