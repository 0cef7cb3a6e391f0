"""Makes a GFN2-xTB data set in the ANI-1x HDF5 layout from a list of molecules.

The work is cut by molecule. Each finished molecule is a file in a folder beside the
output, so a run that was killed goes on where it stopped; the order of the output is
that of the list, whatever the number of workers.
"""

import dataclasses
import importlib.metadata
import json
import multiprocessing
import os
import pathlib
import re
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent import futures
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import h5py
import numpy as np
from tqdm import tqdm

from chemscale_jax.chem.geometries import (
    FrameKind,
    GeometryError,
    draw_frame,
    prepare,
)
from chemscale_jax.chem.molecule_list import Molecule, is_held_out
from chemscale_jax.chem.units import HARTREE_EV
from chemscale_jax.chem.xtb import METHOD, ScfError, energy_and_forces
from chemscale_jax.core.errors import UserError

SCHEMA_VERSION = 1
FRAMES_PER_MOLECULE = 43
ENERGY_KEY = "gfn2_xtb.energy"
FORCES_KEY = "gfn2_xtb.forces"
MAX_FORCE_EV_PER_ANG = 30.0
MIN_DISTANCE_ANG = 0.5


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything the frames of a molecule depend on."""

    seed: int
    frames_per_molecule: int
    versions: dict[str, str]
    schema_version: int = SCHEMA_VERSION


# What a worker needs to make one part: whom, how, and where to.
_Job = tuple[Molecule, Settings, pathlib.Path]


def generate(
    out: str | pathlib.Path,
    molecules: list[Molecule],
    *,
    frames_per_molecule: int = FRAMES_PER_MOLECULE,
    seed: int = 0,
    workers: int = 2,
) -> Counter[str]:
    """Writes the data set and returns how many frames were dropped, by reason.

    Args:
        out: the HDF5 file to write; it appears only when all is done. Until then
            ``<out>.parts`` holds the finished molecules.
        molecules: what to sample.
        frames_per_molecule: geometries drawn for each; dropped ones are not replaced.
        seed: of all random draws.
        workers: processes, each with one thread.

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
    if out.is_dir():
        raise UserError(f"{out} is a folder: give the name of a file to write")
    settings = Settings(seed, frames_per_molecule, _versions())
    slugs = _slugs(molecules)
    parts = _open_parts(out, settings)
    paths = {slug: parts / f"{slug}.npz" for slug in slugs}
    jobs = [
        (molecule, settings, path)
        for molecule, path in zip(molecules, paths.values(), strict=True)
        if not path.exists()
    ]
    n_done = len(molecules) - len(jobs)
    with tqdm(
        total=len(molecules) * frames_per_molecule,
        initial=n_done * frames_per_molecule,
        unit="frame",
        desc=METHOD,
        smoothing=0.05,
    ) as bar:
        for n_frames in _run(jobs, workers):
            bar.update(n_frames)
    drops = _write(out, dict(zip(slugs, molecules, strict=True)), paths, settings)
    shutil.rmtree(parts)
    return drops


def _run(jobs: list[_Job], workers: int) -> Iterator[int]:
    """Makes the parts in fresh processes; yields the frames of each finished one."""
    # Workers inherit these; numerical libraries read them when they are loaded.
    one_thread: dict[str, str] = dict.fromkeys(
        ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"
    )
    before = {name: os.environ[name] for name in one_thread if name in os.environ}
    os.environ.update(one_thread)
    executor = futures.ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), _end_with_parent
    )
    try:
        for done in futures.as_completed(executor.submit(_make_part, j) for j in jobs):
            yield done.result()
    except BrokenProcessPool:
        raise UserError(
            "a worker process died, perhaps for lack of memory: give the same command "
            "again, it goes on from the finished molecules; fewer workers need less"
        ) from None
    finally:
        executor.shutdown(cancel_futures=True)
        for name in one_thread:
            del os.environ[name]
        os.environ.update(before)


def _end_with_parent() -> None:
    """Lets a worker end when the main process was killed and cannot tell it."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


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
    """The folder of finished molecules, which must have been made in the same way."""
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


def _make_part(job: _Job) -> int:
    """Samples and labels one molecule in a worker; returns the frames tried."""
    molecule, settings, path = job
    arrays, drops = sample_molecule(molecule, settings)
    content: dict[str, Any] = {**arrays, "drops": np.array(json.dumps(drops))}
    draft = path.with_name(path.name + ".tmp")
    with draft.open("wb") as file:
        np.savez(file, **content)
    draft.replace(path)
    return settings.frames_per_molecule


def sample_molecule(
    molecule: Molecule, settings: Settings
) -> tuple[dict[str, np.ndarray], Counter[str]]:
    """The labelled frames of one molecule as HDF5 datasets, and its drops by reason."""
    drops: Counter[str] = Counter()
    positions, energies, forces, kinds = [], [], [], []
    try:
        prepared = prepare(molecule.smiles, settings.seed)
    except GeometryError:
        drops["no equilibrium geometry"] = settings.frames_per_molecule
        return {}, drops
    numbers = prepared.numbers
    for index in range(settings.frames_per_molecule):
        try:
            drawn, kind = draw_frame(prepared, settings.seed, index)
            # Labels belong to the stored float32 positions, not to the drawn ones.
            frame = drawn.astype(np.float32)
            if _closest(frame) < MIN_DISTANCE_ANG:
                drops["fused atoms"] += 1
                continue
            energy_ev, force_ev = energy_and_forces(numbers, frame)
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
    return {
        "atomic_numbers": numbers,
        "coordinates": np.array(positions, np.float32).reshape(shape),
        ENERGY_KEY: np.array(energies, np.float64),
        FORCES_KEY: np.array(forces, np.float32).reshape(shape),
        "frame_kind": np.array(kinds, np.uint8),
    }, drops


def _closest(positions: np.ndarray) -> float:
    """The smallest distance between two atoms."""
    first, second = np.triu_indices(len(positions), 1)
    return float(np.linalg.norm(positions[first] - positions[second], axis=1).min())


def _write(
    out: pathlib.Path,
    molecules: dict[str, Molecule],
    paths: dict[str, pathlib.Path],
    settings: Settings,
) -> Counter[str]:
    """Joins the parts in the order of the list; equal parts give equal bytes."""
    drops: Counter[str] = Counter()
    draft = out.with_name(out.name + ".tmp")
    # The oldest file format stores no times of its groups.
    with h5py.File(draft, "w", libver=("earliest", "v108")) as file:
        for slug, arrays, part_drops in _parts(paths):
            drops.update(part_drops)
            if not len(arrays.get("coordinates", ())):
                continue
            group = file.create_group(slug)
            molecule = molecules[slug]
            group.attrs["name"] = molecule.name
            group.attrs["smiles"] = molecule.smiles
            group.attrs["held_out"] = is_held_out(molecule.smiles)
            for key, array in arrays.items():
                group.create_dataset(key, data=array, track_times=False)
        file.attrs["schema_version"] = settings.schema_version
        file.attrs["method"] = METHOD
        file.attrs["seed"] = settings.seed
        file.attrs["frames_per_molecule"] = settings.frames_per_molecule
        file.attrs["versions"] = json.dumps(settings.versions)
        file.attrs["dropped"] = json.dumps(dict(sorted(drops.items())))
        file.attrs["frame_kind"] = json.dumps({kind.name: kind for kind in FrameKind})
        file.attrs["units"] = json.dumps(
            {
                "coordinates": "angstrom",
                ENERGY_KEY: "hartree",
                FORCES_KEY: "hartree/angstrom",
            }
        )
    draft.replace(out)
    return drops


def _parts(
    paths: dict[str, pathlib.Path],
) -> Iterator[tuple[str, dict[str, np.ndarray], dict[str, int]]]:
    for slug, path in paths.items():
        with np.load(path) as part:
            arrays = {key: part[key] for key in part.files}
        yield slug, arrays, json.loads(str(arrays.pop("drops")))
