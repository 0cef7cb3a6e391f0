"""Tensors of a torch pickle as arrays: none reaches outside its storage."""

import pathlib
import re
import reprlib
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from chemscale_jax.core.errors import UserError
from chemscale_jax.interop.plain_pickle import Global, read_pickle

_MOST_DIMENSIONS = 16
_DEEPEST = 32
# Tied weights are stored once; more sharing than this is no model.
_MOST_SHARING = 64
# Storage class of torch: the type of its elements on disk.
STORAGES: Mapping[str, str] = {
    "torch.DoubleStorage": "f8",
    "torch.FloatStorage": "f4",
    "torch.HalfStorage": "f2",
    "torch.BFloat16Storage": "u2",
    "torch.LongStorage": "i8",
    "torch.IntStorage": "i4",
    "torch.ShortStorage": "i2",
    "torch.CharStorage": "i1",
    "torch.ByteStorage": "u1",
    "torch.BoolStorage": "u1",
}
_DTYPES = frozenset(
    f"torch.{name}"
    for name in (
        *("float64", "float32", "float16", "bfloat16"),
        *("int64", "int32", "int16", "int8", "uint8", "bool"),
    )
)
_KEY = re.compile(r"[0-9A-Za-z_]{1,40}")


class Storage(NamedTuple):
    """What a pickle says of a storage."""

    kind: str
    key: str
    numel: int
    start: int  # of a view into a legacy storage, in elements


class Tensors:
    """Builds arrays from what a pickle says of tensors."""

    def __init__(
        self,
        path: pathlib.Path,
        size: int,
        load: Callable[[Storage], bytes],
        big_endian: bool,
        only_storages: bool = False,
    ) -> None:
        """Prepares to read a pickle.

        Args:
            path: of the file, for messages.
            size: of the file, in bytes; bounds everything.
            load: gives the bytes of a storage.
            big_endian: the byte order of storages.
            only_storages: names the storages to ``load`` and makes no arrays.
        """
        self._path = path
        self._size = size  # of the file, bytes
        self._load = load
        self._order = ">" if big_endian else "<"
        self._only_storages = only_storages
        self._arrays: dict[str, tuple[str, np.ndarray]] = {}
        self._total = 0  # bytes of all tensors

    def read(self, stream: BinaryIO) -> Any:
        """The value of a pickle in which persistent identifiers are storages."""
        value = read_pickle(
            stream,
            str(self._path),
            calls={
                "collections.OrderedDict": self._ordered_dict,
                "torch.Size": self._sizes,
                "torch._utils._rebuild_tensor_v2": self._tensor,
                "torch._utils._rebuild_parameter": lambda data, *_: data,
            },
            names=_DTYPES | frozenset(STORAGES),
            persistent=self._storage,
        )
        return self._plain(value)

    def _fail(self, what: str) -> UserError:
        return UserError(f"{self._path} {what}; refused")

    def _ordered_dict(self, items: Any = ()) -> dict[Any, Any]:
        if items:
            raise self._fail("fills an OrderedDict when it makes it")
        return {}

    def _sizes(self, sizes: Any = ()) -> tuple[int, ...]:
        if len(sizes) > _MOST_DIMENSIONS:
            raise self._fail(f"has a torch.Size of {len(sizes)} dimensions")
        return tuple(sizes)

    def _storage(self, identifier: Any) -> Storage:
        if not isinstance(identifier, tuple) or len(identifier) not in (5, 6):
            raise self._fail(
                f"has the persistent identifier {reprlib.repr(identifier)}"
            )
        label, kind, key, _, numel, *view = identifier
        if label != "storage" or not isinstance(kind, Global):
            raise self._fail(
                f"has the persistent identifier {reprlib.repr(identifier)}"
            )
        if not isinstance(key, str) or not _KEY.fullmatch(key):
            raise self._fail(f"names the storage {reprlib.repr(key)}")
        if kind.name not in STORAGES:
            raise self._fail(f"has a storage of type {kind.name!r}")
        width = np.dtype(STORAGES[kind.name]).itemsize
        if not isinstance(numel, int) or not 0 <= numel * width <= self._size:
            raise self._fail(
                f"has storage {key} of {numel} elements, more than fit in the file"
            )
        start = 0
        if view and view[0] is not None:
            _, start, length = view[0]
            if not 0 <= start <= start + length <= numel:
                raise self._fail(f"has a view outside of storage {key}")
        storage = Storage(kind.name, key, numel, start)
        if self._only_storages:
            self._load(storage)
        return storage

    def _array(self, storage: Storage) -> np.ndarray:
        """All elements of a storage, read once."""
        if storage.key not in self._arrays:
            code = STORAGES[storage.kind]
            array = np.frombuffer(self._load(storage), np.dtype(self._order + code))
            array = array.astype(np.dtype(code))
            if storage.kind == "torch.BFloat16Storage":
                # The upper half of a float32.
                array = (array.astype(np.uint32) << 16).view(np.float32)
            elif storage.kind == "torch.BoolStorage":
                array = array != 0
            self._arrays[storage.key] = storage.kind, array
        kind, array = self._arrays[storage.key]
        # A key can be named twice; the bounds of a tensor are checked by `numel`.
        if (kind, len(array)) != (storage.kind, storage.numel):
            raise self._fail(
                f"has storage {storage.key} as {len(array)} x {kind} and as "
                f"{storage.numel} x {storage.kind}"
            )
        return array

    def _tensor(
        self, storage: Any, offset: Any, size: Any, stride: Any, *_: Any
    ) -> np.ndarray | None:
        if not isinstance(storage, Storage):
            raise self._fail("has a tensor without a storage")
        if self._only_storages:
            return None
        if (
            len(size) != len(stride)
            or len(size) > _MOST_DIMENSIONS
            or not all(type(n) is int and n >= 0 for n in (offset, *size, *stride))
        ):
            raise self._fail(
                f"has a tensor of size {reprlib.repr(size)}, stride "
                f"{reprlib.repr(stride)} and offset {reprlib.repr(offset)}"
            )
        elements = 1
        for n in size:
            elements *= n
        last = storage.start + offset
        last += sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if elements and (last >= storage.numel or elements > storage.numel):
            raise self._fail(
                f"has a tensor of size {size}, stride {stride} and offset {offset}, "
                f"which needs more than the {storage.numel} elements of its storage"
            )
        array = self._array(storage)
        self._total += elements * array.itemsize
        if self._total > _MOST_SHARING * self._size:
            raise self._fail(f"has tensors {_MOST_SHARING} times larger than itself")
        if not elements:
            # Sizes beside a zero may be absurd.
            if max(size) > self._size:
                raise self._fail(f"has a tensor of size {size}")
            return np.zeros(size, array.dtype)
        return np.lib.stride_tricks.as_strided(
            array[storage.start + offset :],
            size,
            [step * array.itemsize for step in stride],
            writeable=False,
        )

    def _plain(self, value: Any) -> Any:
        """The value with globals as text, if it is a tree of reasonable depth."""
        seen = 0

        def walk(value: Any, depth: int) -> Any:
            nonlocal seen
            seen += 1
            if depth > _DEEPEST or seen > 1_000_000:
                raise self._fail("nests values too deeply")
            if isinstance(value, Global):
                return value.name
            if isinstance(value, Storage):
                raise self._fail("has a storage outside of a tensor")
            if isinstance(value, dict):
                return {key: walk(item, depth + 1) for key, item in value.items()}
            if isinstance(value, list | tuple):
                items = [walk(item, depth + 1) for item in value]
                return items if isinstance(value, list) else tuple(items)
            return value

        return walk(value, 0)
