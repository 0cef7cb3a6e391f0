"""State dicts from files of ``torch.save``, without torch and without unpickling.

Two layouts are read. Since torch 1.6 a file is a zip archive of ``data.pkl``, which
describes the tensors, and one uncompressed entry per storage. Before, it was a chain of
five pickles (magic number, version, system, content, keys of storages) followed by the
storages. Both are taken for hostile: pickles are read by `plain_pickle`, no tensor
reaches outside its storage, and memory stays within a small multiple of the file's
size.
"""

import io
import pathlib
import re
import reprlib
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np

from chemscale_jax.core.errors import UserError
from chemscale_jax.interop.plain_pickle import read_pickle
from chemscale_jax.interop.torch_tensors import STORAGES, Storage, Tensors

_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION = 1001
_MOST_PICKLE_BYTES = 64 << 20
_STATE_KEYS = ("state_dict", "model_state_dict", "model")


def read_state_dict(path: str | pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays of a state dict by name, from a torch file.

    A checkpoint that holds a state dict beside other things (``{"state_dict": ...}``,
    as Lightning writes it) is looked through. bfloat16 becomes float32.

    Raises:
        UserError: it is no such file, is damaged, or holds what weights do not need;
            the message names the global or the opcode.
    """
    content = read_torch(path)
    for key in _STATE_KEYS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not isinstance(content, dict):
        raise UserError(
            f"{path} holds a {type(content).__name__}, not a state dict; save "
            "model.state_dict()"
        )
    wrong = [name for name, x in content.items() if not isinstance(x, np.ndarray)]
    if wrong or not content:
        raise UserError(
            f"{path} holds no state dict: {', '.join(map(repr, wrong[:5])) or 'it'} "
            f"{'are' if len(wrong) > 1 else 'is'} {'no tensor' if wrong else 'empty'}; "
            "save model.state_dict()"
        )
    return {str(name): array for name, array in content.items()}


def read_torch(path: str | pathlib.Path) -> Any:
    """The content of a torch file: dicts, lists, tuples, plain values and arrays.

    Raises:
        UserError: as above.
    """
    path = pathlib.Path(path)
    try:
        with path.open("rb") as file:
            start = file.read(4)
            file.seek(0)
            if start[:2] == b"PK":
                value = _read_zip(file, path)
            elif start[:1] == b"\x80":
                value = _read_legacy(file, path)
            else:
                raise UserError(
                    f"{path} is not a file of torch.save (it starts with {start!r}); "
                    "give a .pth or .pt file"
                )
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from None
    return value


def _read_zip(file: BinaryIO, path: pathlib.Path) -> Any:
    size = path.stat().st_size
    try:
        with zipfile.ZipFile(file) as archive:
            entries = _checked_entries(archive, path, size)
            root = _root(entries, path)

            def content(name: str) -> bytes:
                try:
                    return archive.read(entries[root + name])
                except KeyError:
                    raise UserError(
                        f"{path} lacks the entry {root + name}; fetch it again"
                    ) from None

            order = content("byteorder") if root + "byteorder" in entries else b"little"
            if order not in (b"little", b"big"):
                raise UserError(f"{path} has byte order {order!r}, expected little")
            if entries[root + "data.pkl"].file_size > _MOST_PICKLE_BYTES:
                raise UserError(f"{path} has a pickle of more than 64 MiB; refused")

            def load(storage: Storage) -> bytes:
                name = f"data/{storage.key}"
                entry = entries.get(root + name)
                wanted = storage.numel * np.dtype(STORAGES[storage.kind]).itemsize
                if entry is not None and entry.file_size != wanted:
                    raise UserError(
                        f"{path} has storage {storage.key} of {entry.file_size} "
                        f"bytes, its pickle says {wanted}; fetch the file again"
                    )
                return content(name)

            tensors = Tensors(path, size, load, order.decode() == "big")
            return tensors.read(io.BytesIO(content("data.pkl")))
    except UserError:
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise UserError(
            f"{path} is a damaged zip archive ({error}); fetch it again"
        ) from None
    except (ValueError, RuntimeError) as error:
        raise UserError(f"{path} is a bad zip archive ({error}); refused") from None


def _checked_entries(
    archive: zipfile.ZipFile, path: pathlib.Path, size: int
) -> dict[str, zipfile.ZipInfo]:
    """The entries by name, each stored as it is and all of them within the file."""
    entries: dict[str, zipfile.ZipInfo] = {}
    for entry in archive.infolist():
        parts = re.split(r"[/\\]", entry.orig_filename)
        if (
            ".." in parts
            or parts[0] == ""
            or ":" in parts[0]
            or "\0" in entry.orig_filename
        ):
            raise UserError(
                f"{path} has the entry {entry.orig_filename!r}, which leads outside "
                "the archive; refused"
            )
        if entry.filename in entries:
            raise UserError(f"{path} has {entry.filename!r} twice; refused")
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
            raise UserError(
                f"{path} has the compressed entry {entry.filename!r} of "
                f"{entry.file_size:,} bytes; torch stores entries as they are, so "
                "save it with torch.save again"
            )
        entries[entry.filename] = entry
    # Entries that overlap would fill more memory than the file has bytes.
    if sum(entry.file_size for entry in entries.values()) > size:
        raise UserError(f"{path} has entries larger than the file itself; refused")
    return entries


def _root(entries: Mapping[str, zipfile.ZipInfo], path: pathlib.Path) -> str:
    found = [n for n in entries if n.endswith("/data.pkl") and n.count("/") == 1]
    if len(found) != 1:
        raise UserError(
            f"{path} is a zip archive with {len(found)} data.pkl, where torch.save "
            "writes one; give a file of torch.save"
        )
    return found[0].removesuffix("data.pkl")


def _read_legacy(file: BinaryIO, path: pathlib.Path) -> Any:
    size = path.stat().st_size
    head = io.BytesIO(file.read(_MOST_PICKLE_BYTES))

    def plain() -> Any:
        return read_pickle(head, str(path), calls={})

    if plain() != _MAGIC:
        raise UserError(f"{path} is a pickle, but none of torch.save; refused")
    if (version := plain()) != _LEGACY_VERSION:
        raise UserError(
            f"{path} has layout {reprlib.repr(version)}, known: {_LEGACY_VERSION}"
        )
    system = plain()
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise UserError(f"{path} was written on a big-endian machine; save it anew")

    # The storages come after the pickle that needs them: read it twice, first to
    # learn their types.
    known: dict[str, Storage] = {}
    start = head.tell()

    def note(storage: Storage) -> bytes:
        known[storage.key] = storage
        return b""

    first = Tensors(path, size, note, big_endian=False, only_storages=True)
    first.read(head)
    keys = plain()
    texts = isinstance(keys, list) and all(isinstance(key, str) for key in keys)
    if not texts or sorted(keys) != sorted(known):
        raise UserError(f"{path} lists other storages than its pickle names; refused")
    places: dict[str, tuple[int, int]] = {}
    at = head.tell()
    for key in keys:
        storage = known[key]
        file.seek(at)
        numel = int.from_bytes(file.read(8), "little", signed=True)
        width = np.dtype(STORAGES[storage.kind]).itemsize
        if numel != storage.numel or at + 8 + numel * width > size:
            raise UserError(
                f"{path} has storage {key} of {numel} elements, its pickle says "
                f"{storage.numel}, and {size - at - 8} bytes are left; fetch it again"
            )
        places[key] = (at + 8, numel * width)
        at += 8 + numel * width

    def load(storage: Storage) -> bytes:
        offset, length = places[storage.key]
        file.seek(offset)
        return file.read(length)

    head.seek(start)
    return Tensors(path, size, load, big_endian=False).read(head)
