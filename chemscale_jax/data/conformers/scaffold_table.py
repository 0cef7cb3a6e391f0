"""Molecules and Murcko scaffolds of a set, for counting: of a store, or of a file."""

import functools
import os
import pathlib
import sys
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from chemscale_jax.chem.canonical_smiles import canonical_smiles
from chemscale_jax.chem.scaffolds import scaffold_of
from chemscale_jax.chem.smiles import MAX_HEAVY_ATOMS, molecule_key
from chemscale_jax.core.worker_processes import usable_processes
from chemscale_jax.data.conformers.store import ConformerStore
from chemscale_jax.data.text.molecule_text import Chunk, TextSource, open_text
from chemscale_jax.data.text.text_layout import Layout
from chemscale_jax.data.worker_pool import ordered_map

# Fewer lines are read sooner than processes start.
_WORTH_PROCESSES = 2_000_000  # bytes
# Seconds between redrawings of the bar where nobody watches it move.
_LOG_INTERVAL = 30.0


class ScaffoldTable(NamedTuple):
    """What is counted of a set of distinct molecules.

    Attributes:
        name: of the set.
        lines: of its source.
        unread: lines without a molecule.
        keys: uint64 (M,), `molecule_key` of each molecule, sorted.
        scaffolds: SMILES of the distinct scaffolds, the most frequent first; "" is the
            scaffold of molecules without rings.
        counts: int64, molecules of each scaffold.
    """

    name: str
    lines: int
    unread: int
    keys: np.ndarray
    scaffolds: list[str]
    counts: np.ndarray


def scaffold_table(
    path: str | os.PathLike,
    *,
    column: str = "",
    workers: int | None = None,
    progress: bool = True,
) -> ScaffoldTable:
    """Counts the molecules and scaffolds of a conformer store or a file of SMILES.

    In memory are a number for each molecule and the SMILES of each scaffold.

    Args:
        path: folder of a store; or csv, tsv, smi, txt (also packed) or parquet.
        column: of the SMILES in a file, where it is not clear.
        workers: processes; default one for each core; 0 works in this process.
        progress: whether there is a bar.

    Raises:
        UserError: it can be read as neither.
    """
    path = pathlib.Path(path).expanduser().absolute()
    if path.is_dir():
        store = ConformerStore.open(path)
        lines = store.info["lines"]
        failed = store.failed()
        return _table(
            path.name,
            lines,
            failed.total() - failed["duplicate"],
            np.sort(store.keys),
            store.scaffolds,
            store.scaffold_counts,
        )
    if workers is None:
        workers = usable_processes()
    if path.exists() and path.stat().st_size < _WORTH_PROCESSES:
        workers = 0
    return _count(open_text(path, column), path.name, workers, progress)


class _Found(NamedTuple):
    keys: np.ndarray  # (m,) uint64
    scaffolds: list[str]
    lines: int
    read: float


def _count(
    source: TextSource, name: str, workers: int, progress: bool
) -> ScaffoldTable:
    numbers: dict[str, int] = {}
    keys, owners = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
    lines = 0
    work = functools.partial(_read, layout=source.layout)
    with tqdm(
        unit="line",
        desc=name,
        disable=not progress,
        smoothing=0.05,
        dynamic_ncols=True,
        mininterval=0.1 if sys.stderr.isatty() else _LOG_INTERVAL,
    ) as bar:
        for found in ordered_map(work, source.chunks(), workers):
            keys.append(found.keys)
            own = [numbers.setdefault(s, len(numbers)) for s in found.scaffolds]
            owners.append(np.array(own, np.int64))
            lines += found.lines
            bar.total = round(lines / max(found.read, 1e-9))
            bar.update(found.lines)
    every = np.concatenate(keys)
    distinct, first = np.unique(every, return_index=True)
    counts = np.bincount(np.concatenate(owners)[first], minlength=len(numbers))
    return _table(name, lines, lines - len(every), distinct, list(numbers), counts)


def _read(
    chunk: Chunk,
    given_up: Mapping[int, str],
    at: Callable[[int], None],
    *,
    layout: Layout,
) -> _Found:
    keys, scaffolds = [], []
    for place, line in enumerate(chunk.lines):
        text, reason, _ = layout.read(line)
        if reason or place in given_up:
            continue
        at(place)
        parsed = canonical_smiles(text, MAX_HEAVY_ATOMS)
        if not parsed.reason:
            keys.append(molecule_key(parsed.canonical))
            scaffolds.append(scaffold_of(parsed.canonical))
    return _Found(np.array(keys, np.uint64), scaffolds, len(chunk.lines), chunk.read)


def _table(
    name: str,
    lines: int,
    unread: int,
    keys: np.ndarray,
    scaffolds: list[str],
    counts: np.ndarray,
) -> ScaffoldTable:
    # Equal counts in the order of the SMILES, so that the order of the lines is none.
    order = sorted(range(len(scaffolds)), key=lambda i: (-counts[i], scaffolds[i]))
    ranked = [scaffolds[i] for i in order]
    return ScaffoldTable(name, lines, unread, keys, ranked, counts[order])
