"""Where the molecules of a language model come from, by name.

A file of SMILES is tokenised once, into the cache folder, and found again there by
path, size, date, notation and vocabulary.
"""

import contextlib
import fcntl
import hashlib
import importlib.metadata
import json
import multiprocessing
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

from chemscale_jax.chem.vocabulary import Vocabulary
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.types import Config
from chemscale_jax.data.cache import cache_folder, file_identity
from chemscale_jax.data.text.embedded_corpus import embedded_smiles, embedded_store
from chemscale_jax.data.text.finish_store import Finish
from chemscale_jax.data.text.molecule_text import TextSource, open_text
from chemscale_jax.data.text.token_store import SCHEMA_VERSION, STORE_FILE, TokenStore
from chemscale_jax.data.text.tokenize import tokenize_source
from chemscale_jax.data.text.vocabulary_file import read_vocabulary

DEFAULT_NOTATION = "selfies"


def open_corpus(data: Config, init_from: str = "") -> TokenStore:
    """The token store that ``config.data`` names, made first if need be.

    Args:
        data: ``source``, ``path``, ``column``, ``tfds_split``, ``notation``,
            ``vocabulary`` and ``embedded_molecules`` are read.
        init_from: the folder of a run, or of a published model, whose weights training
            starts from. Its vocabulary is used if ``data.vocabulary`` is empty.

    Raises:
        UserError: a source is unknown or cannot be read, or the ids of a store are not
            those of the vocabulary.
    """
    if data.source not in SOURCES:
        raise UserError(
            f"config.data.source={data.source!r} is unknown: use one of {(*SOURCES,)}"
        )
    if (data.source == "embedded") == bool(data.path):
        raise UserError(
            f"config.data.source={data.source!r} with config.data.path={data.path!r}: "
            "'embedded' has no path; 'file' and 'store' need one"
        )
    # Weights alone (.npz) do not say what their ids mean.
    named = data.vocabulary or (init_from if os.path.isdir(init_from) else "")
    vocabulary = _vocabulary_of(pathlib.Path(named)) if named else None
    notation = data.notation
    if vocabulary is not None and notation not in ("", vocabulary.notation):
        raise UserError(
            f"config.data.notation={notation}, but the vocabulary of {named} is "
            f"{vocabulary.notation}: leave config.data.notation empty"
        )
    if vocabulary is not None:
        notation = vocabulary.notation
    return SOURCES[data.source](data, notation, vocabulary)


def _vocabulary_of(path: pathlib.Path) -> Vocabulary:
    """The vocabulary of a run, of a token store, of a published model, or a file."""
    artifacts = path.expanduser() / "artifacts.json"
    if not artifacts.is_file():
        return read_vocabulary(path)
    record = json.loads(artifacts.read_text()).get("vocabulary")
    if record is None:
        raise UserError(
            f"{path} is a run without a vocabulary, so its model is none of text: give "
            "another config.init_from"
        )
    return Vocabulary.from_json(record)


def _embedded(data: Config, notation: str, vocabulary: Vocabulary | None) -> TokenStore:
    """The molecules that the package makes by itself."""
    size = data.embedded_molecules
    if vocabulary is None:
        return embedded_store(notation or DEFAULT_NOTATION, size)
    return _tokenized(open_text(embedded_smiles(size)), notation, vocabulary)


def _file(data: Config, notation: str, vocabulary: Vocabulary | None) -> TokenStore:
    """A file of SMILES, or a folder that TFDS prepared."""
    if pathlib.Path(data.path).expanduser().is_dir():
        # Costs start-up time.
        from chemscale_jax.data.text.tfds_text import open_prepared

        source: TextSource = open_prepared(data.path, data.tfds_split)
    else:
        source = open_text(data.path, data.column)
    return _tokenized(source, notation or DEFAULT_NOTATION, vocabulary)


def _store(data: Config, notation: str, vocabulary: Vocabulary | None) -> TokenStore:
    """A folder that ``chemscale tokenize`` wrote."""
    store = TokenStore.open(data.path)
    own = store.vocabulary
    if notation not in ("", own.notation):
        raise UserError(
            f"{data.path} has tokens of {own.notation}, not of {notation} as asked for "
            "by config.data.notation or the vocabulary: tokenise the molecules again"
        )
    if vocabulary is not None and own != vocabulary:
        raise UserError(
            f"{data.path} has ids of another vocabulary ({own.size} tokens) than the "
            f"one to train with ({vocabulary.size}): tokenise the molecules again with "
            "chemscale tokenize --vocabulary"
        )
    return store


# Name in config.data.source: a function of config.data, the notation and the vocabulary
# to use; they are "" and None where the data may have their own.
SOURCES: dict[str, Callable[[Config, str, Vocabulary | None], TokenStore]] = {
    "embedded": _embedded,
    "file": _file,
    "store": _store,
}


def _tokenized(
    source: TextSource, notation: str, vocabulary: Vocabulary | None
) -> TokenStore:
    """The token store of a text, made in the cache folder if it is not there."""
    path = getattr(source, "path", None)
    # A checksum of a large file would cost seconds at every start.
    key: dict[str, Any] = {
        "source": dict(source.identity) if path is None else file_identity(path),
        "layout": repr(source.layout),
        "notation": notation,
        "vocabulary": None if vocabulary is None else vocabulary.to_json(),
        "store": SCHEMA_VERSION,
        **{name: importlib.metadata.version(name) for name in ("rdkit", "selfies")},
    }
    text = json.dumps(key, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:20]
    out = cache_folder() / f"tokens-{digest}"
    with _alone(out):
        if (out / STORE_FILE).exists():
            return TokenStore.open(out)
        finish = Finish(vocabulary)
        return tokenize_source(source, out, notation=notation, finish=finish).store


@contextlib.contextmanager
def _alone(out: pathlib.Path) -> Iterator[None]:
    """Keeps other processes waiting that want to make the same folder."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        lock = out.with_suffix(".lock").open("a")
    except OSError as error:
        raise UserError(
            f"cannot write the cache folder {out.parent} ({error.strerror or error}): "
            "set CHEMSCALE_CACHE to a writable folder, or tokenise first with "
            "chemscale tokenize and use config.data.source=store"
        ) from None
    with lock:
        # A script without a main guard runs again in its own workers, which would wait
        # here for the process that waits for them.
        if multiprocessing.parent_process() is None:
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
