"""Prompts: where they are cut, and whether molecules hold them."""

import pytest
from rdkit import Chem

from chemscale_jax.chem import prompts, selfies_codec

ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"
CELECOXIB = "Cc1ccc(cc1)-c1cc(nn1-c1ccc(cc1)S(N)(=O)=O)C(F)(F)F"
STEROID = "C[C@]12CC[C@H]3[C@@H](CC=C4CC(O)CC[C@]34C)[C@@H]1CC[C@@H]2O"


@pytest.mark.parametrize(
    ("symbol", "notation", "facts"),
    [
        ("[C]", "selfies", (0, "C", False)),
        ("[=13C@@H1]", "selfies", (0, "C", False)),
        ("[#N+1]", "selfies", (0, "N", True)),
        ("[\\O-1]", "selfies", (0, "O", True)),
        ("[Br]", "selfies", (0, "Br", False)),
        ("[Branch1]", "selfies", (1, "", False)),
        ("[#Branch3]", "selfies", (3, "", False)),
        ("[=Ring2]", "selfies", (2, "", False)),
        ("[-/Ring1]", "selfies", (1, "", False)),
        ("[nop]", "selfies", (0, "", False)),
        (".", "selfies", (0, "", False)),
        ("[Branch2_3]", "selfies-1", (2, "", False)),
        ("[Expl=Ring1]", "selfies-1", (1, "", False)),
        ("[NH+expl]", "selfies-1", (0, "N", True)),
        ("[C@@Hexpl]", "selfies-1", (0, "C", False)),
        ("[O-expl]", "selfies-1", (0, "O", True)),
        ("Cl", "smiles", (0, "Cl", False)),
        ("[nH]", "smiles", (0, "N", False)),
        ("[N+]", "smiles", (0, "N", True)),
        ("[C@@H]", "smiles", (0, "C", False)),
        ("(", "smiles", (0, "", False)),
        ("%10", "smiles", (0, "", False)),
    ],
)
def test_what_symbols_are(symbol, notation, facts):
    assert prompts.symbol_facts(symbol, notation) == facts


def test_cuts_avoid_indices():
    symbols = selfies_codec.split("[C][Branch2][Ring1][C][O][Ring1][C][N]")
    assert prompts.clean_cuts(symbols) == [1, 4, 5, 7, 8]
    assert [prompts.cut(symbols, n) for n in (1, 2, 3, 4, 6)] == [1, 1, 1, 4, 5]
    # An index symbol is a number there, whatever else it might be.
    assert prompts.clean_cuts(selfies_codec.split("[Ring1][Branch1][C]")) == [2, 3]


@pytest.mark.parametrize(("rule", "length"), [("5", 5), (30, 20), ("l-3", 17)])
def test_length_rules(rule, length):
    assert prompts.wanted_length(rule, 20) == length


@pytest.mark.parametrize("rule", ["0", "-2", "l-20", "l", "half"])
def test_length_rules_that_leave_nothing(rule):
    with pytest.raises(ValueError, match="prompt length"):
        prompts.wanted_length(rule, 20)


@pytest.mark.parametrize("smiles", [ASPIRIN, CELECOXIB, STEROID])
def test_clean_cuts_are_substructures_of_their_molecule(smiles):
    whole = prompts.decode(prompts.encode(smiles, "selfies"), "selfies")
    for length in range(1, len(prompts.encode(smiles, "selfies")) + 1):
        prompt = prompts.molecule_prompt(smiles, length)
        assert len(prompt.symbols) <= max(length, 1)
        assert prompts.keeps(prompt.fragment, whole), prompt


def test_bonds_count():
    assert prompts.keeps("C=C", "C=CC")
    assert not prompts.keeps("C=C", "CCC")
    # An open part of an aromatic ring is not aromatic itself.
    assert prompts.keeps("C=CC=C", "C1=CC=CC=C1")
    assert prompts.keeps("C=CC=C", "c1ccccc1")
    assert not prompts.keeps("C#N", "not a molecule")


def test_scaffolds():
    prompt = prompts.scaffold_prompt(CELECOXIB)
    assert prompt.source == CELECOXIB
    mol = Chem.MolFromSmiles(prompt.fragment)
    assert Chem.MolToSmiles(mol) == "c1ccc(-c2ccnn2-c2ccccc2)cc1"
    with pytest.raises(ValueError, match="has no ring"):
        prompts.scaffold_prompt("CCO")
    with pytest.raises(ValueError, match="is not a SMILES"):
        prompts.scaffold_prompt("c1cc")


def test_readings():
    generated = [
        prompts.Generated(("[C]", "[=O]"), "C=O"),
        prompts.Generated(("[C]", "[O]"), "C=O"),
        prompts.Generated(("[C]",)),
        prompts.Generated(("[C]", "[Xx]")),
        prompts.Generated(()),
    ]
    assert prompts.read_generated(generated, "selfies") == [
        ("C=O", True),
        ("CO", False),
        ("C", None),
        ("", None),
        ("", None),
    ]
    assert prompts.read_generated([prompts.Generated(("C", "("))], "smiles") == [
        ("", None)
    ]


def test_other_notations():
    old = prompts.molecule_prompt(ASPIRIN, 5, "selfies-1")
    assert old.symbols[2] == "[Branch1_2]"
    assert prompts.keeps(old.fragment, prompts.molecule_prompt(ASPIRIN, 9).fragment)
    plain = prompts.molecule_prompt(ASPIRIN, "l-3", "smiles")
    assert "".join(plain.symbols) == ASPIRIN[:-3]
    assert not plain.fragment
    assert prompts.text_prompt("[C][=O]").fragment == "C=O"
    for text in ("", "[C", "CC"):
        with pytest.raises(ValueError, match=r"."):
            prompts.text_prompt(text)
