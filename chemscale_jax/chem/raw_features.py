"""Raw values of the atom and bond features of Uni-Mol2.

Each feature is the place of a value in one of the lists of the Open Graph Benchmark (Hu
et al. 2020). A value that is in no list takes its last place, which stands for all
others: extreme charges, and kinds of stereo that RDKit did not have at the time.
"""

import numpy as np
from rdkit import Chem

_CHIRALITY = {
    tag: place
    for place, tag in enumerate(
        (
            Chem.ChiralType.CHI_UNSPECIFIED,
            Chem.ChiralType.CHI_TETRAHEDRAL_CW,
            Chem.ChiralType.CHI_TETRAHEDRAL_CCW,
            Chem.ChiralType.CHI_TRIGONALBIPYRAMIDAL,
            Chem.ChiralType.CHI_OCTAHEDRAL,
            Chem.ChiralType.CHI_SQUAREPLANAR,
        )
    )
}
_OTHER_CHIRALITY = 6
_HYBRIDISATION = {
    kind: place
    for place, kind in enumerate(
        (
            Chem.HybridizationType.SP,
            Chem.HybridizationType.SP2,
            Chem.HybridizationType.SP3,
            Chem.HybridizationType.SP3D,
            Chem.HybridizationType.SP3D2,
        )
    )
}
_OTHER_HYBRIDISATION = 5
_BOND_TYPE = {
    kind: place
    for place, kind in enumerate(
        (
            Chem.BondType.SINGLE,
            Chem.BondType.DOUBLE,
            Chem.BondType.TRIPLE,
            Chem.BondType.AROMATIC,
        )
    )
}
_OTHER_BOND_TYPE = 4
_STEREO = {
    kind: place
    for place, kind in enumerate(
        (
            Chem.BondStereo.STEREONONE,
            Chem.BondStereo.STEREOZ,
            Chem.BondStereo.STEREOE,
            Chem.BondStereo.STEREOCIS,
            Chem.BondStereo.STEREOTRANS,
            Chem.BondStereo.STEREOANY,
        )
    )
}
# The list of bond stereo has no place for others: its last one, "any", says that a
# double bond is left open. Axial stereo of single bonds is none of the list.
_OTHER_STEREO = 0

# How many values each feature has.
ATOM_VALUES = (7, 12, 12, 10, 6, 6, 2, 2)
BOND_VALUES = (5, 6, 2)


def raw_atoms(mol: Chem.Mol) -> np.ndarray:
    """(N, 8) uint8, features of each atom.

    Chirality, total degree, formal charge, hydrogens, radical electrons,
    hybridisation, aromatic, in a ring.

    Args:
        mol: sanitised, with hydrogens that are not atoms.
    """
    rows = [
        (
            _CHIRALITY.get(atom.GetChiralTag(), _OTHER_CHIRALITY),
            _in_range(atom.GetTotalDegree(), 0, 10),
            _in_range(atom.GetFormalCharge(), -5, 5),
            _in_range(atom.GetTotalNumHs(), 0, 8),
            _in_range(atom.GetNumRadicalElectrons(), 0, 4),
            _HYBRIDISATION.get(atom.GetHybridization(), _OTHER_HYBRIDISATION),
            atom.GetIsAromatic(),
            atom.IsInRing(),
        )
        for atom in mol.GetAtoms()
    ]
    return np.array(rows, np.uint8).reshape(-1, len(ATOM_VALUES))


def raw_bonds(mol: Chem.Mol) -> tuple[np.ndarray, np.ndarray]:
    """Bonds, each once with the lower atom first, sorted; and their features.

    Returns:
        (E, 2) uint16, and (E, 3) uint8: type, stereo, conjugated.
    """
    rows = sorted(
        (
            *sorted((bond.GetBeginAtomIdx(), bond.GetEndAtomIdx())),
            _BOND_TYPE.get(bond.GetBondType(), _OTHER_BOND_TYPE),
            _STEREO.get(bond.GetStereo(), _OTHER_STEREO),
            int(bond.GetIsConjugated()),
        )
        for bond in mol.GetBonds()
    )
    table = np.array(rows, np.int64).reshape(-1, 2 + len(BOND_VALUES))
    return table[:, :2].astype(np.uint16), table[:, 2:].astype(np.uint8)


def _in_range(value: int, low: int, high: int) -> int:
    """Place in the list low ... high, others."""
    return value - low if low <= value <= high else high - low + 1
