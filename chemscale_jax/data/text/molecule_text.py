"""Text files of molecules: every line with its number, whatever it holds.

Formats by ending: csv, tsv (a table, one row in a line); smi, txt (SMILES first, then
white space and anything); each also with .gz, .bz2, .xz or as the one file in a .zip;
parquet (with the extra ``parquet``). Files are read once from start to end, with one
line at most in memory beside the chunk that is being made.
"""

import bz2
import contextlib
import dataclasses
import gzip
import hashlib
import lzma
import os
import pathlib
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from typing import IO, Any, NamedTuple, Protocol

from chemscale_jax.core.errors import UserError
from chemscale_jax.data.text.text_layout import (
    MAX_LINE_BYTES,
    WHOLE_LINE,
    Layout,
    choose_column,
    find_layout,
)

LINES_PER_CHUNK = 1000
# Chunks of long lines have fewer of them.
BYTES_PER_CHUNK = 4_000_000
_TABLES = {".csv": "", ".tsv": "\t", ".tab": "\t"}
_PLAIN = (".smi", ".smiles", ".ism", ".txt")
_PARQUET = (".parquet", ".pq")
_OPENERS: dict[str, Callable[[IO[bytes]], Any]] = {
    ".gz": lambda raw: gzip.GzipFile(fileobj=raw),
    ".bz2": lambda raw: bz2.BZ2File(raw),
    ".xz": lambda raw: lzma.LZMAFile(raw),
}
_FORMATS = (
    "csv, tsv, smi or txt, each also as .gz, .bz2, .xz or .zip, or parquet: rename it"
)
# What the readers of compressed files raise when a file is damaged or cut short.
_DAMAGE = (EOFError, OSError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)


class Chunk(NamedTuple):
    """Consecutive lines."""

    first: int  # number of the first one
    lines: list[bytes]
    read: float  # share of the source that was read up to here, 0 to 1


class Line(NamedTuple):
    """One line of a source."""

    number: int
    text: str  # the SMILES, or what there is instead
    reason: str  # "" if there is a SMILES, otherwise a short code
    message: str  # the same for a human reader


class TextSource(Protocol):
    """Lines in chunks that are the same whenever they are read."""

    @property
    def layout(self) -> Layout:
        """Where the SMILES of a line is."""
        ...

    @property
    def identity(self) -> Mapping[str, Any]:
        """What tells this content from any other; JSON-able."""
        ...

    def chunks(self) -> Iterator[Chunk]:
        """All lines."""
        ...


def read_lines(source: TextSource) -> Iterator[Line]:
    """Every line of a source, one at a time."""
    layout = source.layout
    for chunk in source.chunks():
        for number, line in enumerate(chunk.lines, chunk.first):
            yield Line(number, *layout.read(line))


def open_text(path: str | os.PathLike, column: str = "") -> "TextFile | ParquetText":
    """A text file of molecules.

    Args:
        path: the file; see the top of this module for the formats.
        column: of the SMILES: a name in the header or a number from 1. Where it is
            empty: the column called SMILES or the like, or the only one.

    Raises:
        UserError: the file is missing or of another kind, or there is no such column.
    """
    file = pathlib.Path(path).expanduser()
    if not file.is_file():
        kind = "is a folder, not a file" if file.is_dir() else "does not exist"
        raise UserError(f"{file} {kind}: give a file of molecules, {_FORMATS}")
    if file.suffix.lower() in _PARQUET:
        return ParquetText(file, column)
    return TextFile(file, column)


@dataclasses.dataclass(frozen=True)
class SmilesList:
    """Molecules in memory, the first being line 1."""

    smiles: Sequence[str]
    layout: Layout = WHOLE_LINE

    @property
    def identity(self) -> dict[str, Any]:
        """Number and checksum of the molecules."""
        # Surrogates come from file names and the like; they fail later, by line.
        text = "\n".join(self.smiles).encode(errors="surrogatepass")
        return {
            "molecules": len(self.smiles),
            "sha256": hashlib.sha256(text).hexdigest(),
        }

    def chunks(self) -> Iterator[Chunk]:
        """All molecules."""
        lines = (text.encode(errors="surrogatepass") for text in self.smiles)
        yield from in_chunks(
            (line, n / len(self.smiles)) for n, line in enumerate(lines, 1)
        )


class TextFile:
    """A plain or compressed file of lines."""

    def __init__(self, path: pathlib.Path, column: str = ""):
        """Reads the first line, and nothing more."""
        self.path = path
        suffixes = [suffix.lower() for suffix in path.suffixes]
        packed = suffixes[-1:] in ([name] for name in (*_OPENERS, ".zip"))
        self._packing = suffixes.pop() if packed else ""
        self._member = ""
        kind = suffixes[-1] if suffixes else ""
        if self._packing == ".zip":
            self._member = _only_member(path)
            kind = pathlib.PurePath(self._member).suffix.lower()
        if kind not in (*_TABLES, *_PLAIN):
            raise UserError(
                f"{path} ends in {kind or 'nothing'!r}, which says no format: a file "
                f"of molecules is {_FORMATS}"
            )
        with contextlib.closing(self._lines()) as lines:
            first, _ = next(lines, (b"", 0.0))
        if first.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise UserError(f"{path} is UTF-16 text: save it as UTF-8")
        self.layout = find_layout(
            first,
            table=kind in _TABLES,
            column=column,
            separator=_TABLES.get(kind, ""),
            name=str(path),
        )

    @property
    def identity(self) -> dict[str, Any]:
        """Name, size and checksum of the file."""
        return file_facts(self.path)

    def chunks(self) -> Iterator[Chunk]:
        """All lines but the header.

        Raises:
            UserError: the file is damaged or cut short; it names the last good line.
        """
        lines = self._lines()
        if self.layout.header:
            next(lines)
        yield from in_chunks(lines, 2 if self.layout.header else 1)

    def _lines(self) -> Generator[tuple[bytes, float], None, None]:
        """Lines without their ends, and about which share of the file was read.

        A line that is too long is cut a little after the limit, so that it is known
        to be too long.
        """
        count = 0
        share = 0.0
        limit = MAX_LINE_BYTES + 2
        try:
            with self.path.open("rb") as raw, self._unpacked(raw) as stream:
                size = os.fstat(raw.fileno()).st_size
                while line := stream.readline(limit):
                    count += 1
                    if len(line) == limit and line[-1:] != b"\n":
                        _skip_line(stream)
                    if count == 1:
                        line = line.removeprefix(b"\xef\xbb\xbf")
                    # Asking is as slow as reading a line.
                    if not count % LINES_PER_CHUNK:
                        share = min(raw.tell() / size, 1.0)
                    yield line.rstrip(b"\r\n"), share
        except _DAMAGE as error:
            raise UserError(
                f"{self.path} cannot be read after line {count} ({error}): it is "
                "damaged or cut short; get a fresh copy"
            ) from error

    @contextlib.contextmanager
    def _unpacked(self, raw: IO[bytes]) -> Iterator[IO[bytes]]:
        if self._packing == ".zip":
            with zipfile.ZipFile(raw) as archive, archive.open(self._member) as stream:
                yield stream
        elif self._packing:
            with _OPENERS[self._packing](raw) as stream:
                yield stream
        else:
            yield raw


def _skip_line(stream: IO[bytes]) -> None:
    """Reads to the end of a line without keeping it."""
    while (rest := stream.readline(1 << 20)) and not rest.endswith(b"\n"):
        pass


def _only_member(path: pathlib.Path) -> str:
    """Name of the one file in a zip archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [item.filename for item in archive.infolist() if not item.is_dir()]
    except _DAMAGE as error:
        raise UserError(
            f"{path} cannot be read as a zip archive ({error}): get a fresh copy"
        ) from error
    names = [name for name in names if not name.startswith("__MACOSX/")]
    if len(names) != 1:
        raise UserError(
            f"{path} holds {len(names)} files ({', '.join(names[:5])}), not one: "
            "unpack it and give one of them"
        )
    return names[0]


def in_chunks(lines: Iterable[tuple[bytes, float]], first: int = 1) -> Iterator[Chunk]:
    """Lines, each with the share of the source up to it, cut into chunks.

    Args:
        lines: all of them.
        first: number of the first one.
    """
    part: list[bytes] = []
    size = 0
    for line, share in lines:
        part.append(line)
        size += len(line)
        if len(part) == LINES_PER_CHUNK or size >= BYTES_PER_CHUNK:
            yield Chunk(first, part, share)
            first, part, size = first + len(part), [], 0
    if part:
        yield Chunk(first, part, 1.0)


def file_facts(path: pathlib.Path) -> dict[str, Any]:
    """Name, size and checksum of a file."""
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {"path": str(path), "bytes": path.stat().st_size, "sha256": digest}


class ParquetText:
    """The text column of a parquet file; its rows count as lines, from 1."""

    def __init__(self, path: pathlib.Path, column: str = ""):
        """Reads the schema."""
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError:
            raise UserError(
                f"{path} needs pyarrow: pip install 'chemscale_jax[parquet]'"
            ) from None
        self.path = path
        self._open = lambda: parquet.ParquetFile(path)
        self._damage = (*_DAMAGE, pyarrow.ArrowException)
        try:
            with self._open() as file:
                schema = file.schema_arrow
        except self._damage as error:
            raise UserError(
                f"{path} cannot be read as parquet ({error}): it is damaged or of "
                "another kind; get a fresh copy"
            ) from error
        place, _ = choose_column(schema.names, column, str(path))
        self.columns = tuple(schema.names)
        self.column = schema.names[place]
        kind = str(schema.field(place).type)
        if not any(word in kind for word in ("string", "binary")):
            raise UserError(
                f"column {self.column!r} of {path} holds {kind}, not text: choose "
                f"another: {', '.join(map(repr, schema.names))}"
            )
        self.layout = WHOLE_LINE

    @property
    def identity(self) -> dict[str, Any]:
        """Name, size, checksum and column of the file."""
        return {**file_facts(self.path), "column": self.column}

    def chunks(self) -> Iterator[Chunk]:
        """All rows.

        Raises:
            UserError: the file is damaged.
        """
        yield from in_chunks(self._rows())

    def rows(self) -> int:
        """Number of rows."""
        with self._open() as file:
            return file.metadata.num_rows

    def tables(self) -> Iterator[dict[str, Any]]:
        """All columns of each row.

        Raises:
            UserError: the file is damaged.
        """
        for values, _ in self._read(list(self.columns)):
            yield dict(zip(self.columns, values, strict=True))

    def _rows(self) -> Iterator[tuple[bytes, float]]:
        for (value,), share in self._read([self.column]):
            line = value.encode() if isinstance(value, str) else value
            yield (line or b"")[: MAX_LINE_BYTES + 2], share

    def _read(self, columns: list[str]) -> Iterator[tuple[tuple[Any, ...], float]]:
        """Values of each row, and the share of the file up to it."""
        count = 0
        try:
            with self._open() as file:
                total = max(file.metadata.num_rows, 1)
                for batch in file.iter_batches(LINES_PER_CHUNK, columns=columns):
                    values = [batch.column(name).to_pylist() for name in columns]
                    for row in zip(*values, strict=True):
                        count += 1
                        yield row, count / total
        except self._damage as error:
            raise UserError(
                f"{self.path} cannot be read after row {count} ({error}): it is "
                "damaged; get a fresh copy"
            ) from error
