import pytest
from rdkit import Chem

from chemscale_jax.chem.medicinal_filters import (
    OWN_MCF,
    FilterOptions,
    MedicinalFilters,
    filters_of,
    judge_all,
    neutralised,
    read_patterns,
    shares,
)
from chemscale_jax.core.errors import UserError

IBUPROFEN = "CC(C)Cc1ccc(cc1)C(C)C(=O)O"
# One molecule for each of our rules, and one that only just has not the group.
GROUPS = {
    "open-chain N-N between carbons": ("CC(=O)NNC(C)=O", "C1CCNNC1"),
    "open-chain N=N": ("CN=NC", "C1CN=NC1"),
    "three N in an open chain": ("CN(C)NN", "CN(C)N"),
    "chalcogen chain S-S": ("CSSC", "CSCSC"),
    "halomethyl on carbon": ("CCCCl", "CC(C)Cl"),
    "three-ring ether or amine": ("CC1CO1", "CC1CCO1"),
    "isocyanate": ("CCN=C=O", "CCN=C"),
    "aldehyde or formyl": ("CCC=O", "CCC(C)=O"),
    "N-H imine or amidine": ("CC(C)=N", "CC(C)=NC"),
    "open-chain aminal": ("CN(C)CN(C)C", "CN1CCN(C)C1"),
    "open-chain acetal": ("CC(OC)OC", "CC1OCCO1"),
    "alkenyl nitrile": ("CC=CC#N", "CCCC#N"),
    "alkenyl sulfone": ("C=CS(C)(=O)=O", "CCS(C)(=O)=O"),
    "acrylic amide": ("C=CC(=O)NC", "C=C(C)C(=O)NC"),
    "halogen beside a ring heteroatom": ("Clc1ccccn1", "Clc1cccnc1"),
    "three bromines": ("Brc1cc(Br)cc(Br)c1", "Brc1cccc(Br)c1"),
    "four chlorines": ("Clc1cc(Cl)c(Cl)cc1Cl", "Clc1ccc(Cl)c(Cl)c1"),
    "seven fluorines": ("FC(F)(F)C(F)(F)C(F)(F)C", "FC(F)(F)C(F)(F)C(F)C"),
}


def reasons(smiles, **options):
    verdict = filters_of(FilterOptions(**options)).judge_smiles(smiles)
    return [str(reason) for reason in verdict]


def test_a_drug_passes():
    assert reasons(IBUPROFEN) == []
    assert reasons(IBUPROFEN, every=True) == []


@pytest.mark.parametrize(
    ("smiles", "expected"),
    [
        (None, "unreadable: empty"),
        ("", "unreadable: empty"),
        ("C(C", "unreadable: not a SMILES"),
        ("CN(C)(C)(C)C", "unreadable: not a SMILES"),
        ("CC(=O)[O-]", "charge: O-1"),
        ("C[N+](C)(C)C", "charge: N+1"),
        ("Cc1ccc([N+](=O)[O-])cc1", "charge: N+1"),
        ("CCB(O)O", "element: B"),
        ("CCI", "element: I"),
        ("CC*", "element: *"),
        ("C1CCCCCCC1", "ring: 8 atoms"),
        ("O=C1C=CC(=O)C=C1", "pains: quinone_A(370)"),
    ],
)
def test_failures_have_their_reason(smiles, expected):
    assert reasons(smiles) == [expected]


@pytest.mark.parametrize(
    ("name", "has", "has_not"),
    [
        ("quinone_A(370)", "O=C1C=CC(=O)C=C1", "O=C1C=CC=CC1=O"),
        ("anil_di_alk_D(198)", "CN(C)c1ccc(CNC)cc1", "CN(C)c1ccc(CSC)cc1"),
        ("het_thio_666_A(13)", "c1ccc2c(c1)Nc1ccccc1S2", "c1ccc2c(c1)Oc1ccccc1S2"),
    ],
)
def test_pains_are_those_of_moses(name, has, has_not):
    assert f"pains: {name}" in reasons(has, every=True)
    assert f"pains: {name}" not in reasons(has_not, every=True)


def test_thiazole_imines_pass_as_they_do_in_moses():
    # RDKit's catalogue has them as thiaz_ene_A(128).
    assert reasons("Cc1csc(=NC(C)=O)[nH]1") == []


def test_rings_of_seven_pass():
    assert reasons("C1CCCCCC1") == []


def test_every_rule_of_ours_has_an_example():
    assert [pattern.name for pattern in read_patterns(OWN_MCF)] == list(GROUPS)


@pytest.mark.parametrize("name", GROUPS)
def test_groups_are_told_from_their_neighbours(name):
    has, has_not = GROUPS[name]
    assert f"mcf: {name}" in reasons(has, every=True)
    assert f"mcf: {name}" not in reasons(has_not, every=True)


def test_all_reasons_are_given_on_demand():
    smiles = "[O-]B(O)C1CCCCCCC1C=O"
    assert reasons(smiles) == ["charge: O-1"]
    assert reasons(smiles, every=True) == [
        "charge: O-1",
        "element: B",
        "ring: 8 atoms",
        "mcf: aldehyde or formyl",
    ]


def test_explicit_hydrogens_change_nothing():
    for has, has_not in GROUPS.values():
        for smiles in (has, has_not):
            mol = Chem.MolFromSmiles(smiles)
            filters = filters_of(FilterOptions(every=True))
            assert filters.judge(mol) == filters.judge(Chem.AddHs(mol))


def test_charges_can_be_taken_away_first():
    filters = MedicinalFilters()
    assert str(filters.judge_smiles("CC(C)C[NH3+]")[0]) == "charge: N+1"
    assert filters.judge_smiles("CC(C)C[NH3+]", neutral=True) == ()
    assert filters.judge_smiles("[NH3+]CC(=O)[O-]", neutral=True) == ()
    # No hydrogen can go.
    assert filters.judge_smiles("C[N+](C)(C)C", neutral=True)
    salt = neutralised(Chem.MolFromSmiles("CC(=O)[O-]"))
    assert Chem.MolToSmiles(salt) == "CC(=O)O"


def test_patterns_come_from_files(tmp_path):
    # As MOSES has them: hydrogens as atoms; with header, and without.
    mcf, pains = tmp_path / "mcf.csv", tmp_path / "pains.csv"
    mcf.write_text('names,smarts\nMCF4,"[H]C([H])([#6])[F,Cl]"\nMCF16,[#16]~[#16]\n')
    pains.write_text('"c1ccccc1-[#8]-[#1]"      ,"<regId=phenol(3)>"\n')
    options = {"mcf": mcf, "pains": pains, "every": True}
    assert reasons("CCCl", **options) == ["mcf: MCF4"]
    assert reasons("Oc1ccccc1", **options) == ["pains: phenol(3)"]
    assert reasons("COc1ccccc1", **options) == []
    filters = filters_of(FilterOptions(**options))
    assert filters.count_groups(Chem.MolFromSmiles("Oc1ccccc1CSSCCF")) == (2, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read (No such file"),
        ("", "holds no pattern"),
        ("names,smarts\nbad,C(\n", "'C(', is not a SMARTS"),
        ("names,smarts\nbad\n", "is not a SMARTS"),
    ],
)
def test_wrong_files_are_named(tmp_path, text, message):
    path = tmp_path / "rules.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError) as error:
        judge_all([IBUPROFEN], FilterOptions(mcf=path))
    assert str(path) in str(error.value)
    assert message in str(error.value)


def test_shares_add_up():
    verdicts = judge_all([IBUPROFEN, "CC(=O)[O-]", "CCI", None], progress=False)
    found = shares(verdicts)
    assert (found["pass"], found["charge"], found["mcf"]) == (0.25, 0.25, 0.0)
    assert sum(found.values()) == 1
    assert shares([])["pass"] == 0
