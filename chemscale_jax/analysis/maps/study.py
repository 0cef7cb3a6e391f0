"""Maps of several spaces, and how well each space knows given labels."""

import dataclasses
import hashlib
import json
import os
import pathlib
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from chemscale_jax.analysis.maps import cluster_quality, embedding_maps
from chemscale_jax.analysis.maps.cluster_quality import Gap, Measure
from chemscale_jax.analysis.maps.embedding_maps import MapSettings
from chemscale_jax.analysis.maps.mapped_molecules import Coloring, MappedMolecules

# By which spaces are compared, and whether less of it is better.
HEADLINES = {"balanced": False, "contrast": True}
# Fewer molecules with a number are not measured.
LEAST_NUMBERS = 4 * cluster_quality.NEIGHBORS
_KEPT_MOST = 5000


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudySettings:
    """What is measured.

    Attributes:
        neighbors: k.
        least_members: of a group; smaller ones are left out of the numbers.
        seed: of halves and permutations.
        replicates: number of halves.
        permutations: of labels.
    """

    neighbors: int = cluster_quality.NEIGHBORS
    least_members: int = cluster_quality.LEAST_MEMBERS
    seed: int = 0
    replicates: int = cluster_quality.REPLICATES
    permutations: int = cluster_quality.PERMUTATIONS


class Finding(NamedTuple):
    """How well spaces know one label.

    Attributes:
        coloring: the label.
        molecules: it was measured on; 0: too few.
        groups: that are large enough, 0 of numbers.
        spaces: measures of each space, by its name; none if too few molecules.
        maps: the same in the two dimensions of the map.
        gaps: first less second of two spaces, by the headline measure.
    """

    coloring: Coloring
    molecules: int
    groups: int
    spaces: Mapping[str, Mapping[str, Measure]]
    maps: Mapping[str, Mapping[str, Measure]]
    gaps: Mapping[tuple[str, str], Gap]

    @property
    def headline(self) -> str:
        """The measure that spaces are compared by."""
        return "contrast" if self.coloring.groups is None else "balanced"


class MapStudy(NamedTuple):
    """All that is said about some maps.

    Attributes:
        molecules: that are shown.
        settings: of the layout.
        study: of the measures.
        scales: how each space was scaled.
        maps: (n, 2) by the name of the space.
        kept: share of nearest neighbours in the space that are so on the map.
        findings: one for each label.
    """

    molecules: MappedMolecules
    settings: MapSettings
    study: StudySettings
    scales: Mapping[str, str]
    maps: Mapping[str, np.ndarray]
    kept: Mapping[str, float]
    findings: Sequence[Finding]


def study_maps(
    molecules: MappedMolecules,
    colorings: Sequence[Coloring],
    settings: MapSettings,
    study: StudySettings,
    folder: pathlib.Path | None = None,
    *,
    progress: bool = True,
) -> MapStudy:
    """Lays out every space and measures it.

    Args:
        molecules: and their spaces.
        colorings: labels to measure by.
        settings: of the layout.
        study: of the measures.
        folder: where finished layouts are kept, which a call that was stopped takes
            from there; None: nowhere.
        progress: whether there is a bar.

    Raises:
        UserError: see `embedding_maps.map_coordinates`.
    """
    names = list(molecules.spaces)
    scales, maps, kept = {}, {}, {}
    steps = len(names) * (1 + len(colorings))
    measured: list[list[dict[str, Mapping[str, Measure]]]] = [
        [{}, {}] for _ in colorings
    ]
    chosen = [_measured_on(coloring, study) for coloring in colorings]
    with tqdm(total=steps, desc="maps", unit="step", disable=not progress) as bar:
        for name in names:
            own = molecules.spaces[name]
            scales[name] = embedding_maps.scale_of(own, settings.scale)
            space = embedding_maps.scaled(own, scales[name])
            bar.set_postfix_str(f"{name}: {settings.method}")
            maps[name] = _kept_layout(space, settings, folder, name)
            some = slice(None, _KEPT_MOST)
            kept[name] = cluster_quality.kept_neighbors(
                space[some], maps[name][some], study.neighbors
            )
            bar.update()
            for coloring, rows, found in zip(colorings, chosen, measured, strict=True):
                bar.set_postfix_str(f"{name}: {coloring.name}")
                if rows.any():
                    for place, values in enumerate((space, maps[name])):
                        found[place][name] = _measure(values, coloring, rows, study)
                bar.update()
    findings = [
        _finding(coloring, rows, *found)
        for coloring, rows, found in zip(colorings, chosen, measured, strict=True)
    ]
    return MapStudy(molecules, settings, study, scales, maps, kept, findings)


def _measured_on(coloring: Coloring, study: StudySettings) -> np.ndarray:
    """(n,) bool, which molecules a label is measured on."""
    if coloring.groups is not None:
        return cluster_quality.eligible(coloring.groups, study.least_members)
    known = coloring.known
    return known if known.sum() >= LEAST_NUMBERS else np.zeros(len(known), bool)


def _measure(
    values: np.ndarray, coloring: Coloring, rows: np.ndarray, study: StudySettings
) -> dict[str, Measure]:
    options = {
        "neighbors": study.neighbors,
        "seed": study.seed,
        "replicates": study.replicates,
        "permutations": study.permutations,
    }
    if coloring.groups is not None:
        groups = coloring.groups[rows]
        return cluster_quality.group_quality(values[rows], groups, **options)
    assert coloring.numbers is not None
    numbers = coloring.numbers[rows]
    return cluster_quality.number_quality(values[rows], numbers, **options)


def _finding(
    coloring: Coloring,
    rows: np.ndarray,
    spaces: Mapping[str, Mapping[str, Measure]],
    maps: Mapping[str, Mapping[str, Measure]],
) -> Finding:
    groups = 0
    if coloring.groups is not None and rows.any():
        groups = len(np.unique(coloring.groups[rows]))
    found = Finding(coloring, int(rows.sum()), groups, spaces, maps, {})
    names = list(spaces)
    gaps = {
        (first, second): cluster_quality.difference(
            spaces[first][found.headline], spaces[second][found.headline]
        )
        for place, first in enumerate(names)
        for second in names[place + 1 :]
    }
    return found._replace(gaps=gaps)


def _kept_layout(
    space: np.ndarray, settings: MapSettings, folder: pathlib.Path | None, name: str
) -> np.ndarray:
    """The layout of a space, from the folder if it was made of the same before."""
    if folder is None:
        return embedding_maps.map_coordinates(space, settings)
    digest = hashlib.sha256(json.dumps(dataclasses.asdict(settings)).encode())
    digest.update(np.ascontiguousarray(space).tobytes())
    stamp = digest.hexdigest()
    path = folder / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.npz"
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            if str(file["stamp"]) == stamp:
                return file["coordinates"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        pass  # nothing, or of something else: made anew
    found = embedding_maps.map_coordinates(space, settings)
    folder.mkdir(parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(dir=folder)
    with os.fdopen(handle, "wb") as file:
        np.savez(file, stamp=np.array(stamp), coordinates=found)
    os.replace(draft, path)
    return found
