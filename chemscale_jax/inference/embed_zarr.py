"""Embeddings as zarr: a folder of compressed chunks, read without unpacking the rest.

The group has the fields of `embed.Embeddings` as arrays, "columns" (M, C) of the
input's cells, and as attributes "column_names", "complete" and `embedder.facts`.
"""

import pathlib
import shutil
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from chemscale_jax.core.embedding_readers import COLUMN, import_zarr
from chemscale_jax.core.errors import UserError
from chemscale_jax.inference.embed_settings import refuse_empty
from chemscale_jax.inference.result_parts import Part

ENDING = ".zarr"
# Of one chunk, before it is compressed.
_CHUNK_BYTES = 2**22
_CHUNK_TEXTS = 2**14


def check_writable(path: pathlib.Path) -> None:
    """Refuses a folder that cannot be written, before anything is computed.

    Raises:
        UserError: the folder around it is missing, something else has its name, or
            zarr is missing.
    """
    if not path.parent.is_dir():
        raise UserError(f"{path.parent} is not a folder; make it first")
    if path.exists() and not (path / "zarr.json").exists():
        raise UserError(f"{path} is there and is no zarr; name another or remove it")
    import_zarr(path)


def write(
    path: pathlib.Path,
    parts: Iterator[Part],
    layers: list[int],
    about: Mapping[str, Any],
) -> None:
    """Writes a zarr in one piece: a kill leaves what was there.

    Args:
        path: ends in .zarr.
        parts: consecutive rows; at least one part.
        layers: that were read.
        about: what made them, see `embedder.facts`.

    Raises:
        UserError: there is no row.
    """
    zarr = import_zarr(path)
    draft = path.with_name(f".{path.stem}.{uuid.uuid4().hex}{ENDING}")
    try:
        group = zarr.open_group(draft, mode="w")
        names: list[str] = []
        spread = False
        for part in parts:
            names = [
                name.removeprefix(COLUMN) for name in part if name.startswith(COLUMN)
            ]
            fields = {
                name: x for name, x in part.items() if not name.startswith(COLUMN)
            }
            if names:
                cells = [part[f"{COLUMN}{name}"] for name in names]
                fields["columns"] = np.stack(cells, axis=1)
            spread = spread or bool(part["conformers"].max() > 1)
            for name, values in fields.items():
                _append(group, name, values)
        if "index" not in group:
            refuse_empty()
        if "std" in group and not spread:
            del group["std"]
        group.create_array("layers", data=np.array(layers, np.int32))
        facts = {**about, "column_names": names, "complete": True}
        group.attrs.update(facts)
        if path.exists():
            shutil.rmtree(path)
        draft.rename(path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _append(group: Any, name: str, values: np.ndarray) -> None:
    """Rows of a part to an array, which the first part makes."""
    if name not in group:
        rest = values.shape[1:]
        width = int(np.prod(rest))
        is_text = values.dtype.kind == "U"
        rows = _CHUNK_BYTES // max(1, width * values.dtype.itemsize)
        if is_text:
            rows = _CHUNK_TEXTS // max(1, width)
        group.create_array(
            name,
            shape=(0, *rest),
            chunks=(max(1, rows), *rest),
            dtype="str" if is_text else values.dtype,
        )
    group[name].append(values)
