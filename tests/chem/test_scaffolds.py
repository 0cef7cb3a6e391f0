import pytest
from rdkit import Chem
from rdkit.Chem.Scaffolds import MurckoScaffold

from chemscale_jax.chem.canonical_smiles import canonical_smiles
from chemscale_jax.chem.drawings import AROMATIC, drawing_of
from chemscale_jax.chem.molecule_record import record_of_smiles
from chemscale_jax.chem.scaffolds import scaffold_of, scaffold_of_molecule
from tests.data.hostile_lines import hostile_lines


@pytest.mark.parametrize(
    ("smiles", "scaffold"),
    [
        # Side chains go, linkers stay.
        ("CC(=O)Oc1ccccc1C(=O)O", "c1ccccc1"),
        ("Cc1ccccc1CCN(C)c1ccncc1", "c1ccc(CCNc2ccncc2)cc1"),
        # Atoms on a double bond stay, on a ring and on a linker.
        ("CC1CCC(=O)C1", "O=C1CCCC1"),
        ("O=C(c1ccccc1)C1CC1", "O=C(c1ccccc1)C1CC1"),
        # Stereo and isotopes do not count; charges in rings do.
        ("C[C@@H]1CC[13CH2]C1", "C1CCCC1"),
        ("C[n+]1ccccc1", "c1cc[nH+]cc1"),
        ("CCO", ""),
        ("[Na+].[Cl-]", ""),
        # Of a mixture, the parts with rings.
        ("CC(=O)O.Cc1ccccc1.C1CC1", "C1CC1.c1ccccc1"),
        # A digit is not always a ring.
        ("[13CH4]", ""),
        ("C[N+](C)(C)CC([O-])=O", ""),
    ],
)
def test_scaffolds_by_hand(smiles, scaffold):
    assert scaffold_of(Chem.CanonSmiles(smiles)) == scaffold
    mol = Chem.MolFromSmiles(smiles)
    assert scaffold_of_molecule(mol) == scaffold
    assert Chem.MolToSmiles(mol) == Chem.CanonSmiles(smiles)


def test_what_cannot_be_taken_apart_is_its_own_scaffold(monkeypatch):
    def refuse(mol):
        raise ValueError("no")

    monkeypatch.setattr(MurckoScaffold, "GetScaffoldForMol", refuse)
    assert scaffold_of("Cc1ccccc1") == "Cc1ccccc1"
    with pytest.raises(ValueError, match="cannot read it"):
        scaffold_of("c1ccc")


def test_canonical_smiles_are_those_of_records():
    texts = [line.decode(errors="replace") for line in hostile_lines(150, seed=4)]
    texts = [text for text in texts if len(text) < 400]
    usable = 0
    for text in [*texts, "OCC", "C[C@H](N)C(=O)O", "[H]/N=C(/C)N", "[CH3:7]C"]:
        found = canonical_smiles(text, 100)
        record = record_of_smiles(text, max_atoms=100)
        assert found.canonical == record.smiles or record.status == "failed"
        assert not found.reason or (record.status == "failed" and found.message)
        usable += not found.reason
    assert usable > 30


def test_canonical_smiles_settle(monkeypatch):
    # As if RDKit changed its mind at the first time.
    module = "chemscale_jax.chem.canonical_smiles"
    monkeypatch.setattr(f"{module}.molecule_of", lambda smiles: Chem.MolFromSmiles("C"))
    found = canonical_smiles("OCC", 10)
    assert (found.canonical, found.reason) == ("CCO", "")
    assert canonical_smiles("CCCCC", 4).reason == "too_large"


def test_drawings():
    drawn = drawing_of("C#CC(=O)c1ccncc1")
    assert drawn.points_N2.shape == (10, 2)
    assert abs(drawn.points_N2.mean(0)).max() < 1e-9
    assert drawn.symbols == [*"CCCOCCCNCC"]
    assert sorted(drawn.orders_E) == [1, 1, *[AROMATIC] * 6, 2, 3]
    assert drawn.bonds_E2.shape == (10, 2)
    assert drawing_of("").bonds_E2.shape == (0, 2)
