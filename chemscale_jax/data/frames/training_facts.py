"""What a model and its users have to know of the training set."""

from typing import Any, NamedTuple

import numpy as np
from scipy.spatial.distance import pdist

from chemscale_jax.data.frames.source import FrameSource

# Frames that are looked at, evenly spread: a second's work.
MOST_FRAMES = 10_000


class TrainingFacts(NamedTuple):
    """Facts of up to ``MOST_FRAMES`` training frames."""

    force_rms: float  # of components, eV/angstrom; 1 where no forces are labelled
    # The range beyond which predictions extrapolate: ``closest_ang`` (two atoms),
    # ``largest_force_ev_per_ang`` (of an atom), ``charges``, ``spins``; JSON-able.
    range: dict[str, Any]
    # {"energy", "force": share of the frames that are labelled}
    labelled: dict[str, float]


def training_facts(source: FrameSource, train: np.ndarray) -> TrainingFacts:
    """Looks at frames of a training set.

    Args:
        source: the records.
        train: indices of the training set.
    """
    count = min(len(train), MOST_FRAMES)
    squares, charges, spins = [], set(), set()
    energies = 0
    closest, largest = np.inf, 0.0
    for index in train[np.linspace(0, len(train) - 1, count, dtype=int)]:
        record = source[int(index)]
        charges.add(record.charge)
        spins.add(record.spin)
        energies += record.energy_mask
        # Images of a cell are left out: they are no closer than atoms, as a rule.
        if len(record.species) > 1:
            closest = min(closest, float(pdist(record.positions).min()))
        if record.forces_mask:
            squares.append(np.mean(record.forces**2))
            largest = max(largest, float(np.linalg.norm(record.forces, axis=1).max()))
    found: dict[str, Any] = {"charges": sorted(charges), "spins": sorted(spins)}
    if np.isfinite(closest):
        found["closest_ang"] = closest
    if squares:
        found["largest_force_ev_per_ang"] = largest
    rms = float(np.sqrt(np.mean(squares))) if squares else 1.0
    labelled = {"energy": energies / count, "force": len(squares) / count}
    return TrainingFacts(rms, found, labelled)
