"""The list of drugs: every SMILES against the formula written beside it."""

from rdkit import Chem
from rdkit.Chem.rdMolDescriptors import CalcMolFormula
from rdkit.Chem.Scaffolds.MurckoScaffold import MurckoScaffoldSmiles

from chemscale_jax.chem.drugs import PROMPT_NAMES, drugs, prompt_drugs
from chemscale_jax.chem.medicinal_filters import DEFAULTS, filters_of
from chemscale_jax.chem.selfies_codec import encode

DRUGS = drugs()


def test_each_smiles_has_the_formula_of_its_drug():
    wrong = [
        (drug.name, drug.formula, found)
        for drug in DRUGS
        if (found := CalcMolFormula(Chem.MolFromSmiles(drug.smiles))) != drug.formula
    ]
    assert not wrong


def test_the_list_is_long_diverse_flat_and_without_doubles():
    assert len(DRUGS) >= 900
    assert len({drug.kind for drug in DRUGS}) >= 20
    assert len({drug.name for drug in DRUGS}) == len(DRUGS)
    assert len({drug.smiles for drug in DRUGS}) == len(DRUGS)
    for drug in DRUGS:
        assert not set(drug.smiles) & set("@/\\."), drug
        assert Chem.GetFormalCharge(Chem.MolFromSmiles(drug.smiles)) == 0, drug


def test_prompts_are_neutral_different_and_long_enough():
    prompts = prompt_drugs()
    assert [drug.name for drug in prompts] == list(PROMPT_NAMES)
    scaffolds = {MurckoScaffoldSmiles(smiles=drug.smiles) for drug in prompts}
    assert len(scaffolds) == 10
    filters = filters_of(DEFAULTS)
    for drug in prompts:
        mol = Chem.MolFromSmiles(drug.smiles)
        assert all(atom.GetFormalCharge() == 0 for atom in mol.GetAtoms()), drug
        assert not filters.judge(mol), drug
        assert 22 <= mol.GetNumHeavyAtoms() <= 37, drug
        assert 35 <= len(encode(drug.smiles)) <= 59, drug
