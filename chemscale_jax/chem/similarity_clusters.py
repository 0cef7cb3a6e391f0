"""Groups of similar molecules, for splits that keep whole groups together."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from rdkit import Chem, DataStructs
from rdkit.Chem import rdFingerprintGenerator
from rdkit.SimDivFilters import rdSimDivPickers

from chemscale_jax.chem.smiles import quiet_rdkit

_RADIUS, _BITS = 2, 2048
# Tanimoto similarities at which clusters are tried, widest first.
SIMILARITIES = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
# A cluster of more than this share of the molecules asks for a narrower one.
LARGEST = 0.25


class Clusters(NamedTuple):
    """Clusters of similar structures.

    Attributes:
        number: int64, of each structure's cluster.
        similarity: Tanimoto, to the leader of the cluster, of all its members at least.
    """

    number: np.ndarray
    similarity: float


def similarity_clusters(
    smiles: Sequence[str],
    counts: Sequence[int] | np.ndarray,
    similarities: Sequence[float] = SIMILARITIES,
) -> Clusters:
    """Leader clusters of structures by Morgan fingerprints (radius 2, 2048 bits).

    Structures are taken by falling count; one that is not similar to any leader so far
    becomes a leader, and every structure joins the leader it is most similar to.
    Members of different clusters may still be similar to each other, but none is to
    another leader more than to its own.

    Of ``similarities``, the first is used with which no cluster has more than `LARGEST`
    of all molecules, else the last: large flat aromatics, for one, are all alike.

    Args:
        smiles: distinct structures, such as scaffolds; "" is a cluster by itself, and
            so is what RDKit cannot read.
        counts: molecules of each structure.
        similarities: to try, rising.
    """
    counts = np.asarray(counts, np.int64)
    with quiet_rdkit():
        mols = [Chem.MolFromSmiles(text) if text else None for text in smiles]
    known = [i for i, mol in enumerate(mols) if mol is not None]
    # Equal counts by their text, so that the order of the input does not count.
    known.sort(key=lambda i: (-counts[i], smiles[i]))
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=_RADIUS, fpSize=_BITS)
    prints = generator.GetFingerprints([mols[i] for i in known])
    number = np.arange(len(mols))
    similarity = similarities[-1]
    for similarity in similarities:
        leaders, members = _clusters(prints, similarity)
        for place, leader in zip(known, members, strict=True):
            number[place] = known[leaders[leader]]
        sizes = np.bincount(number[known], counts[known], minlength=len(mols))
        if sizes.max(initial=0) <= LARGEST * counts.sum():
            break
    return Clusters(np.unique(number, return_inverse=True)[1], similarity)


def _clusters(prints: Sequence, similarity: float) -> tuple[list[int], np.ndarray]:
    """Places of the leaders, and which of these each fingerprint joins."""
    if not prints:
        return [], np.zeros(0, np.int64)
    picker = rdSimDivPickers.LeaderPicker()
    leaders = list(picker.LazyBitVectorPick(prints, len(prints), 1 - similarity))
    heads = [prints[i] for i in leaders]
    joins = [np.argmax(DataStructs.BulkTanimotoSimilarity(p, heads)) for p in prints]
    return leaders, np.array(joins, np.int64)
