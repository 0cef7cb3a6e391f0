"""Predictions of one split of frames: written by inference, read by reports.

NumPy only, since reports do without JAX.
"""

import dataclasses

import numpy as np

from chemscale_jax.core.saved_arrays import SavedArrays

# In ``kind``: a frame with a stretched bond (FrameKind.STRETCHED of
# chem/geometries.py, which is not imported because it brings RDKit along).
STRETCHED = 2


@dataclasses.dataclass(frozen=True)
class Predictions(SavedArrays):
    """True and predicted labels, one entry per frame (F) or per atom (A).

    Atoms of a frame follow each other. Energies are without the reference energies of
    the elements; where a label is masked out, its true value means nothing.
    """

    id: np.ndarray  # (F,) str, name of the record
    index: np.ndarray  # (F,) int64, index of the record in its source
    n_atoms: np.ndarray  # (F,) int32
    energy_true: np.ndarray  # (F,) float64, eV
    energy_pred: np.ndarray  # (F,) float64, eV
    energy_mask: np.ndarray  # (F,) bool, True where the energy is labelled
    frame: np.ndarray  # (A,) int32, the frame of the atom
    species: np.ndarray  # (A,) uint8, atomic numbers
    forces_true: np.ndarray  # (A, 3) float32, eV/angstrom
    forces_pred: np.ndarray  # (A, 3) float32, eV/angstrom
    forces_mask: np.ndarray  # (A,) bool, True where the forces are labelled
    # What the records' source knows, see `with_facts`.
    reference: np.ndarray | None = None  # (F,) float64, eV, of the elements; to add
    kind: np.ndarray | None = None  # (F,) uint8, how the frame was made
    molecule: np.ndarray | None = None  # (F,) str
    # Of an ensemble, whose predictions are means: standard deviations over members.
    energy_std: np.ndarray | None = None  # (F,) float64, eV
    forces_std: np.ndarray | None = None  # (A,) float32, eV/angstrom, of the vector

    def __len__(self) -> int:
        return len(self.n_atoms)

    @property
    def stretched(self) -> np.ndarray:
        """(F,) bool; False for all frames where kinds are unknown."""
        if self.kind is None:
            return np.zeros(len(self), bool)
        return self.kind == STRETCHED

    def mean_abs_force(self) -> np.ndarray:
        """Mean absolute true force component of each frame: (F,) eV/angstrom.

        NaN for frames without labelled forces.
        """
        labelled = self.forces_mask
        frame = self.frame[labelled]
        absolute = np.abs(self.forces_true[labelled].astype(np.float64)).sum(1)
        total = np.bincount(frame, absolute, len(self))
        components = 3 * np.bincount(frame, minlength=len(self))
        return np.where(components > 0, total / np.maximum(components, 1), np.nan)
