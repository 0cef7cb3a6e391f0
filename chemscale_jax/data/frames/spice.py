"""SPICE (Eastman et al. 2023): one HDF5 group per molecule, in bohr and hartree.

``atomic_numbers`` (N,), ``conformations`` (F, N, 3), ``dft_total_energy`` (F,) and
``dft_total_gradient`` (F, N, 3), whose negative is the force; ``smiles`` with one
string gives the charge. ``formation_energy`` is not used: the energies of the elements
are fitted to the training set, as for every source.
"""

import pathlib
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np

from chemscale_jax.chem.electrons import formal_charge
from chemscale_jax.core.errors import UserError
from chemscale_jax.data.frames import h5_groups
from chemscale_jax.data.frames.converted import ConvertedSource
from chemscale_jax.data.frames.frames import AUTO_UNITS, Bad, Frames, UnitNames

_NEEDED = ("atomic_numbers", "conformations", "dft_total_energy")
_GRADIENT = "dft_total_gradient"
_WHAT = "a SPICE file (.hdf5) with conformations, dft_total_energy, dft_total_gradient"


def open_spice(
    path: str | pathlib.Path, unit_names: UnitNames = AUTO_UNITS
) -> ConvertedSource:
    """Records of a SPICE file; the molecules are closed-shell.

    Args:
        path: the HDF5 file.
        unit_names: units of the file, where they are not what the file says; "force" is
            that of the gradients.

    Raises:
        UserError: the file is missing, damaged or of another layout; no frame is
            usable.
    """
    # Opened once here so that a file of another kind is refused before any work.
    with h5_groups.open_hdf5(path, _WHAT) as file:
        path = pathlib.Path(file.filename)

    def read(facts: dict[str, Any]) -> Iterator[Frames | Bad]:
        no_charge = 0
        with h5_groups.open_hdf5(path, _WHAT) as file:
            for name, group in h5_groups.groups_with(file, _NEEDED):
                names = _units(group, unit_names)
                if facts.setdefault("units", names._asdict()) != names._asdict():
                    raise UserError(
                        f"{path}: group {name!r} has the units {', '.join(names)}, the "
                        f"ones before it {', '.join(facts['units'].values())}"
                    )
                charge = _charge(group)
                no_charge += charge is None
                yield _molecule(name, group, names, charge or 0)
        # Their charge is taken to be 0.
        facts["groups_without_smiles"] = no_charge

    return ConvertedSource(
        read,
        [path],
        {"reader": "spice", "units": unit_names},
        {"method": "wB97M-D3(BJ)/def2-TZVPPD"},
    )


def _units(group: h5py.Group, unit_names: UnitNames) -> UnitNames:
    """Units as the attributes of the datasets say, which the official files have."""
    force = (
        h5_groups.unit_of(group, _GRADIENT, "hartree/bohr")
        if _GRADIENT in group
        else "hartree/bohr"
    )
    return unit_names.filled(
        h5_groups.unit_of(group, "dft_total_energy", "hartree"),
        force,
        h5_groups.unit_of(group, "conformations", "bohr"),
    )


def _charge(group: h5py.Group) -> int | None:
    """The charge that the SMILES of a group states."""
    if "smiles" not in group:
        return None
    smiles = h5_groups.values(group, "smiles", object).ravel()
    if not len(smiles):
        return None
    text = smiles[0]
    return formal_charge(text.decode() if isinstance(text, bytes) else str(text))


def _molecule(
    name: str, group: h5py.Group, unit_names: UnitNames, charge: int
) -> Frames:
    """All conformations of a group."""
    energy_factor, force_factor, length = unit_names.factors()
    species = h5_groups.values(group, "atomic_numbers", np.int64)
    x = h5_groups.values(group, "conformations")
    energy = h5_groups.values(group, "dft_total_energy").reshape(-1)
    h5_groups.check_shape(group, "conformations", x, (len(x), len(species), 3))
    h5_groups.check_shape(group, "dft_total_energy", energy, (len(x),))
    forces = None
    if _GRADIENT in group:
        gradient = h5_groups.values(group, _GRADIENT)
        h5_groups.check_shape(group, _GRADIENT, gradient, x.shape)
        forces = -gradient * force_factor
    return Frames(
        name=name,
        rows=np.arange(len(x)),
        species=species,
        positions=x * length,
        energy=energy * energy_factor,
        forces=forces,
        charge=float(charge),
    )
