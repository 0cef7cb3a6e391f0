"""Records of any file format, converted once to plain arrays in the cache folder.

A reader of a format is a generator of `Frames` in our units. The first use of a file
runs it from beginning to end: bad frames are left out and counted (see
`chemscale_jax.data.frames.checks`), and coordinates and forces of the good ones go to
flat float32 files. After that a record is read by its position, whatever the format
was, and only a few numbers per record are in memory.
"""

import json
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from chemscale_jax.core.errors import UserError
from chemscale_jax.data.cache import derived_folder, file_identity
from chemscale_jax.data.frames import checks
from chemscale_jax.data.frames.flat import FlatFile
from chemscale_jax.data.frames.frames import Bad, Frames, Reader
from chemscale_jax.data.frames.source import FrameSource, Record

# Raise when the meaning of the converted files changes.
_SCHEMA = 1
_AT_ONCE = 1024
_EXAMPLES = 3
_COLUMNS = {
    "group": np.int32,
    "row": np.int64,
    "energy": np.float64,
    "has_forces": bool,
    "charge": np.float32,
    "spin": np.float32,
    "part": np.int8,
}


class ConvertedSource(FrameSource):
    """Records of files in any format for which there is a reader.

    Args:
        read: the reader; called when the cache does not hold the converted files.
        files: the files that it reads.
        key: JSON-able: the reader's name and all else that its result depends on.
        report: facts for the report, beside those that the reader gives.
        largest_train: see `FrameSource`.

    Raises:
        UserError: no frame is usable, or what the reader raises.
    """

    def __init__(
        self,
        read: Reader,
        files: Sequence[str | pathlib.Path],
        key: Mapping[str, Any],
        report: Mapping[str, Any],
        largest_train: tuple[int, str] = (0, ""),
    ):
        identity = {
            "schema": _SCHEMA,
            "files": [file_identity(path) for path in files],
            **key,
        }
        where = ", ".join(str(path) for path in files[:2])
        where += f" and {len(files) - 2} more" if len(files) > 2 else ""
        folder = derived_folder(
            "frames", identity, lambda new: _convert(read, where, new)
        )
        facts = json.loads((folder / "facts.json").read_text())
        with np.load(folder / "index.npz") as index:
            table = {name: index[name] for name in index.files}
        ends = np.cumsum(table["group_atoms"])
        super().__init__(
            group=table["group"],
            group_names=facts["group_names"],
            group_species=np.split(table["group_species"], ends[:-1]),
            total_energy=table["energy"],
            report={"path": where, **report, **facts["report"]},
            identity=identity,
            periodic=len(table["cell_of"]) > 0,
            given_split=table["part"] if facts["has_parts"] else None,
            largest_train=largest_train,
        )
        self._row = table["row"]
        self._has_forces = table["has_forces"]
        self._charge, self._spin = table["charge"], table["spin"]
        self._cell_of, self._cells = table["cell_of"], table["cells"]
        # Records follow one another in the flat files, forces only where labelled.
        values = 3 * self.n_atoms.astype(np.int64)
        self._positions_at = np.cumsum(values) - values
        values = values * self._has_forces
        self._forces_at = np.cumsum(values) - values
        self._flat_positions = FlatFile(folder / "positions.f32", np.float32)
        self._flat_forces = FlatFile(folder / "forces.f32", np.float32)

    def _positions(self, start: int, stop: int) -> np.ndarray:
        N = int(self.n_atoms[start])
        at = 4 * int(self._positions_at[start])
        values = self._flat_positions.read(at, (stop - start) * N * 3)
        return values.reshape(-1, N, 3)

    def _forces(self, index: int) -> np.ndarray:
        N = int(self.n_atoms[index])
        if not self._has_forces[index]:
            return np.zeros((N, 3), np.float32)
        at = 4 * int(self._forces_at[index])
        return self._flat_forces.read(at, N * 3).reshape(N, 3)

    def _cell(self, index: int) -> np.ndarray | None:
        found = int(np.searchsorted(self._cell_of, index))
        if found == len(self._cell_of) or self._cell_of[found] != index:
            return None
        return self._cells[found]

    def __getitem__(self, index: int) -> Record:
        index = range(len(self))[index]
        energy = float(self.total_energy[index])
        labelled = bool(np.isfinite(energy))
        return Record(
            species=self.group_species[self.group[index]],
            positions=self._positions(index, index + 1)[0],
            energy=energy if labelled else 0.0,
            forces=self._forces(index),
            energy_mask=labelled,
            forces_mask=bool(self._has_forces[index]),
            charge=float(self._charge[index]),
            spin=float(self._spin[index]),
            cell=self._cell(index),
            id=self.record_id(index),
        )

    def record_id(self, index: int) -> str:
        """The molecule and the row in the file or its group: ``ethanol/17``."""
        return f"{self.group_names[self.group[index]]}/{self._row[index]}"


def _merged(blocks: Iterable[Frames | Bad]) -> Iterator[Frames | Bad]:
    """Joins blocks of few frames that follow one another and are alike."""
    waiting: list[Frames] = []
    n_waiting = 0

    def kind(b: Frames) -> tuple[Any, ...]:
        labels = (b.energy is None, b.forces is None, b.cell is None, b.part is None)
        return b.name, b.species.tobytes(), b.charge, b.spin, labels

    def joined() -> Iterator[Frames]:
        if waiting:
            columns = {
                field: np.concatenate([getattr(b, field) for b in waiting])
                for field in ("rows", "positions", "energy", "forces", "cell", "part")
                if getattr(waiting[0], field) is not None
            }
            yield waiting[0]._replace(**columns)
            waiting.clear()

    for block in blocks:
        if isinstance(block, Bad):
            yield block
            continue
        if waiting and (kind(block) != kind(waiting[0]) or n_waiting >= _AT_ONCE):
            yield from joined()
            n_waiting = 0
        waiting.append(block)
        n_waiting += len(block.rows)
    yield from joined()


def _convert(read: Reader, where: str, folder: pathlib.Path) -> None:
    """Runs a reader and writes the flat files, the index and the facts."""
    facts: dict[str, Any] = {}
    groups: dict[tuple[str, bytes], int] = {}
    columns: dict[str, list[np.ndarray]] = {name: [] for name in _COLUMNS}
    cell_of, cells = [np.zeros(0, np.int64)], [np.zeros((0, 3, 3))]
    problems, found_bad = checks.Problems(), _BadFrames()
    n_rows = n_used = 0
    has_parts = False
    bar = tqdm(desc="Reading", unit="frame", delay=2.0, disable=None)
    positions_file = open(folder / "positions.f32", "wb")
    forces_file = open(folder / "forces.f32", "wb")
    with bar, positions_file, forces_file:
        for block in _merged(read(facts)):
            if isinstance(block, Bad):
                n_rows += 1
                found_bad.add(block)
                continue
            n_rows += len(block.rows)
            bar.update(len(block.rows))
            whole = _in_float32(block, found_bad)
            if whole is None:
                continue
            positions, forces = whole
            codes = checks.find(
                np.asarray(block.species, np.int64),
                positions,
                np.zeros_like(positions) if forces is None else forces,
                block.energy,
            )
            problems.add(codes, lambda i, b=block: f"{b.name}/{b.rows[i]}")
            good = np.flatnonzero(codes == 0)
            if not len(good):
                continue
            positions_file.write(positions[good].tobytes())
            if forces is not None:
                forces_file.write(forces[good].tobytes())
            key = (block.name, np.asarray(block.species, np.uint8).tobytes())
            has_parts |= block.part is not None
            values = {
                "group": groups.setdefault(key, len(groups)),
                "row": block.rows[good],
                "energy": np.nan if block.energy is None else block.energy[good],
                "has_forces": forces is not None,
                "charge": block.charge,
                "spin": block.spin,
                "part": -1 if block.part is None else block.part[good],
            }
            for name, dtype in _COLUMNS.items():
                columns[name].append(np.full(len(good), values[name], dtype))
            if block.cell is not None:
                cell_of.append(n_used + np.arange(len(good)))
                cells.append(np.asarray(block.cell, np.float64)[good])
            n_used += len(good)
    if not n_used:
        reasons = "; ".join(
            part for part in (problems.sentence().strip(" ()"), found_bad.words) if part
        )
        raise UserError(
            f"{where}: none of the {n_rows} frames is usable"
            f"{f' ({reasons})' if reasons else ''}: check the file and config.data"
        )
    table = {name: np.concatenate(values) for name, values in columns.items()}
    species = [np.frombuffer(z, np.uint8) for _, z in groups]
    np.savez(
        folder / "index.npz",
        allow_pickle=False,
        **table,
        group_species=np.concatenate(species),
        group_atoms=np.array([len(z) for z in species], np.int64),
        cell_of=np.concatenate(cell_of),
        cells=np.concatenate(cells),
    )
    report = {
        "groups": len(groups),
        "rows": n_rows,
        "used": n_used,
        "without_energy": int(np.isnan(table["energy"]).sum()),
        "without_forces": int((~table["has_forces"]).sum()),
        **found_bad.added_to(problems.report()),
        **facts,
    }
    (folder / "facts.json").write_text(
        json.dumps(
            {
                "group_names": [name for name, _ in groups],
                "report": report,
                "has_parts": has_parts,
            }
        )
    )


class _BadFrames:
    """Frames that readers, not `checks`, found to be unusable."""

    def __init__(self):
        self.examples: dict[str, list[str]] = {}
        self.counts: dict[str, int] = {}

    def add(self, bad: Bad, count: int = 1) -> None:
        self.counts[bad.reason] = self.counts.get(bad.reason, 0) + count
        names = self.examples.setdefault(bad.reason, [])
        if len(names) < _EXAMPLES:
            names.append(bad.name)

    @property
    def words(self) -> str:
        return "; ".join(
            f"{count} with {reason}, e.g. {self.examples[reason][0]}"
            for reason, count in self.counts.items()
        )

    def added_to(self, report: dict[str, Any]) -> dict[str, Any]:
        return {
            **report,
            "skipped": {**report["skipped"], **self.counts},
            "skipped_examples": {**report["skipped_examples"], **self.examples},
        }


def _in_float32(
    block: Frames, bad: _BadFrames
) -> tuple[np.ndarray, np.ndarray | None] | None:
    """Positions and forces of a block, or None where there is nothing to learn."""
    name = f"{block.name}/{block.rows[0]}" if len(block.rows) else block.name
    if not len(block.species):
        bad.add(Bad("no atoms", name), len(block.rows))
        return None
    if block.energy is None and block.forces is None:
        bad.add(Bad("neither energy nor forces", name), len(block.rows))
        return None
    # What float32 cannot hold becomes infinite, and is then left out as such.
    with np.errstate(over="ignore"):
        positions = np.asarray(block.positions, np.float32)
        forces = None if block.forces is None else np.asarray(block.forces, np.float32)
    return positions, forces
