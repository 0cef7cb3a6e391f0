"""Leader clusters: members are like their leader, whatever the order of the input."""

import numpy as np
from rdkit import Chem, DataStructs
from rdkit.Chem import rdFingerprintGenerator

from chemscale_jax.chem import similarity_clusters as module
from chemscale_jax.chem.similarity_clusters import similarity_clusters

ALIKE = ["c1ccc2ccccc2c1", "c1ccc2cc3ccccc3cc2c1", "c1ccc2c(c1)ccc1ccccc12"]
OTHERS = ["C1CCNCC1", "C1CCOC1", "c1cc[nH]c1", "C1CC1", "c1cscn1", ""]


def partition(smiles, number):
    return {frozenset(np.array(smiles)[number == n].tolist()) for n in set(number)}


def test_clusters_do_not_depend_on_the_order():
    smiles = ALIKE + OTHERS
    counts = np.arange(len(smiles), 0, -1)
    first = similarity_clusters(smiles, counts, (0.4,))
    order = np.random.default_rng(0).permutation(len(smiles))
    second = similarity_clusters([smiles[i] for i in order], counts[order], (0.4,))
    groups = partition(smiles, first.number)
    assert groups == partition([smiles[i] for i in order], second.number)
    assert frozenset([""]) in groups
    assert any(len(set(ALIKE) & group) > 1 for group in groups)
    assert sorted(set(first.number)) == list(range(len(groups)))


def test_members_are_as_similar_to_a_leader_as_promised():
    smiles = ALIKE + OTHERS[:-1]
    found = similarity_clusters(smiles, np.ones(len(smiles), int), (0.3,))
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048)
    prints = [generator.GetFingerprint(Chem.MolFromSmiles(text)) for text in smiles]
    for n in set(found.number):
        members = [p for p, m in zip(prints, found.number, strict=True) if m == n]
        worst = [min(DataStructs.BulkTanimotoSimilarity(p, members)) for p in members]
        assert max(worst) >= found.similarity


def test_a_cluster_of_nearly_all_asks_for_a_narrower_one():
    counts = [1] * len(ALIKE + OTHERS)
    wide = similarity_clusters(ALIKE + OTHERS, counts, (0.0, 0.95))
    assert wide.similarity == 0.95
    assert len(set(wide.number)) > 2
    everything = similarity_clusters(ALIKE + OTHERS, counts, (0.0,))
    assert len(set(everything.number)) == 2  # and the one without rings
    assert module.SIMILARITIES == tuple(sorted(module.SIMILARITIES))
