"""A file of finished conformers that several processes may read and extend.

It is an SQLite file: a process that is killed while it writes leaves it as it was.
"""

import contextlib
import hashlib
import os
import pathlib
import sqlite3
from collections.abc import Iterator

import numpy as np

from chemscale_jax.core.errors import UserError

# Seconds to wait for others that write.
_PATIENCE_S = 60.0
_TABLE = (
    "CREATE TABLE IF NOT EXISTS conformers (key BLOB PRIMARY KEY, status TEXT, "
    "reason TEXT, count INTEGER, positions BLOB) WITHOUT ROWID"
)


def read_geometry(
    path: str | os.PathLike, key: str
) -> tuple[np.ndarray, str, str] | None:
    """What was stored under a key: (K, N, 3) float32 positions, status, reason.

    Raises:
        UserError: the file cannot be used.
    """
    if not os.path.exists(path):
        return None
    with _opened(path) as file:
        query = "SELECT status, reason, count, positions FROM conformers WHERE key = ?"
        row = file.execute(query, (_digest(key),)).fetchone()
    if row is None:
        return None
    status, reason, count, blob = row
    positions = np.frombuffer(blob, "<f4").astype(np.float32)
    atoms = len(positions) // (3 * count) if count else 0
    return positions.reshape(count, atoms, 3), status, reason


def write_geometry(
    path: str | os.PathLike,
    key: str,
    positions_KN3: np.ndarray,
    status: str,
    reason: str,
) -> None:
    """Stores conformers; of those that are there already, nothing changes.

    Raises:
        UserError: the file cannot be used.
    """
    blob = np.ascontiguousarray(positions_KN3, "<f4").tobytes()
    row = (_digest(key), status, reason, len(positions_KN3), blob)
    with _opened(path) as file, file:
        file.execute("INSERT OR IGNORE INTO conformers VALUES (?, ?, ?, ?, ?)", row)


def _digest(key: str) -> bytes:
    return hashlib.blake2b(key.encode(), digest_size=16).digest()


@contextlib.contextmanager
def _opened(path: str | os.PathLike) -> Iterator[sqlite3.Connection]:
    file = None
    try:
        pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
        file = sqlite3.connect(path, timeout=_PATIENCE_S)
        # What a power cut takes can be made again.
        file.execute("PRAGMA synchronous = OFF")
        file.execute(_TABLE)
        yield file
    except (sqlite3.Error, OSError) as error:
        raise UserError(
            f"the file of conformers {path} cannot be used ({error}): delete it, or "
            "choose another place"
        ) from error
    finally:
        if file is not None:
            file.close()
