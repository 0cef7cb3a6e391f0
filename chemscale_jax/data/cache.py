"""Folders of derived files: made once, found again by what they were made from."""

import atexit
import hashlib
import json
import os
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

from chemscale_jax.core.errors import UserError

_KEY_FILE = "key.json"


def cache_folder() -> pathlib.Path:
    """``$CHEMSCALE_CACHE``, else ``chemscale_jax`` in the user's cache folder."""
    if chosen := os.environ.get("CHEMSCALE_CACHE"):
        return pathlib.Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return pathlib.Path(base).expanduser() / "chemscale_jax"


def file_identity(path: str | os.PathLike) -> dict[str, Any]:
    """What tells one version of a file from another without reading it."""
    stat = os.stat(path)
    return {
        "path": os.path.abspath(path),
        "bytes": stat.st_size,
        "mtime_ns": stat.st_mtime_ns,
    }


def _sizes(folder: pathlib.Path) -> dict[str, int]:
    return {p.name: p.stat().st_size for p in folder.iterdir() if p.name != _KEY_FILE}


def _is_whole(folder: pathlib.Path) -> bool:
    try:
        recorded = json.loads((folder / _KEY_FILE).read_text())["sizes"]
        return recorded == _sizes(folder)
    except (OSError, ValueError, KeyError):
        return False


def derived_folder(
    kind: str, key: Mapping[str, Any] | None, fill: Callable[[pathlib.Path], None]
) -> pathlib.Path:
    """The folder that ``fill`` wrote for ``key``, now or in an earlier run.

    A new folder appears under its final name only when it is complete, so a killed
    run leaves nothing that a later one could mistake for a result. Where the cache
    cannot be written, or there is no key, the folder is temporary and goes when the
    process ends.

    Args:
        kind: first part of the folder's name.
        key: JSON-able description of everything the content depends on; None for
            content that cannot be recognised again.
        fill: writes the files into the folder it is given.

    Raises:
        UserError: the disk is full.
    """
    text = json.dumps(key, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:20]
    final = cache_folder() / f"{kind}-{digest}"
    if key is not None and _is_whole(final):
        return final
    partial = None
    if key is not None:
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            partial = pathlib.Path(tempfile.mkdtemp(prefix=".new-", dir=final.parent))
        except OSError as error:
            print(
                f"note: cannot write the cache folder {final.parent} "
                f"({error.strerror or error}), so derived files are kept for this run "
                "only; set CHEMSCALE_CACHE to a writable folder",
                file=sys.stderr,
            )
    if partial is None:
        partial = pathlib.Path(tempfile.mkdtemp(prefix="chemscale-"))
        atexit.register(shutil.rmtree, partial, ignore_errors=True)
        final = None
    try:
        fill(partial)
        record = {"key": key, "sizes": _sizes(partial)}
        (partial / _KEY_FILE).write_text(json.dumps(record, indent=1))
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError):
            raise UserError(
                f"cannot write derived data to {partial.parent} "
                f"({error.strerror or error}): free some space or set "
                "CHEMSCALE_CACHE to another folder"
            ) from error
        raise
    if final is None:
        return partial
    try:
        if final.exists():
            shutil.rmtree(final)
        partial.rename(final)
    except OSError:
        # Another process was faster; what it wrote is the same.
        if not _is_whole(final):
            raise
        shutil.rmtree(partial, ignore_errors=True)
    return final
