import json

import numpy as np
import pytest

from chemscale_jax.chem.vocabulary import SPECIALS, Vocabulary

COUNTS = {"[C]": 9, "[O]": 4, "[N]": 4, "[=C]": 7, "[F]": 1}
OWN = Vocabulary.from_counts(COUNTS, "selfies")
PIECES = Vocabulary(
    (*SPECIALS, "[C]", "[CH", "##2]", "##]", "[", "##C", "##CC", "##H"), "selfies", True
)


def test_symbols_follow_the_special_tokens_by_count_then_by_text():
    assert OWN.tokens == (*SPECIALS, "[C]", "[=C]", "[N]", "[O]", "[F]")
    assert (OWN.unk, OWN.pad, OWN.begin, OWN.end, OWN.mask) == (0, 1, 2, 3, 4)
    assert (OWN.specials, OWN.size) == (5, 10)


def test_size_has_a_limit_that_counts_the_special_tokens():
    small = Vocabulary.from_counts(COUNTS, "selfies", max_size=7)
    assert small.tokens == (*SPECIALS, "[C]", "[=C]")


def test_encode_and_decode():
    ids = OWN.encode(["[C]", "[O]", "[Xe]"])
    assert ids.dtype == np.uint16
    assert ids.tolist() == [5, 8, 0]
    assert OWN.decode([2, *ids.tolist(), 3, 1]) == ["[C]", "[O]"]
    assert OWN.encode([]).shape == (0,)
    assert OWN.encode(iter(["[C]"])).tolist() == [5]


def test_text_that_spells_a_special_token_is_unknown():
    for vocabulary in (OWN, PIECES):
        assert vocabulary.encode(["[CLS]"])[0] == vocabulary.unk
        assert vocabulary.encode(["[PAD]"])[0] == vocabulary.unk


def test_word_pieces_are_the_longest_from_the_left():
    assert PIECES.encode(["[C]"]).tolist() == [5]
    assert PIECES.encode(["[CH2]", "[C]"]).tolist() == [6, 7, 5]
    assert PIECES.encode(["[CCC]"]).tolist() == [9, 11, 10, 8]
    wide = Vocabulary((*PIECES.tokens, "[CC"), "selfies", True)
    assert wide.encode(["[CCC]"]).tolist() == [13, 10, 8]
    # A rest without a piece makes the whole symbol unknown, as does its length.
    assert PIECES.encode(["[CH3]"]).tolist() == [0]
    assert PIECES.encode(["[CH" + "H" * 95 + "]"]).tolist() == [6, *[12] * 95, 8]
    assert PIECES.encode(["[CH" + "H" * 97 + "]"]).tolist() == [0]
    assert PIECES.decode([6, 7, 5, 9, 8]) == ["[CH2]", "[C]", "[]"]


def test_saved_and_loaded(tmp_path):
    for vocabulary in (OWN, PIECES, Vocabulary((*SPECIALS, "C", "\\"), "smiles")):
        vocabulary.save(tmp_path / "vocabulary.json")
        assert Vocabulary.load(tmp_path / "vocabulary.json") == vocabulary
        assert Vocabulary.from_json(json.loads(json.dumps(vocabulary.to_json()))) == (
            vocabulary
        )


@pytest.mark.parametrize(
    ("tokens", "notation", "message"),
    [
        (("[C]",), "selfies", "begins with"),
        ((), "selfies", "nothing"),
        ((*SPECIALS, "[C]", "[C]"), "selfies", "'\\[C\\]' twice"),
        (SPECIALS, "selfies-9", "'selfies-9' is not a notation"),
        ((*SPECIALS, *map(str, range(2**16))), "smiles", "16-bit"),
    ],
)
def test_bad_lists_are_refused(tokens, notation, message):
    with pytest.raises(ValueError, match=message):
        Vocabulary(tokens, notation)


def test_bad_files_are_refused(tmp_path):
    path = tmp_path / "vocabulary.json"
    path.write_text("[C]")
    with pytest.raises(ValueError, match="is not a JSON file"):
        Vocabulary.load(path)
    path.write_text('{"model": {}}')
    with pytest.raises(ValueError, match="read_hf_tokenizer"):
        Vocabulary.load(path)
    path.write_text(json.dumps(OWN.to_json() | {"schema": 99}))
    with pytest.raises(ValueError, match="schema 99"):
        Vocabulary.load(path)


def test_coverage_names_what_is_unknown():
    report = OWN.coverage({"[C]": 6, "[Xe]": 1, "[Kr]": 3}, 5, 2)
    assert report["symbols"] == 10
    assert report["unknown_symbols"] == 4
    assert report["unknown_share"] == 0.4
    assert list(report["unknown"].items()) == [("[Kr]", 3), ("[Xe]", 1)]
    assert (report["distinct_symbols"], report["distinct_unknown"]) == (3, 2)
    assert report["unused_tokens"] == ["[=C]", "[N]", "[O]", "[F]"]
    assert (report["molecules"], report["molecules_with_unknown"]) == (5, 2)
    assert OWN.coverage({})["unknown_share"] == 0.0
    # Cut into pieces is not lost.
    report = PIECES.coverage({"[CH2]": 1, "[CH3]": 1, "[C]": 1})
    assert report["unknown"] == {"[CH3]": 1}
    assert report["cut_into_pieces"] == ["[CH2]"]
