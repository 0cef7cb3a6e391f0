"""Makes a GFN2-xTB data set in the ANI-1x HDF5 layout from a list of molecules.

The work is cut into parts of some hundred frames of one molecule. Each finished part is
a file in a folder beside the output, so a run that was killed goes on where it stopped.
A frame is a function of (seed, molecule, index) and each label a single point of its
own, so neither the number of workers nor a kill nor other frames change a number; the
order of the output is that of the list.
"""

import dataclasses
import functools
import importlib.metadata
import json
import pathlib
import re
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent import futures
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from chemscale_jax.chem.geometries import (
    STRETCHED_SHARE,
    THERMAL_SHARE,
    GeometryError,
    Prepared,
    draw_frame,
    prepare,
)
from chemscale_jax.chem.molecule_list import Molecule, smiles_hash
from chemscale_jax.chem.units import HARTREE_EV
from chemscale_jax.chem.xtb import METHOD, ScfError, energy_and_forces
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.worker_processes import worker_processes
from chemscale_jax.data.frames.generated_file import (
    ENERGY_KEY,
    FORCES_KEY,
    Cost,
    join_parts,
    write_part,
)

SCHEMA_VERSION = 1
FRAMES_PER_MOLECULE = 43
# Lost at most, for each worker, when a run is killed: a few seconds.
FRAMES_PER_PART = 500
MAX_FORCE_EV_PER_ANG = 30.0
MIN_DISTANCE_ANG = 0.5
# Seconds between redrawings of the bar where nobody watches it move.
_LOG_INTERVAL = 30.0


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything the frames of a molecule depend on."""

    seed: int
    frames_per_molecule: int
    versions: dict[str, str]
    schema_version: int = SCHEMA_VERSION
    thermal_share: float = THERMAL_SHARE


class Part(NamedTuple):
    """Consecutive frames of one molecule: what a worker makes in one go."""

    molecule: Molecule
    settings: Settings
    start: int
    stop: int
    path: pathlib.Path


class Summary(NamedTuple):
    """What was made."""

    drops: Counter[str]  # frames left out, by reason
    costs: dict[int, Cost]  # by number of atoms


def generate(
    out: str | pathlib.Path,
    molecules: list[Molecule],
    *,
    frames_per_molecule: int = FRAMES_PER_MOLECULE,
    seed: int = 0,
    workers: int = 2,
    thermal_share: float = THERMAL_SHARE,
) -> Summary:
    """Writes the data set; says what was dropped and what the labels cost.

    Args:
        out: the HDF5 file to write; it appears only when all is done. Until then
            ``<out>.parts`` holds the finished parts.
        molecules: what to sample.
        frames_per_molecule: geometries drawn for each; dropped ones are not replaced.
        seed: of all random draws.
        workers: processes, each with one thread.
        thermal_share: of the frames that come from dynamics, each of which costs as
            much as fifteen others.

    Raises:
        UserError: tblite is missing, a number makes no sense, two names collide as
            group names, the parts folder belongs to other settings, the output cannot
            be written, or a worker died.
    """
    out = pathlib.Path(out)
    for name, value in (
        ("frames per molecule", frames_per_molecule),
        ("workers", workers),
    ):
        if value < 1:
            raise UserError(f"{name} is {value}: it must be at least 1")
    if seed < 0:
        raise UserError(f"seed is {seed}: it must not be negative")
    most = 1 - STRETCHED_SHARE
    if not 0 <= thermal_share <= most:
        raise UserError(f"thermal share is {thermal_share}: it must be in [0, {most}]")
    if out.is_dir():
        raise UserError(f"{out} is a folder: give the name of a file to write")
    settings = Settings(
        seed, frames_per_molecule, _versions(), thermal_share=thermal_share
    )
    slugs = _slugs(molecules)
    folder = _open_parts(out, settings)
    parts = {
        slug: _parts_of(molecule, settings, folder, slug)
        for slug, molecule in zip(slugs, molecules, strict=True)
    }
    jobs = [part for some in parts.values() for part in some if not part.path.exists()]
    total = len(molecules) * frames_per_molecule
    with tqdm(
        total=total,
        initial=total - sum(job.stop - job.start for job in jobs),
        unit="frame",
        desc=METHOD,
        smoothing=0.05,
        dynamic_ncols=True,
        mininterval=0.1 if sys.stderr.isatty() else _LOG_INTERVAL,
    ) as bar:
        for n_frames in _run(jobs, workers):
            bar.update(n_frames)
    facts = {
        "schema_version": settings.schema_version,
        "method": METHOD,
        "seed": settings.seed,
        "frames_per_molecule": settings.frames_per_molecule,
        "versions": json.dumps(settings.versions),
    }
    if thermal_share != THERMAL_SHARE:
        facts["thermal_share"] = thermal_share
    drops, costs = join_parts(
        out,
        dict(zip(slugs, molecules, strict=True)),
        {slug: [part.path for part in some] for slug, some in parts.items()},
        facts,
    )
    shutil.rmtree(folder)
    return Summary(drops, costs)


def _parts_of(
    molecule: Molecule, settings: Settings, folder: pathlib.Path, slug: str
) -> list[Part]:
    # The hash keeps apart molecules that had the same name in another list.
    stem = f"{slug}.{smiles_hash(molecule.smiles):016x}"
    n_frames = settings.frames_per_molecule
    return [
        Part(
            molecule,
            settings,
            start,
            min(start + FRAMES_PER_PART, n_frames),
            folder / f"{stem}.{start}.npz",
        )
        for start in range(0, n_frames, FRAMES_PER_PART)
    ]


def _run(jobs: list[Part], workers: int) -> Iterator[int]:
    """Makes the parts in fresh processes; yields the frames of each finished one."""
    advice = (
        "give the same command again, it goes on from the finished parts; fewer "
        "workers need less"
    )
    with worker_processes(workers, advice) as executor:
        for done in futures.as_completed(executor.submit(_make_part, j) for j in jobs):
            yield done.result()


def slug_of(name: str) -> str:
    """A group and file name made of letters, digits, ``_`` and ``-`` only."""
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-").lower() or "_"


def _versions() -> dict[str, str]:
    try:
        return {
            package: importlib.metadata.version(package)
            for package in ("tblite", "rdkit", "numpy", "scipy")
        }
    except importlib.metadata.PackageNotFoundError as error:
        raise UserError(
            f"{error.name} is not installed, so there are no {METHOD} labels: "
            "pip install 'chemscale_jax[generate]'"
        ) from None


def _slugs(molecules: list[Molecule]) -> list[str]:
    by_slug: dict[str, str] = {}
    for molecule in molecules:
        slug = slug_of(molecule.name)
        if slug in by_slug:
            raise UserError(
                f"molecules {by_slug[slug]!r} and {molecule.name!r} would share the "
                f"group {slug!r}: rename one"
            )
        by_slug[slug] = molecule.name
    return list(by_slug)


def _open_parts(out: pathlib.Path, settings: Settings) -> pathlib.Path:
    """The folder of finished parts, which must have been made in the same way."""
    parts = out.with_name(out.name + ".parts")
    stamp = parts / "settings.json"
    wanted = json.dumps(dataclasses.asdict(settings), sort_keys=True)
    try:
        parts.mkdir(parents=True, exist_ok=True)
        if not stamp.exists():
            _replace(stamp, wanted.encode())
    except OSError as error:
        raise UserError(
            f"cannot write beside {out}: {error.strerror}; choose another --out"
        ) from None
    if stamp.read_text() != wanted:
        raise UserError(
            f"{parts} was made with other settings ({stamp.read_text()}): give those "
            "again, or remove the folder"
        )
    return parts


def _replace(path: pathlib.Path, content: bytes) -> None:
    """Writes a file so that it is there whole or not at all."""
    draft = path.with_name(path.name + ".tmp")
    draft.write_bytes(content)
    draft.replace(path)


def _make_part(part: Part) -> int:
    """Samples and labels some frames in a worker; returns how many were tried."""
    began = time.process_time()
    arrays, drops, label_s = sample_frames(
        part.molecule, part.settings, range(part.start, part.stop)
    )
    write_part(part.path, arrays, drops, (label_s, time.process_time() - began))
    return part.stop - part.start


@functools.lru_cache(maxsize=1)
def _prepared(smiles: str, seed: int) -> Prepared:
    """The parts of a molecule come one after another, so a worker prepares it once."""
    return prepare(smiles, seed)


def sample_frames(
    molecule: Molecule, settings: Settings, indices: range
) -> tuple[dict[str, np.ndarray], Counter[str], float]:
    """Labelled frames of one molecule as HDF5 datasets.

    Also the numbers of dropped ones by reason, and the CPU seconds of the labels alone.
    """
    drops: Counter[str] = Counter()
    positions, energies, forces, kinds = [], [], [], []
    label_s = 0.0
    try:
        prepared = _prepared(molecule.smiles, settings.seed)
    except GeometryError:
        drops["no equilibrium geometry"] = len(indices)
        return {}, drops, label_s
    numbers = prepared.numbers
    for index in indices:
        try:
            drawn, kind = draw_frame(
                prepared, settings.seed, index, settings.thermal_share
            )
            # Labels belong to the stored float32 positions, not to the drawn ones.
            frame = drawn.astype(np.float32)
            if _closest(frame) < MIN_DISTANCE_ANG:
                drops["fused atoms"] += 1
                continue
            began = time.process_time()
            energy_ev, force_ev = energy_and_forces(numbers, frame)
            label_s += time.process_time() - began
        except ScfError:
            drops["failed SCF"] += 1
            continue
        if not np.isfinite(force_ev).all() or (
            np.abs(force_ev).max() > MAX_FORCE_EV_PER_ANG
        ):
            drops["absurd forces"] += 1
            continue
        positions.append(frame)
        energies.append(energy_ev / HARTREE_EV)
        forces.append((force_ev / HARTREE_EV).astype(np.float32))
        kinds.append(kind)
    shape = (len(positions), len(numbers), 3)
    return (
        {
            "atomic_numbers": numbers,
            "coordinates": np.array(positions, np.float32).reshape(shape),
            ENERGY_KEY: np.array(energies, np.float64),
            FORCES_KEY: np.array(forces, np.float32).reshape(shape),
            "frame_kind": np.array(kinds, np.uint8),
        },
        drops,
        label_s,
    )


def _closest(positions: np.ndarray) -> float:
    """The smallest distance between two atoms."""
    first, second = np.triu_indices(len(positions), 1)
    return float(np.linalg.norm(positions[first] - positions[second], axis=1).min())
