"""Forms of embedding files, read block by block: npz, parquet, zarr and csv.

Each reader gives dictionaries with the fields of `embedding_table.EmbeddingTable`.
"""

import csv
import itertools
import json
import pathlib
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any, NoReturn

import numpy as np

from chemscale_jax.core.errors import UserError

# Before the names of columns of the input, in npz.
COLUMN = "input/"
# Where parquet files keep what made the values.
ABOUT_KEY = b"chemscale_embeddings"
_TEXTS = ("where", "smiles", "status", "reason")
_NEEDED = ("index", *_TEXTS, "values")
# Names in tables of those that have others there.
_TABLE_NAMES = {"index": "row", "smiles": "canonical_smiles"}
_OWN = ("row", "where", "canonical_smiles", "status", "reason", "conformers")
_VALUE = re.compile(r"embedding_(\d+)")
_DEVIATION = re.compile(r"embedding_std(_\d+)?")
_LAYER = re.compile(r"embedding_layer\d+(_\d+)?")
_ATOMS = ("atom", "first_atom")

Fields = dict[str, Any]


def read_npz(path: pathlib.Path, rows: int) -> Iterator[Fields]:
    """Blocks of an ``.npz``, of which no more than a block is unpacked at a time."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield from _npz_blocks(path, archive, rows)
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        _refuse(path, str(error))


def read_parquet(path: pathlib.Path, rows: int) -> Iterator[Fields]:
    """Blocks of a ``.parquet``."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise UserError(
            f"{path} needs pyarrow: pip install 'chemscale_jax[parquet]'"
        ) from None
    try:
        file = parquet.ParquetFile(path)
    except (OSError, pyarrow.ArrowException) as error:
        _refuse(path, str(error))
    with file:
        names = file.schema_arrow.names
        _check_table(path, names, "embedding")
        about = json.loads((file.schema_arrow.metadata or {}).get(ABOUT_KEY, b"{}"))
        width = _parquet_width(file)
        others = _others(names)
        for batch in file.iter_batches(rows):
            column = batch.column("embedding")
            values = np.full((len(batch), width), np.nan, np.float32)
            given = np.asarray(column.is_valid())
            flat = column.flatten().to_numpy(zero_copy_only=False)
            values[given] = flat.reshape(-1, width)
            yield _from_table(
                lambda name, batch=batch: batch.column(name).to_pylist(),
                others,
                values,
                about,
            )


def read_zarr(path: pathlib.Path, rows: int) -> Iterator[Fields]:
    """Blocks of a ``.zarr``."""
    zarr = import_zarr(path)
    try:
        group = zarr.open_group(path, mode="r")
    except (OSError, ValueError) as error:
        _refuse(path, str(error))
    about, keys = dict(group.attrs), set(group.array_keys())
    if lacking := [name for name in _NEEDED if name not in keys]:
        _refuse(path, f"it has no {', '.join(lacking)}")
    _check_arrays(path, keys, group["values"].ndim, group)
    names = about.pop("column_names", [])
    if not about.pop("complete", False):
        raise UserError(
            f"{path} was not written to its end; give its command again, which goes on"
        )
    for start in range(0, group["index"].shape[0], rows):
        some = slice(start, start + rows)
        fields = {name: np.asarray(group[name][some]) for name in _NEEDED}
        fields |= {name: _strings(fields[name]) for name in _TEXTS}
        cells = np.asarray(group["columns"][some]) if names else None
        columns = (
            {}
            if cells is None
            else {name: _strings(cells[:, place]) for place, name in enumerate(names)}
        )
        yield fields | {"columns": columns, "about": about}


def read_csv(path: pathlib.Path, rows: int) -> Iterator[Fields]:
    """Blocks of a ``.csv``, which has one column for each number."""
    with path.open(newline="", encoding="utf-8") as file:
        lines = csv.reader(file)
        names = next(lines, [])
        _check_table(path, names, "embedding_0")
        found = {name: place for place, name in enumerate(names)}
        width = sum(bool(_VALUE.fullmatch(name)) for name in names)
        if lacking := [d for d in range(width) if f"embedding_{d}" not in found]:
            _refuse(path, f"it has no column embedding_{lacking[0]}")
        places = [found[f"embedding_{d}"] for d in range(width)]
        others = _others(names)
        first = 2
        while some := list(itertools.islice(lines, rows)):
            for number, line in enumerate(some, first):
                if len(line) != len(names):
                    _refuse(
                        path,
                        f"row {number} has {len(line)} cells, expected {len(names)}",
                    )
            first += len(some)
            try:
                values = np.array(
                    [[line[place] or "nan" for place in places] for line in some],
                    np.float32,
                )
            except ValueError as error:
                _refuse(path, f"rows {first - len(some)} to {first - 1}: {error}")
            yield _from_table(
                lambda name, some=some: [line[found[name]] for line in some],
                others,
                values,
                {},
            )


READERS: Mapping[str, Callable[[pathlib.Path, int], Iterator[Fields]]] = {
    ".npz": read_npz,
    ".parquet": read_parquet,
    ".zarr": read_zarr,
    ".csv": read_csv,
}


def import_zarr(path: pathlib.Path) -> Any:
    """The package that reads and writes ``.zarr``.

    Raises:
        UserError: it is missing.
    """
    try:
        import zarr
    except ImportError:
        raise UserError(
            f"{path} needs zarr: pip install 'chemscale_jax[zarr]', or write .npz"
        ) from None
    return zarr


def _npz_blocks(
    path: pathlib.Path, archive: zipfile.ZipFile, rows: int
) -> Iterator[Fields]:
    keys = {name.removesuffix(".npy") for name in archive.namelist()}
    about = {}
    if "about" in keys:
        with archive.open("about.npy") as file:
            about = json.loads(str(np.lib.format.read_array(file)))
    if lacking := [name for name in _NEEDED if name not in keys]:
        _refuse(path, f"it has no {', '.join(lacking)}")
    given = sorted(key for key in keys if key.startswith(COLUMN))
    members = {key: _Member(path, archive, key) for key in (*_NEEDED, *given)}
    _check_arrays(path, keys, len(members["values"].shape), members)
    done, total = 0, members["index"].shape[0]
    while done < total:
        count = min(rows, total - done)
        read = {key: member.read(count) for key, member in members.items()}
        done += count
        columns = {key.removeprefix(COLUMN): read.pop(key) for key in given}
        yield {**read, "columns": columns, "about": about}
    for member in members.values():
        member.file.close()


class _Member:
    """One array of an ``.npz``, read from its first row on."""

    def __init__(self, path: pathlib.Path, archive: zipfile.ZipFile, key: str):
        self.file: IO[bytes] = archive.open(f"{key}.npy")
        version = np.lib.format.read_magic(self.file)
        reads = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }
        if version not in reads:
            _refuse(path, f"{key} is of version {version} of NumPy's format")
        self.shape, fortran, self.dtype = reads[version](self.file)
        if fortran or self.dtype.hasobject or not self.dtype.itemsize:
            _refuse(path, f"{key} is no plain array in C order")

    def read(self, rows: int) -> np.ndarray:
        """The next rows."""
        shape = (rows, *self.shape[1:])
        size = int(np.prod(shape)) * self.dtype.itemsize
        data = self.file.read(size)
        if len(data) < size:
            raise EOFError("its end is missing")
        return np.frombuffer(bytearray(data), self.dtype).reshape(shape)


def _check_arrays(path: pathlib.Path, keys: set[str], ndim: int, arrays: Any) -> None:
    if "molecule" in keys:
        _refuse_level(path, "pairs of atoms" if "second" in keys else "atoms")
    if ndim != 2:
        _refuse_layers(path)
    rows = {name: arrays[name].shape[0] for name in _NEEDED}
    if len(set(rows.values())) > 1:
        _refuse(path, f"its arrays have different numbers of rows: {rows}")


def _check_table(path: pathlib.Path, names: Sequence[str], values: str) -> None:
    if any(_LAYER.fullmatch(name) for name in names):
        _refuse_layers(path)
    if "canonical_smiles" in names and "where" not in names:
        for name in _ATOMS:
            if name in names:
                kind = "atoms" if name == "atom" else "pairs of atoms"
                _refuse_level(path, kind)
    needed = [_TABLE_NAMES.get(name, name) for name in _NEEDED[:-1]]
    if lacking := [name for name in (*needed, values) if name not in names]:
        _refuse(path, f"it has no column {', '.join(lacking)}")


def _others(names: Sequence[str]) -> list[str]:
    """Columns of the input."""
    return [
        name
        for name in names
        if name not in (*_OWN, "embedding")
        and not _VALUE.fullmatch(name)
        and not _DEVIATION.fullmatch(name)
    ]


def _from_table(
    cells: Callable[[str], list], others: Sequence[str], values: np.ndarray, about: Any
) -> Fields:
    def texts(name: str) -> np.ndarray:
        return np.array(["" if x is None else str(x) for x in cells(name)], np.str_)

    return {
        "index": np.array(cells("row"), np.int64),
        **{name: texts(_TABLE_NAMES.get(name, name)) for name in _TEXTS},
        "values": values,
        "columns": {name: texts(name) for name in others},
        "about": about,
    }


def _strings(values: np.ndarray) -> np.ndarray:
    """Strings of any kind as plain ones."""
    return np.array(values.tolist(), np.str_)


def _parquet_width(file: Any) -> int:
    """Numbers in an embedding; 0 where no row has one."""
    for batch in file.iter_batches(4096, columns=["embedding"]):
        column = batch.column("embedding").drop_null()
        if len(column):
            return len(column[0])
    return 0


def _refuse(path: pathlib.Path, found: str) -> NoReturn:
    raise UserError(
        f"{path} is not a file of embeddings ({found}); give one that chemscale embed "
        "wrote, or write it again"
    )


def _refuse_level(path: pathlib.Path, kind: str) -> NoReturn:
    raise UserError(
        f"{path} holds {kind}; one embedding for each molecule is needed: write it "
        "with chemscale embed --level=molecule"
    )


def _refuse_layers(path: pathlib.Path) -> NoReturn:
    raise UserError(
        f"{path} holds several layers; one is needed: write it with chemscale embed "
        "--layer=-1, or another number"
    )
