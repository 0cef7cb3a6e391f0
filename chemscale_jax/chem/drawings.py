"""Drawings of molecules as lines and letters, for plots."""

from typing import NamedTuple

import numpy as np
from rdkit.Chem import rdDepictor

from chemscale_jax.chem.molecule_record import molecule_of
from chemscale_jax.chem.smiles import quiet_rdkit

AROMATIC = 1.5


class Drawing(NamedTuple):
    """Where the N heavy atoms and E bonds of a molecule lie on the paper."""

    points_N2: np.ndarray  # angstrom; a bond is about 1.5 long
    symbols: list[str]  # of the elements
    bonds_E2: np.ndarray  # int
    orders_E: np.ndarray  # 1, 2, 3, or `AROMATIC`


def drawing_of(smiles: str) -> Drawing:
    """A drawing without hydrogens, centred.

    Args:
        smiles: canonical; "" gives a drawing without atoms.

    Raises:
        ValueError: RDKit cannot read it.
    """
    mol = molecule_of(smiles)
    with quiet_rdkit():
        rdDepictor.Compute2DCoords(mol)
    points = np.array(mol.GetConformer().GetPositions())[:, :2]
    bonds = list(mol.GetBonds())
    ends = [(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()) for bond in bonds]
    return Drawing(
        points - points.mean(0) if len(points) else points,
        [atom.GetSymbol() for atom in mol.GetAtoms()],
        np.array(ends, int).reshape(-1, 2),
        np.array([bond.GetBondTypeAsDouble() for bond in bonds]),
    )
