"""Tables of results, written part by part as csv or parquet."""

import csv
import functools
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from chemscale_jax.core.embedding_readers import COLUMN
from chemscale_jax.core.errors import UserError

# Columns by name: strings, whole numbers (masked ones are missing), numbers (NaN is
# missing) or flags; (rows, D) numbers are as many columns of csv, called NAME_0,
# NAME_1, ..., and lists in parquet.
Columns = Mapping[str, Any]
ENDINGS = (".csv", ".parquet")


def check_writable(path: pathlib.Path, endings: Sequence[str] = ENDINGS) -> None:
    """Refuses a file that cannot be written, before anything is computed.

    Raises:
        UserError: its ending is not one of those given, its folder is missing, or
            pyarrow is.
    """
    if path.suffix not in endings:
        raise UserError(f"{path} must end in {' or '.join(endings)}")
    if not path.parent.is_dir():
        raise UserError(f"{path.parent} is not a folder; make it first")
    if path.is_dir():
        raise UserError(f"{path} is a folder; name a file")
    if path.suffix == ".parquet":
        _pyarrow(path)


def parts_folder(path: pathlib.Path) -> pathlib.Path:
    """Where what goes into a file is kept until the file is written."""
    return path.with_name(f"{path.name}.parts")


def write_table(
    path: pathlib.Path,
    parts: Iterator[Columns],
    facts: Mapping[bytes, bytes] | None = None,
) -> int:
    """Writes a table in one piece: a kill leaves the file that was there.

    Args:
        path: ends in .csv or .parquet.
        parts: consecutive rows; at least one part, all with the same columns.
        facts: metadata of a parquet file; csv has no place for them.

    Returns:
        The number of rows.
    """
    write = functools.partial(_write_csv, parts=parts)
    if path.suffix == ".parquet":
        write = functools.partial(_write_parquet, parts=parts, facts=facts or {})
    return replaced(path, write)


def replaced(path: pathlib.Path, write: Callable[[pathlib.Path], Any]) -> Any:
    """What ``write`` gives for a draft, which becomes the file when it is whole."""
    handle, name = tempfile.mkstemp(
        dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix
    )
    os.close(handle)
    draft = pathlib.Path(name)
    try:
        found = write(draft)
        draft.chmod(0o644)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return found


def with_input(part: Mapping[str, np.ndarray], own: Columns) -> dict[str, Any]:
    """Columns of the input before our own; those that have our names are renamed.

    Args:
        part: fields "input/NAME" are taken.
        own: columns, see `write_table`.
    """
    given = {
        field.removeprefix(COLUMN): values
        for field, values in part.items()
        if field.startswith(COLUMN)
    }
    taken = {f"input_{name}" if name in own else name: x for name, x in given.items()}
    return {**taken, **own}


def _write_csv(path: pathlib.Path, parts: Iterator[Columns]) -> int:
    count = 0
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        for number, part in enumerate(parts):
            flat = _flat(part)
            if not number:
                writer.writerow(flat)
            rows = list(zip(*map(_cells, flat.values()), strict=True))
            writer.writerows(rows)
            count += len(rows)
    return count


def _flat(part: Columns) -> dict[str, np.ndarray]:
    """The same with one column for each number."""
    flat = {}
    for name, values in part.items():
        array = np.asanyarray(values)
        if array.ndim == 1:
            flat[name] = array
        else:
            flat |= {f"{name}_{d}": array[:, d] for d in range(array.shape[1])}
    return flat


def _cells(values: np.ndarray) -> list[str]:
    if values.dtype.kind == "f":
        # As many digits as tell one number from the next.
        write = repr if values.dtype.itemsize > 4 else "{:.9g}".format
        return ["" if x != x else write(x) for x in values.tolist()]
    if values.dtype.kind == "b":
        return ["yes" if x else "no" for x in values.tolist()]
    return ["" if x is None else str(x) for x in values.tolist()]


def _write_parquet(
    path: pathlib.Path, parts: Iterator[Columns], facts: Mapping[bytes, bytes]
) -> int:
    pyarrow, parquet = _pyarrow(path)
    count, writer = 0, None
    try:
        for part in parts:
            table = pyarrow.table(
                {name: _arrow(pyarrow, np.asanyarray(x)) for name, x in part.items()}
            )
            table = table.replace_schema_metadata(dict(facts))
            if writer is None:
                writer = parquet.ParquetWriter(path, table.schema)
            writer.write_table(table)
            count += len(table)
    finally:
        if writer is not None:
            writer.close()
    return count


def _arrow(pyarrow: Any, values: np.ndarray) -> Any:
    if values.ndim > 1:
        kind = pyarrow.list_(pyarrow.from_numpy_dtype(values.dtype))
        rows = [None if np.isnan(row).all() else row for row in values]
        return pyarrow.array(rows, kind)
    if values.dtype.kind == "U":
        return pyarrow.array(values.tolist(), pyarrow.string())
    if isinstance(values, np.ma.MaskedArray):
        return pyarrow.array(values.data, mask=np.ma.getmaskarray(values))
    missing = np.isnan(values) if values.dtype.kind == "f" else None
    return pyarrow.array(values, mask=missing)


def _pyarrow(path: pathlib.Path) -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise UserError(
            f"{path} needs pyarrow: pip install 'chemscale_jax[parquet]', or write .csv"
        ) from None
    return pyarrow, parquet
