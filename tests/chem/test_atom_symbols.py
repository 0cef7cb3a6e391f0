"""Symbols of atoms, in the order of a record's atoms."""

import pytest

from chemscale_jax.chem import prompts
from chemscale_jax.chem.atom_symbols import atom_places, heavy_places
from chemscale_jax.chem.molecule_record import record_of_smiles

SMILES = (
    "CC(=O)Oc1ccccc1C(=O)O",
    "C1CC2(C1)CC(F)(Cl)C2",
    "[2H]C([2H])O",
    "[Na+].[O-]S(=O)(=O)c1ccc(N(C)C)cc1",
    "F/C=C/[C@H](N)C#N",
    "[Cu+2].[13CH4]",
    "CCCCCCCCCCCCCCCCCCCCC(CCCCCCCCCCCCCCCCCCCC)C(=O)O",
)


@pytest.mark.parametrize("notation", ["selfies", "selfies-1", "smiles"])
def test_symbols_name_the_elements(notation):
    for text in SMILES:
        record = record_of_smiles(text)
        symbols = prompts.encode(record.smiles, notation)
        places = heavy_places(record.smiles, symbols, notation)
        assert len(places) == len(record.species_N)
        assert places == sorted(places)


def test_index_symbols_are_no_atoms():
    symbols = ["[C]", "[Branch1]", "[C]", "[O]", "[C]", "[Ring1]", "[O]"]
    assert atom_places(symbols, "selfies") == [0, 3, 4]


def test_other_atoms_are_refused():
    with pytest.raises(ValueError, match="2 atoms, but 1 symbols"):
        heavy_places("CO", ["[C]"], "selfies")
    with pytest.raises(ValueError, match=r"atom 2 of 'CO' is written \[N\]"):
        heavy_places("CO", ["[C]", "[N]"], "selfies")
