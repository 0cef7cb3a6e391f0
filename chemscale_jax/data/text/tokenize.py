"""Text files of molecules to a token store: in parallel, resumable, every line kept.

The lines are cut into chunks, which processes encode; the results are put in the order
of the file into a folder beside the store (``OUT.parts``). A run that was killed goes
on after the last chunk that is there. The store appears under its name only when it is
complete, and neither kills nor the number of processes change a byte of it.
"""

import dataclasses
import functools
import hashlib
import importlib.metadata
import itertools
import json
import os
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Sequence
from typing import Any, NamedTuple

from tqdm import tqdm

from chemscale_jax.chem.vocabulary import NOTATIONS, Vocabulary
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.worker_processes import usable_processes
from chemscale_jax.data.text.encode_lines import LIMIT_S, encode_chunk
from chemscale_jax.data.text.finish_store import (
    ON_UNKNOWN,
    Finish,
    finish_store,
    unknown_error,
)
from chemscale_jax.data.text.molecule_text import (
    BYTES_PER_CHUNK,
    LINES_PER_CHUNK,
    SmilesList,
    TextSource,
    open_text,
)
from chemscale_jax.data.text.token_parts import TokenParts
from chemscale_jax.data.text.token_store import STORE_FILE, TokenStore
from chemscale_jax.data.worker_pool import ordered_map

# Seconds between redrawings of the bar where nobody watches it move.
_LOG_INTERVAL = 30.0


class Tokenized(NamedTuple):
    """A store and what it cost."""

    store: TokenStore
    cpu_s: float  # of the processes that encoded; 0 if the store was there already


def tokenize_file(
    path: str | os.PathLike,
    out: str | os.PathLike,
    *,
    column: str = "",
    notation: str = "selfies",
    vocabulary: Vocabulary | None = None,
    on_unknown: str = "drop",
    workers: int | None = None,
    progress: bool = True,
) -> TokenStore:
    """The token store of a text file; see `tokenize_source`.

    Args:
        path: csv, tsv, smi, txt (also packed) or parquet.
        out: folder of the store.
        column: of the SMILES, where it is not clear.
        notation: "selfies", "selfies-1" or "smiles".
        vocabulary: default one made from the data.
        on_unknown: "drop", "keep" or "fail".
        workers: processes; default one for each core.
        progress: whether there is a bar.
    """
    finish = Finish(vocabulary, on_unknown=on_unknown)
    return tokenize_source(
        open_text(path, column),
        out,
        notation=notation,
        finish=finish,
        workers=workers,
        progress=progress,
    ).store


def tokenize_smiles(
    smiles: Sequence[str],
    *,
    notation: str = "selfies",
    vocabulary: Vocabulary | None = None,
    on_unknown: str = "drop",
    workers: int = 0,
) -> TokenStore:
    """The token store of molecules in memory, itself in memory.

    Args:
        smiles: the molecules; their place, from 1, is their line.
        notation: "selfies", "selfies-1" or "smiles".
        vocabulary: default one made from the data.
        on_unknown: "drop", "keep" or "fail".
        workers: processes; 0 for none beside this one.

    Raises:
        UserError: there is nothing to encode, or see `tokenize_source`.
    """
    with tempfile.TemporaryDirectory(prefix="chemscale-") as folder:
        store, _ = tokenize_source(
            SmilesList(smiles),
            pathlib.Path(folder) / "store",
            notation=notation,
            finish=Finish(vocabulary, on_unknown=on_unknown),
            workers=workers,
            progress=False,
        )
        return store.in_memory()


def tokenize_source(
    source: TextSource,
    out: str | os.PathLike,
    *,
    notation: str = "selfies",
    finish: Finish | None = None,
    canonical: bool = False,
    workers: int | None = None,
    progress: bool = True,
) -> Tokenized:
    """Makes the token store of a source, or goes on with it.

    Every line becomes a molecule of the store or a row of its ledger.

    Args:
        source: the lines.
        out: folder of the store; it appears when all is done.
        notation: "selfies" (SELFIES 2), "selfies-1" (1.0.4) or "smiles".
        finish: vocabulary and checks.
        canonical: encode canonical SMILES, not the SMILES as written.
        workers: processes with one thread each; default one for each core that may be
            used; 0 works in this process.
        progress: whether there is a bar.

    Raises:
        UserError: the source has no lines or is damaged, the store is there already
            and another one, the parts belong to other settings, a symbol is not in
            the vocabulary and that is not allowed, or an argument makes no sense.
    """
    out = pathlib.Path(out).expanduser()
    finish = finish or Finish()
    _check(out, notation, finish, workers)
    settings = {
        "source": dict(source.identity),
        "layout": dataclasses.asdict(source.layout),
        "notation": notation,
        "canonical": canonical,
        "seconds_per_molecule": LIMIT_S,
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
    }
    made = {**settings, **_finish_facts(finish)}
    folder = out.with_name(out.name + ".parts")
    if (out / STORE_FILE).exists():
        store = TokenStore.open(out)
        if json.loads(json.dumps(made)) != store.info.get("made"):
            raise UserError(
                f"{out} is a token store of another file or of other settings: remove "
                "it, or choose another --out"
            )
        # It was killed after the store was done.
        shutil.rmtree(folder, ignore_errors=True)
        return Tokenized(store, 0.0)
    with TokenParts(
        folder, {**settings, "chunks": [LINES_PER_CHUNK, BYTES_PER_CHUNK]}
    ) as parts:
        _encode(source, parts, notation, canonical, finish, workers, progress)
        if not parts.progress.lines:
            raise UserError(f"{_name(source)} holds no line with a molecule")
        new = folder / "store"
        shutil.rmtree(new, ignore_errors=True)
        finish_store(new, parts, source, notation, finish, {"made": made})
        for file in new.iterdir():
            _to_disk(file)
        try:
            new.rename(out)
        except OSError as error:
            raise UserError(
                f"cannot make the folder {out} ({error.strerror}): it must not be there"
            ) from None
        cpu_s = parts.progress.cpu_s
    shutil.rmtree(folder)
    return Tokenized(TokenStore.open(out), cpu_s)


# Their versions may change symbols.
_PACKAGES = ("rdkit", "selfies")


def _check(
    out: pathlib.Path, notation: str, finish: Finish, workers: int | None
) -> None:
    if notation not in NOTATIONS:
        raise UserError(
            f"there is no notation {notation!r}: use {', '.join(NOTATIONS)}"
        )
    if finish.on_unknown not in ON_UNKNOWN:
        raise UserError(
            f"on_unknown is {finish.on_unknown!r}: use {', '.join(ON_UNKNOWN)}"
        )
    if finish.vocabulary is not None and finish.vocabulary.notation != notation:
        raise UserError(
            f"the vocabulary is one of {finish.vocabulary.notation}, not of "
            f"{notation}: give --notation={finish.vocabulary.notation}"
        )
    if workers is not None and workers < 0:
        raise UserError(f"workers is {workers}: it must not be negative")
    if finish.round_trip is not None and finish.round_trip < 0:
        raise UserError(f"round_trip is {finish.round_trip}: it must not be negative")
    if not Vocabulary.specials < finish.max_vocabulary <= 2**16:
        raise UserError(
            f"max_vocabulary is {finish.max_vocabulary}: it must be more than the "
            f"{Vocabulary.specials} special tokens and at most {2**16}"
        )
    if out.exists() and not (out / STORE_FILE).exists():
        if not out.is_dir() or any(out.iterdir()):
            raise UserError(
                f"{out} is there and no token store: choose another --out, a folder "
                "that does not exist yet"
            )


def _finish_facts(finish: Finish) -> dict[str, Any]:
    """What of a store is decided at the end, JSON-able."""
    facts: dict[str, Any] = dataclasses.asdict(
        dataclasses.replace(finish, vocabulary=None)
    )
    facts["vocabulary"] = None
    if finish.vocabulary is not None:
        text = json.dumps(finish.vocabulary.to_json(), sort_keys=True)
        facts["vocabulary"] = hashlib.sha256(text.encode()).hexdigest()
    return facts


def _encode(
    source: TextSource,
    parts: TokenParts,
    notation: str,
    canonical: bool,
    finish: Finish,
    workers: int | None,
    progress: bool,
) -> None:
    """Adds the chunks that are not there yet."""
    chunks = itertools.islice(source.chunks(), parts.progress.chunks, None)
    results = ordered_map(
        functools.partial(
            encode_chunk, layout=source.layout, notation=notation, canonical=canonical
        ),
        chunks,
        usable_processes() if workers is None else workers,
    )
    given = finish.vocabulary
    strict = given is not None and finish.on_unknown == "fail"
    with tqdm(
        initial=parts.progress.lines,
        unit="line",
        desc=f"to {notation}",
        disable=not progress,
        smoothing=0.05,
        dynamic_ncols=True,
        mininterval=0.1 if sys.stderr.isatty() else _LOG_INTERVAL,
    ) as bar:
        for result in results:
            fresh = parts.append(result)
            # Nobody knows the number of lines; the bytes that were read tell about it.
            bar.total = round(parts.progress.lines / max(result.read, 1e-9))
            bar.update(result.lines_read)
            if strict and given is not None:
                absent = [s for s in fresh if given.unk in given.encode([s])]
                if absent:
                    raise unknown_error(absent, given)


def _name(source: TextSource) -> str:
    return str(source.identity.get("path", "the list"))


def _to_disk(path: pathlib.Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
