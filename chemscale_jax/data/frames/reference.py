"""Reference energies of the elements: what of the energy is mere composition."""

from typing import Any, NamedTuple

import numpy as np

from chemscale_jax.chem import elements
from chemscale_jax.chem.units import HARTREE_EV
from chemscale_jax.core.errors import UserError
from chemscale_jax.data.frames.source import FrameSource

KINDS = ("fit", "atoms")
# Isolated atoms in hartree, unrestricted wB97X/6-31G(d) with Cartesian d functions, for
# those methods of ANI-1x that have it. Some programs list wB97 under this name.
_WB97X_6_31GD = {
    "H": -0.499321232710,
    "C": -37.8338334397,
    "N": -54.5732824628,
    "O": -75.0424519384,
}
_ATOMS_HARTREE = {"wb97x_dz": _WB97X_6_31GD, "wB97X/6-31G(d)": _WB97X_6_31GD}


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


def isolated_atoms(source: FrameSource) -> ReferenceEnergies:
    """Energies of isolated atoms by the method of the labels.

    They are taken from the data where it has them: frames of one atom, or what the
    reader set apart in the report. For the other elements there is a table for the
    method that the report names.

    Args:
        source: the records.

    Raises:
        UserError: the energy of an element is not known.
    """
    method = str(source.report.get("method"))
    table = _ATOMS_HARTREE.get(method, {})
    known = {symbol: energy * HARTREE_EV for symbol, energy in table.items()}
    known |= source.report.get("isolated_atoms_ev", {})
    alone = np.flatnonzero((source.n_atoms == 1) & np.isfinite(source.total_energy))
    for index in alone[::-1]:
        symbol = elements.symbol_of(int(source.group_species[source.group[index]][0]))
        known[symbol] = float(source.total_energy[index])
    symbols = tuple(source.element_symbols)
    lacking = [symbol for symbol in symbols if symbol not in known]
    if lacking:
        raise UserError(
            f"config.data.reference='atoms' needs the energy of an isolated atom of "
            f"{', '.join(lacking)} by method {method!r}, which is neither in the data "
            f"nor in the table (methods {', '.join(_ATOMS_HARTREE)}): use 'fit'"
        )
    energies = np.array([known[symbol] for symbol in symbols])
    facts = {"records": 0, "elements": len(symbols), "isolated_atoms": method}
    return ReferenceEnergies(symbols, energies, facts)


def reference_energies(
    source: FrameSource, indices: np.ndarray, kind: str
) -> ReferenceEnergies:
    """What ``config.data.reference`` asks for: "fit" or "atoms".

    Args:
        source: the records.
        indices: records of the training split.
        kind: one of ``KINDS``.

    Raises:
        UserError: the kind is unknown, or the energy of an atom is.
    """
    if kind not in KINDS:
        raise UserError(
            f"config.data.reference={kind!r} is unknown: use {' or '.join(KINDS)}"
        )
    if kind == "atoms":
        return isolated_atoms(source)
    return fit_reference_energies(source, indices)
