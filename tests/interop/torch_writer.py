"""Writes torch files by hand: the layouts, and stand-ins for what pickles name."""

import io
import pickle
import struct
import warnings
import zipfile
from typing import Any

KINDS = {"f8": "Double", "f4": "Float", "f2": "Half", "i8": "Long", "u1": "Byte"}


class Name:
    """Stands for a global; pickles as a mention of it."""

    def __init__(self, name):
        self.name = name


class Call:
    """Stands for a call of a global; pickles as GLOBAL, arguments, REDUCE."""

    def __init__(self, name, *arguments, state=None):
        self.name, self.arguments, self.state = name, arguments, state


class Storage:
    """Stands for a storage; pickles as a persistent identifier."""

    def __init__(self, data, key="0", kind=None, numel=None, view=()):
        self.data = data
        code = data.dtype.str[1:]
        self.identifier = (
            "storage",
            Name(kind or f"torch.{KINDS.get(code)}Storage"),
            key,
            "cpu",
            data.size if numel is None else numel,
            *view,
        )


# Written in Python, so that methods can be replaced; no type stub knows it.
PICKLER: Any = pickle._Pickler


class Writer(PICKLER):
    """Python's own pickler, taught the stand-ins."""

    def persistent_id(self, obj):
        return obj.identifier if isinstance(obj, Storage) else None

    def save(self, obj, *args, **kwargs):
        if isinstance(obj, Name):
            module, _, attribute = obj.name.rpartition(".")
            self.write(b"c" + f"{module}\n{attribute}\n".encode())
        elif isinstance(obj, Call):
            self.save(Name(obj.name))
            self.save(obj.arguments)
            self.write(b"R")
            if obj.state is not None:
                self.save(obj.state)
                self.write(b"b")
        else:
            super().save(obj, *args, **kwargs)


def pickled(value):
    stream = io.BytesIO()
    Writer(stream, 2).dump(value)
    return stream.getvalue()


def tensor(storage, size, stride, offset=0):
    hooks = Call("collections.OrderedDict")
    return Call(
        "torch._utils._rebuild_tensor_v2", storage, offset, size, stride, False, hooks
    )


def write_zip(path, value, storages=(), raw=None, **entries):
    """A file of torch.save; extra entries by name, ``raw`` in place of the pickle."""
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as archive:
        # One test writes the same name twice.
        warnings.simplefilter("ignore", UserWarning)
        archive.writestr("archive/data.pkl", pickled(value) if raw is None else raw)
        for storage in storages:
            key = storage.identifier[2]
            archive.writestr(f"archive/data/{key}", storage.data.tobytes())
        for name, content in entries.items():
            archive.writestr(f"archive/{name}", content)
    return path


def write_legacy(path, value, storages=(), system=None, cut=None):
    parts = [
        pickled(0x1950A86A20F9469CFC6C),
        pickled(1001),
        pickled(system or {"protocol_version": 1001, "little_endian": True}),
        pickled(value),
        pickled([storage.identifier[2] for storage in storages]),
    ]
    for storage in storages:
        parts += [struct.pack("<q", storage.data.size), storage.data.tobytes()]
    path.write_bytes(b"".join(parts)[:cut])
    return path
