"""Writing conformer stores: shards, each whole or not there, then what joins them.

Parts of a store lie in a folder beside it: in ``store`` the shards as they will be, and
for each shard its columns, scaffolds and ledger. Either way of making a store writes
the shards, in any order and in any process; the last step is the same for both.
"""

import contextlib
import csv
import heapq
import os
import pathlib
import secrets
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter

from chemscale_jax.chem.molecule_record import MoleculeRecord
from chemscale_jax.chem.smiles import molecule_key
from chemscale_jax.core.errors import UserError
from chemscale_jax.data.conformers.codec import (
    ERROR_ANG,
    STATUS_CODES,
    STEP_ANG,
    VERSION,
)
from chemscale_jax.data.conformers.steps import Molecule, encode_molecule
from chemscale_jax.data.conformers.store import (
    COLUMNS,
    SCAFFOLDS_FILE,
    SCHEMA_VERSION,
    STORE_FILE,
    ConformerStore,
)
from chemscale_jax.data.growing_array import GrowingArray
from chemscale_jax.data.text.encode_lines import shorten
from chemscale_jax.data.text.token_store import (
    LEDGER_COLUMNS,
    LEDGER_FILE,
    Failure,
    write_json,
)

# What is kept of a molecule beside its record.
ROW = np.dtype(
    [
        ("keys", "<u8"),
        ("lines", "<i8"),
        ("scaffold_key", "<u8"),
        ("atoms", "<u2"),
        ("conformers", "<u2"),
        ("status", "u1"),
    ]
)
_STORE = "store"
# Each record by itself, as random access wants it.
_WRITER = "group_size:1"
# Files that are open at once.
_OPEN = 64


def shard_file(number: int, shards: int) -> str:
    """Name of a shard within its store."""
    return f"conformers-{number:05d}-of-{shards:05d}.array_record"


def has_shard(folder: pathlib.Path, number: int) -> bool:
    """Whether a shard is complete."""
    return _beside(folder, number, "json").exists()


def row_of(molecule: Molecule) -> tuple[int, ...]:
    """A molecule as an item of `ROW`."""
    return (
        molecule.key,
        molecule.line,
        molecule_key(molecule.scaffold),
        molecule.atoms,
        molecule.conformers,
        molecule.status,
    )


def write_shard(
    folder: pathlib.Path,
    number: int,
    shards: int,
    molecules: Iterable[Molecule],
    failures: Iterable[Failure],
) -> None:
    """Writes a shard; it is complete when its ``.json`` is there.

    Two processes may write the same shard: they write the same.

    Args:
        folder: of the parts.
        number: of the shard, from 0.
        shards: how many there are.
        molecules: all of the shard, by line.
        failures: lines that the ledger of this shard has, in any order.
    """
    draft = f".{secrets.token_hex(8)}.tmp"
    (folder / _STORE).mkdir(parents=True, exist_ok=True)
    kinds = ("rows", "scaffolds", "ledger")
    names = {kind: _beside(folder, number, kind) for kind in kinds}
    names["shard"] = folder / _STORE / shard_file(number, shards)
    drafts = {k: folder / (path.name + draft) for k, path in names.items()}
    with (
        contextlib.closing(ArrayRecordWriter(str(drafts["shard"]), _WRITER)) as writer,
        drafts["rows"].open("wb") as rows,
        drafts["scaffolds"].open("w", encoding="utf-8", newline="") as scaffolds,
        drafts["ledger"].open("w", encoding="utf-8", newline="") as ledger,
    ):
        count = 0
        for count, molecule in enumerate(molecules, 1):  # noqa: B007
            writer.write(molecule.data)
            rows.write(np.array([row_of(molecule)], ROW).tobytes())
            scaffolds.write(f"{molecule.scaffold}\n")
        csv.writer(ledger, lineterminator="\n").writerows(sorted(failures))
    for kind, path in drafts.items():
        path.replace(names[kind])
    write_json(_beside(folder, number, "json"), {"molecules": count})


def finish_store(
    folder: pathlib.Path,
    out: pathlib.Path,
    shards: int,
    lines: int,
    facts: Mapping[str, Any],
) -> None:
    """Joins complete shards to a store and gives it its name.

    Takes some 50 bytes of memory for each molecule.

    Args:
        folder: of the parts.
        out: folder of the store.
        shards: how many there are.
        lines: of the source.
        facts: more content of ``store.json``; "float32" says whether coordinates are.

    Raises:
        UserError: the folder of the store is there already.
    """
    new = folder / _STORE
    sizes, statuses, conformers, first = _write_columns(new, folder, shards)
    _write_scaffolds(new / SCAFFOLDS_FILE, folder, shards, first)
    ledgers = [_beside(folder, number, "ledger") for number in range(shards)]
    failed = _write_ledger(new / LEDGER_FILE, ledgers)
    if lines != sum(sizes) + failed.total():
        raise AssertionError(
            f"{lines} lines became {sum(sizes)} molecules and {failed.total()} rows of "
            f"the ledger in {folder}: a line got lost"
        )
    exact = facts["float32"]
    info = {
        "schema_version": SCHEMA_VERSION,
        "codec_version": VERSION,
        "molecules": sum(sizes),
        "conformers": conformers,
        "scaffolds": len(first),
        "lines": lines,
        "failed": dict(sorted(failed.items())),
        "statuses": {
            name: int(n) for name, n in zip(STATUS_CODES, statuses, strict=True) if n
        },
        "coordinates": "float32" if exact else "int16",
        "step_ang": 0.0 if exact else STEP_ANG,
        "error_ang": 0.0 if exact else ERROR_ANG,
        "shards": [(shard_file(i, shards), size) for i, size in enumerate(sizes)],
        **facts,
    }
    write_json(new / STORE_FILE, info)
    for file in new.iterdir():
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
    try:
        new.rename(out)
    except OSError as error:
        raise UserError(
            f"cannot make the folder {out} ({error.strerror}): it must not be there"
        ) from None


def store_records(
    records: Iterable[MoleculeRecord],
    out: str | os.PathLike,
    *,
    float32: bool = True,
    facts: Mapping[str, Any] | None = None,
) -> ConformerStore:
    """A store of records that are there already, such as of an SD file.

    Their order stays; repeats stay too. Records that failed are in the ledger.

    Args:
        records: any; the place of each, from 1, is its line.
        out: folder to make.
        float32: whether coordinates are stored exactly.
        facts: more content of ``store.json``.

    Raises:
        UserError: the folder is there already, or cannot be written.
    """
    out = pathlib.Path(out).expanduser()
    if out.exists():
        raise UserError(f"{out} is there already: choose another folder")
    folder = out.with_name(f".{out.name}.{secrets.token_hex(8)}.parts")
    failures: list[Failure] = []
    lines = 0

    def molecules() -> Iterator[Molecule]:
        nonlocal lines
        for record in records:
            lines += 1
            if record.status != "failed":
                yield encode_molecule(record, lines, float32=float32)
                continue
            name = shorten(record.smiles or record.name)
            failures.append(Failure(lines, "unusable", name, shorten(record.reason)))

    try:
        folder.mkdir(parents=True)
        write_shard(folder, 0, 1, molecules(), failures)
        finish_store(folder, out, 1, lines, {**(facts or {}), "float32": float32})
    except OSError as error:
        raise UserError(f"cannot write {out} ({error.strerror})") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return ConformerStore.open(out)


def _beside(folder: pathlib.Path, number: int, kind: str) -> pathlib.Path:
    return folder / f"shard-{number:05d}.{kind}"


def _write_columns(
    new: pathlib.Path, folder: pathlib.Path, shards: int
) -> tuple[list[int], np.ndarray, int, np.ndarray]:
    """Writes the arrays of a store.

    Returns:
        Molecules of each shard, molecules of each status, conformers, and the first
        molecule of each scaffold.
    """
    scaffold_keys, sizes = [np.zeros(0, np.uint64)], []
    statuses = np.zeros(len(STATUS_CODES), np.int64)
    conformers = 0
    with contextlib.ExitStack() as stack:
        columns = {
            name: stack.enter_context(
                contextlib.closing(GrowingArray(new / f"{name}.npy", dtype))
            )
            for name, dtype in COLUMNS.items()
        }
        for number in range(shards):
            rows = np.fromfile(_beside(folder, number, "rows"), ROW)
            sizes.append(len(rows))
            scaffold_keys.append(rows["scaffold_key"])
            statuses += np.bincount(rows["status"], minlength=len(STATUS_CODES))
            conformers += int(rows["conformers"].sum(dtype=np.int64))
            for name, column in columns.items():
                if name != "scaffold":
                    column.append(rows[name])
        # Scaffolds are numbered in the order of their first molecules.
        _, first, inverse = np.unique(
            np.concatenate(scaffold_keys), return_index=True, return_inverse=True
        )
        numbers = np.empty(len(first), np.int32)
        numbers[np.argsort(first)] = np.arange(len(first))
        columns["scaffold"].append(numbers[inverse])
    return sizes, statuses, conformers, np.sort(first)


def _write_scaffolds(
    path: pathlib.Path, folder: pathlib.Path, shards: int, first: np.ndarray
) -> None:
    """Writes the scaffolds of the molecules with the given numbers, in order."""
    wanted = iter(first.tolist())
    next_one = next(wanted, None)
    molecule = 0
    with path.open("w", encoding="utf-8", newline="") as out:
        for number in range(shards):
            lines = _beside(folder, number, "scaffolds")
            with lines.open(encoding="utf-8", newline="") as stream:
                for line in stream:
                    if molecule == next_one:
                        out.write(line)
                        next_one = next(wanted, None)
                    molecule += 1


def _write_ledger(path: pathlib.Path, parts: list[pathlib.Path]) -> Counter[str]:
    """Joins ledgers, each in the order of lines; counts the reasons."""
    drafts = []
    while len(parts) > _OPEN:
        draft = path.with_name(f"{LEDGER_FILE}.{len(drafts)}.tmp")
        with draft.open("w", encoding="utf-8", newline="") as out:
            csv.writer(out, lineterminator="\n").writerows(_merged(parts[:_OPEN]))
        drafts.append(draft)
        parts = [*parts[_OPEN:], draft]
    failed: Counter[str] = Counter()
    with path.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(LEDGER_COLUMNS)
        for row in _merged(parts):
            failed[row[1]] += 1
            writer.writerow(row)
    for draft in drafts:
        draft.unlink()
    return failed


def _merged(paths: list[pathlib.Path]) -> Iterator[list[str]]:
    streams = [path.open(encoding="utf-8", newline="") for path in paths]
    try:
        rows = [csv.reader(stream) for stream in streams]
        yield from heapq.merge(*rows, key=lambda row: int(row[0]))
    finally:
        for stream in streams:
            stream.close()
