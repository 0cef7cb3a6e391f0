"""Molecule records from atoms and coordinates, with the bonds that these tell."""

import numpy as np
from rdkit import Chem
from rdkit.Chem import rdDetermineBonds

from chemscale_jax.chem.elements import MAX_ATOMIC_NUMBER
from chemscale_jax.chem.molecule_record import (
    MAX_ATOMS,
    MoleculeRecord,
    coordinate_fault,
    failed_record,
    first_line,
    flattened,
    record_of,
    size_fault,
)
from chemscale_jax.chem.smiles import quiet_rdkit

# Of the search for a pattern of bond orders, which may have very many.
_BOND_ORDER_STEPS = 10_000
# Unpaired electrons of a molecule; more are the sign of a wrong charge.
_MOST_UNPAIRED = 2


def record_of_atoms(
    numbers: np.ndarray,
    positions_ang: np.ndarray,
    name: str = "",
    *,
    charge: int | None = None,
    max_atoms: int = MAX_ATOMS,
) -> MoleculeRecord:
    """A record of status "given" or "failed"; never an exception.

    Bonds are told from distances, and bond orders from valences and the charge. Where
    that fails, or where nothing says that hydrogens are complete, the record has atoms
    and coordinates only, in the order given, and its reason says why.

    Args:
        numbers: (N,) atomic numbers, with hydrogens if there are any.
        positions_ang: (N, 3).
        name: of the molecule.
        charge: of the whole molecule, which then must have its hydrogens. None: 0,
            and a molecule without any hydrogen is taken to have them left out.
        max_atoms: larger molecules, by heavy atoms, are refused.
    """
    try:
        numbers = np.asarray(numbers, np.int64).reshape(-1)
        positions = np.asarray(positions_ang, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        return failed_record(name, f"elements or coordinates are no numbers: {error}")
    if fault := _fault(numbers, positions, max_atoms):
        return failed_record(name, fault)
    if charge is None and not (numbers == 1).any():
        why = "there is no hydrogen, so hydrogens may have been left out"
        return _without_bonds(numbers, positions, name, why)
    with quiet_rdkit():
        mol, why = _bonded(numbers, positions, charge or 0)
        if mol is not None:
            made = record_of(mol, name, own_coordinates=True, max_atoms=max_atoms)
            if made.status == "given":
                return made
            why = made.reason
    return _without_bonds(numbers, positions, name, why)


def _fault(numbers: np.ndarray, positions: np.ndarray, max_atoms: int) -> str:
    """Why nothing can be made of it, or ""."""
    if not len(numbers):
        return "the molecule has no atom"
    if positions.shape != (len(numbers), 3):
        return f"{len(numbers)} atoms have coordinates of shape {positions.shape}"
    if numbers.min() < 1 or numbers.max() > MAX_ATOMIC_NUMBER:
        wrong = numbers[(numbers < 1) | (numbers > MAX_ATOMIC_NUMBER)][0]
        return f"{wrong} is no atomic number"
    heavy = int((numbers > 1).sum())
    if not heavy:
        return "the molecule has no atom but hydrogen"
    if fault := size_fault(heavy, len(numbers), max_atoms):
        return fault
    fault = coordinate_fault(positions)
    return f"of the coordinates, {fault}" if fault else ""


def _bonded(
    numbers: np.ndarray, positions: np.ndarray, charge: int
) -> tuple[Chem.Mol | None, str]:
    """A molecule with bonds, or why there is none.

    Charges are sought on atoms first, then unpaired electrons.
    """
    why = ""
    for charged in (True, False):
        mol = Chem.RWMol()
        conformer = Chem.Conformer(len(numbers))
        for number, position in zip(numbers, positions, strict=True):
            atom = Chem.Atom(int(number))
            atom.SetNoImplicit(True)
            conformer.SetAtomPosition(mol.AddAtom(atom), position.tolist())
        mol.AddConformer(conformer)
        try:
            rdDetermineBonds.DetermineBonds(
                mol,
                charge=charge,
                allowChargedFragments=charged,
                maxIterations=_BOND_ORDER_STEPS,
            )
            unpaired = sum(atom.GetNumRadicalElectrons() for atom in mol.GetAtoms())
            if unpaired <= _MOST_UNPAIRED:
                return mol.GetMol(), ""
        except (RuntimeError, ValueError) as error:
            why = why or first_line(error)
    return None, why


def _without_bonds(
    numbers: np.ndarray, positions: np.ndarray, name: str, why: str
) -> MoleculeRecord:
    heavy = numbers > 1
    N = int(heavy.sum())
    coordinates = positions[heavy].astype(np.float32)
    return MoleculeRecord(
        name=name,
        smiles="",
        species_N=numbers[heavy].astype(np.uint8),
        atoms_N8=np.zeros((N, 8), np.uint8),
        bonds_E2=np.zeros((0, 2), np.uint16),
        bond_features_E3=np.zeros((0, 3), np.uint8),
        positions_KN3=coordinates[None],
        flat_N3=flattened(coordinates),
        status="given",
        reason=f"bonds could not be told: {why}",
    )
