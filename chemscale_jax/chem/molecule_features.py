"""The integers that Uni-Mol2 looks up for a molecule: of atoms, bonds and paths.

Ids of Uni-Mol2's own code: 0 is padding and 1 stands for a feature that is withheld,
which pretraining does with half of the molecules. Atom ids index one table of 512
rows for all eight features, bond ids one of 64, path ids 512, degree ids 128.
"""

from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import shortest_path

from chemscale_jax.chem.molecule_record import MoleculeRecord

DROPPED = 1
# Both for all three columns of a pair of atoms.
NOT_BONDED = 2
BOND_ROW = 4
ATOM_ROW = 3
VALUES_PER_FEATURE = 16
UNREACHABLE = 510
DROPPED_PATH = 511
LARGEST_DEGREE_ID = 127
# Rows of the table of pair types that belong to the second atom of a pair.
SECOND_ATOM = 128


class MoleculeFeatures(NamedTuple):
    """Ids of one molecule of N heavy atoms; there is no place for CLS.

    Attributes:
        token_N: uint8, atomic numbers.
        atom_N8: uint16, 1 to 511.
        bond_NN3: uint8, 1 to 63; symmetric.
        path_NN: uint16, bonds on the shortest path + 1, so 1 on the diagonal; 510
            without a path, 511 withheld.
        degree_N: uint8, bonds to heavy atoms + 2.
    """

    token_N: np.ndarray
    atom_N8: np.ndarray
    bond_NN3: np.ndarray
    path_NN: np.ndarray
    degree_N: np.ndarray


def feature_ids(record: MoleculeRecord, drop: bool = False) -> MoleculeFeatures:
    """The ids of a record, equal to those of Uni-Mol2's code for the same atom order.

    Args:
        record: one whose status is not "failed"; without bonds, its features are
            unknown, and withheld.
        drop: withhold all features of atoms, bonds, paths and degrees.
    """
    N = len(record.species_N)
    if drop or not record.has_bonds:
        return MoleculeFeatures(
            token_N=record.species_N,
            atom_N8=np.full((N, 8), DROPPED, np.uint16),
            bond_NN3=np.full((N, N, 3), DROPPED, np.uint8),
            path_NN=np.full((N, N), DROPPED_PATH, np.uint16),
            degree_N=np.full(N, DROPPED, np.uint8),
        )
    first, second = record.bonds_E2.astype(np.int64).T
    degree_N = np.bincount(record.bonds_E2.ravel(), minlength=N) + 2
    columns = VALUES_PER_FEATURE * np.arange(8, dtype=np.uint16)
    bond_NN3 = np.full((N, N, 3), NOT_BONDED, np.uint8)
    ids_E3 = record.bond_features_E3 + BOND_ROW + columns[:3].astype(np.uint8)
    bond_NN3[first, second] = bond_NN3[second, first] = ids_E3
    return MoleculeFeatures(
        token_N=record.species_N,
        atom_N8=record.atoms_N8 + ATOM_ROW + columns,
        bond_NN3=bond_NN3,
        path_NN=_paths(first, second, N),
        degree_N=np.minimum(degree_N, LARGEST_DEGREE_ID).astype(np.uint8),
    )


def pair_type(atom_N8: np.ndarray) -> np.ndarray:
    """(N, N, 2) uint16, pair types of the Gaussian kernel as the reference has them.

    Its column 0 is meant to be the element of an atom but is its chirality.

    Args:
        atom_N8: ids of `feature_ids`, shape (N, 8).
    """
    first_N = atom_N8[:, 0] + 1
    pairs = np.broadcast_arrays(first_N[:, None], first_N[None] + SECOND_ATOM)
    return np.stack(pairs, -1).astype(np.uint16)


def _paths(first_E: np.ndarray, second_E: np.ndarray, N: int) -> np.ndarray:
    """(N, N) uint16 ids of the lengths of shortest paths."""
    ones = np.ones(len(first_E), np.int8)
    graph = coo_array((ones, (first_E, second_E)), shape=(N, N)).tocsr()
    bonds_NN = shortest_path(graph, directed=False, unweighted=True)
    return np.minimum(bonds_NN + 1, UNREACHABLE).astype(np.uint16)
