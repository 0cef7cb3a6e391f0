import numpy as np
import pytest

from chemscale_jax.chem.electrons import formal_charge, unpaired_electrons


@pytest.mark.parametrize(
    ("smiles", "charge"),
    [
        ("[H:3][C:1]#[C:2][H:4].[Na+:5]", 1),
        ("C[N+](C)(C)CC(=O)[O-]", 0),
        ("[Mg+2].[Cl-]", 1),
        ("CCO", 0),
        ("C(C", None),
    ],
)
def test_formal_charges(smiles, charge):
    assert formal_charge(smiles) == charge


@pytest.mark.parametrize(
    ("value", "species", "charge", "unpaired"),
    [
        (0, [6, 1, 1], 0, 0),  # singlet carbene
        (2, [6, 1, 1], 0, 2),  # triplet carbene, as unpaired electrons
        (3, [6, 1, 1], 0, 2),  # the same as a multiplicity
        (1, [6, 1, 1], 0, 0),
        (1, [8, 1], 0, 1),  # hydroxyl radical
        (2, [8, 1], 0, 1),
        (1, [8, 1], -1, 0),  # hydroxide
        (1.5, [7], 0, 3),
        (0, [8, 1], 0, 0),  # what a file says that knows no spin
    ],
)
def test_unpaired_electrons(value, species, charge, unpaired):
    assert unpaired_electrons(value, np.array(species, np.uint8), charge) == unpaired
