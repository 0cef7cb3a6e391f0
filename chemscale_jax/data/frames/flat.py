"""One-dimensional arrays in plain files, read by position.

Reads go through ``pread``, not a memory map: mapped pages count as resident memory,
which must stay small however big the file is.
"""

import os
import pathlib
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

# A file up to this size is read into memory when it is first used.
_HELD_BYTES = 1 << 26


class FlatFile:
    """Values of one type in a file; opened on first use in each process.

    Safe to share between threads, to pickle, and to carry over a fork.
    """

    def __init__(self, path: str | os.PathLike, dtype: npt.DTypeLike):
        self.path = str(path)
        self.dtype = np.dtype(dtype)
        self._held: np.ndarray | None = None
        self._descriptor: int | None = None
        if pathlib.Path(path).stat().st_size <= _HELD_BYTES:
            self._held = np.fromfile(path, np.uint8)
            self._held.flags.writeable = False

    def read(self, byte_offset: int, count: int) -> np.ndarray:
        """``count`` values that start at ``byte_offset``; read-only.

        Raises:
            OSError: the file ends before the last value.
        """
        n_bytes = count * self.dtype.itemsize
        if self._held is not None:
            raw = self._held[byte_offset : byte_offset + n_bytes].data
        else:
            if self._descriptor is None:
                self._descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            raw = os.pread(self._descriptor, n_bytes, byte_offset)
        if len(raw) != n_bytes:
            raise OSError(
                f"{self.path} ends before byte {byte_offset + n_bytes}: it was cut "
                "short or changed while in use"
            )
        return np.frombuffer(raw, self.dtype)

    def __getstate__(self):
        return {**self.__dict__, "_descriptor": None}

    # At exit the module `os` may be gone before the last file.
    def __del__(self, close: Callable[[int], None] = os.close):
        if self._descriptor is not None:
            close(self._descriptor)
