"""Frames that cannot be trained on: found, counted, named, and left out."""

from collections.abc import Callable

import numpy as np

from chemscale_jax.chem import elements, neighbors

# Atoms nearer than this are the same atom written twice.
CLOSEST_ANG = 1e-3
# Far above any real force; what wrong units or a failed calculation give.
LARGEST_FORCE_EV_PER_ANG = 1e3
_EXAMPLES = 3

# Index 0 is a usable frame; of several problems the first in this order is counted.
REASONS = (
    "usable",
    "NaN in coordinates or labels",
    "infinite coordinates or labels",
    "unknown element",
    f"two atoms within {CLOSEST_ANG:g} angstrom",
    f"a force above {LARGEST_FORCE_EV_PER_ANG:g} eV/angstrom",
)


def find(
    species_N: np.ndarray,
    positions_FN3: np.ndarray,
    forces_FN3: np.ndarray,
    energies_F: np.ndarray | None = None,
) -> np.ndarray:
    """What is wrong with each of F frames: (F,) uint8 indices into ``REASONS``.

    Args:
        species_N: atomic numbers.
        positions_FN3: angstrom.
        forces_FN3: eV/angstrom.
        energies_F: eV; left out where a missing energy is allowed.
    """
    F = len(positions_FN3)
    # A NaN or infinity survives the sum of absolute values; float64 cannot overflow.
    sums_F = np.abs(positions_FN3).sum((1, 2), dtype=np.float64)
    sums_F += np.abs(forces_FN3).sum((1, 2), dtype=np.float64)
    if energies_F is not None:
        sums_F = sums_F + np.abs(energies_F)
    known = np.all((species_N >= 1) & (species_N <= elements.MAX_ATOMIC_NUMBER))
    finite_F = np.isfinite(sums_F)
    close_F, strong_F = np.zeros(F, bool), np.zeros(F, bool)
    if finite_F.all():
        close_F = neighbors.closest_distances(positions_FN3) < CLOSEST_ANG
        strong_F = np.abs(forces_FN3).max((1, 2), initial=0) > LARGEST_FORCE_EV_PER_ANG
    else:
        distances_F = neighbors.closest_distances(positions_FN3[finite_F])
        close_F[finite_F] = distances_F < CLOSEST_ANG
        largest_F = np.abs(forces_FN3[finite_F]).max((1, 2), initial=0)
        strong_F[finite_F] = largest_F > LARGEST_FORCE_EV_PER_ANG
    problems_F = [
        np.isnan(sums_F),
        ~finite_F,
        np.full(F, not known or len(species_N) == 0),
        close_F,
        strong_F,
    ]
    return np.select(problems_F, np.arange(1, len(REASONS)), 0).astype(np.uint8)


class Problems:
    """A count of the frames left out, by reason, with the names of the first few."""

    def __init__(self):
        self.counts = dict.fromkeys(REASONS[1:], 0)
        self.examples: dict[str, list[str]] = {reason: [] for reason in REASONS[1:]}

    def add(self, codes_F: np.ndarray, name_of: Callable[[int], str]) -> bool:
        """Counts the frames with a problem; True if there are any.

        Args:
            codes_F: what `find` returned.
            name_of: position in ``codes_F`` -> name of the record.
        """
        for code in np.unique(codes_F[codes_F > 0]):
            reason = REASONS[code]
            rows = np.flatnonzero(codes_F == code)
            self.counts[reason] += len(rows)
            missing = _EXAMPLES - len(self.examples[reason])
            self.examples[reason] += [name_of(int(r)) for r in rows[:missing]]
        return bool(codes_F.any())

    def report(self) -> dict:
        """``{"skipped": {reason: count}, "skipped_examples": {reason: names}}``."""
        return {
            "nan_rows": self.counts[REASONS[1]],
            "skipped": {r: n for r, n in self.counts.items() if n},
            "skipped_examples": {
                r: names for r, names in self.examples.items() if names
            },
        }

    def sentence(self) -> str:
        """The counts as words to put in brackets; empty when nothing was left out."""
        parts = [
            f"{count} with {reason}, e.g. {self.examples[reason][0]}"
            for reason, count in self.counts.items()
            if count
        ]
        return f" ({'; '.join(parts)})" if parts else ""
