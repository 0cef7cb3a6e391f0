import pytest

from chemscale_jax.chem import selfies_codec
from chemscale_jax.chem.selfies_codec import (
    SelfiesError,
    decode,
    encode,
    round_trip,
    split,
    try_encode,
)


def test_known_symbols():
    assert encode("CCO") == ["[C]", "[C]", "[O]"]
    assert encode("c1ccccc1") == [*["[C]", "[=C]"] * 3, "[Ring1]", "[=Branch1]"]
    assert encode("[Na+].[Cl-]") == ["[Na+1]", ".", "[Cl-1]"]
    assert encode("C[C@H](N)C(=O)O")[1] == "[C@H1]"


def test_unusual_text_is_encoded_by_the_library():
    assert encode("C(CCC1CC)1") == split(
        "[C][Branch1][Branch2][C][C][C][Ring1][Ring2][C][C]"
    )


@pytest.mark.parametrize(
    ("smiles", "reason"),
    [
        ("C->[Fe]", "selfies_syntax"),
        ("CI(C)(C)C(C)C", "selfies_valence"),
        ("CI(=O)=O", "selfies_valence"),
        ("c1cccc1", "kekulisation"),
        ("CC(C)(C)(C)C", "valence"),
        ("C*", "wildcard"),
        ("", "empty"),
        ("C1CC", "syntax"),
    ],
)
def test_failures_have_a_reason_and_one_line(smiles, reason):
    encoded = try_encode(smiles)
    assert encoded.reason == reason, encoded
    assert encoded.symbols == []
    assert encoded.message
    assert "\n" not in encoded.message
    with pytest.raises(SelfiesError) as error:
        encode(smiles)
    assert error.value.reason == reason


def test_the_excess_of_bonds_is_told():
    assert "I with 5 bond(s)" in try_encode("CI(=O)=O").message


def test_hypervalent_groups_are_encoded_with_separated_charges():
    assert encode("CN(=O)=O") == encode("C[N+](=O)[O-]")
    assert "".join(encode("CN=N#N")) == "[C][N][=N+1][=N-1]"


def test_a_failure_within_the_library_is_a_reason(monkeypatch):
    def fails(smiles):
        raise RecursionError("too deep")

    monkeypatch.setattr(selfies_codec.selfies, "encoder", fails)
    assert try_encode("CC(C)").reason in ("", "selfies_error")
    assert selfies_codec._encode_as_written("CC(C)").reason == "selfies_error"


def test_decoding_gives_the_molecule():
    for smiles in (
        "CC(=O)Oc1ccccc1C(=O)O",
        "C[C@]12CC[C@H]3[C@@H](CC[C@@H]4CC(=O)CC[C@]34C)[C@@H]1CC[C@@H]2O",
        "C/C=C/C(=O)[O-].[Na+]",
        "[13CH3]C",
    ):
        assert round_trip(smiles, encode(smiles))
    assert not round_trip("C[C@H](N)O", encode("C[C@@H](N)O"))
    assert not round_trip("CCO", encode("CCN"))


def test_what_is_no_selfies_cannot_be_decoded():
    for symbols in (["[Xx]"], ["[CH9]"], ["C"], ["[C]", "[C"]):
        with pytest.raises(SelfiesError):
            assert decode(symbols)


def test_split_is_lossless_or_refuses():
    text = "[C][=C][F].[13CH4]"
    assert split(text) == ["[C]", "[=C]", "[F]", ".", "[13CH4]"]
    assert split("") == []
    for bad in ("[C][C", "CC", "[C]C[C]", "x[C]", "[C]..[C]"):
        with pytest.raises(SelfiesError):
            split(bad)
