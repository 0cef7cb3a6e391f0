import pytest

from chemscale_jax.chem.smiles_tokens import (
    SmilesSymbolError,
    decode,
    encode,
    split,
    try_encode,
)

SYMBOLS = {
    "CCO": ["C", "C", "O"],
    "ClCBr": ["Cl", "C", "Br"],
    "C[C@@H](N)[O-]": ["C", "[C@@H]", "(", "N", ")", "[O-]"],
    "c1cc[nH]c1": ["c", "1", "c", "c", "[nH]", "c", "1"],
    "C%12CC%12": ["C", "%12", "C", "C", "%12"],
    "C%(123)CC%(123)": ["C", "%(123)", "C", "C", "%(123)"],
    "C12CC1C2": ["C", "1", "2", "C", "C", "1", "C", "2"],
    "[Na+].[Cl-]": ["[Na+]", ".", "[Cl-]"],
    "F/C=C\\C#N": ["F", "/", "C", "=", "C", "\\", "C", "#", "N"],
    "C->[Fe]": ["C", "->", "[Fe]"],
    "CC-c1ccccc1:c": [*"CC-c1ccccc1:c"],
    "CS(=O)(=O)Nc1sccn1": [*"CS(=O)(=O)Nc1sccn1"],
    "COI": ["C", "O", "I"],
}


@pytest.mark.parametrize("smiles", SYMBOLS)
def test_split_gives_symbols_and_loses_nothing(smiles):
    assert split(smiles) == encode(smiles) == SYMBOLS[smiles]
    assert decode(split(smiles)) == smiles
    assert try_encode(smiles).symbols == SYMBOLS[smiles]


@pytest.mark.parametrize(
    ("text", "place"),
    [("CXC", 2), ("C C", 2), ("[C", 1), ("C]", 2), ("CC*", 3), ("é", 1), ("C%1", 2)],
)
def test_characters_without_meaning_are_refused(text, place):
    with pytest.raises(SmilesSymbolError, match=f"character {place},"):
        split(text)
    refused = try_encode(text)
    assert (refused.symbols, refused.reason) == ([], "smiles_symbol")
    assert "\n" not in refused.message


def test_an_empty_text_has_a_reason():
    assert try_encode("").reason == "empty"
