"""Murcko scaffolds: the rings of a molecule and what links them, as SMILES.

Bemis and Murcko 1996, as RDKit has it: atoms that a double bond joins to a ring or a
linker stay, other side chains go. Our own rules: stereo and isotopes do not count; a
molecule without rings has the scaffold ""; of a salt or mixture, the scaffolds of its
parts with rings are joined by dots.
"""

from rdkit import Chem
from rdkit.Chem.Scaffolds import MurckoScaffold

from chemscale_jax.chem.molecule_record import molecule_of
from chemscale_jax.chem.smiles import quiet_rdkit

# The scaffold of every molecule without rings.
ACYCLIC = ""


def scaffold_of(smiles: str) -> str:
    """The scaffold of a molecule.

    Args:
        smiles: canonical, such as that of a record: RDKit must be able to read it.

    Raises:
        ValueError: RDKit cannot.
    """
    # A ring needs a digit: most molecules without one are known without reading.
    if not any(letter.isdigit() for letter in smiles):
        return ACYCLIC
    return scaffold_of_molecule(molecule_of(smiles))


def scaffold_of_molecule(mol: Chem.Mol) -> str:
    """The scaffold of a molecule of RDKit, which is left as it is."""
    if not mol.GetRingInfo().NumRings():
        return ACYCLIC
    with quiet_rdkit():
        try:
            scaffold = MurckoScaffold.GetScaffoldForMol(mol)
            return Chem.MolToSmiles(scaffold, isomericSmiles=False)
        except (RuntimeError, ValueError):
            # What cannot be taken apart is its own scaffold.
            return Chem.MolToSmiles(mol, isomericSmiles=False)
