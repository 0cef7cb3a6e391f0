"""Atoms and coordinates in memory: order, several geometries, a SMILES beside them."""

import numpy as np
import pytest

from chemscale_jax.chem.conformers import embed
from chemscale_jax.chem.given_geometries import record_of_geometries
from chemscale_jax.chem.molecule_record import record_of_smiles

SMILES = "CC(=O)Nc1ccc(O)cc1"
MADE = embed(SMILES)
NUMBERS, FIRST = MADE.numbers, MADE.positions_ang
GEOMETRIES = np.stack([FIRST, FIRST[:, ::-1] + 1.0, embed(SMILES, 5).positions_ang])
HEAVY = NUMBERS > 1


def same_molecule(record):
    """Whether the record's atoms and bonds are those of the SMILES."""
    wanted = record_of_smiles(SMILES)
    return record.smiles == wanted.smiles and np.array_equal(
        record.bonds_E2, wanted.bonds_E2
    )


def distances(positions):
    return np.linalg.norm(
        positions[..., :, None, :] - positions[..., None, :, :], axis=-1
    )


@pytest.mark.parametrize("smiles", ["", SMILES])
def test_all_geometries_follow_the_atoms_of_the_record(smiles):
    order = np.random.default_rng(0).permutation(len(NUMBERS))
    record = record_of_geometries(
        NUMBERS[order], GEOMETRIES[:, order], "x", smiles=smiles
    )
    assert (record.status, record.name) == ("given", "x")
    assert same_molecule(record)
    # Bonded atoms are as far apart as bonds are long, in each geometry.
    i, j = record.bonds_E2.T
    bonds = distances(record.positions_KN3)[:, i, j]
    assert bonds.shape == (3, len(i))
    assert 1.1 < bonds.min() < bonds.max() < 1.7
    expected = np.sort(distances(GEOMETRIES[:, HEAVY]).reshape(3, -1))
    found = np.sort(distances(record.positions_KN3.astype(float)).reshape(3, -1))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_smiles_tells_the_bonds_where_hydrogens_are_left_out():
    symbols = ["C", "C", "O", "N", *"CCCC", "O", *"CC"]
    without = record_of_geometries(symbols, FIRST[HEAVY])
    assert (without.status, without.smiles) == ("given", "")
    record = record_of_geometries(symbols, FIRST[HEAVY], smiles=SMILES)
    assert record.status == "given"
    assert same_molecule(record)


def test_a_smiles_of_another_molecule_is_refused():
    record = record_of_geometries(NUMBERS, FIRST, smiles=SMILES + "C")
    assert record.status == "failed"
    assert "look like" in record.reason
    # The same atoms in another order, so that bonds would be too long.
    swapped = record_of_geometries(NUMBERS, FIRST, smiles="CC(=O)Nc1cccc(O)c1")
    assert swapped.status == "failed"


@pytest.mark.parametrize(
    ("symbols", "positions", "options", "reason"),
    [
        (["C", "Q"], np.zeros((2, 3)), {}, "Q"),
        (["C"], np.zeros((2, 3)), {}, r"shape \(2, 3\)"),
        (["C"], "far away", {}, "far away"),
        (["C"], np.zeros((0, 1, 3)), {}, "shape"),
        (["C", "O"], np.zeros((1, 2, 3)), {}, "apart"),
        (["C", "O"], np.stack([np.eye(3)[:2] * 3, np.zeros((2, 3))]), {}, "geometry 2"),
        (["C"], np.zeros((1, 3)), {"charge": "many"}, "many"),
        (["C"], np.zeros((1, 3)), {"smiles": "C("}, r"1 \( but 0"),
        (["C"] * 3, np.eye(3) * 9, {"max_atoms": 2, "smiles": "CCC"}, "limit is 2"),
    ],
)
def test_what_is_wrong_is_said(symbols, positions, options, reason):
    import re

    record = record_of_geometries(symbols, positions, "x", **options)
    assert (record.status, record.name) == ("failed", "x")
    assert re.search(reason, record.reason), record.reason
