"""Batch containers: NamedTuples (so pytrees) whose leaves have the row axis first."""

from typing import NamedTuple

from chemscale_jax.core.types import Array


class GraphPack(NamedTuple):
    """Molecules packed into one row of fixed size: N atoms, E edges, M molecules.

    The last atom and the last molecule are always padding. Padding atoms have species
    0 and belong to the last molecule; padding edges join the last atom to itself. So
    both masks follow from the indices: an atom is real where ``species_N > 0``, an
    edge where ``receivers_E < N - 1``. Edges are directed, stand for
    ``r_sender + shift @ cell - r_receiver``, and are sorted by receiver; every edge
    i -> j has its reverse j -> i in the list.

    In a batch every leaf has a leading row axis; a task removes it with ``vmap``.
    """

    positions_N3: Array  # float32, angstrom
    species_N: Array  # int32, atomic numbers; 0 is padding
    molecule_N: Array  # int32, index of the atom's molecule
    senders_E: Array  # int32
    receivers_E: Array  # int32, ascending
    molecule_mask_M: Array  # bool, True for a real molecule
    charge_M: Array  # float32, elementary charges
    spin_M: Array  # float32, number of unpaired electrons
    energy_M: Array  # float32, eV, without the reference energies of the elements
    energy_mask_M: Array  # bool, True where the energy is labelled
    forces_N3: Array  # float32, eV/angstrom
    forces_mask_N: Array  # bool, True where the forces are labelled
    # Periodic records only, else None: cell vectors as rows (angstrom), and how many
    # of them the sender of each edge is shifted by.
    cell_M33: Array | None = None
    shifts_E3: Array | None = None
    # Only for models that ask for a second, longer pair list (same conventions).
    pair_senders_P: Array | None = None
    pair_receivers_P: Array | None = None
    pair_shifts_P3: Array | None = None


class TokenRows(NamedTuple):
    """Molecules as text, packed one after another into rows of L tokens.

    A molecule is ``[CLS] symbols [SEP]``. Place i predicts the token of place i + 1
    where both belong to the same molecule, so n tokens make n - 1 predictions. Rows
    that were cut from one long text are a single segment.
    """

    tokens_BL: Array  # int32, ids of the vocabulary
    segment_BL: Array  # int32, 1, 2, ...: which molecule of the row; 0 is padding
    position_BL: Array  # int32, 0, 1, ... from the start of each segment


class MoleculeRows(NamedTuple):
    """Molecules of at most N heavy atoms, one per row, as Uni-Mol2 takes them.

    The virtual atom that the model puts before the first one has no place here. An
    atom is real where ``species_BN > 0``; all arrays are 0 elsewhere, positions too.
    """

    species_BN: Array  # uint8, atomic numbers; 127 is [MASK], 0 padding
    atom_BN8: Array  # uint16, ids of the 8 atom features
    bond_BNN3: Array  # uint8, ids of the 3 bond features of each pair
    path_BNN: Array  # uint16, ids of the lengths of shortest paths
    degree_BN: Array  # uint8, ids of the number of heavy neighbours
    positions_BN3: Array  # float32, angstrom


class DenoisingRows(NamedTuple):
    """Molecules to pretrain on: their geometries and their drawings.

    Random numbers of a row depend on its number, and not on its place in the batch or
    on how many places the batch has.
    """

    molecules: MoleculeRows
    flat_BN3: Array  # float32, angstrom; coordinates of a drawing, z = 0
    number_B: Array  # uint32; no two molecules of a batch have the same


class PropertyRows(NamedTuple):
    """Molecules and what was measured of them: T targets of one kind.

    Rows that are left over have no atoms and no labels. Labels are scaled numbers
    (regression), 0 or 1 (binary) or the number of a class (multiclass, T = 1).
    """

    molecules: MoleculeRows
    targets_BT: Array  # float32; 0 where a label is missing
    target_mask_BT: Array  # bool, True where there is a label
    number_B: Array  # uint32; no two molecules of a batch have the same
