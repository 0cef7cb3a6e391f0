import json
import re

import pytest

from chemscale_jax.chem.hf_tokenizer import read_hf_tokenizer, write_hf_tokenizer
from chemscale_jax.chem.smiles_tokens import split
from chemscale_jax.chem.vocabulary import SPECIALS, Vocabulary

VOCABULARIES = (
    Vocabulary((*SPECIALS, "[C]", ".", "[C@@H1]"), "selfies"),
    Vocabulary((*SPECIALS, "[C]", "[Branch1_1]", "[N", "##+expl]"), "selfies-1", True),
    Vocabulary((*SPECIALS, "C", "(", ")", "[nH]", "%12", "\\"), "smiles"),
)


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_written_and_read(vocabulary, tmp_path):
    write_hf_tokenizer(vocabulary, tmp_path / "new" / "folder")
    assert read_hf_tokenizer(tmp_path / "new" / "folder") == vocabulary
    # The notation is recognised without our own entry, too.
    (tmp_path / "new" / "folder" / "tokenizer_config.json").unlink()
    file = tmp_path / "new" / "folder" / "tokenizer.json"
    assert read_hf_tokenizer(file) == vocabulary


def test_special_tokens_are_named_for_every_reader(tmp_path):
    write_hf_tokenizer(VOCABULARIES[0], tmp_path)
    names = json.loads((tmp_path / "special_tokens_map.json").read_text())
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert names["bos_token"] == "[CLS]"
    assert names["eos_token"] == "[SEP]"
    assert names["pad_token"] == "[PAD]"
    assert names["unk_token"] == "[UNK]"
    assert config | names == config
    record = json.loads((tmp_path / "tokenizer.json").read_text())
    added = {token["content"]: token["id"] for token in record["added_tokens"]}
    assert added == {token: place for place, token in enumerate(SPECIALS)}
    around = record["post_processor"]["special_tokens"]
    assert {name: entry["ids"] for name, entry in around.items()} == {
        "[CLS]": [2],
        "[SEP]": [3],
    }


def test_the_pattern_cuts_as_we_do(tmp_path):
    write_hf_tokenizer(VOCABULARIES[2], tmp_path)
    record = json.loads((tmp_path / "tokenizer.json").read_text())
    pattern = record["pre_tokenizer"]["pattern"]["Regex"]
    text = "Clc1c[nH]c(C%12CC%12)c1.[Na+]"
    assert re.findall(pattern, text) == split(text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"type": "BPE"}}, "type 'BPE'"),
        ({"normalizer": {"type": "Lowercase"}}, "normalizer"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "cuts text"),
        (
            {"model": {"type": "WordLevel", "unk_token": "[UNK]", "vocab": {"[C]": 3}}},
            "ids in",
        ),
        (
            {"model": {"type": "WordLevel", "unk_token": "<unk>", "vocab": {}}},
            "unknown token",
        ),
    ],
)
def test_other_tokenizers_are_refused(change, message, tmp_path):
    write_hf_tokenizer(VOCABULARIES[0], tmp_path)
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ValueError, match=message):
        read_hf_tokenizer(tmp_path)


def test_what_is_no_tokenizer_is_refused(tmp_path):
    with pytest.raises(ValueError, match="there is no"):
        read_hf_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("[1]")
    with pytest.raises(ValueError, match="found a list"):
        read_hf_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match="not a JSON file"):
        read_hf_tokenizer(tmp_path)
