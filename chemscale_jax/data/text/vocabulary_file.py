"""Vocabularies that a user names: of a token store, or of a published tokenizer."""

import json
import os
import pathlib

from chemscale_jax.chem.hf_tokenizer import read_hf_tokenizer
from chemscale_jax.chem.vocabulary import Vocabulary
from chemscale_jax.core.errors import UserError

_NAMES = ("vocabulary.json", "tokenizer.json")


def read_vocabulary(path: str | os.PathLike) -> Vocabulary:
    """A ``vocabulary.json`` of ours, or a Hugging Face ``tokenizer.json``.

    Args:
        path: the file, or a folder that holds one of them.

    Raises:
        UserError: there is none, or it cannot be used.
    """
    file = pathlib.Path(path).expanduser()
    if file.is_dir():
        there = [file / name for name in _NAMES if (file / name).is_file()]
        if not there:
            raise UserError(
                f"{file} holds neither {' nor '.join(_NAMES)}: give the folder of a "
                "token store or of a tokenizer, or the file itself"
            )
        file = there[0]
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(record, dict) and "model" in record:
            return read_hf_tokenizer(file)
        return Vocabulary.load(file)
    except OSError as error:
        raise UserError(
            f"cannot read the vocabulary {file} ({error.strerror}): give the folder "
            "of a token store or of a tokenizer"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} is no vocabulary: {error}") from None
