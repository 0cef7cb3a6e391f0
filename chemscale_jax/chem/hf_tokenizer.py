"""Hugging Face tokenizer files: the published ChemGPT ones, and our vocabularies.

The published ``tokenizer.json`` cuts text at brackets and looks every piece up by
WordPiece; special tokens surround it: [CLS] symbols [SEP]. What is written here gives
``transformers.PreTrainedTokenizerFast`` the same ids as ``Vocabulary.encode``.
"""

import json
from pathlib import Path
from typing import Any

from chemscale_jax.chem.smiles_tokens import SYMBOL_PATTERN
from chemscale_jax.chem.vocabulary import (
    CONTINUES,
    LONGEST_WORD,
    NOTATIONS,
    SPECIALS,
    Vocabulary,
)

BRACKETS = r"\[(.*?)\]"
_NOTATION_KEY = "chemscale_notation"


def read_hf_tokenizer(path: str | Path) -> Vocabulary:
    """The vocabulary of a Hugging Face tokenizer.

    Args:
        path: a ``tokenizer.json``, or the folder that holds it.

    Raises:
        ValueError: it is no such file, or cuts text in a way that is not ours.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "tokenizer.json"
    if not path.exists():
        raise ValueError(f"there is no {path}; give the folder of a tokenizer")
    record = _read_json(path)
    model = record.get("model") or {}
    kind = model.get("type")
    if kind not in ("WordPiece", "WordLevel"):
        raise ValueError(
            f"{path} holds a model of type {kind!r}; tokenizers of type WordPiece and "
            "WordLevel can be read"
        )
    _check(
        path,
        record,
        {
            "normalizer": (record.get("normalizer"), None),
            "unknown token": (model.get("unk_token"), SPECIALS[0]),
            "continuing prefix": (
                model.get("continuing_subword_prefix", CONTINUES),
                CONTINUES,
            ),
            "longest word": (
                model.get("max_input_chars_per_word", LONGEST_WORD),
                LONGEST_WORD,
            ),
        },
    )
    vocab = model["vocab"]
    tokens = tuple(sorted(vocab, key=vocab.__getitem__))
    if sorted(vocab.values()) != list(range(len(tokens))):
        raise ValueError(f"the ids in {path} are not 0 ... {len(tokens) - 1}")
    return Vocabulary(tokens, _notation(path, record, tokens), kind == "WordPiece")


def write_hf_tokenizer(vocabulary: Vocabulary, folder: str | Path) -> None:
    """Writes tokenizer.json, tokenizer_config.json and special_tokens_map.json.

    Args:
        vocabulary: to be written.
        folder: is made where it does not exist.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    unk, pad, begin, end, mask = SPECIALS
    names = {
        "bos_token": begin,
        "eos_token": end,
        "pad_token": pad,
        "unk_token": unk,
        "mask_token": mask,
        "cls_token": begin,
        "sep_token": end,
    }
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        _NOTATION_KEY: vocabulary.notation,
        "clean_up_tokenization_spaces": False,
        **names,
    }
    for name, record in (
        ("tokenizer.json", _tokenizer(vocabulary)),
        ("tokenizer_config.json", config),
        ("special_tokens_map.json", names),
    ):
        text = json.dumps(record, indent=2, ensure_ascii=False)
        (folder / name).write_text(text + "\n", encoding="utf-8")


def _tokenizer(vocabulary: Vocabulary) -> dict[str, Any]:
    """Content of tokenizer.json."""
    pattern = SYMBOL_PATTERN if vocabulary.notation == "smiles" else BRACKETS
    model: dict[str, Any] = {
        "type": "WordLevel",
        "vocab": vocabulary.ids,
        "unk_token": SPECIALS[0],
    }
    if vocabulary.word_pieces:
        model |= {
            "type": "WordPiece",
            "continuing_subword_prefix": CONTINUES,
            "max_input_chars_per_word": LONGEST_WORD,
        }
    begin, end = SPECIALS[2], SPECIALS[3]
    single = [
        {"SpecialToken": {"id": begin, "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": end, "type_id": 0}},
    ]
    second = [
        {"Sequence": {"id": "B", "type_id": 1}},
        {"SpecialToken": {"id": end, "type_id": 1}},
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": place,
                "content": token,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for place, token in enumerate(SPECIALS)
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"Regex": pattern},
            "behavior": "Isolated",
            "invert": False,
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": single,
            "pair": single + second,
            "special_tokens": {
                token: {"id": token, "ids": [vocabulary.ids[token]], "tokens": [token]}
                for token in (begin, end)
            },
        },
        # Symbols are written without spaces between them.
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {
                    "type": "Replace",
                    "pattern": {"Regex": f"^{CONTINUES}"},
                    "content": "",
                },
                {"type": "Fuse"},
            ],
        }
        if vocabulary.word_pieces
        else {"type": "Fuse"},
        "model": model,
    }


def _check(path: Path, record: dict[str, Any], pairs: dict[str, tuple]) -> None:
    for name, (found, wanted) in pairs.items():
        if found != wanted:
            raise ValueError(
                f"{path}: the {name} is {found!r}; only tokenizers with {wanted!r} "
                "can be read"
            )
    cut = record.get("pre_tokenizer") or {}
    pattern = (cut.get("pattern") or {}).get("Regex")
    if cut.get("type") != "Split" or pattern not in (BRACKETS, SYMBOL_PATTERN):
        raise ValueError(
            f"{path} cuts text with {cut!r}; only tokenizers that cut at brackets "
            f"(Split of {BRACKETS}) or SMILES symbols can be read"
        )


def _notation(path: Path, record: dict[str, Any], tokens: tuple[str, ...]) -> str:
    config = path.with_name("tokenizer_config.json")
    if config.exists():
        named = _read_json(config).get(_NOTATION_KEY)
        if named in NOTATIONS:
            return named
    if record["pre_tokenizer"]["pattern"]["Regex"] == SYMBOL_PATTERN:
        return "smiles"
    old = any(t.endswith("expl]") or t.startswith("[Branch1_") for t in tokens)
    return "selfies-1" if old else "selfies"


def _read_json(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a JSON file: {error}") from error
    if not isinstance(record, dict):
        raise ValueError(f"{path} holds no tokenizer: found a {type(record).__name__}")
    return record
