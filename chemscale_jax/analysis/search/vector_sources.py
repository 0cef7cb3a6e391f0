"""Where the vectors of an index come from: files of ``chemscale embed``, or arrays."""

import json
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np

from chemscale_jax.core import embedding_table
from chemscale_jax.core.embedding_table import EmbeddingTable
from chemscale_jax.core.errors import UserError

# Enough that fingerprints of a block are worth several processes.
BLOCK_ROWS = 32768
# What has to agree between files that are indexed together.
_MODEL = ("model", "weights", "untrained", "level", "layer", "pool", "settings")


class VectorSource(NamedTuple):
    """Blocks of embeddings that can be read any number of times.

    Attributes:
        name: of the file, or what else it is.
        blocks: reads them from the first row on.
        facts: what tells this content from any other, JSON-able.
        rows: how many there are, or None where only reading would tell.
    """

    name: str
    blocks: Callable[[], Iterator[EmbeddingTable]]
    facts: Mapping[str, Any]
    rows: int | None = None

    def about(self) -> Mapping[str, Any]:
        """What made the values."""
        return next(self.blocks()).about


def file_source(path: str | os.PathLike) -> VectorSource:
    """A file that ``chemscale embed`` wrote.

    Raises:
        UserError: it is missing.
    """
    place = pathlib.Path(path).expanduser().resolve()
    if not place.exists():
        raise UserError(f"{place} does not exist: write it with chemscale embed")
    found = place.stat()
    facts = {"path": str(place), "bytes": found.st_size, "changed": found.st_mtime_ns}
    rows = None
    if place.suffix == ".npz":
        try:
            with place.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
                rows = len(file["index"])
        except (OSError, ValueError, EOFError, KeyError, TypeError, BadZipFile):
            pass  # reading says what is wrong
    return VectorSource(
        str(place), lambda: embedding_table.blocks(place, BLOCK_ROWS), facts, rows
    )


def array_source(
    values: np.ndarray,
    smiles: Sequence[str] | None = None,
    name: str = "array",
    about: Mapping[str, Any] | None = None,
) -> VectorSource:
    """Vectors in memory, or memory-mapped.

    Args:
        values: (M, D); rows that are not finite are left out.
        smiles: of each; "" where none are given.
        name: of the source.
        about: what made them.

    Raises:
        UserError: the shapes do not fit.
    """
    if values.ndim != 2 or (smiles is not None and len(smiles) != len(values)):
        raise UserError(
            f"{name} has values of shape {values.shape} and "
            f"{'no' if smiles is None else len(smiles)} SMILES: give (M, D) and M"
        )

    def blocks() -> Iterator[EmbeddingTable]:
        for start in range(0, len(values), BLOCK_ROWS):
            some = np.asarray(values[start : start + BLOCK_ROWS], np.float32)
            n = len(some)
            rows = np.arange(start, start + n)
            texts = [""] * n if smiles is None else smiles[start : start + n]
            usable = np.isfinite(some).all(axis=1)
            yield EmbeddingTable(
                index=rows,
                where=np.array([f"{name} row {row}" for row in rows.tolist()]),
                smiles=np.array(texts, np.str_),
                status=np.where(usable, "given", "failed"),
                reason=np.where(usable, "", "the vector is not finite"),
                values=some,
                about=about or {},
            )

    facts = {"array": name, "shape": list(values.shape)}
    return VectorSource(name, blocks, facts, len(values))


def shared_about(sources: Sequence[VectorSource]) -> dict[str, Any]:
    """What made the values of all sources.

    Raises:
        UserError: there is no source, or they are of different models.
    """
    if not sources:
        raise UserError("there is nothing to index: give files of embeddings")
    first = sources[0].about()
    for other in sources[1:]:
        found = other.about()
        for name in _MODEL:
            if first.get(name) != found.get(name):
                raise UserError(
                    f"{sources[0].name} has {name} {first.get(name)!r} and "
                    f"{other.name} {found.get(name)!r}: embeddings of one index must "
                    "come from one model, read in one way"
                )
    return json.loads(json.dumps(dict(first)))
