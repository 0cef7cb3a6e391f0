import pytest
from rdkit import Chem, rdBase

from chemscale_jax.chem.smiles import REASONS, quiet_rdkit, read_molecule

REFUSED = {
    "empty": ("", "  \t\n"),
    "not_text": ("C\x00C", "Cé", "\udcff", "�", None),
    "too_long": ("C" * 10_001,),
    "too_large": ("C" * 1001, "N[C@@H](C)C(=O)" * 400),
    "reaction": ("CC>>CO", "C.C>O>N"),
    "wildcard": ("C*", "[*:1]CC", "[R1]CC", "[R]"),
    "query": ("C~C", "[#6]C", "[C;R]", "[!C]", "[CX4]"),
    "syntax": ("C1CC", "C(C", "[C", "C)C", "[Xx]", "hello", "CCO ethanol", "C=", "C."),
    "kekulisation": ("c1cccc1", "[se]"),
    "valence": ("CC(C)(C)(C)C", "C#C#C", "[CH9]"),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_bad_text_gives_its_reason_and_nothing_else(reason, capfd):
    for text in REFUSED[reason]:
        parsed = read_molecule(text)
        assert parsed.reason == reason, (text, parsed)
        assert parsed.message
        assert (parsed.canonical, parsed.neutral, parsed.heavy_atoms) == ("", "", 0)
    assert capfd.readouterr() == ("", "")


def test_messages_are_held_back_once_for_many_molecules(capfd):
    with quiet_rdkit():
        assert read_molecule("c1cccc1", quiet=False).reason == "kekulisation"
    assert capfd.readouterr() == ("", "")
    read_molecule("c1cccc1", quiet=False)
    assert "kekulize" in capfd.readouterr().err


def test_every_reason_is_described():
    assert set(REFUSED) <= set(REASONS)


def test_limits_are_options():
    assert read_molecule("CCO", max_characters=2).reason == "too_long"
    assert read_molecule("CCO", max_heavy_atoms=2).reason == "too_large"
    assert "3 heavy atoms" in read_molecule("CCO", max_heavy_atoms=2).message
    assert not read_molecule("CCO", max_characters=3, max_heavy_atoms=3).reason
    assert not read_molecule("[13C@@H](C)(N)O", max_heavy_atoms=4).reason


def test_salts_stereo_and_isotopes_stay():
    for text in ("[Na+].[Cl-]", "C[C@H](N)O", "C/C=C/C", "[13CH4]", "[2H]C", "[H][H]"):
        parsed = read_molecule(text)
        assert not parsed.reason
        assert Chem.CanonSmiles(text) == parsed.canonical


def test_charges_of_hypervalent_groups_are_separated():
    assert read_molecule("CN(=O)=O").canonical == "C[N+](=O)[O-]"
    assert read_molecule("CN=N#N").canonical == "CN=[N+]=[N-]"
    assert read_molecule("OCl(=O)(=O)=O").canonical == "[O-][Cl+3]([O-])([O-])O"


def test_map_numbers_are_taken_off():
    assert read_molecule("[CH3:1][OH:2]").canonical == "CO"
    assert read_molecule("[CH3:1][OH:2]", normalise=False).canonical != "CO"


ONE_COMPOUND = (
    ("C[C@H](N)C(=O)O", "C[C@@H]([NH3+])C(=O)[O-]", "CC(N)C(=O)O", "[13CH3]C(N)C(O)=O"),
    ("c1cc[nH+]cc1", "n1ccccc1"),
    ("CC(=[NH2+])N", "CC(N)=N", "C/C(N)=N/[2H]"),
    ("OS(=O)(=O)C", "[O-]S(=O)(=O)C"),
    ("O[N+](=O)[O-]", "[O-][N+](=O)[O-]"),
    ("N=[N+]=[N-]", "[N-]=[N+]=[N-]"),
    ("C/C=C/C", "C/C=C\\C", "CC=CC"),
    ("C#N", "[C-]#N"),
    ("[Na+].Cl", "[Cl-].[Na+]"),
)


@pytest.mark.parametrize("group", ONE_COMPOUND)
def test_neutral_form_is_one_for_all_states_of_a_compound(group):
    forms = {read_molecule(text).neutral for text in group}
    assert len(forms) == 1
    again = read_molecule(forms.pop())
    assert again.neutral == again.canonical


@pytest.mark.parametrize(
    "text",
    [
        "C[N+](C)(C)C",
        "C[n+]1ccccc1",
        "O=[N+]([O-])c1ccccc1",
        "[O-][n+]1ccccc1",
        "[C-]#[O+]",
        "F[B-](F)(F)F",
        "F[P-](F)(F)(F)(F)F",
        "[Fe+2]",
        "[CH-]1C=CC=C1",
    ],
)
def test_charges_that_hydrogen_cannot_undo_stay(text):
    parsed = read_molecule(text)
    assert parsed.neutral == parsed.canonical == Chem.CanonSmiles(text)


def test_neutral_form_keeps_different_compounds_apart():
    texts = (
        "CCO",
        "CCN",
        "C[N+](C)(C)C",
        "CN(C)C",
        "CC(=O)O",
        "CC=O",
        "CCO.O",
        "[Na+]",
    )
    assert len({read_molecule(text).neutral for text in texts}) == len(texts)


def test_forms_do_not_depend_on_the_order_of_the_text():
    for text in (
        "[O-][N+](=O)c1ccc(cc1)C(=O)[O-]",
        "[O-]c1nn[n-]c1[N+]([O-])=NC",
        "C[N-][N+](=O)[O-]",
        "C[C@H]([NH3+])C(=O)N1CC[C@@H](O)[C@H]1C([O-])=O",
    ):
        wanted = read_molecule(text)
        mol = Chem.MolFromSmiles(text)
        for other in Chem.MolToRandomSmilesVect(mol, 8, randomSeed=1):
            assert read_molecule(other) == wanted


def test_both_readers_give_what_rdkit_gives():
    # A hydrogen as an atom sends the same molecule through RDKit's full reader.
    with rdBase.BlockLogs():
        for text in ("CCO", "c1ccc2[nH]ccc2c1", "[O-][n+]1ccccc1", "C[Fe]C", "CC.[K+]"):
            fast, full = read_molecule(text), read_molecule(text + ".[H][H]")
            assert fast.canonical == Chem.CanonSmiles(text)
            assert full.canonical == Chem.CanonSmiles(text + ".[H][H]")
            assert fast.heavy_atoms == full.heavy_atoms
