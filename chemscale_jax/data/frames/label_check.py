"""Do the forces of a data set fit its energies? A wrong sign or unit does not.

Between two frames that lie close together, the energy changes by the work against the
forces. With both ends' forces (the trapezoid rule)

    work = -(F_a + F_b) / 2 . (x_b - x_a) = factor (E_b - E_a),

after the frames are aligned (Kabsch 1976). The factor is 1 for consistent labels, -1
where gradients were taken for forces, and a ratio of units where one quantity was read
in the wrong one. The error of the rule is third order in the step, so it is compared
with the second-order term, |F_a - F_b| . |x_b - x_a|: on files that are right it is a
few percent of that term, whatever the molecule.

Units that are wrong alike in energies and forces leave the factor at 1. They show in
two sizes that nature fixes: how near the next atom is to a hydrogen, and how deep the
total energy of an atom lies.
"""

import json
import pathlib
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from chemscale_jax.chem import units
from chemscale_jax.core.errors import UserError
from chemscale_jax.data.cache import derived_folder
from chemscale_jax.data.frames.label_faults import explain, impossible_sizes
from chemscale_jax.data.frames.source import FrameSource, Record

MODES = ("refuse", "warn", "off")
# Raise when the outcome for the same records may change.
_SCHEMA = 1
# Cost: frames read in all and from one group, atoms that tell which frames are near.
_FRAMES, _FRAMES_OF_GROUP, _LANDMARKS = 8_000, 800, 32
_PAIRS_RESAMPLED, _RESAMPLES = 4_000, 200
# Closer frames are copies; further ones share too little for two ends to tell.
_NEAREST_ANG, _FURTHEST_ANG = 1e-3, 0.4
_SMALLEST_EV = 2e-5  # energy differences below it may be rounding
# Verdicts, tried on public sets: right ones have factors of 0.92 to 1.03, and errors of
# 0.001 to 0.03 of the second-order term; forces of other atoms 0.11 or more.
_FEWEST_PAIRS, _FEWEST_TO_REJECT_ALL = 20, 50
_AGREES = (0.65, 1.5)
_TIDY, _UNTIDY, _UNEXPLAINED = 0.06, 0.1, 0.7
# Elements whose bonds to hydrogen are 0.74 to 1.5 angstrom long; in one data set most
# are within this ratio of each other.
_SAME_BOND = 1.4
_HYDROGEN_BINDERS = (1, 5, 6, 7, 8, 9, 14, 15, 16, 17)


class _Pairs(NamedTuple):
    """Steps between near frames: two rectangle rules for the work, and the energies."""

    first: np.ndarray  # (pairs,) eV, with the forces of the first frame
    second: np.ndarray  # (pairs,) eV, with those of the second
    energy: np.ndarray  # (pairs,) eV, E_b - E_a
    distance: np.ndarray  # (pairs,) angstrom, root mean square over atoms


def checked_labels(
    source: FrameSource, records: np.ndarray, mode: str = "refuse"
) -> dict[str, Any]:
    """The outcome of `check_labels`, found once per source and set of records.

    Args:
        source: the records.
        records: indices of those to look at.
        mode: "refuse" labels that disagree, "warn" about them, or "off".

    Raises:
        UserError: the labels disagree, or the mode is unknown.
    """
    if mode not in MODES:
        raise UserError(
            f"config.data.label_check={mode!r} is unknown: use one of {MODES}"
        )
    if mode == "off":
        return {"outcome": "off", "reason": "config.data.label_check=off"}
    key = None
    if source.identity is not None:
        key = {
            "label_check": _SCHEMA,
            "source": source.identity,
            "records": zlib.crc32(np.ascontiguousarray(records, np.int64).tobytes()),
        }

    def fill(folder: pathlib.Path) -> None:
        found = check_labels(source, records)
        (folder / "outcome.json").write_text(json.dumps(found))

    folder = derived_folder("labels", key, fill)
    outcome = json.loads((folder / "outcome.json").read_text())
    if outcome["outcome"] == "disagrees":
        text = (
            f"{source.report.get('path', 'the data')}: energies, forces and positions "
            f"do not fit together: {outcome['reason']}; correct the units in "
            "config.data, or the file, or go on with config.data.label_check=warn"
        )
        if mode == "refuse":
            raise UserError(text)
    return outcome


def check_labels(
    source: FrameSource, records: np.ndarray, seed: int = 0
) -> dict[str, Any]:
    """Compares forces with energy differences of near frames of equal composition.

    Looks at up to 8,000 labelled frames.

    Args:
        source: the records.
        records: indices of those to look at.
        seed: of the choice among them.

    Returns:
        JSON-able: ``outcome`` ("agrees", "disagrees" or "undecidable"), ``reason`` in
        words, ``pairs`` compared; where there are enough of them ``factor``, its
        ``interval`` (96 %) and ``residual``, the median error in units of the
        second-order term; ``hydrogen_ang``, the median distance from a hydrogen to
        its nearest atom, and ``depth``, energies in units of those of neutral atoms,
        each None where it cannot be told.
    """
    rng = np.random.Generator(np.random.Philox(key=[seed, _SCHEMA]))
    found: list[_Pairs] = []
    hydrogen: list[np.ndarray] = []
    depth: list[float] = []
    for members in _chosen(source, records, rng):
        frames = [source[int(i)] for i in members]
        hydrogen += [
            _hydrogen_distances(r) for r in frames[:: max(1, len(frames) // 8)]
        ]
        depth += [_depth(r) for r in frames[::8] if r.energy_mask]
        for alike in _alike(frames):
            found.append(_pairs(alike))
    none = _Pairs(*(np.zeros(0) for _ in _Pairs._fields))
    joined = zip(none, *found, strict=True)
    pairs = _Pairs(*(np.concatenate(parts) for parts in joined))
    near = (pairs.distance > _NEAREST_ANG) & (pairs.distance < _FURTHEST_ANG)
    near &= np.abs(pairs.energy) > _SMALLEST_EV
    pairs = _Pairs(*(part[near] for part in pairs))
    facts = {
        "pairs": len(pairs.energy),
        "hydrogen_ang": _typical(np.concatenate([np.zeros(0), *hydrogen])),
        "depth": _median(np.array(depth)),
    }
    return {**facts, **_verdict(pairs, facts, rng)}


def summary_of(outcome: Mapping[str, Any]) -> str:
    """The outcome as a few words for the line about the data."""
    word = outcome["outcome"]
    if word == "off":
        return "labels not checked"
    if word == "agrees":
        return f"labels agree, {outcome['reason']} ({outcome['pairs']} pairs of frames)"
    sign = "warning: labels disagree" if word == "disagrees" else "labels undecidable"
    return f"{sign}: {outcome['reason']}"


def _chosen(source: FrameSource, records: np.ndarray, rng: np.random.Generator):
    """Some frames of some groups: half of them with the frame that follows."""
    ordered = np.sort(records)
    ordered = ordered[np.argsort(source.group[ordered], kind="stable")]
    starts = np.flatnonzero(np.diff(source.group[ordered], prepend=-1))
    groups = np.split(ordered, starts[1:])
    left = _FRAMES
    for number in rng.permutation(len(groups)):
        members = groups[number]
        if len(members) > _FRAMES_OF_GROUP:
            # In a trajectory the next frame is the nearest.
            first = rng.choice(len(members) - 1, _FRAMES_OF_GROUP // 2, replace=False)
            members = members[np.unique(np.concatenate([first, first + 1]))]
        yield members
        left -= len(members)
        if left <= 0:
            return


def _alike(frames: list[Record]) -> list[list[Record]]:
    """Labelled frames with one charge, spin and cell, two or more of each."""
    sets: dict[Any, list[Record]] = {}
    for record in frames:
        if record.energy_mask and record.forces_mask:
            cell = None if record.cell is None else record.cell.tobytes()
            sets.setdefault((record.charge, record.spin, cell), []).append(record)
    return [alike for alike in sets.values() if len(alike) > 1]


def _pairs(frames: list[Record]) -> _Pairs:
    """Each frame with its nearest one; each pair once."""
    x_FN3 = np.stack([r.positions for r in frames]).astype(np.float64)
    f_FN3 = np.stack([r.forces for r in frames]).astype(np.float64)
    energy = np.array([r.energy for r in frames])
    cell = frames[0].cell
    if cell is not None:
        # Frames of a trajectory only: nothing may turn in a cell.
        a, b = np.arange(len(frames) - 1), np.arange(1, len(frames))
        step_FN3 = x_FN3[b] - x_FN3[a]
        step_FN3 -= np.round(step_FN3 @ np.linalg.pinv(cell)) @ cell
        forces = f_FN3[b]
    else:
        a, b = _nearest(x_FN3)
        start_FN3, end_FN3 = (
            x_FN3[i] - x_FN3[i].mean(1, keepdims=True) for i in (a, b)
        )
        turn_F33 = _rotations(end_FN3, start_FN3)
        step_FN3, forces = end_FN3 @ turn_F33 - start_FN3, f_FN3[b] @ turn_F33
    return _Pairs(
        -np.sum(f_FN3[a] * step_FN3, (1, 2)),
        -np.sum(forces * step_FN3, (1, 2)),
        energy[b] - energy[a],
        np.sqrt(np.mean(np.sum(step_FN3**2, 2), 1)),
    )


def _nearest(x_FN3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (a, b) of nearest frames by their tables of distances; each pair once."""
    F, N, _ = x_FN3.shape
    some = np.unique(np.linspace(0, N - 1, min(N, _LANDMARKS)).astype(int))
    i, j = np.triu_indices(len(some), 1)
    table = np.linalg.norm(x_FN3[:, some[i]] - x_FN3[:, some[j]], axis=-1)
    table -= table.mean(0)
    squares = np.sum(table**2, 1)
    apart_FF = squares[:, None] + squares - 2 * table @ table.T
    np.fill_diagonal(apart_FF, np.inf)
    pairs = np.stack([np.arange(F), apart_FF.argmin(1)], 1)
    a, b = np.unique(np.sort(pairs, 1), axis=0).T
    return a, b


def _rotations(from_FN3: np.ndarray, to_FN3: np.ndarray) -> np.ndarray:
    """Proper rotations with ``from @ rotation`` nearest to ``to``: (F, 3, 3)."""
    u_F33, _, vt_F33 = np.linalg.svd(np.swapaxes(from_FN3, 1, 2) @ to_FN3)
    u_F33[:, :, 2] *= np.sign(np.linalg.det(u_F33 @ vt_F33))[:, None]
    return u_F33 @ vt_F33


def _verdict(
    pairs: _Pairs, facts: Mapping[str, Any], rng: np.random.Generator
) -> dict[str, Any]:
    """Outcome and reason, and what the factor rests on."""
    sizes = impossible_sizes(facts["hydrogen_ang"], facts["depth"])
    n = len(pairs.energy)
    if n < _FEWEST_PAIRS:
        if sizes:
            return {"outcome": "disagrees", "reason": sizes}
        reason = (
            f"only {n} pairs of frames of equal composition lie within "
            f"{_FURTHEST_ANG} angstrom and differ in energy, {_FEWEST_PAIRS} are "
            "needed to tell whether forces fit energies"
        )
        return {"outcome": "undecidable", "reason": reason}
    work = (pairs.first + pairs.second) / 2
    scale = np.abs(pairs.first - pairs.second) + 0.1 * np.abs(work) + 1e-5
    factor, (low, high) = _factor(work, pairs.energy, scale, rng)
    off = np.abs(work - factor * pairs.energy) / scale
    residual = float(np.median(off))
    as_one = float(np.median(np.abs(work - pairs.energy) / scale))
    measured = {
        "factor": factor,
        "interval": [low, high],
        "residual": residual,
    }
    tidy = residual <= _TIDY
    far = high < _AGREES[0] or low > _AGREES[1]
    sharp = high - low < 0.35 * abs(factor)
    unrelated = (
        n >= _FEWEST_TO_REJECT_ALL
        and min(residual, as_one) > _UNTIDY
        and off.sum() > _UNEXPLAINED * np.sum(np.abs(work) / scale)
    )
    if tidy and sharp and far:
        reason = explain(factor, facts["hydrogen_ang"], facts["depth"])
        return {"outcome": "disagrees", "reason": reason, **measured}
    if sizes:
        return {"outcome": "disagrees", "reason": sizes, **measured}
    if unrelated:
        reason = (
            f"the forces say nothing about the energy differences of {n} pairs of near "
            f"frames (best factor {factor:.2g}); perhaps the atoms or frames of one "
            "array are in another order"
        )
        return {"outcome": "disagrees", "reason": reason, **measured}
    if tidy and _AGREES[0] <= low and high <= _AGREES[1]:
        reason = f"forces are {factor:.3f} times what energy differences ask for"
        return {"outcome": "agrees", "reason": reason, **measured}
    reason = (
        f"{n} pairs of near frames are too noisy to tell whether forces fit energies "
        f"(factor {factor:.2g}, between {low:.2g} and {high:.2g})"
    )
    return {"outcome": "undecidable", "reason": reason, **measured}


def _factor(
    work: np.ndarray, energy: np.ndarray, scale: np.ndarray, rng: np.random.Generator
) -> tuple[float, tuple[float, float]]:
    """The factor that minimises sum |work - factor energy| / scale, and 96 % of it.

    That is the median of work / energy with weights |energy| / scale; the interval
    comes from resampled pairs.
    """
    order = np.argsort(work / energy)
    ratio, weight = (work / energy)[order], (np.abs(energy) / scale)[order]
    n = len(order)
    size = min(n, _PAIRS_RESAMPLED)

    def median(counts: np.ndarray) -> float:
        total = np.cumsum(weight * counts)
        return float(ratio[np.searchsorted(total, total[-1] / 2)])

    resampled = [
        median(np.bincount(rng.integers(0, n, size), minlength=n))
        for _ in range(_RESAMPLES)
    ]
    low, high = np.quantile(resampled, [0.02, 0.98])
    return median(np.ones(n)), (float(low), float(high))


def _hydrogen_distances(record: Record) -> np.ndarray:
    """Distances from each hydrogen to its nearest atom, where they prove something."""
    z = record.species
    if len(z) < 3 or record.cell is not None or not np.isin(z, _HYDROGEN_BINDERS).all():
        return np.zeros(0)
    x = record.positions.astype(np.float64)
    apart = np.linalg.norm(x[z == 1][:, None] - x[None], axis=-1)
    # The nearest but itself.
    return np.sort(apart, 1)[:, 1]


def _depth(record: Record) -> float:
    """The energy in units of the neutral atoms' (Schwinger, Phys. Rev. A 24, 2353).

    E(Z) / hartree = -0.768745 Z^(7/3) + Z^2 / 2 - 0.2699 Z^(5/3), within 2 % of
    total energies of molecules; others (of valence electrons, of formation) are less.
    """
    z = record.species.astype(np.float64)
    atoms = -0.768745 * z ** (7 / 3) + z**2 / 2 - 0.2699 * z ** (5 / 3)
    return record.energy / float(atoms.sum() * units.HARTREE_EV)


def _typical(values: np.ndarray) -> float | None:
    """The median of lengths that are about equal, as bonds of one element are."""
    if not len(values):
        return None
    low, high = np.quantile(values, [0.1, 0.9])
    return float(np.median(values)) if high < _SAME_BOND * low else None


def _median(values: np.ndarray) -> float | None:
    return float(np.median(values)) if len(values) else None
