"""Rows of files of geometries: sdf, mol, xyz."""

import bz2
import functools
import gzip
import io
import itertools
import lzma
import pathlib
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from chemscale_jax.chem.molecule_files import (
    MolBlock,
    read_xyz,
    record_of_block,
    sdf_blocks,
)
from chemscale_jax.chem.molecule_record import MoleculeRecord
from chemscale_jax.core.errors import UserError
from chemscale_jax.data.cache import file_identity
from chemscale_jax.data.inputs.molecule_input import MoleculeInput, UnreadRow

_OPENERS: dict[str, Callable[..., Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
}
# Records of an SD file whose fields are taken for its columns.
_LOOKED_AT = 100


def open_geometries(
    path: pathlib.Path, kind: str, max_atoms: int, charge: int | None
) -> MoleculeInput:
    """The records of a file; see `open_input.open_input`.

    Args:
        path: of the file.
        kind: its ending without that of compression, such as ".sdf".
        max_atoms: larger molecules, by heavy atoms, are refused.
        charge: of the molecules of an xyz file that does not say.
    """
    if not path.is_file():
        found = "is a folder, not a file" if path.is_dir() else "does not exist"
        raise UserError(f"{path} {found}: give an sdf, mol or xyz file")
    if path.suffix.lower() == ".zip":
        raise UserError(f"{path}: unpack the archive and give the file in it")
    if kind == ".xyz":
        begin = functools.partial(_frames, path, max_atoms, charge)
        columns: tuple[str, ...] = ()
    else:
        begin = functools.partial(_blocks, path, max_atoms)
        named = (row.columns for row in itertools.islice(begin(), _LOOKED_AT))
        columns = tuple(dict.fromkeys(itertools.chain.from_iterable(named)))
    return MoleculeInput(
        name=path.name,
        columns=columns,
        smiles_col="",
        begin=begin,
        count=lambda: sum(1 for _ in begin()),
        facts=lambda: {**file_identity(path), "charge": charge},
    )


def _lines(path: pathlib.Path) -> Iterator[str]:
    count = 0
    opener = _OPENERS.get(path.suffix.lower(), open)
    try:
        raw = opener(path, "rb")
        with io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace") as text:
            for line in text:
                count += 1
                yield line
    except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        raise UserError(
            f"{path} cannot be read after line {count} ({error}): it is damaged or cut "
            "short; get a fresh copy"
        ) from error


def _blocks(path: pathlib.Path, max_atoms: int) -> Iterator[UnreadRow]:
    for block in sdf_blocks(_lines(path)):
        where = f"{path.name} record {block.index}"
        cells = {name: value.strip() for name, value in block.fields.items()}
        make = functools.partial(_of_block, block, max_atoms)
        yield UnreadRow(block.index - 1, where, cells, make)


def _of_block(block: MolBlock, max_atoms: int) -> MoleculeRecord:
    return record_of_block(block, max_atoms=max_atoms)


def _frames(
    path: pathlib.Path, max_atoms: int, charge: int | None
) -> Iterator[UnreadRow]:
    # Bonds are told from distances while the file is read.
    records = read_xyz(_lines(path), charge, max_atoms=max_atoms)
    for index, record in enumerate(records):
        where = f"{path.name} frame {index + 1}"
        yield UnreadRow(index, where, {}, functools.partial(_itself, record))


def _itself(record: MoleculeRecord) -> MoleculeRecord:
    return record
