"""Reference energies of the elements: what of the energy is mere composition."""

from typing import Any, NamedTuple

import numpy as np

from chemscale_jax.data.source import FrameSource


class ReferenceEnergies(NamedTuple):
    """The energy of each element that explains total energies best.

    ``energies_ev`` belong to ``FrameSource.elements`` of the source they were fitted
    to. An element that no training record contains has 0.
    """

    symbols: tuple[str, ...]
    energies_ev: np.ndarray  # (elements,) float64
    statistics: dict[str, Any]  # JSON-able facts on the fit

    def total(self, composition: np.ndarray) -> np.ndarray:
        """Energies (records,) in eV of compositions (records, elements)."""
        return composition @ self.energies_ev

    def as_dict(self) -> dict[str, float]:
        """``{symbol: energy in eV}``."""
        return dict(zip(self.symbols, self.energies_ev.tolist(), strict=True))


def fit_reference_energies(
    source: FrameSource, indices: np.ndarray
) -> ReferenceEnergies:
    """Least squares of total energies on composition, in float64.

    All records of a group have one composition, so the fit over records equals the
    fit over the groups' mean energies, weighted by their numbers of records; it needs
    no pass over the data. Where compositions do not determine the energies (one
    molecule, say) the solution of smallest norm is taken.

    Args:
        source: the records.
        indices: records of the training split; those without an energy are ignored.
    """
    energy = source.total_energy[indices]
    labelled = np.isfinite(energy)
    energy, group = energy[labelled], source.group[indices][labelled]
    symbols = tuple(source.element_symbols)
    groups, first, inverse = np.unique(group, return_index=True, return_inverse=True)
    if not len(groups):
        facts = {"records": 0, "residual_std_ev": 0.0, "residual_std_ev_per_atom": 0.0}
        return ReferenceEnergies(symbols, np.zeros(len(symbols)), facts)
    records = np.asarray(indices)[labelled]
    composition = source.composition(records[first])
    counts = np.bincount(inverse)
    means = np.bincount(inverse, energy) / counts
    weight = np.sqrt(counts)
    solution, _, rank, _ = np.linalg.lstsq(
        composition * weight[:, None], means * weight, rcond=None
    )
    residual = energy - (composition @ solution)[inverse]
    facts = {
        "records": len(energy),
        "rank": int(rank),
        "elements": len(symbols),
        "residual_mean_ev": float(residual.mean()),
        "residual_std_ev": float(residual.std()),
        "residual_std_ev_per_atom": float((residual / source.n_atoms[records]).std()),
    }
    return ReferenceEnergies(symbols, solution, facts)
