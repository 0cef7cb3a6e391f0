"""The files of a generated data set: its parts, and the HDF5 file made of them."""

import json
import os
import pathlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import h5py
import numpy as np

from chemscale_jax.chem.geometries import FrameKind
from chemscale_jax.chem.molecule_list import Molecule, is_held_out

ENERGY_KEY = "gfn2_xtb.energy"
FORCES_KEY = "gfn2_xtb.forces"
# Of parts, beside their datasets.
_DROPS, _SECONDS = "drops", "seconds"


class Cost(NamedTuple):
    """What frames of one size cost, on one core."""

    labels: int
    label_s: float  # of single points alone
    total_s: float  # with geometries: conformers, vibrations, dynamics


def write_part(
    path: pathlib.Path,
    arrays: Mapping[str, np.ndarray],
    drops: Mapping[str, int],
    seconds: tuple[float, float],
) -> None:
    """Writes a part so that it is there whole or not at all.

    Args:
        path: of the part.
        arrays: its HDF5 datasets; none where the molecule could not be made.
        drops: frames left out, by reason.
        seconds: of labels alone, and of everything.
    """
    content: dict[str, Any] = {
        **arrays,
        _DROPS: np.array(json.dumps(drops)),
        _SECONDS: np.array(seconds),
    }
    # A worker that outlives its run by a moment must not share the draft.
    draft = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with draft.open("wb") as file:
        np.savez(file, **content)
    draft.replace(path)


def join_parts(
    out: pathlib.Path,
    molecules: Mapping[str, Molecule],
    parts: Mapping[str, Sequence[pathlib.Path]],
    facts: Mapping[str, Any],
) -> tuple[Counter[str], dict[int, Cost]]:
    """Writes the HDF5 file in the order of the list; equal parts give equal bytes.

    Args:
        out: the file; it appears only when it is whole.
        molecules: {group: its molecule}.
        parts: {group: its parts, in order}.
        facts: attributes of the file.

    Returns:
        Dropped frames by reason, and costs by number of atoms.
    """
    drops: Counter[str] = Counter()
    costs: dict[int, Cost] = {}
    draft = out.with_name(out.name + ".tmp")
    # The oldest file format stores no times of its groups.
    with h5py.File(draft, "w", libver=("earliest", "v108")) as file:
        for slug, molecule in molecules.items():
            arrays, part_drops, seconds = _joined(parts[slug])
            drops.update(part_drops)
            if not len(arrays.get("coordinates", ())):
                continue
            n_frames, n_atoms, _ = arrays["coordinates"].shape
            cost = costs.get(n_atoms, Cost(0, 0.0, 0.0))
            costs[n_atoms] = Cost(
                cost.labels + n_frames,
                cost.label_s + float(seconds[0]),
                cost.total_s + float(seconds[1]),
            )
            group = file.create_group(slug)
            group.attrs["name"] = molecule.name
            group.attrs["smiles"] = molecule.smiles
            group.attrs["held_out"] = is_held_out(molecule.smiles)
            for key, array in arrays.items():
                group.create_dataset(key, data=array, track_times=False)
        for key, value in facts.items():
            file.attrs[key] = value
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
    return drops, dict(sorted(costs.items()))


def _joined(
    paths: Sequence[pathlib.Path],
) -> tuple[dict[str, np.ndarray], Counter[str], np.ndarray]:
    """The datasets of one molecule, its drops and its seconds."""
    drops: Counter[str] = Counter()
    seconds = np.zeros(2)
    found: dict[str, list[np.ndarray]] = {}
    for path in paths:
        with np.load(path) as part:
            drops.update(json.loads(str(part[_DROPS])))
            seconds += part[_SECONDS]
            for key in part.files:
                if key not in (_DROPS, _SECONDS):
                    found.setdefault(key, []).append(part[key])
    joined = {
        # The atoms are those of every part.
        key: some[0] if key == "atomic_numbers" else np.concatenate(some)
        for key, some in found.items()
    }
    return joined, drops, seconds


def rate_table(costs: Mapping[int, Cost]) -> str:
    """Labels per second of one core against the number of atoms, as text."""
    lines = ["atoms   labels  ms/label  ms/frame  labels/s per core"]
    rows = [(f"{n:5}", cost) for n, cost in costs.items()]
    labels = sum(cost.labels for cost in costs.values())
    if labels:
        mean = sum(n * cost.labels for n, cost in costs.items()) / labels
        label_s, total_s = (
            sum(getattr(cost, name) for cost in costs.values())
            for name in ("label_s", "total_s")
        )
        rows.append((f"{mean:5.1f}", Cost(labels, label_s, total_s)))
    for name, cost in rows:
        lines.append(
            f"{name} {cost.labels:8} {1e3 * cost.label_s / cost.labels:9.2f} "
            f"{1e3 * cost.total_s / cost.labels:9.2f} "
            f"{cost.labels / max(cost.total_s, 1e-9):18.0f}"
        )
    return "\n".join(lines)
