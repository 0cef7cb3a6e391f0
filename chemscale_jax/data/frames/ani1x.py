"""Reader of files in the layout of the ANI-1x release, the embedded set among them.

The first use of a file reads it once, group by group: bad frames are found, and an
index of the good ones goes to the cache folder. After that only the index is in
memory. Coordinates and forces are read record by record, straight from the HDF5 file
where they lie in one piece, else from a decoded copy in the cache folder.
"""

import importlib.resources
import json
import pathlib
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from chemscale_jax.chem import units
from chemscale_jax.core.errors import UserError
from chemscale_jax.data.cache import derived_folder, file_identity
from chemscale_jax.data.frames import ani1x_layout, checks
from chemscale_jax.data.frames.flat import FlatFile
from chemscale_jax.data.frames.source import FrameSource, Record

FRAME_KINDS = ("normal-mode", "thermal", "stretched")
# Raise when the meaning of the cached index changes.
_SCHEMA = 2
_VALUES_AT_ONCE = 1 << 22


def embedded_path() -> pathlib.Path:
    """The data set that comes with the package.

    Raises:
        UserError: the installation lacks it.
    """
    path = importlib.resources.files("chemscale_jax.data") / "embedded/gfn2_small.h5"
    path = pathlib.Path(str(path))
    if not path.exists():
        raise UserError(f"the embedded data set {path} is missing: install again")
    return path


class Ani1xSource(FrameSource):
    """Records of one label set of a file in the ANI-1x layout.

    Args:
        path: the HDF5 file.
        labels: a method, such as "wb97x_dz"; "auto" takes that one, or the first with
            forces. A method with energies only has to be named; forces are then masked.
        energy_unit: unit of the energies in the file.
        force_unit: unit of the forces in the file.
        length_unit: unit of the coordinates in the file.

    Raises:
        UserError: the file is missing or damaged, has another layout or lacks the
            labels; a unit is unknown; no frame is usable.
    """

    def __init__(
        self,
        path: str | pathlib.Path,
        labels: str = "auto",
        *,
        energy_unit: str = "hartree",
        force_unit: str = "hartree/angstrom",
        length_unit: str = "angstrom",
    ):
        unit_names = {
            "energy": energy_unit,
            "force": force_unit,
            "length": length_unit,
        }
        try:
            factors = {q: units.unit_factor(q, unit) for q, unit in unit_names.items()}
        except ValueError as error:
            raise UserError(str(error)) from error
        with ani1x_layout.open_hdf5(path) as file:
            path = file.filename
            identity = {
                "reader": "ani1x",
                "schema": _SCHEMA,
                "file": file_identity(path),
                "labels": labels,
                "units": unit_names,
            }
            folder = derived_folder(
                "index", identity, lambda new: _index(file, labels, factors, new)
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
            held_out=(
                table["group_held_out"][table["group"]]
                if facts["has_held_out"]
                else None
            ),
            kind=table["kind"] if facts["has_kind"] else None,
            kind_names=FRAME_KINDS if facts["has_kind"] else (),
            report={"path": str(path), "units": unit_names, **facts["report"]},
            identity=identity,
        )
        self._row = table["row"]
        self._has_forces: bool = facts["has_forces"]
        # 0: the HDF5 file itself; 1: the decoded copy.
        self._files = (
            FlatFile(path, np.float32),
            FlatFile(folder / "decoded.f32", np.float32),
        )
        self._where = {
            part: (table[f"{part}_file"], table[f"{part}_start"])
            for part in ("coordinates", "forces")
        }
        self._factor = {"coordinates": factors["length"], "forces": factors["force"]}

    def _read(self, part: str, start: int, stop: int) -> np.ndarray:
        """Coordinates or forces, in our units, of a run of records of one group."""
        group, n_atoms = self.group[start], int(self.n_atoms[start])
        which, starts = self._where[part]
        first, last = int(self._row[start]), int(self._row[stop - 1])
        values = self._files[which[group]].read(
            int(starts[group]) + first * n_atoms * 12, (last + 1 - first) * n_atoms * 3
        )
        values = values.reshape(-1, n_atoms, 3)
        if len(values) != stop - start:
            values = values[self._row[start:stop] - first]
        return values * np.float32(self._factor[part])

    def _positions(self, start: int, stop: int) -> np.ndarray:
        return self._read("coordinates", start, stop)

    def __getitem__(self, index: int) -> Record:
        index = range(len(self))[index]
        positions = self._read("coordinates", index, index + 1)[0]
        forces = np.zeros_like(positions)
        if self._has_forces:
            forces = self._read("forces", index, index + 1)[0]
        return Record(
            species=self.group_species[self.group[index]],
            positions=positions,
            energy=float(self.total_energy[index]),
            forces=forces,
            energy_mask=True,
            forces_mask=self._has_forces,
            charge=0.0,
            spin=0.0,
            cell=None,
            id=self.record_id(index),
        )

    def record_id(self, index: int) -> str:
        """The group and the row in it: ``C2H6O1/17``."""
        return f"{self.group_names[self.group[index]]}/{self._row[index]}"


def _index(
    file: h5py.File, wanted: str, factors: dict[str, float], folder: pathlib.Path
) -> None:
    """Reads the whole file once and writes the index of its usable frames."""
    groups = ani1x_layout.find_groups(file)
    labels = ani1x_layout.choose_labels(file.filename, groups, wanted)
    needed = ani1x_layout.datasets_of(labels, set().union(*groups.values()))
    names = [name for name, parts in groups.items() if parts.issuperset(needed)]
    problems = checks.Problems()
    parts: dict[str, list[Any]] = {
        name: []
        for name in (
            *("group", "row", "energy", "kind", "group_species", "group_atoms"),
            *("group_held_out", "coordinates_file", "coordinates_start"),
            *("forces_file", "forces_start"),
        )
    }
    n_rows = 0
    has_held_out = has_kind = False
    bar = tqdm(total=len(names), desc="Indexing", unit="group", delay=2.0, disable=None)
    with open(folder / "decoded.f32", "wb") as decoded, bar:
        for g, name in enumerate(names):
            group = file[name]
            assert isinstance(group, h5py.Group)
            try:
                F, N = ani1x_layout.check_shapes(group, needed)
                species = _values(group, "atomic_numbers", np.int64)
                energy = np.zeros(F)
                for part in needed:
                    if part.endswith("energy"):
                        energy += _values(group, part, np.float64).reshape(F)
                forces = next((n for n in needed if n.endswith(".forces")), None)
                codes = _copy_group(
                    group, forces, energy, factors, decoded, species, parts
                )
                kind = np.zeros(F, np.uint8)
                if "frame_kind" in groups[name]:
                    kind = _values(group, "frame_kind", np.uint8)
                    has_kind = True
                held_out = bool(group.attrs.get("held_out", False))
                has_held_out |= "held_out" in group.attrs
            except UserError:
                raise
            except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
                raise ani1x_layout.unreadable(file, name, error) from error
            problems.add(codes, lambda row, name=name: f"{name}/{row}")
            rows = np.flatnonzero(codes == 0)
            n_rows += F
            parts["group"].append(np.full(len(rows), g, np.int32))
            parts["row"].append(rows.astype(np.int32))
            parts["energy"].append(energy[rows] * factors["energy"])
            parts["kind"].append(kind[rows])
            parts["group_species"].append((species % 256).astype(np.uint8))
            parts["group_atoms"].append([N])
            parts["group_held_out"].append([held_out])
            bar.update()
    table = {name: np.concatenate(values) for name, values in parts.items()}
    if not len(table["row"]):
        raise UserError(
            f"{file.filename}: none of the {n_rows} frames with {labels} labels is "
            f"usable{problems.sentence()}: check the file and the units in config.data"
        )
    report = {
        "method": labels,
        "groups": len(names),
        "groups_without_labels": len(groups) - len(names),
        "rows": n_rows,
        "used": len(table["row"]),
        **problems.report(),
    }
    facts = {
        "group_names": names,
        "report": report,
        "has_forces": f"{labels}.forces" in needed,
        "has_held_out": has_held_out,
        "has_kind": has_kind,
    }
    (folder / "facts.json").write_text(json.dumps(facts))
    np.savez(folder / "index.npz", allow_pickle=False, **table)


def _copy_group(
    group: h5py.Group,
    forces: str | None,
    energy: np.ndarray,
    factors: dict[str, float],
    decoded: Any,
    species: np.ndarray,
    parts: dict[str, list[Any]],
) -> np.ndarray:
    """Checks the frames of a group and decodes what cannot be read in place.

    Returns:
        What is wrong with each frame, see `checks.find`.
    """
    sets = {"coordinates": ani1x_layout.dataset(group, "coordinates")}
    if forces is not None:
        sets["forces"] = ani1x_layout.dataset(group, forces)
    else:
        parts["forces_file"].append([0])
        parts["forces_start"].append([0])
    F, N, _ = sets["coordinates"].shape
    starts = {part: _offset_in_file(dataset) for part, dataset in sets.items()}
    copied = [part for part, start in starts.items() if start is None]
    # Each copy is written whole, so the parts of a group follow one another.
    at = decoded.tell()
    for part in sets:
        parts[f"{part}_file"].append([int(part in copied)])
        if part in copied:
            starts[part] = at
            at += F * N * 12
        parts[f"{part}_start"].append([starts[part]])
    codes = np.zeros(F, np.uint8)
    step = max(1, _VALUES_AT_ONCE // max(1, 3 * N))
    for first in range(0, F, step):
        rows = slice(first, min(F, first + step))
        block = {
            part: np.asarray(dataset[rows], np.float32)
            for part, dataset in sets.items()
        }
        for part in copied:
            decoded.seek(starts[part] + first * N * 12)
            decoded.write(block[part].tobytes())
        positions = block["coordinates"] * np.float32(factors["length"])
        codes[rows] = checks.find(
            species,
            positions,
            block.get("forces", np.zeros_like(positions))
            * np.float32(factors["force"]),
            energy[rows],
        )
    decoded.seek(at)
    return codes


def _values(group: h5py.Group, name: str, dtype: npt.DTypeLike) -> np.ndarray:
    """A whole dataset of a group."""
    return np.asarray(ani1x_layout.dataset(group, name)[()], dtype)


def _offset_in_file(dataset: h5py.Dataset) -> int | None:
    """Where the values of a dataset begin, if the file holds them as plain float32."""
    if dataset.chunks is not None or dataset.dtype != np.dtype("<f4"):
        return None
    if dataset.external is not None or not dataset.size:
        return None
    offset = dataset.id.get_offset()
    if offset is None:
        return None
    # Proves that the offset means what it should, whatever precedes the HDF5 part.
    with open(dataset.file.filename, "rb") as raw:
        raw.seek(offset)
        first = np.asarray(dataset[:1]).tobytes()
        return offset if raw.read(len(first)) == first else None
