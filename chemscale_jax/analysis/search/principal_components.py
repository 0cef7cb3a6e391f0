"""Principal components of vectors that come in blocks: exact, and in one pass."""

import dataclasses
from collections.abc import Iterable

import numpy as np
from scipy.linalg import eigh

from chemscale_jax.core.errors import UserError
from chemscale_jax.core.saved_arrays import SavedArrays

# Rows of a matrix product: more would only take memory.
_ROWS = 8192


@dataclasses.dataclass(frozen=True)
class Projection(SavedArrays):
    """The d directions in which vectors of width D vary most, and their centre."""

    mean: np.ndarray  # (D,) float64
    axes: np.ndarray  # (d, D) float64, orthonormal
    variances: np.ndarray  # (d,) float64, falling
    total: np.ndarray  # () float64, variance in all D directions

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Components of (n, D) vectors: (n, d) float32."""
        found = np.empty((len(values), len(self.axes)), np.float32)
        for start in range(0, len(values), _ROWS):
            rows = slice(start, start + _ROWS)
            found[rows] = (values[rows] - self.mean) @ self.axes.T
        return found

    @property
    def kept(self) -> float:
        """Share of the variance that the components have."""
        return float(self.variances.sum() / self.total) if self.total > 0 else 1.0


def fit_projection(blocks: Iterable[np.ndarray], components: int) -> Projection:
    """Principal components by the covariance of all rows.

    Sums are those of differences to the mean of the first block, products float32 with
    float64 sums over blocks.

    Args:
        blocks: (n, D) each, finite.
        components: to keep; at most D are.

    Raises:
        UserError: there are fewer than two rows.
    """
    if components < 1:
        raise UserError(f"{components} components: ask for at least 1")
    count, shift, sums, products = 0, None, np.zeros(0), np.zeros((0, 0))
    for block in blocks:
        if not len(block):
            continue
        if shift is None:
            shift = block.mean(axis=0, dtype=np.float64)
            sums = np.zeros(len(shift))
            products = np.zeros((len(shift), len(shift)))
        count += len(block)
        for start in range(0, len(block), _ROWS):
            part = (block[start : start + _ROWS] - shift).astype(np.float32)
            sums += part.sum(axis=0, dtype=np.float64)
            products += part.T @ part
    if shift is None or count < 2:
        raise UserError(
            f"principal components of {count} vectors: give at least 2, or take the "
            "vectors as they are (pca=0)"
        )
    mean = sums / count
    covariance = (products - count * np.outer(mean, mean)) / (count - 1)
    D = len(covariance)
    variances, axes = eigh(
        covariance, subset_by_index=(D - min(components, D), D - 1), driver="evr"
    )
    variances, axes = variances[::-1], axes[:, ::-1].T
    # A direction and its opposite are the same component.
    largest = np.take_along_axis(axes, np.abs(axes).argmax(1)[:, None], axis=1)
    return Projection(
        mean=shift + mean,
        axes=np.ascontiguousarray(axes * np.where(largest < 0, -1.0, 1.0)),
        variances=np.maximum(variances, 0.0),
        total=np.array(max(float(np.trace(covariance)), 0.0)),
    )
