"""What molecules are compared by: circular fingerprints, BRICS pieces, scaffolds."""

import functools

import numpy as np
from rdkit import Chem
from rdkit.Chem import rdFingerprintGenerator, rdmolops
from rdkit.Chem.Scaffolds import MurckoScaffold
from rdkit.rdBase import BlockLogs

RADIUS = 2
BITS = 1024
BYTES = BITS // 8


def morgan_bits(mol: Chem.Mol) -> np.ndarray:
    """The Morgan fingerprint of radius 2 and 1024 bits, eight bits to a byte.

    Returns:
        (128,) uint8; bit i of the fingerprint is bit 7 - i % 8 of byte i // 8.
    """
    return np.packbits(_generator().GetFingerprintAsNumPy(mol))


def brics_fragments(mol: Chem.Mol) -> tuple[str, ...]:
    """The pieces left when all BRICS bonds are cut (Degen et al. 2008), as SMILES.

    Cuts leave numbered dummy atoms; a molecule without such bonds is its own piece.
    Pieces that occur twice are listed twice.
    """
    with BlockLogs():
        pieces = rdmolops.FragmentOnBRICSBonds(mol)
        return tuple(Chem.MolToSmiles(pieces).split("."))


def murcko_scaffold(mol: Chem.Mol, min_rings: int = 2) -> str | None:
    """The rings and what links them (Bemis and Murcko 1996), as canonical SMILES.

    Args:
        mol: the molecule.
        min_rings: None is returned for scaffolds of fewer rings; MOSES takes 2.
    """
    with BlockLogs():
        try:
            scaffold = MurckoScaffold.GetScaffoldForMol(mol)
        except (ValueError, RuntimeError):
            return None
        rings = scaffold.GetRingInfo().NumRings()
        return (Chem.MolToSmiles(scaffold) or None) if rings >= min_rings else None


@functools.cache
def _generator() -> "rdFingerprintGenerator.FingerprintGenerator64":
    return rdFingerprintGenerator.GetMorganGenerator(radius=RADIUS, fpSize=BITS)
