"""Records of molecules whose atoms and coordinates are in memory."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from rdkit import Chem

from chemscale_jax.chem.molecule_files import atom_number, read_atoms
from chemscale_jax.chem.molecule_record import (
    MAX_ATOMS,
    MoleculeRecord,
    coordinate_fault,
    failed_record,
    record_of,
)
from chemscale_jax.chem.smiles import quiet_rdkit, read_molecule

# A bond is no longer than so many times the sum of the covalent radii.
_LONGEST = 1.6
# Of positions that are the same but for rounding to float32, angstrom.
_SAME_ANG = 2e-3


def record_of_geometries(
    symbols: Sequence[Any] | np.ndarray,
    positions: Any,
    name: str = "",
    *,
    smiles: str = "",
    charge: str = "",
    max_atoms: int = MAX_ATOMS,
) -> MoleculeRecord:
    """A record of status "given" or "failed"; never an exception.

    Bonds are those of the SMILES, if there is one: it has to name the heavy atoms in
    the order of the coordinates, or be what the distances tell. Else they are told
    from distances, see `perceived_bonds.record_of_atoms`.

    Args:
        symbols: of N atoms, or their atomic numbers.
        positions: (N, 3), or (K, N, 3) of K geometries, angstrom.
        name: of the molecule.
        smiles: of the molecule, or "".
        charge: of the molecule, a whole number, or "" where it is not known.
        max_atoms: larger molecules, by heavy atoms, are refused.
    """
    try:
        numbers = np.array([atom_number(symbol) for symbol in symbols], np.int64)
        all_KN3 = np.asarray(positions, np.float64)
        told = int(float(charge)) if charge else None
    except (TypeError, ValueError, OverflowError) as error:
        return failed_record(name, str(error))
    if all_KN3.ndim == 2:
        all_KN3 = all_KN3[None]
    if all_KN3.ndim != 3 or not len(all_KN3) or all_KN3.shape[1:] != (len(numbers), 3):
        found = f"{len(numbers)} atoms have coordinates of shape {np.shape(positions)}"
        return failed_record(name, found)
    for number, one_N3 in enumerate(all_KN3, 1):
        if len(all_KN3) > 1 and (fault := coordinate_fault(one_N3)):
            return failed_record(
                name, f"of the coordinates of geometry {number}, {fault}"
            )
    if smiles and (made := _placed(smiles, numbers, all_KN3, name, max_atoms)):
        return made
    one = {"atoms": [numbers], "coordinates": all_KN3[:1], "charges": [told]}
    made = next(read_atoms(one, max_atoms=max_atoms))._replace(name=name)
    if made.status == "failed":
        return made
    if smiles and made.has_bonds:
        wanted, found = read_molecule(smiles), read_molecule(made.smiles)
        if wanted.neutral != found.neutral:
            return failed_record(
                name,
                f"the SMILES {wanted.canonical or smiles} does not name the atoms in "
                f"the order of their coordinates, which look like {made.smiles}",
            )
    # Where the atoms of the record stand in the input.
    heavy = np.flatnonzero(numbers > 1)
    apart = np.linalg.norm(made.positions_KN3[0][:, None] - all_KN3[0, heavy], axis=-1)
    places = heavy[apart.argmin(1)]
    assert (apart.min(1) < _SAME_ANG).all()
    return made._replace(positions_KN3=all_KN3[:, places].astype(np.float32))


def _placed(
    smiles: str, numbers: np.ndarray, all_KN3: np.ndarray, name: str, max_atoms: int
) -> MoleculeRecord | None:
    """The record of a SMILES whose heavy atoms stand as the coordinates do, or None."""
    parsed = read_molecule(smiles, max_heavy_atoms=max_atoms)
    if parsed.reason:
        return failed_record(name, parsed.message)
    with quiet_rdkit():
        mol = Chem.RemoveAllHs(Chem.MolFromSmiles(smiles))
        heavy = numbers > 1
        if [atom.GetAtomicNum() for atom in mol.GetAtoms()] != numbers[heavy].tolist():
            return None
        table = Chem.GetPeriodicTable()
        radii = [table.GetRcovalent(int(number)) for number in numbers[heavy]]
        for bond in mol.GetBonds():
            i, j = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
            lengths = np.linalg.norm(
                all_KN3[:, heavy][:, i] - all_KN3[:, heavy][:, j], axis=-1
            )
            if lengths.max() > _LONGEST * (radii[i] + radii[j]):
                return None
        for one_N3 in all_KN3[:, heavy]:
            conformer = Chem.Conformer(len(one_N3))
            conformer.SetPositions(np.ascontiguousarray(one_N3))
            conformer.Set3D(True)
            mol.AddConformer(conformer, assignId=True)
    made = record_of(mol, name, own_coordinates=True, max_atoms=max_atoms)
    if made.status == "2d":
        return failed_record(name, made.reason)
    return made
