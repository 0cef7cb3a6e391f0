"""The data card of a generated data set, written from the file itself."""

import json
import pathlib
from typing import Any

import h5py
import numpy as np

from chemscale_jax.chem import geometries
from chemscale_jax.chem.geometries import FrameKind
from chemscale_jax.chem.units import HARTREE_EV
from chemscale_jax.data.frames.generate import (
    ENERGY_KEY,
    FORCES_KEY,
    MAX_FORCE_EV_PER_ANG,
    MIN_DISTANCE_ANG,
)

_TEMPLATE = """\
# Data card: {file_name}

Displaced geometries of small molecules of C, H, N and O with {method} energies and
forces. The file was made by `chemscale generate`, and this card from the file.

{table}

## Method

- Molecules: well-known neutral closed-shell compounds, listed by name and SMILES in
  `chem/molecules.csv`. Where the SMILES leaves a stereocentre open, RDKit chose it.
- Conformers: RDKit ETKDGv3, up to {conformers} for flexible molecules, relaxed with
  {method} to about {relaxed} eV/angstrom. A conformer that relaxed to other bonds than
  those of its SMILES is not used. Hessians are central differences of forces.
- Normal-mode frames: sampled as for ANI-1 (Smith, Isayev, Roitberg 2017) at
  {t_normal}. A mode moves no atom by more than {cap} angstrom, which the paper
  does not limit.
- Thermal frames: a Boltzmann draw on the quadratic surface at {t_thermal}, then
  {steps} steps of {step_fs} fs of Langevin dynamics on the {method} surface, each frame
  from its own draw.
- Stretched frames: a gentle normal-mode sample in which one bond that is in no ring is
  {stretch} angstrom longer. `frame_kind` marks them.
- Labels: a fresh single point for every frame (tblite, accuracy 0.1, neutral singlet,
  300 K electronic temperature), at the stored float32 coordinates.
- Dropped and counted, not replaced: failed SCF, a force component above
  {max_force} eV/angstrom, two atoms closer than {min_distance} angstrom.
- Held-out molecules are chosen by the SHA-256 of their canonical SMILES, so the choice
  does not depend on the list.

{method} is a semi-empirical method: these labels are for learning and testing, not for
thermochemistry.

## Layout

The layout of ANI-1x: a group for each molecule with the datasets

- `atomic_numbers` (atoms), uint8
- `coordinates` (frames, atoms, 3), float32, {coordinates}
- `{energy_key}` (frames), float64, {energy}
- `{forces_key}` (frames, atoms, 3), float32, {forces}
- `frame_kind` (frames), uint8: {kinds}

and the attributes `name`, `smiles` (canonical) and `held_out`.

## Making it again

```
pip install 'chemscale_jax[generate]'
chemscale generate --out={file_name} --card=CARD.md \\
    --frames-per-molecule={frames_per_molecule} --seed={seed}
```

Versions: {versions}.
With these, on one machine, the file comes out equal bit for bit, with any number of
workers. Elsewhere the molecules and the number of frames drawn are the same, and
labels of equal geometries agree within 1e-4 eV.

## Licence

Apache-2.0, as the package.
"""


def write_card(data_path: str | pathlib.Path, card_path: str | pathlib.Path) -> None:
    """Writes the Markdown card of a data set made by ``chemscale generate``."""
    pathlib.Path(card_path).write_text(data_card(data_path), encoding="utf-8")


def data_card(data_path: str | pathlib.Path) -> str:
    """The Markdown card of a data set made by ``chemscale generate``."""
    data_path = pathlib.Path(data_path)
    with h5py.File(data_path) as file:
        attrs: dict[str, Any] = dict(file.attrs)
        rows = _figures(file)
    rows["frames drawn for each molecule"] = str(attrs["frames_per_molecule"])
    drops = json.loads(attrs["dropped"])
    rows["frames dropped"] = _listed(drops, ": ") if drops else "0"
    rows["file size"] = f"{data_path.stat().st_size} bytes"
    table = "\n".join(f"| {what} | {value} |" for what, value in rows.items())
    units = json.loads(attrs["units"])
    return _TEMPLATE.format(
        file_name=data_path.name,
        table=f"| what | value |\n|---|---|\n{table}",
        method=attrs["method"],
        seed=attrs["seed"],
        frames_per_molecule=attrs["frames_per_molecule"],
        versions=_listed(json.loads(attrs["versions"]), " "),
        kinds=_listed(json.loads(attrs["frame_kind"]), " = "),
        coordinates=units["coordinates"],
        energy=units[ENERGY_KEY],
        forces=units[FORCES_KEY],
        energy_key=ENERGY_KEY,
        forces_key=FORCES_KEY,
        conformers=geometries.MAX_CONFORMERS,
        relaxed=geometries.RELAXED_FORCE_EV_PER_ANG,
        cap=geometries.MODE_CAP_ANG,
        steps=geometries.LANGEVIN_STEPS,
        step_fs=geometries.LANGEVIN_STEP_FS,
        stretch=_range(geometries.STRETCH_ANG),
        t_normal=_range(geometries.NORMAL_MODE_KELVIN) + " K",
        t_thermal=_range(geometries.THERMAL_KELVIN) + " K",
        max_force=MAX_FORCE_EV_PER_ANG,
        min_distance=MIN_DISTANCE_ANG,
    )


def _figures(file: h5py.File) -> dict[str, str]:
    """Counts and ranges over all groups of a data set, as rows of a table."""
    energies, relative, mean_force, max_force = [], [], [], []
    kinds, atoms, held_out = [], [], []
    for group in file.values():
        energy = group[ENERGY_KEY][()]
        energies.append(energy)
        relative.append((energy - energy.min()) * HARTREE_EV)
        size = np.abs(group[FORCES_KEY][()]) * HARTREE_EV
        mean_force.append(size.mean((1, 2)))
        max_force.append(size.max((1, 2)))
        kinds.append(group["frame_kind"][()])
        atoms.append(np.full(len(energy), len(group["atomic_numbers"])))
        held_out.append(len(energy) if group.attrs["held_out"] else 0)
    kind, n_atoms = np.concatenate(kinds), np.concatenate(atoms)
    energy, above = np.concatenate(energies), np.concatenate(relative)
    force, peak = np.concatenate(mean_force), np.concatenate(max_force)
    window = (kind != FrameKind.STRETCHED) & (force >= 0.5) & (force <= 1.0)
    n_held_out = np.count_nonzero(held_out)
    return {
        "frames": f"{len(kind)}",
        "molecules": f"{len(kinds)}",
        "held-out molecules": f"{n_held_out} ({n_held_out / len(kinds):.1%}), "
        f"with {sum(held_out)} frames",
        "normal-mode frames": f"{(kind == FrameKind.NORMAL_MODE).sum()}",
        "thermal frames": f"{(kind == FrameKind.THERMAL).sum()}",
        "stretched frames": f"{(kind == FrameKind.STRETCHED).sum()}",
        "atoms": f"{n_atoms.min()} to {n_atoms.max()}, "
        f"mean over frames {n_atoms.mean():.2f}",
        "total energy": f"{energy.min():.5f} to {energy.max():.5f} hartree",
        "energy above the molecule's lowest frame": f"median {np.median(above):.2f} "
        f"eV, at most {above.max():.2f} eV",
        "mean absolute force component": f"{force @ n_atoms / n_atoms.sum():.3f} "
        "eV/angstrom",
        "largest force component": f"{peak.max():.2f} eV/angstrom",
        "frames that are not stretched, with a mean absolute force component of "
        "0.5 to 1.0 eV/angstrom": f"{window.sum()} ({window.mean():.1%})",
    }


def _listed(facts: dict[str, object], between: str) -> str:
    return ", ".join(f"{name}{between}{value}" for name, value in facts.items())


def _range(bounds: tuple[float, float]) -> str:
    return f"{bounds[0]:g} to {bounds[1]:g}"
