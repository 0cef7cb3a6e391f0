"""What classical models of molecules are given: counts of substructures, and sizes."""

import functools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from rdkit import Chem
from rdkit.Chem import rdFingerprintGenerator, rdMolDescriptors

from chemscale_jax.chem.molecule_record import molecule_of
from chemscale_jax.chem.worker_map import ordered_map

RADIUS = 2
BITS = 2048
# Names of what `sizes` counts, in its order.
SIZES = ("heavy atoms", "rings")
# Fewer are done before other processes have loaded RDKit.
_WORTH_A_PROCESS = 50_000


def count_fingerprints(
    smiles: Sequence[str], *, processes: int | None = None, progress: bool = True
) -> np.ndarray:
    """Morgan fingerprints with counts: radius 2, folded to 2048 places.

    Args:
        smiles: of each molecule; one that RDKit cannot read has no substructures.
        processes: default all that may be used.
        progress: whether there is a bar for many.

    Returns:
        (M, 2048) uint8; counts above 255 are 255.
    """
    found = _mapped(_counts, smiles, processes, "fingerprints", progress)
    return np.array(list(found), np.uint8).reshape(len(smiles), BITS)


def sizes(
    smiles: Sequence[str], *, processes: int | None = None, progress: bool = True
) -> np.ndarray:
    """Numbers of heavy atoms and of rings: (M, 2) int32; 0 where it cannot be read."""
    found = _mapped(_sizes, smiles, processes, "sizes", progress)
    return np.array(list(found), np.int32).reshape(len(smiles), len(SIZES))


def _mapped(
    function: Callable[[Sequence[str]], list],
    smiles: Sequence[str],
    processes: int | None,
    label: str,
    progress: bool,
) -> Iterator:
    if len(smiles) < _WORTH_A_PROCESS:
        processes = 1
    return ordered_map(
        function, smiles, processes=processes, label=label, progress=progress
    )


def _counts(chunk: Sequence[str]) -> list[np.ndarray]:
    generator = _generator()
    empty = np.zeros(BITS, np.uint8)
    return [
        empty
        if mol is None
        else np.minimum(generator.GetCountFingerprintAsNumPy(mol), 255).astype(np.uint8)
        for mol in _read(chunk)
    ]


def _sizes(chunk: Sequence[str]) -> list[tuple[int, int]]:
    return [
        (0, 0)
        if mol is None
        else (mol.GetNumHeavyAtoms(), rdMolDescriptors.CalcNumRings(mol))
        for mol in _read(chunk)
    ]


def _read(chunk: Sequence[str]) -> list[Chem.Mol | None]:
    return [_molecule(smiles) for smiles in chunk]


def _molecule(smiles: str) -> Chem.Mol | None:
    try:
        return molecule_of(smiles)
    except ValueError:
        return None


@functools.cache
def _generator() -> "rdFingerprintGenerator.FingerprintGenerator64":
    return rdFingerprintGenerator.GetMorganGenerator(radius=RADIUS, fpSize=BITS)
