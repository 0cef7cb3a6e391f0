"""Files of embeddings: npz, csv, parquet or zarr; resumable."""

import functools
import json
import os
import pathlib
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from chemscale_jax.chem.elements import symbol_of
from chemscale_jax.core.embedding_readers import ABOUT_KEY
from chemscale_jax.data.inputs.molecule_input import MoleculeInput
from chemscale_jax.inference import (
    embed,
    embed_zarr,
    embedder,
    result_parts,
    result_table,
)
from chemscale_jax.inference.embed_settings import (
    LAST_LAYER,
    EmbedSettings,
    refuse_empty,
)
from chemscale_jax.inference.embedder import Embedder
from chemscale_jax.inference.molecule_batches import BY_DEVICE, Batching
from chemscale_jax.inference.molecule_model import MoleculeModel
from chemscale_jax.inference.result_parts import Part, Reading

ENDINGS = (".npz", *result_table.ENDINGS, embed_zarr.ENDING)


def write_embeddings(
    model: Embedder | MoleculeModel,
    source: MoleculeInput,
    out: str | os.PathLike,
    settings: EmbedSettings = LAST_LAYER,
    *,
    batching: Batching = BY_DEVICE,
    workers: int | None = None,
    cache: str | os.PathLike | None = "",
    progress: bool = True,
) -> Counter[str]:
    """Writes embeddings of all rows, or goes on with a file that was begun.

    What is done lies in ``OUT.parts`` until the file is written. An ``.npz`` holds the
    fields of `embed.Embeddings`, and is gathered in memory; the others are written
    part by part. Those of molecules have the columns of the input beside them; those
    of several conformers have deviations.

    Args:
        model: from `open_embedder`, or a network of Uni-Mol2.
        source: from `open_input`.
        out: .npz, .csv, .parquet or .zarr.
        settings: what to read.
        batching: see `embed.embed`.
        workers: see `embed.embed`.
        cache: see `embed.embed`.
        progress: whether there is a bar.

    Returns:
        How many rows have each status.

    Raises:
        UserError: the file cannot be written, was begun with something else, or there
            is no such layer or pool, or no row.
    """
    path = pathlib.Path(out).expanduser()
    if path.suffix == embed_zarr.ENDING:
        embed_zarr.check_writable(path)
    else:
        result_table.check_writable(path, ENDINGS)
    maker = embed.as_embedder(model)
    settings = maker.settled(settings)
    columns = source.columns if settings.level == "molecule" else ()
    work = maker.make_work(settings, batching, columns)
    rows = maker.read_rows(source, settings, Reading(workers, cache, progress))
    folder = result_table.parts_folder(path)
    known = embedder.identity(maker, batching)
    stamp = {
        "input": dict(source.identity),
        **known,
        "settings": repr(settings),
        "columns": list(columns),
    }
    layers = maker.layers(settings)
    about = embedder.facts(maker, settings) | {"weights": known["weights"]}
    kept = result_parts.kept_parts(rows, work, folder, stamp)
    statuses: Counter[str] = Counter()
    parts = _counted(kept, statuses)
    if path.suffix == ".npz":
        embed.gather(parts, layers, about).save(path)
    elif path.suffix == embed_zarr.ENDING:
        embed_zarr.write(path, parts, layers, about)
    else:
        facts = {ABOUT_KEY: json.dumps(about).encode()}
        result_table.write_table(path, _tables(parts, layers, settings), facts)
    shutil.rmtree(folder)
    return statuses


def _counted(parts: Iterator[Part], statuses: Counter[str]) -> Iterator[Part]:
    for part in parts:
        statuses.update(part["status"].tolist())
        yield part


def _tables(
    parts: Iterator[Part], layers: list[int], settings: EmbedSettings
) -> Iterator[Mapping[str, Any]]:
    """Columns of a table for every part, and at least one part."""
    make = _molecule_columns
    if settings.level != "molecule":
        make = functools.partial(_place_columns, pairs=settings.level == "pair")
    empty = True
    for part in parts:
        empty = False
        names = ["values", "std"] if settings.conformers > 1 else ["values"]
        columns, order = make(part)
        for name, shown in zip(names, ("embedding", "embedding_std"), strict=False):
            values = part[name]
            if order is not None:
                nothing = np.full((1, *values.shape[1:]), np.nan, np.float32)
                values = np.concatenate([values, nothing])[order]
            if settings.layer == "all":
                for place, layer in enumerate(layers):
                    columns[f"{shown}_layer{layer}"] = values[:, place]
            else:
                columns[shown] = values
        yield columns
    if empty:
        refuse_empty()


def _molecule_columns(part: Part) -> tuple[dict[str, Any], None]:
    own = {
        "row": part["index"],
        "where": part["where"],
        "canonical_smiles": part["smiles"],
        "status": part["status"],
        "reason": part["reason"],
        "conformers": part["conformers"],
    }
    return result_table.with_input(part, own), None


def _place_columns(part: Part, pairs: bool) -> tuple[dict[str, Any], np.ndarray]:
    """Columns of atoms or pairs, and which value each row has; the last is nothing.

    A molecule that failed has one row, without an atom.
    """
    V = len(part["molecule"])
    counts = np.bincount(
        part["molecule"] - part["index"][0], minlength=len(part["index"])
    )
    lines = np.maximum(counts, 1)
    molecule = np.repeat(np.arange(len(lines)), lines)
    order = np.full(len(molecule), V)
    order[counts[molecule] > 0] = np.arange(V)
    lacking = order == V

    def places(values: np.ndarray) -> np.ma.MaskedArray:
        return np.ma.masked_array(np.append(values, 0)[order], lacking)

    columns: dict[str, Any] = {
        name: part[field][molecule]
        for name, field in (
            ("row", "index"),
            ("canonical_smiles", "smiles"),
            ("status", "status"),
            ("reason", "reason"),
        )
    }
    if pairs:
        columns["first_atom"] = places(part["first"])
        columns["second_atom"] = places(part["second"])
    else:
        columns["atom"] = places(part["first"])
        symbols = [symbol_of(int(z)) for z in part["species"]]
        columns["element"] = np.array([*symbols, ""], np.str_)[order]
    return columns, order
