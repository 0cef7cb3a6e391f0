import pytest
from rdkit import Chem
from rdkit.Chem import Descriptors

from chemscale_jax.chem.molecule_list import (
    Molecule,
    canonical_smiles,
    is_held_out,
    load_molecules,
)

MOLECULES = load_molecules()


def test_list_is_long_enough_and_without_doubles():
    assert len(MOLECULES) >= 400
    assert len({molecule.name for molecule in MOLECULES}) == len(MOLECULES)
    assert len({molecule.smiles for molecule in MOLECULES}) == len(MOLECULES)
    for molecule in MOLECULES:
        assert molecule.smiles == canonical_smiles(molecule.smiles)


def test_every_molecule_is_small_neutral_and_closed_shell():
    nitro = Chem.MolFromSmarts("[N+](=O)[O-]")
    for molecule in MOLECULES:
        mol = Chem.AddHs(Chem.MolFromSmiles(molecule.smiles))
        charged = sum(atom.GetFormalCharge() != 0 for atom in mol.GetAtoms())
        assert {atom.GetSymbol() for atom in mol.GetAtoms()} <= set("CHNO"), molecule
        assert 3 <= mol.GetNumAtoms() <= 24, molecule
        assert Chem.GetFormalCharge(mol) == 0, molecule
        assert charged == 2 * len(mol.GetSubstructMatches(nitro)), molecule
        assert Descriptors.NumRadicalElectrons(mol) == 0, molecule


def test_known_names_have_their_formulas():
    from rdkit.Chem.rdMolDescriptors import CalcMolFormula

    formulas = {
        "aspirin": "C9H8O4",
        "caffeine": "C8H10N4O2",
        "glucose": "C6H12O6",
        "adenine": "C5H5N5",
        "dopamine": "C8H11NO2",
        "alanine dipeptide": "C6H12N2O2",
        "trinitrotoluene": "C7H5N3O6",
    }
    by_name = {molecule.name: molecule.smiles for molecule in MOLECULES}
    for name, formula in formulas.items():
        assert CalcMolFormula(Chem.MolFromSmiles(by_name[name])) == formula


def test_between_a_tenth_and_a_sixth_is_held_out():
    held_out = [is_held_out(molecule.smiles) for molecule in MOLECULES]
    assert 0.10 <= sum(held_out) / len(held_out) <= 0.167


def test_held_out_is_a_fixed_function_of_the_smiles():
    # Changes of this rule would move molecules between training and test.
    known = {"O": False, "CCO": False, "c1ccccc1": True, "NCC(=O)O": False}
    assert {smiles: is_held_out(smiles) for smiles in known} == known


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,formula\nwater,H2O\n", "needs name and smiles"),
        ("name,smiles\n", "is empty"),
        ("name,smiles\nwater,O\nodd,C1CC\n", "line 3: 'C1CC' is not a SMILES"),
        ("name,smiles\nodd,\n", "line 2: '' is not a SMILES"),
        ("name,smiles\na,OCC\nb,CCO\n", "line 3: smiles 'CCO' is also on line 2"),
        ("name,smiles\nWater,O\nwater,CO\n", "line 3: name 'water' is also on line 2"),
    ],
)
def test_bad_lists_are_refused(tmp_path, text, message):
    path = tmp_path / "list.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_molecules(path)


def test_missing_list(tmp_path):
    with pytest.raises(FileNotFoundError, match="give a CSV file"):
        load_molecules(tmp_path / "none.csv")


def test_own_list_is_made_canonical(tmp_path):
    path = tmp_path / "list.csv"
    path.write_text('name,smiles\n"1,2-ethanediol",OCCO\nethanol,OCC\n')
    assert load_molecules(path) == [
        Molecule("1,2-ethanediol", "OCCO"),
        Molecule("ethanol", "CCO"),
    ]
