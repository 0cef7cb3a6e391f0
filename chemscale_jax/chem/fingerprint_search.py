"""Similar molecules by Morgan fingerprints and Tanimoto similarity, by RDKit.

Fingerprints have radius 2 and 2048 bits, and are kept eight bits to a byte, in memory
or in a memory-mapped file, which is read in blocks.
"""

import functools
from collections.abc import Sequence

import numpy as np
from rdkit import Chem, DataStructs
from rdkit.Chem import rdFingerprintGenerator

from chemscale_jax.chem.smiles import quiet_rdkit
from chemscale_jax.chem.worker_map import ordered_map

RADIUS = 2
BITS = 2048
BYTES = BITS // 8
# Fingerprints that are RDKit's objects at a time.
_BLOCK = 16384
# Fewer are made before other processes have loaded RDKit.
_WORTH_A_PROCESS = 20_000


def packed_fingerprints(
    smiles: Sequence[str], *, processes: int | None = None, progress: bool = False
) -> np.ndarray:
    """Morgan fingerprints, eight bits to a byte.

    Args:
        smiles: of each molecule; one that RDKit cannot read has no bits.
        processes: default all that may be used.
        progress: whether there is a bar for many.

    Returns:
        (M, 256) uint8.
    """
    if len(smiles) < _WORTH_A_PROCESS:
        processes = 1
    found = ordered_map(
        _packed, smiles, processes=processes, label="fingerprints", progress=progress
    )
    return np.frombuffer(b"".join(found), np.uint8).reshape(len(smiles), BYTES)


def most_similar(
    fingerprints: np.ndarray, queries: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """The k molecules of the highest Tanimoto similarity to each query.

    Among equals, those that stand first. Two molecules without any bit have the
    similarity 0, as RDKit has it.

    Args:
        fingerprints: (M, 256) uint8, from `packed_fingerprints`.
        queries: (Q, 256) uint8.
        k: molecules.

    Returns:
        ids (Q, k) int64, most similar first, -1 where there are fewer; and
        similarities (Q, k) float64, NaN there.
    """
    asked = [DataStructs.CreateFromBinaryText(row.tobytes()) for row in queries]
    best = np.zeros((len(queries), 0))
    ids = np.zeros((len(queries), 0), np.int64)
    for start in range(0, len(fingerprints), _BLOCK):
        block = fingerprints[start : start + _BLOCK]
        known = [DataStructs.CreateFromBinaryText(row.tobytes()) for row in block]
        found = np.array(
            [DataStructs.BulkTanimotoSimilarity(one, known) for one in asked]
        ).reshape(len(asked), len(known))
        places = np.broadcast_to(np.arange(start, start + len(known)), found.shape)
        best = np.concatenate([best, found], axis=1)
        ids = np.concatenate([ids, places], axis=1)
        # Stable, and what was found before stands first: equals are by their number.
        order = np.argsort(-best, axis=1, kind="stable")[:, :k]
        best = np.take_along_axis(best, order, axis=1)
        ids = np.take_along_axis(ids, order, axis=1)
    lacking = ((0, 0), (0, k - ids.shape[1]))
    return (
        np.pad(ids, lacking, constant_values=-1),
        np.pad(best, lacking, constant_values=np.nan),
    )


def _packed(chunk: Sequence[str]) -> list[bytes]:
    generator = _generator()
    with quiet_rdkit():
        mols = [Chem.MolFromSmiles(text) if text else None for text in chunk]
    empty = bytes(BYTES)
    return [
        empty
        if mol is None
        else DataStructs.BitVectToBinaryText(generator.GetFingerprint(mol))
        for mol in mols
    ]


@functools.cache
def _generator() -> "rdFingerprintGenerator.FingerprintGenerator64":
    return rdFingerprintGenerator.GetMorganGenerator(radius=RADIUS, fpSize=BITS)
