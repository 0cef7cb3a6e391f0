"""What TFDS builders of molecule texts share: writing and reading back.

A record holds the SMILES of a line as
it is in the file, and the number of the line; whether it is a molecule is found out
when it is tokenised.
"""

import dataclasses
import os
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from chemscale_jax.core.errors import UserError
from chemscale_jax.data.text.molecule_text import (
    Chunk,
    TextFile,
    file_facts,
    in_chunks,
    open_text,
)
from chemscale_jax.data.text.text_layout import MAX_LINE_BYTES, WHOLE_LINE
from chemscale_jax.data.tfds_download import FileBuilder, FileConfig

# Split of lines that belong to none.
OTHER = "unassigned"
_SPLIT = re.compile(r"[a-z]\w*")

# What a record holds of a line without a SMILES: something that fails as well.
_KEPT: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda line: b"",
    "bad_row": lambda line: b"," + line,
    "not_utf8": lambda line: line,
    "line_too_long": lambda line: line[: MAX_LINE_BYTES + 2],
}


class TextBuilder(FileBuilder, skip_registration=True):
    """Lines of a text file of molecules."""

    text: str  # a sentence on what the molecules are
    split_column = ""  # a column that says to which split a line belongs

    @property
    def hint(self) -> str:
        """How to get the file by other means."""
        return f"fetch {self.file_name} and name it with prepare(DIR, file=FILE)"

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "smiles": tfds.features.Text(),
            "line": tfds.features.Scalar(dtype=np.int64),
        }
        return self.info_of(self.text, features)

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        path = self.local_file(dl_manager)
        source = open_text(path)
        if not self.split_column:
            return {"train": self._generate_examples(source, None, OTHER)}
        column = _column(source, self.split_column, path)
        names = {name for _, _, name in _cells(source, column)}
        return {
            name: self._generate_examples(source, column, name)
            for name in sorted(names)
        }

    def _generate_examples(
        self, source: Any, column: int | None, split: str
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        for number, line, name in _cells(source, column):
            if name == split:
                smiles, reason, _ = source.layout.read(line)
                text = _KEPT[reason](line) if reason else smiles.encode()
                yield number, {"smiles": text, "line": number}


def _cells(source: Any, column: int | None) -> Iterator[tuple[int, bytes, str]]:
    """Line numbers, lines and the cells of a column."""
    for chunk in source.chunks():
        for number, line in enumerate(chunk.lines, chunk.first):
            cell = "" if column is None else source.layout.cell(line, column)
            # No line is lost, and no cell makes a strange file name.
            yield number, line, cell if _SPLIT.fullmatch(cell) else OTHER


def _column(source: Any, name: str, path: pathlib.Path) -> int:
    columns = source.layout.columns if isinstance(source, TextFile) else ()
    if name not in columns:
        found = ", ".join(map(repr, columns)) or "none"
        raise UserError(
            f"{path} has no column {name!r}, which says to which split a line "
            f"belongs; its columns are {found}: use the official file"
        )
    return columns.index(name)


def local_copy(
    config: FileConfig, file: str | os.PathLike, file_name: str
) -> FileConfig:
    """A config that reads a file of this machine, checked where the checksum is known.

    Raises:
        UserError: the file is not the expected one.
    """
    path = pathlib.Path(file).expanduser().absolute()
    if not path.is_file():
        raise UserError(f"{path} is not there: give a copy of {file_name}")
    if config.sha256 and path.name == file_name:
        found = file_facts(path)["sha256"]
        if found != config.sha256:
            raise UserError(
                f"{path} is not the official {file_name}: its SHA-256 is {found}, not "
                f"{config.sha256}; get it again, or give it another name"
            )
    # TFDS wants another name for a config that is not in the builder's list.
    return dataclasses.replace(config, name=f"{config.name}_local", path=str(path))


class PreparedText:
    """One split of a prepared data set, as lines to tokenise."""

    layout = WHOLE_LINE

    def __init__(self, records: Any, name: str, split: str):
        """Keeps the open records."""
        self._records = records
        self._name, self._split = name, split

    @property
    def identity(self) -> dict[str, Any]:
        """Data set, split and size."""
        return {
            "path": self._name,
            "split": self._split,
            "records": len(self._records),
        }

    def chunks(self) -> Iterator[Chunk]:
        """All records; their place in the split, from 1, counts as line."""
        total = len(self._records)
        yield from in_chunks(
            (self._records[i]["smiles"], (i + 1) / total) for i in range(total)
        )


def open_prepared(data_dir: str | os.PathLike, split: str = "train") -> PreparedText:
    """A split of a data set that TFDS wrote below ``data_dir``.

    Raises:
        UserError: nothing, or more than one data set, is there, or it has no such
            split.
    """
    root = pathlib.Path(data_dir).expanduser()
    found = sorted(root.rglob("dataset_info.json"))
    if len(found) != 1:
        names = ", ".join(str(p.parent) for p in found) or "none"
        raise UserError(
            f"{root} must hold one prepared TFDS data set, found {names}: name its "
            "folder"
        )
    builder: Any = tfds.builder_from_directory(str(found[0].parent))
    if split not in builder.info.splits or "smiles" not in builder.info.features:
        raise UserError(
            f"{found[0].parent} has the splits {', '.join(builder.info.splits)} with "
            f"{', '.join(builder.info.features)}: give one of them with --split; "
            f"there is no {split!r} with smiles"
        )
    try:
        records = builder.as_data_source(split=split)
    except NotImplementedError as error:
        raise UserError(
            f"{found[0].parent} cannot be read by number ({error}): prepare it with "
            "file_format='array_record'"
        ) from error
    return PreparedText(records, builder.info.full_name, split)
