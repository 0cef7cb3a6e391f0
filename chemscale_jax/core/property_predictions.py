"""Predicted properties of one split of molecules: written by inference, for reports.

NumPy only, since reports do without JAX.
"""

import dataclasses

import numpy as np

from chemscale_jax.core.saved_arrays import SavedArrays

# What is predicted: numbers, yes or no for each target, or one of several classes.
KINDS = ("regression", "binary", "multiclass")


@dataclasses.dataclass(frozen=True)
class PropertyPredictions(SavedArrays):
    """True and predicted labels of M molecules, in the units of the data.

    Of P outputs: the T targets of regression (their values) and binary classification
    (probabilities of 1), or the C classes of the one target of multiclass
    classification (probabilities).
    """

    id: np.ndarray  # (M,) str, where the molecule stands in its source
    smiles: np.ndarray  # (M,) str, canonical
    index: np.ndarray  # (M,) int64, row of the source, the first being 0
    true: np.ndarray  # (M, T) float64; NaN where there is no label
    pred: np.ndarray  # (M, P) float64, mean over conformers and members
    conformer_std: np.ndarray  # (M, P) float64, over conformers; 0 for one
    conformers: np.ndarray  # (M,) int32, how many geometries were averaged
    # Of an ensemble: standard deviation over its members.
    member_std: np.ndarray | None = None  # (M, P) float64
    # What a model of fingerprints, trained on the same molecules, predicts.
    baseline: np.ndarray | None = None  # (M, P) float64

    def __len__(self) -> int:
        return len(self.index)

    @property
    def labelled(self) -> np.ndarray:
        """(M, T) bool, True where there is a label."""
        return np.isfinite(self.true)
