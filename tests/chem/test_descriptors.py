import math

import pytest
from rdkit import Chem, RDConfig

from chemscale_jax.chem import descriptors
from chemscale_jax.core.errors import UserError

ASPIRIN = Chem.MolFromSmiles("CC(=O)Oc1ccccc1C(=O)O")


def test_aspirin_has_its_known_numbers():
    # Crippen's logP, SA, QED and mass as published for aspirin.
    assert descriptors.describe(ASPIRIN) == pytest.approx(
        (1.310, 1.580, 0.550, 180.159), abs=1e-3
    )
    assert len(descriptors.PROPERTIES) == 4


def test_numbers_of_ethane_add_up():
    ethane = Chem.MolFromSmiles("CC")
    # Two methyl carbons of type C1, six hydrogens of type H1.
    assert descriptors.log_p(ethane) == pytest.approx(2 * 0.1441 + 6 * 0.1230)
    assert descriptors.weight(ethane) == pytest.approx(2 * 12.011 + 6 * 1.008)


def test_complicated_molecules_are_hard_to_make():
    strychnine = "O=C1CC2OCC=C3CN4CCC56C4CC3C2C5N1c1ccccc16"
    hard = descriptors.sa_score(Chem.MolFromSmiles(strychnine))
    assert 1 < descriptors.sa_score(ASPIRIN) < 3 < hard < 10


def test_no_atoms_no_numbers():
    assert all(map(math.isnan, descriptors.describe(Chem.Mol())))


def test_a_build_without_the_sa_program_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(RDConfig, "RDContribDir", str(tmp_path))
    descriptors._sa_program.cache_clear()
    try:
        with pytest.raises(UserError, match="pip install rdkit"):
            descriptors.sa_score(ASPIRIN)
    finally:
        descriptors._sa_program.cache_clear()
