"""Files that grow together, and survive a kill.

Pieces are added at the end of each file; then one line of a journal says how long each
file is now, and whatever else must be known to go on. What is behind the last complete
line was broken off and is cut away, so that files become what they would have been.
"""

import fcntl
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from chemscale_jax.core.errors import UserError


class JournaledFiles:
    """A folder of such files; use as a context.

    Attributes:
        state: of the last complete record; empty before the first one.
    """

    def __init__(
        self, folder: pathlib.Path, names: Sequence[str], settings: Mapping[str, Any]
    ):
        """Opens the folder, or begins it.

        Args:
            folder: of the files, which are called NAME.part.
            names: of the files.
            settings: JSON-able; everything that the content depends on.

        Raises:
            UserError: the folder was begun with other settings, another process is
                writing it, or it cannot be written.
        """
        self.folder = folder
        self.state: dict[str, Any] = {}
        wanted = json.dumps(settings, sort_keys=True, indent=1)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._journal = (folder / "journal.jsonl").open("ab+")
        except OSError as error:
            raise UserError(
                f"cannot write {folder} ({error.strerror}): choose another --out"
            ) from None
        try:
            fcntl.flock(self._journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._journal.close()
            raise UserError(
                f"another process is writing {folder}: wait for it, or choose another "
                "--out"
            ) from None
        stamp = folder / "settings.json"
        if not stamp.exists():
            # Without settings nothing can have been recorded.
            self._journal.truncate(0)
            draft = stamp.with_suffix(".tmp")
            draft.write_text(wanted)
            draft.replace(stamp)
        elif stamp.read_text() != wanted:
            self._journal.close()
            raise UserError(
                f"{folder} was begun from another file, or with other settings or "
                f"versions ({_difference(stamp.read_text(), settings)}): give those "
                "again, or remove the folder"
            )
        self._files = {name: self.path(name).open("ab") for name in names}
        self._resume()

    def path(self, name: str) -> pathlib.Path:
        """Where a file is."""
        return self.folder / f"{name}.part"

    def _resume(self) -> None:
        """Goes back to the last record whose files are all there."""
        sizes = {name: os.fstat(f.fileno()).st_size for name, f in self._files.items()}
        self._journal.seek(0)
        end, record = 0, {"sizes": dict.fromkeys(self._files, 0), "state": {}}
        for line in self._journal:
            try:
                found = json.loads(line)
                whole = all(found["sizes"][name] <= sizes[name] for name in sizes)
            except (ValueError, KeyError):
                whole = False
            if not whole or not line.endswith(b"\n"):
                break
            record, end = found, end + len(line)
        self._journal.truncate(end)
        self._journal.seek(end)
        for name, file in self._files.items():
            file.truncate(record["sizes"][name])
            file.seek(0, os.SEEK_END)
        self.state = record["state"]

    def append(self, pieces: Mapping[str, bytes], state: Mapping[str, Any]) -> None:
        """Adds a piece to some or all files, and records it.

        Args:
            pieces: by name of the file.
            state: JSON-able; becomes ``state``.
        """
        for name, piece in pieces.items():
            self._files[name].write(piece)
        for file in self._files.values():
            file.flush()
        sizes = {name: file.tell() for name, file in self._files.items()}
        self.state = dict(state)
        record = {"state": self.state, "sizes": sizes}
        self._journal.write(json.dumps(record).encode() + b"\n")
        self._journal.flush()

    def __enter__(self) -> "JournaledFiles":
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the files."""
        self.close()

    def close(self) -> None:
        """Closes the files; the lock ends with the journal."""
        for file in (*self._files.values(), self._journal):
            file.close()


def _difference(found: str, wanted: Mapping[str, Any]) -> str:
    """Which settings differ."""
    try:
        before = json.loads(found)
    except ValueError:
        return "its settings cannot be read"
    after = json.loads(json.dumps(wanted))
    names = [k for k in {**before, **after} if before.get(k) != after.get(k)]
    return "; ".join(f"{k}: {before.get(k)}, now {after.get(k)}" for k in names)
