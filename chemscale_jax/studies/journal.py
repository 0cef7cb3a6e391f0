"""What a sweep was told and what it has decided, on disk before it acts on it."""

import json
import os
import pathlib
import time
from collections.abc import Mapping
from typing import Any

from chemscale_jax.core.errors import UserError
from chemscale_jax.core.workdir import read_json, write_json

PLAN, JOURNAL = "plan.json", "journal.jsonl"


def keep_plan(folder: pathlib.Path, plan: Mapping[str, Any]) -> None:
    """Writes what a sweep was told, or makes sure that it is what it was told before.

    Raises:
        UserError: the folder belongs to a sweep that was told otherwise, or cannot be
            written.
    """
    path = folder / PLAN
    told = json.loads(json.dumps(plan))
    if path.exists():
        before = read_json(path)
        changed = [
            _change(key, before.get(key), told.get(key))
            for key in sorted({*before, *told})
            if before.get(key) != told.get(key)
        ]
        if changed:
            raise UserError(
                f"{folder} holds a sweep that was told otherwise ({'; '.join(changed)})"
                "; give its arguments again or another --workdir"
            )
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, told)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written ({error.strerror}); choose another --workdir"
        ) from None


def _change(key: str, before: Any, now: Any) -> str:
    if isinstance(before, list) and isinstance(now, list):
        gone = [text for text in before if text not in now]
        come = [text for text in now if text not in before]
        before, now = ", ".join(gone) or "nothing", ", ".join(come) or "nothing"
    return f"{key}: {before} -> {now}"


class Journal:
    """Decisions of a sweep, a line of JSON each, in the order they were made.

    Attributes:
        targets: {cell: fraction of its epochs it was let train to}.
        crews: of each cell, the cells it was last trained with as lanes, and the
            targets they had then.
        apart: cells that turned out not to be lanes of one program.
        seconds: that processes have run.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        """Reads the decisions so far; a line that a kill has torn is dropped."""
        path = folder / JOURNAL
        whole = b""
        if path.exists():
            whole, newline, _ = path.read_bytes().rpartition(b"\n")
            whole += newline
            os.truncate(path, len(whole))
        self.targets: dict[str, float] = {}
        self.crews: dict[str, dict[str, float]] = {}
        self.apart: set[str] = set()
        self.seconds = 0.0
        for line in whole.splitlines():
            self._take(json.loads(line))
        self._file = path.open("ab")

    def raise_targets(self, targets: Mapping[str, float]) -> dict[str, float]:
        """Notes new targets, which never fall; returns all, in the given order."""
        kept = {n: max(t, self.targets.get(n, 0.0)) for n, t in targets.items()}
        new = {n: t for n, t in kept.items() if t > self.targets.get(n, 0.0)}
        if new:
            self._add(event="targets", targets=new)
        return kept

    def note_crew(self, targets: Mapping[str, float]) -> None:
        """Notes the cells of a process, itself to be started or sent on."""
        self._add(event="crew", targets=targets)

    def note_apart(self, names: list[str]) -> None:
        """Notes cells that have to be trained one by one."""
        self._add(event="apart", cells=names)

    def note_process(
        self, name: str, cells: list[str], code: int, seconds: float
    ) -> None:
        """Notes a process that has ended."""
        self._add(event="process", name=name, cells=cells, code=code, seconds=seconds)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _add(self, **event: Any) -> None:
        self._take(event)
        line = json.dumps({**event, "unix": round(time.time(), 1)})
        self._file.write(line.encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def _take(self, event: Mapping[str, Any]) -> None:
        kind = event["event"]
        if kind == "targets":
            self.targets.update(event["targets"])
        elif kind == "crew":
            self.crews.update((name, event["targets"]) for name in event["targets"])
        elif kind == "apart":
            self.apart.update(event["cells"])
        elif kind == "process":
            self.seconds += event["seconds"]
