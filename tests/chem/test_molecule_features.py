import numpy as np
from rdkit import Chem

from chemscale_jax.chem.molecule_features import (
    DROPPED_PATH,
    LARGEST_DEGREE_ID,
    UNREACHABLE,
    feature_ids,
    pair_type,
)
from chemscale_jax.chem.molecule_record import record_of, record_of_smiles
from chemscale_jax.chem.perceived_bonds import record_of_atoms

SODIUM_ACETATE = "CC(=O)[O-].[Na+]"


def given_order(smiles):
    return record_of(Chem.MolFromSmiles(smiles), canonical=False)


def test_sodium_acetate_by_hand():
    ids = feature_ids(given_order(SODIUM_ACETATE))
    assert ids.token_N.tolist() == [6, 6, 8, 8, 11]
    # 3 + 16 k + value, for chirality, degree, charge, H, radicals, hybridisation,
    # aromatic, ring.
    assert ids.atom_N8.tolist() == [
        [3, 23, 40, 54, 67, 85, 99, 115],
        [3, 22, 40, 51, 67, 84, 99, 115],
        [3, 20, 40, 51, 67, 84, 99, 115],
        [3, 20, 39, 51, 67, 84, 99, 115],
        [3, 19, 41, 51, 67, 88, 99, 115],
    ]
    assert ids.degree_N.tolist() == [3, 5, 3, 3, 2]
    assert ids.path_NN.tolist() == [
        [1, 2, 3, 3, 510],
        [2, 1, 2, 2, 510],
        [3, 2, 1, 3, 510],
        [3, 2, 3, 1, 510],
        [510, 510, 510, 510, 1],
    ]
    # 4 + 16 k + value, for type, stereo, conjugated.
    bonds = {(0, 1): [4, 20, 36], (1, 2): [5, 20, 37], (1, 3): [4, 20, 37]}
    for i in range(5):
        for j in range(5):
            wanted = bonds.get((min(i, j), max(i, j)), [2, 2, 2])
            assert ids.bond_NN3[i, j].tolist() == wanted
    dtypes = [array.dtype.name for array in ids]
    assert dtypes == ["uint8", "uint16", "uint8", "uint16", "uint8"]


def test_dropped_features_leave_the_elements():
    record = given_order(SODIUM_ACETATE)
    ids = feature_ids(record, drop=True)
    assert ids.token_N.tolist() == [6, 6, 8, 8, 11]
    assert [np.unique(array).tolist() for array in ids[1:]] == [
        [1],
        [1],
        [DROPPED_PATH],
        [1],
    ]
    shapes = [array.shape for array in ids]
    assert shapes == [array.shape for array in feature_ids(record)]
    assert shapes == [(5,), (5, 8), (5, 5, 3), (5, 5), (5,)]


def test_features_that_nobody_knows_are_dropped():
    record = record_of_atoms(np.array([6, 8]), np.array([[0.0, 0, 0], [1.4, 0, 0]]))
    assert not record.has_bonds
    for array, wanted in zip(
        feature_ids(record), feature_ids(record, drop=True), strict=True
    ):
        assert np.array_equal(array, wanted)


def test_ids_are_new_arrays():
    record = given_order("CCO")
    before = record.atoms_N8.copy()
    feature_ids(record).atom_N8[:] = 0
    assert np.array_equal(record.atoms_N8, before)
    assert feature_ids(record).atom_N8[0, 0] == 3


def test_pair_types_are_of_chirality():
    record = given_order("C[C@H](N)C(=O)O")
    counter = feature_ids(record).atom_N8[1, 0] - 3
    assert counter in (1, 2)
    types = pair_type(feature_ids(record).atom_N8)
    assert types[0, 0].tolist() == [4, 132]
    assert types[0, 1].tolist() == [4, 132 + counter]
    assert types[1, 0].tolist() == [4 + counter, 132]
    dropped = pair_type(feature_ids(record, drop=True).atom_N8)
    assert np.unique(dropped.reshape(-1, 2), axis=0).tolist() == [[2, 130]]


def test_paths_through_rings_and_along_chains():
    ring = feature_ids(record_of_smiles("C1CCCCC1")).path_NN
    assert sorted(ring[0].tolist()) == [1, 2, 2, 3, 3, 4]
    assert np.array_equal(ring, ring.T)
    chain = feature_ids(record_of_smiles("C" * 520, max_atoms=520)).path_NN
    longest = np.sort(chain, axis=1)[:, -1]
    assert longest.max() == UNREACHABLE
    assert (chain == UNREACHABLE).any()
    end = chain[np.argmax((chain == UNREACHABLE).sum(1))]
    assert sorted(end.tolist())[:509] == list(range(1, 510))


def test_ids_stay_in_their_tables():
    star = "[U]" + "(F)" * 12
    for text in ("[Mn+7]", star, "[C]", "F/C=C/F", "c1ccccc1", "S(F)(F)(F)(F)(F)F"):
        mol = Chem.MolFromSmiles(text)
        ids = feature_ids(record_of(mol))
        column = np.arange(8) * 16
        inside = ids.atom_N8 - column
        assert inside.min() >= 3
        assert inside.max() <= 3 + 11
        assert ids.degree_N.max() <= LARGEST_DEGREE_ID
        assert ids.bond_NN3.max() < 64
    assert feature_ids(record_of_smiles(star)).atom_N8[:, 1].max() == 3 + 16 + 11
