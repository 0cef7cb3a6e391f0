"""Which atoms are within a cutoff of each other: stacks of frames, periodic frames.

Pairs are directed, so each appears both ways, and are sorted by receiver, then sender.
A pair counts when its distance is at most the cutoff (as in the code behind Frey et
al. 2023); models whose messages fade out at the cutoff cannot tell.
"""

from typing import NamedTuple

import numpy as np

# Frames handled at once have at most this many distances, which stay in the CPU cache.
_DISTANCES_AT_ONCE = 1 << 17


class FramePairs(NamedTuple):
    """Pairs of F frames with atoms numbered within each frame, frame after frame."""

    counts_F: np.ndarray  # int64, how many pairs belong to each frame
    receivers_E: np.ndarray  # int64
    senders_E: np.ndarray  # int64


def _blocks(positions_FN3: np.ndarray):
    """Runs of frames small enough to be handled at once."""
    F, N, _ = positions_FN3.shape
    step = max(1, _DISTANCES_AT_ONCE // max(1, N * N))
    for start in range(0, F, step):
        yield start, positions_FN3[start : start + step]


def _squared_distances(positions_FN3: np.ndarray) -> np.ndarray:
    """Squared distances (F, N, N) in float64; the diagonal is infinite."""
    x_F3N = np.moveaxis(positions_FN3, -1, 1).astype(np.float64)
    F, _, N = x_F3N.shape
    total_FNN = np.zeros((F, N, N))
    for axis in range(3):
        difference_FNN = x_F3N[:, axis, :, None] - x_F3N[:, axis, None, :]
        total_FNN += np.square(difference_FNN, out=difference_FNN)
    total_FNN[:, np.arange(N), np.arange(N)] = np.inf
    return total_FNN


def radius_pairs(positions_FN3: np.ndarray, cutoff_ang: float) -> FramePairs:
    """Pairs within the cutoff in each of F frames of N atoms, without periodicity."""
    counts, receivers, senders = [], [], []
    for _, block_FN3 in _blocks(positions_FN3):
        near_FNN = _squared_distances(block_FN3) <= cutoff_ang**2
        _, receiver_E, sender_E = np.nonzero(near_FNN)
        counts.append(near_FNN.sum((1, 2)))
        receivers.append(receiver_E)
        senders.append(sender_E)
    if not counts:
        empty = np.zeros(0, np.int64)
        return FramePairs(empty, empty, empty)
    return FramePairs(*(np.concatenate(part) for part in (counts, receivers, senders)))


def closest_distances(positions_FN3: np.ndarray) -> np.ndarray:
    """The smallest distance in each frame (F,), in angstrom; inf for one atom."""
    smallest_F = np.full(len(positions_FN3), np.inf)
    for start, block_FN3 in _blocks(positions_FN3):
        if block_FN3.shape[1] > 1:
            squared_F = _squared_distances(block_FN3).min((1, 2))
            smallest_F[start : start + len(block_FN3)] = np.sqrt(squared_F)
    return smallest_F


def all_pairs(n_atoms: int) -> tuple[np.ndarray, np.ndarray]:
    """Receivers and senders of every pair among ``n_atoms`` atoms."""
    receivers_P, senders_P = np.nonzero(~np.eye(n_atoms, dtype=bool))
    return receivers_P, senders_P


def periodic_pairs(
    positions_N3: np.ndarray, cell_33: np.ndarray, cutoff_ang: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs within the cutoff in one frame that repeats along its three cell vectors.

    An atom pairs with its own images and with several images of another atom when the
    cell is small. The displacement of a pair is
    ``positions[sender] + shift @ cell - positions[receiver]``; positions may lie
    outside the cell.

    Args:
        positions_N3: angstrom.
        cell_33: the cell vectors as rows, angstrom.
        cutoff_ang: largest distance of a pair.

    Returns:
        Receivers (E,), senders (E,) and integer shifts (E, 3), sorted by receiver,
        sender and shift.

    Raises:
        ValueError: the cell vectors span no volume.
    """
    x_N3 = np.asarray(positions_N3, np.float64)
    cell_33 = np.asarray(cell_33, np.float64)
    volume = np.linalg.det(cell_33)
    if not abs(volume) > 1e-9:
        raise ValueError(f"the cell {cell_33.tolist()} spans no volume")
    inverse_33 = np.linalg.inv(cell_33)
    outside_N3 = np.floor(x_N3 @ inverse_33)
    wrapped_N3 = x_N3 - outside_N3 @ cell_33
    # Wrapped atoms differ by less than one cell vector along each axis, and the
    # planes of the cell are 1 / |column of the inverse| apart.
    reach_3 = np.floor(cutoff_ang * np.linalg.norm(inverse_33, axis=0)).astype(int) + 1
    receivers, senders, shifts = [], [], []
    for image in np.ndindex(*(2 * reach_3 + 1)):
        shift_3 = np.array(image) - reach_3
        moved_N3 = wrapped_N3 + shift_3 @ cell_33
        squared_NN = ((moved_N3[None] - wrapped_N3[:, None]) ** 2).sum(-1)
        if not shift_3.any():
            np.fill_diagonal(squared_NN, np.inf)
        receiver_E, sender_E = np.nonzero(squared_NN <= cutoff_ang**2)
        receivers.append(receiver_E)
        senders.append(sender_E)
        shifts.append(shift_3 - outside_N3[sender_E] + outside_N3[receiver_E])
    receivers_E, senders_E = np.concatenate(receivers), np.concatenate(senders)
    shifts_E3 = np.concatenate(shifts).astype(np.int64)
    order_E = np.lexsort((*shifts_E3.T[::-1], senders_E, receivers_E))
    return receivers_E[order_E], senders_E[order_E], shifts_E3[order_E]
