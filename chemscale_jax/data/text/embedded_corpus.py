"""A corpus that needs no download: drug-like molecules joined from pieces of drugs.

It is made in the cache folder when it is first asked for, with its data card; the
default size takes under a minute of two cores. A smaller corpus is the beginning of a
larger one.
"""

import functools
import hashlib
import importlib.metadata
import itertools
import pathlib
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tqdm import tqdm

from chemscale_jax.chem.drug_fragments import pieces_of
from chemscale_jax.chem.drugs import DRUGS_CSV, drugs
from chemscale_jax.chem.recombination import (
    RULES_VERSION,
    Pool,
    distinct,
    draw_block,
    pool_of,
)
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.worker_processes import usable_processes
from chemscale_jax.data.cache import derived_folder
from chemscale_jax.data.text.corpus_card import CorpusFacts, corpus_card
from chemscale_jax.data.text.token_store import SCHEMA_VERSION, TokenStore
from chemscale_jax.data.text.tokenize import tokenize_file
from chemscale_jax.data.worker_pool import ordered_map

SIZE = 60_000
SEED = 0
CORPUS_FILE = "recombined_drugs.smi"
CARD_FILE = "CARD.md"
# Fewer molecules are made sooner than processes start.
_WORTH_PROCESSES = 3000
# Seconds between redrawings of the bar where nobody watches it move.
_LOG_INTERVAL = 30.0


def embedded_smiles(
    size: int = SIZE, workers: int | None = None, *, seed: int = SEED
) -> pathlib.Path:
    """The file of the embedded corpus, one canonical SMILES on a line.

    Neither the number of processes nor the machine changes it; another version of
    RDKit may. ``CARD.md`` beside it says what it is.

    Args:
        size: molecules.
        workers: processes; default one for each core that may be used; 0 works in this
            process. Small corpora are always made in this process.
        seed: of the draws.

    Raises:
        UserError: a number makes no sense, or the disk is full.
    """
    if size < 1:
        raise UserError(f"size of the embedded corpus is {size}: use at least 1")
    if seed < 0:
        raise UserError(f"seed of the embedded corpus is {seed}: it must be at least 0")
    if workers is not None and workers < 0:
        raise UserError(f"workers is {workers}: it must not be negative")
    folder = derived_folder(
        "embedded-corpus",
        _key(size, seed),
        functools.partial(_write, size=size, workers=workers, seed=seed),
    )
    return folder / CORPUS_FILE


def embedded_store(
    notation: str = "selfies",
    size: int = SIZE,
    workers: int | None = None,
    *,
    seed: int = SEED,
) -> TokenStore:
    """The token store of the embedded corpus, made first if need be.

    Args:
        notation: "selfies", "selfies-1" or "smiles".
        size: molecules.
        workers: processes; default one for each core that may be used.
        seed: of the draws.

    Raises:
        UserError: an argument makes no sense, or the disk is full.
    """
    path = embedded_smiles(size, workers, seed=seed)

    def fill(folder: pathlib.Path) -> None:
        made = folder / "made"
        tokenize_file(path, made, notation=notation, workers=workers)
        for file in made.iterdir():
            file.rename(folder / file.name)
        made.rmdir()

    key = {
        **_key(size, seed),
        "notation": notation,
        "selfies": importlib.metadata.version("selfies"),
        "store": SCHEMA_VERSION,
    }
    return TokenStore.open(derived_folder("embedded-tokens", key, fill))


def recombined(
    size: int,
    workers: int = 0,
    *,
    seed: int = SEED,
    parents: tuple[str, ...] | None = None,
    on_pool: Callable[[Pool], None] = lambda pool: None,
) -> Iterator[str]:
    """Canonical SMILES of the corpus, in order.

    Args:
        size: molecules.
        workers: processes beside this one.
        seed: of the draws.
        parents: SMILES of the molecules to be cut; default the drugs of the package.
            None of them comes out again.
        on_pool: is given the pieces before the first draw.
    """
    if parents is None:
        parents = tuple(drug.smiles for drug in drugs())
    pool = pool_of(pieces_of(parents))
    on_pool(pool)
    blocks = ordered_map(
        functools.partial(_block, pool, seed), itertools.count(), workers
    )
    return distinct(blocks, size, parents)


def _block(
    pool: Pool,
    seed: int,
    number: int,
    given_up: Mapping[int, str],
    at: Callable[[int], None],
) -> list[str]:
    at(0)
    return [] if given_up else draw_block(pool, seed, number)


def _key(size: int, seed: int) -> dict[str, Any]:
    """Everything the molecules depend on."""
    return {
        "size": size,
        "seed": seed,
        "rules": RULES_VERSION,
        "drugs": hashlib.sha256(DRUGS_CSV.read_bytes()).hexdigest(),
        "rdkit": importlib.metadata.version("rdkit"),
    }


def _write(folder: pathlib.Path, *, size: int, workers: int | None, seed: int) -> None:
    if workers is None:
        workers = usable_processes()
    if size < _WORTH_PROCESSES or workers == 1:
        workers = 0
    n_pieces = 0

    def note(pool: Pool) -> None:
        nonlocal n_pieces
        n_pieces = pool.n_pieces

    bar = tqdm(
        recombined(size, workers, seed=seed, on_pool=note),
        total=size,
        unit="mol",
        desc="Embedded corpus",
        disable=size < _WORTH_PROCESSES,
        dynamic_ncols=True,
        mininterval=0.1 if sys.stderr.isatty() else _LOG_INTERVAL,
    )
    molecules = list(bar)
    text = "".join(f"{smiles}\n" for smiles in molecules).encode()
    (folder / CORPUS_FILE).write_bytes(text)
    facts = CorpusFacts(
        file_name=CORPUS_FILE,
        size=size,
        seed=seed,
        n_pieces=n_pieces,
        bytes=len(text),
        sha256=hashlib.sha256(text).hexdigest(),
        rdkit=importlib.metadata.version("rdkit"),
    )
    (folder / CARD_FILE).write_text(corpus_card(facts, molecules), encoding="utf-8")
