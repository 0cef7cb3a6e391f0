"""Errors of energies and forces in each split, by how large the forces are."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from chemscale_jax.analysis.markdown import markdown_table
from chemscale_jax.analysis.rank_correlation import spearman
from chemscale_jax.core.predictions import Predictions

# Bands of a frame's mean absolute force component, eV/angstrom, lower end included.
BANDS: tuple[tuple[float, float], ...] = (
    (0.0, 0.5),
    (0.5, 1.0),
    (1.0, 2.0),
    (2.0, np.inf),
)
_HEADER = (
    "split",
    "frames",
    "number",
    "mean F",
    "force MAE",
    "force RMSE",
    "MAE/mean F",
    "zero MAE",
    "element MAE",
    "energy MAE",
    "energy RMSE",
)
_UNCERTAINTY_HEADER = (
    "split",
    "frames",
    "energy error",
    "energy std",
    "energy rho",
    "force error",
    "force std",
    "force rho",
)


class Row(NamedTuple):
    """Errors over some frames of a split; None where nothing is labelled."""

    split: str
    frames: str  # which frames
    number: int  # how many
    mean_abs_force: float | None  # meV/angstrom, mean over all true force components
    force_mae: float | None  # meV/angstrom, mean over all force components
    force_rmse: float | None  # meV/angstrom, over all force components
    ratio: float | None  # force_mae / mean_abs_force
    zero_mae: float | None  # meV/angstrom, of predicting no force
    element_mae: (
        float | None
    )  # meV/angstrom, of each element's mean force on these frames
    energy_mae: float | None  # meV/atom
    energy_rmse: float | None  # meV, of whole molecules


def rows_of(split: str, frames: Predictions) -> list[Row]:
    """Errors of a split: all frames, then those not stretched in bands of force."""
    size = frames.mean_abs_force()
    rows = [row_of(split, "all", frames, np.ones(len(frames), bool))]
    for low, high in BANDS:
        chosen = ~frames.stretched & (size >= low) & (size < high)
        name = f"{low:.1f}-{high:.1f} eV/A" if high < np.inf else f"{low:.1f}+ eV/A"
        rows.append(row_of(split, name, frames, chosen))
    return rows


def row_of(split: str, name: str, frames: Predictions, chosen: np.ndarray) -> Row:
    """Errors over the chosen frames: an (F,) mask."""
    atoms = chosen[frames.frame] & frames.forces_mask
    true = frames.forces_true[atoms].astype(np.float64)
    error = frames.forces_pred[atoms] - true
    labelled = chosen & frames.energy_mask
    energy_error = (
        frames.energy_pred[labelled].astype(np.float64) - frames.energy_true[labelled]
    )
    zero_mae = _mean_milli(np.abs(true))
    force_mae = _mean_milli(np.abs(error))
    baseline = element_means(frames.species[atoms], true)
    return Row(
        split=split,
        frames=name,
        number=int(chosen.sum()),
        mean_abs_force=zero_mae,
        force_mae=force_mae,
        force_rmse=_root_mean_square(error),
        ratio=force_mae / zero_mae if force_mae is not None and zero_mae else None,
        zero_mae=zero_mae,
        element_mae=_mean_milli(np.abs(baseline - true)),
        energy_mae=_mean_milli(np.abs(energy_error) / frames.n_atoms[labelled]),
        energy_rmse=_root_mean_square(energy_error),
    )


def element_means(species: np.ndarray, forces: np.ndarray) -> np.ndarray:
    """The mean force vector of each atom's element: (A, 3), like ``forces``."""
    _, element = np.unique(species, return_inverse=True)
    counts = np.bincount(element)
    sums = np.stack([np.bincount(element, forces[:, axis]) for axis in range(3)], 1)
    return (sums / np.maximum(counts, 1)[:, None])[element]


def force_mae_by_element(frames: Predictions) -> dict[int, tuple[float, int]]:
    """{atomic number: (force MAE in meV/angstrom, number of atoms)}."""
    atoms = frames.forces_mask
    error = np.abs(
        frames.forces_pred[atoms].astype(np.float64) - frames.forces_true[atoms]
    )
    species = frames.species[atoms]
    return {
        int(z): (1e3 * float(error[species == z].mean()), int((species == z).sum()))
        for z in np.unique(species)
    }


def results_table(splits: Mapping[str, Predictions], force_only: bool) -> str:
    """The table with its legend, for terminals and Markdown alike.

    Args:
        splits: {split: its frames}.
        force_only: whether energies were left out of the training loss.
    """
    rows = [row for split, frames in splits.items() for row in rows_of(split, frames)]
    parts = [markdown_table(_HEADER, [_cells(row) for row in rows])]
    uncertain = [uncertainty_cells(s, f) for s, f in splits.items() if _has_std(f)]
    if uncertain:
        parts.append(markdown_table(_UNCERTAINTY_HEADER, uncertain))
    parts.append("\n".join(f"- {line}" for line in _legend(splits, force_only)))
    return "\n\n".join(parts)


def uncertainty_cells(split: str, frames: Predictions) -> list[str]:
    """How the spread of an ensemble ranks its errors, over all frames of a split."""
    if frames.energy_std is None or frames.forces_std is None:
        raise ValueError(f"predictions of {split} are not those of an ensemble")
    labelled, atoms = frames.energy_mask, frames.forces_mask
    size = frames.n_atoms[labelled]
    energy = np.abs(frames.energy_pred - frames.energy_true)[labelled] / size
    energy_std = frames.energy_std[labelled] / size
    difference = (
        frames.forces_pred[atoms].astype(np.float64) - frames.forces_true[atoms]
    )
    force = np.linalg.norm(difference, axis=1)
    force_std = frames.forces_std[atoms]
    numbers = (
        (_mean_milli(energy), 1),
        (_mean_milli(energy_std), 1),
        (_rho(energy_std, energy), 2),
        (_mean_milli(force), 1),
        (_mean_milli(force_std), 1),
        (_rho(force_std, force), 2),
    )
    return [split, "all", *(_number(x, digits) for x, digits in numbers)]


def _rho(std: np.ndarray, error: np.ndarray) -> float | None:
    rho = spearman(std, error)
    return None if math.isnan(rho) else rho


def _has_std(frames: Predictions) -> bool:
    return frames.energy_std is not None and frames.forces_std is not None


def _cells(row: Row) -> list[str]:
    values = (
        (row.mean_abs_force, 1),
        (row.force_mae, 1),
        (row.force_rmse, 1),
        (row.ratio, 3),
        (row.zero_mae, 1),
        (row.element_mae, 1),
        (row.energy_mae, 1),
        (row.energy_rmse, 1),
    )
    numbers = [_number(x, digits) for x, digits in values]
    return [row.split, row.frames, f"{row.number:,}", *numbers]


def _number(x: float | None, digits: int) -> str:
    return "-" if x is None else f"{x:,.{digits}f}"


def _legend(splits: Mapping[str, Predictions], force_only: bool) -> list[str]:
    lines = [
        "Forces in meV/A, over all components. energy MAE in meV/atom; energy RMSE in "
        "meV, of whole molecules, as papers give it.",
        "mean F: mean absolute component of the true forces. Bands are of the mean F "
        "of single frames.",
        "zero MAE: of predicting no force, which is mean F by definition. element MAE: "
        "of predicting each element's mean force vector, fitted on those same frames.",
    ]
    left_out = {name: int(f.stretched.sum()) for name, f in splits.items()}
    if any(left_out.values()):
        counts = ", ".join(f"{n:,} in {name}" for name, n in left_out.items())
        lines.append(f"Bands leave out frames with a stretched bond: {counts}.")
    if any(_has_std(frames) for frames in splits.values()):
        lines.append(
            "Predictions are means over an ensemble. std: mean of its standard "
            "deviation, of the energy per atom and of the force vector of an atom; "
            "error: mean absolute error of the same; rho: Spearman's correlation of "
            "the two, over frames and over atoms."
        )
    if force_only:
        lines.append(
            "Trained on forces only: one constant per element was fitted to the "
            "energies of training frames; uncalibrated is what differs between "
            "molecules beyond it."
        )
    return lines


def _root_mean_square(values: np.ndarray) -> float | None:
    """In thousandths of the unit of the values."""
    square = np.square(values, dtype=np.float64)
    return 1e3 * float(np.sqrt(square.mean())) if values.size else None


def _mean_milli(values: np.ndarray) -> float | None:
    return 1e3 * float(values.mean()) if values.size else None
