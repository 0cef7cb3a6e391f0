"""Records from anything that gives dictionaries by number, such as a TFDS data source.

The dictionaries have ``species`` (N,), ``positions`` (N, 3), and ``energy`` and
``forces`` (N, 3) where labelled, in angstrom, eV and eV/angstrom. They may have
``charge``, ``spin``, ``cell`` (3, 3), ``molecule`` (its name) and ``id``.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from chemscale_jax.core.errors import UserError
from chemscale_jax.data.cache import derived_folder
from chemscale_jax.data.frames import checks
from chemscale_jax.data.frames.source import FrameSource, Record

_SCHEMA = 1
_AT_ONCE = 1024


class RandomAccess(Protocol):
    """What grain, TFDS and lists have in common."""

    def __len__(self) -> int:
        """How many records there are."""
        ...

    def __getitem__(self, index: Any, /) -> Mapping[str, Any]:
        """One record."""
        ...


class WrappedSource(FrameSource):
    """Records of a random-access data source.

    The first use reads all records once to index them and to leave out bad frames
    (see `chemscale_jax.data.frames.checks`); with an identity the index is kept.

    Args:
        data: the records.
        name: stands for the data in messages.
        identity: see `FrameSource`.

    Raises:
        UserError: a record lacks an entry, or none is usable.
    """

    def __init__(
        self,
        data: RandomAccess,
        name: str,
        identity: Mapping[str, Any] | None = None,
    ):
        if identity is not None:
            identity = {"reader": "wrapped", "schema": _SCHEMA, **identity}
        folder = derived_folder("index", identity, lambda new: _index(data, name, new))
        facts = json.loads((folder / "facts.json").read_text())
        with np.load(folder / "index.npz") as index:
            table = {name: index[name] for name in index.files}
        ends = np.cumsum(table["group_atoms"])
        super().__init__(
            group=table["group"],
            group_names=facts["group_names"],
            group_species=np.split(table["group_species"], ends[:-1]),
            total_energy=table["energy"],
            report=facts["report"],
            identity=identity,
            periodic=facts["periodic"],
        )
        self._data = data
        self._position = table["position"]

    def __getitem__(self, index: int) -> Record:
        position = int(self._position[index])
        return _record(self._data[position], position)

    def record_id(self, index: int) -> str:
        """The record's own name, which has to be read."""
        return self[index].id


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _record(entry: Mapping[str, Any], position: int) -> Record:
    """A dictionary as a record; labels that are missing or not finite are masked."""
    x = np.asarray(entry["positions"], np.float32).reshape(-1, 3)
    energy = float(entry.get("energy", np.nan))
    forces = entry.get("forces")
    f = np.full_like(x, np.nan) if forces is None else np.asarray(forces, np.float32)
    f = f.reshape(-1, 3)
    energy_mask, forces_mask = bool(np.isfinite(energy)), bool(np.isfinite(f).all())
    cell = entry.get("cell")
    return Record(
        species=np.asarray(entry["species"]).astype(np.uint8),
        positions=x,
        energy=energy if energy_mask else 0.0,
        forces=f if forces_mask else np.zeros_like(x),
        energy_mask=energy_mask,
        forces_mask=forces_mask,
        charge=float(entry.get("charge", 0.0)),
        spin=float(entry.get("spin", 0.0)),
        cell=None if cell is None else np.asarray(cell, np.float64),
        id=_text(entry.get("id", position)),
    )


def _index(data: RandomAccess, name: str, folder: pathlib.Path) -> None:
    """Reads every record once, checks runs of equal composition together."""
    groups: dict[tuple[str, bytes], int] = {}
    problems = checks.Problems()
    used: list[tuple[int, int, float]] = []
    run: list[tuple[int, Record]] = []
    run_group = -1
    periodic = False

    def close_run() -> None:
        if not run:
            return
        records = [record for _, record in run]
        codes = checks.find(
            records[0].species,
            np.stack([r.positions for r in records]),
            np.stack([r.forces for r in records]),
        )
        problems.add(codes, lambda row: records[row].id)
        for row in np.flatnonzero(codes == 0):
            position, record = run[row]
            energy = record.energy if record.energy_mask else np.nan
            used.append((position, run_group, energy))
        run.clear()

    bar = tqdm(total=len(data), desc="Indexing", unit="frame", delay=2.0, disable=None)
    with bar:
        for position in range(len(data)):
            entry = data[position]
            if not {"species", "positions"} <= set(entry):
                raise UserError(
                    f"record {position} of {name} has {', '.join(sorted(entry))}, but "
                    "species and positions are needed"
                )
            record = _record(entry, position)
            periodic |= record.cell is not None
            molecule = _text(entry.get("molecule", "molecule"))
            key = (molecule, record.species.tobytes())
            group = groups.setdefault(key, len(groups))
            if group != run_group or len(run) == _AT_ONCE:
                close_run()
                run_group = group
            run.append((position, record))
            bar.update()
        close_run()
    if not used:
        raise UserError(
            f"none of the {len(data)} records of {name} is usable{problems.sentence()}"
        )
    species = [np.frombuffer(z, np.uint8) for _, z in groups]
    position, group, energy = zip(*used, strict=True)
    np.savez(
        folder / "index.npz",
        position=np.array(position, np.int64),
        group=np.array(group, np.int32),
        energy=np.array(energy, np.float64),
        group_species=np.concatenate(species),
        group_atoms=np.array([len(z) for z in species]),
    )
    report = {
        "path": name,
        "groups": len(groups),
        "rows": len(data),
        "used": len(used),
        **problems.report(),
    }
    facts = {
        "group_names": [molecule for molecule, _ in groups],
        "report": report,
        "periodic": periodic,
    }
    (folder / "facts.json").write_text(json.dumps(facts))
