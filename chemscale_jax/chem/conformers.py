"""One reasonable geometry of a molecule that is given as SMILES."""

from typing import NamedTuple

import numpy as np
from rdkit import Chem, rdBase
from rdkit.Chem import Descriptors, rdDistGeom, rdForceFieldHelpers


class Conformer(NamedTuple):
    """A geometry, and the electrons that SMILES tell."""

    numbers: np.ndarray  # (N,) int, atomic numbers
    positions_ang: np.ndarray  # (N, 3)
    charge: int  # elementary charges
    unpaired: int  # electrons


def embed(smiles: str, seed: int = 0) -> Conformer:
    """A conformer by distance geometry (ETKDG), relaxed with MMFF94 where it applies.

    Args:
        smiles: hydrogens need not be written.
        seed: equal seeds give equal geometries.

    Raises:
        ValueError: it is no SMILES, or no geometry was found.
    """
    with rdBase.BlockLogs():  # what is wrong is said below
        mol = Chem.MolFromSmiles(smiles)
    if mol is None or not mol.GetNumAtoms():
        raise ValueError(f"{smiles!r} is not a SMILES string; ethanol, say, is 'CCO'")
    mol = Chem.AddHs(mol)
    params = rdDistGeom.ETKDGv3()
    params.randomSeed = seed
    if rdDistGeom.EmbedMolecule(mol, params) < 0:
        params.useRandomCoords = True
        if rdDistGeom.EmbedMolecule(mol, params) < 0:
            raise ValueError(f"no geometry was found for {smiles!r}; give an xyz file")
    if rdForceFieldHelpers.MMFFHasAllMoleculeParams(mol):
        rdForceFieldHelpers.MMFFOptimizeMolecule(mol, maxIters=500)
    return Conformer(
        np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()]),
        np.array(mol.GetConformer().GetPositions()),
        Chem.GetFormalCharge(mol),
        Descriptors.NumRadicalElectrons(mol),
    )
