"""NumPy files that grow at the end and are read back as memory maps."""

import pathlib

import numpy as np
from numpy.lib import format as npy


class GrowingArray:
    """An ``.npy`` file written piece by piece, with little in memory.

    The header of a file has room for any number of rows, so it is written again with
    the true number when the last rows are there.
    """

    def __init__(
        self, path: pathlib.Path, dtype: type[np.generic], row: tuple[int, ...] = ()
    ):
        """Begins a file of rows of the given type and shape."""
        self.rows = 0
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._row = row
        self._stream = path.open("wb")
        self._write_header()
        self._start = self._stream.tell()

    def _write_header(self) -> None:
        npy.write_array_header_1_0(
            self._stream,
            {
                "descr": npy.dtype_to_descr(self._dtype),
                "fortran_order": False,
                "shape": (self.rows, *self._row),
            },
        )

    def append(self, array: np.ndarray) -> None:
        """Adds rows at the end."""
        assert array.shape[1:] == self._row
        self._stream.write(np.ascontiguousarray(array, self._dtype).data)
        self.rows += len(array)

    def close(self) -> None:
        """Writes the number of rows; does nothing the second time."""
        if self._stream.closed:
            return
        self._stream.seek(0)
        self._write_header()
        assert self._stream.tell() == self._start
        self._stream.close()


def cumulative(lengths: np.ndarray, start: int = 0) -> np.ndarray:
    """Where each piece ends: int64, as long as ``lengths``."""
    return start + np.cumsum(lengths, dtype=np.int64)
