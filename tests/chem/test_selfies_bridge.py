import pytest

from chemscale_jax.chem import selfies_bridge as bridge
from chemscale_jax.chem.selfies_codec import SelfiesError

NAMES = {
    "[C]": "[C]",
    "[=N]": "[=N]",
    "[\\Cl]": "[\\Cl]",
    ".": ".",
    "[nop]": "[nop]",
    "[Branch1]": "[Branch1_1]",
    "[=Branch2]": "[Branch2_2]",
    "[#Branch3]": "[Branch3_3]",
    "[Ring2]": "[Ring2]",
    "[=Ring1]": "[Expl=Ring1]",
    "[#Ring3]": "[Expl#Ring3]",
    "[//Ring1]": "[Expl/Ring1]",
    "[\\\\Ring2]": "[Expl\\Ring2]",
    "[NH1+1]": "[NH+expl]",
    "[=NH2+1]": "[=NH2+expl]",
    "[O-1]": "[O-expl]",
    "[Sn+2]": "[Sn+2expl]",
    "[Se]": "[Seexpl]",
    "[H]": "[Hexpl]",
    "[CH0]": "[Cexpl]",
    "[=CH0]": "[=Cexpl]",
    "[CH2]": "[CH2expl]",
    "[/C@@H1]": "[/C@@Hexpl]",
    "[C@]": "[C@expl]",
    "[13CH4]": "[13CH4expl]",
    "[2H]": "[2Hexpl]",
    "[13C]": "[13Cexpl]",
}


@pytest.mark.parametrize("current", NAMES)
def test_names_in_both_versions(current):
    assert bridge.to_old(current) == NAMES[current]
    assert bridge.to_current(NAMES[current]) == current


def test_other_ways_to_write_an_old_name():
    assert bridge.to_current("[CH2:1expl]") == "[CH2]"
    assert bridge.to_current("[Fe++expl]") == "[Fe+2]"
    assert bridge.to_current("[N+1expl]") == "[N+1]"
    assert bridge.to_current("[teexpl]") == "[Te]"


@pytest.mark.parametrize(
    "symbol", ["[-\\Ring1]", "[/\\Ring2]", "[Branch4]", "[Xx1]", "C"]
)
def test_symbols_without_an_old_name_are_refused(symbol):
    with pytest.raises(SelfiesError, match="no name in SELFIES") as error:
        bridge.to_old(symbol)
    assert error.value.reason == "selfies_1_symbol"


@pytest.mark.parametrize("symbol", ["[=Branch1]", "[O-1]", "[NH", "[C", "[Xexp]"])
def test_current_names_and_pieces_are_no_old_symbols(symbol):
    with pytest.raises(SelfiesError, match="is no symbol of SELFIES"):
        bridge.to_current(symbol)


def test_molecules_go_through_the_old_alphabet():
    smiles = "C[NH+](C)CC(=O)[O-].O=[N+]([O-])c1ccc2[nH]ccc2c1"
    symbols = bridge.encode(smiles)
    assert symbols[:4] == ["[C]", "[NH+expl]", "[Branch1_1]", "[C]"]
    assert bridge.split("".join(symbols)) == symbols
    decoded = bridge.decode(symbols)
    from rdkit import Chem

    assert Chem.CanonSmiles(decoded) == Chem.CanonSmiles(smiles)


def test_a_molecule_without_old_symbols_has_a_reason():
    refused = bridge.try_encode("FC=C1CNCCC\\1=C\\F")
    assert refused.reason == "selfies_1_symbol"
    assert "[-\\Ring1]" in refused.message
    assert bridge.try_encode("C*").reason == "wildcard"
    assert bridge.try_encode("CO").symbols == ["[C]", "[O]"]
