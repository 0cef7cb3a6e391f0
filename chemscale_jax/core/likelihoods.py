"""Likelihoods of molecules under a language model: written by runs, read by reports.

NumPy only, since reports do without JAX.
"""

import dataclasses

import numpy as np

from chemscale_jax.core.saved_arrays import SavedArrays


@dataclasses.dataclass(frozen=True)
class Likelihoods(SavedArrays):
    """One entry for each molecule (M) of a split."""

    nats: np.ndarray  # (M,) float64, -log p of all its tokens, the end included
    tokens: np.ndarray  # (M,) int32, how many these are
    line: np.ndarray  # (M,) int64, of the molecule in its source

    def __len__(self) -> int:
        return len(self.nats)
