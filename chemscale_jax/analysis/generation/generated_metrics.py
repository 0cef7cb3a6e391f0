"""Metrics of generated molecules, beside those of reference data and of the prompts.

A figure of a generated set says little alone: where 45 % of the data are charged, a
perfect model passes the filters of MOSES for at most 55 %. So every figure stands
beside the same figure of the reference data themselves. Validity, uniqueness, novelty,
diversity and filters are of the reference as it is; what compares with a reference
compares a random half of it, of at most as many molecules as were generated, with the
other half.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from chemscale_jax.analysis.generation import set_metrics
from chemscale_jax.analysis.generation.set_metrics import Draws, Estimate
from chemscale_jax.analysis.markdown import markdown_table
from chemscale_jax.chem import chemnet
from chemscale_jax.chem.descriptors import PROPERTIES
from chemscale_jax.chem.medicinal_filters import RULES, FilterOptions, shares
from chemscale_jax.chem.molecule_profiles import (
    Profiles,
    canonical_keys,
    profile_all,
)
from chemscale_jax.chem.smiles import molecule_key
from chemscale_jax.core.errors import UserError

UNIQUE_AT = (1_000, 10_000)
MOST_REFERENCE = 10_000
# All pairs of more take minutes.
MOST_PAIRED = 30_000
COLUMNS = ("generated", "reference", "prompts")
_UNITS = {"MW": " (g/mol)"}
# Of the table: a handful of prompts is no sample of anything.
_WIDTHS = {"generated": 2, "reference": 2, "prompts": 1}

Column = dict[str, Estimate]


@dataclasses.dataclass(frozen=True)
class Metrics:
    """What was measured.

    Attributes:
        generated: SMILES as they were given.
        columns: {"generated", and "reference" and "prompts" where given: {metric:
            figure}}.
        failures: {column: {filter rule: share of readable molecules}}.
        neutral_failures: the same after charges were taken away.
        profiles: {column: what is known of each molecule}; unreadable ones included.
        notes: what a reader of the figures must know.
        settings: what the figures depend on.
    """

    generated: Sequence[str | None]
    columns: dict[str, Column]
    failures: dict[str, dict[str, float]]
    neutral_failures: dict[str, dict[str, float]]
    profiles: dict[str, Profiles]
    notes: tuple[str, ...]
    settings: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """All figures; None in place of one that is not defined."""
        return {
            "settings": self.settings,
            "metrics": {
                column: {name: _json(estimate) for name, estimate in found.items()}
                for column, found in self.columns.items()
            },
            "filters": self.failures,
            "filters_neutralised": self.neutral_failures,
            "notes": list(self.notes),
        }


def evaluate_molecules(
    generated: Sequence[str | None],
    reference: Sequence[str | None] | None = None,
    train: Sequence[str | None] | np.ndarray | None = None,
    prompts: Sequence[str | None] | None = None,
    *,
    filters: FilterOptions | None = None,
    unique_at: Sequence[int] = UNIQUE_AT,
    max_reference: int = MOST_REFERENCE,
    fcd: bool = False,
    seed: int = 0,
    replicates: int = 200,
    processes: int | None = None,
    progress: bool = True,
) -> Metrics:
    """Measures generated molecules as MOSES does, with intervals.

    Args:
        generated: SMILES, in the order of generation; None or "" for each attempt that
            gave none. What RDKit cannot read counts as invalid.
        reference: what to compare with, such as test molecules.
        train: what the model was trained on, for novelty: SMILES, or their (m,) uint64
            keys (`smiles.molecule_key` of RDKit's canonical SMILES).
        prompts: the molecules whose beginnings were prompts.
        filters: where their patterns come from; default our own MCF.
        unique_at: each k of unique@k.
        max_reference: a larger reference is thinned to so many, at random; 0 takes all.
        fcd: whether to compute the Frechet ChemNet distance, which needs an extra.
        seed: of everything random.
        replicates: draws of each interval.
        processes: default all that may be used.
        progress: whether to show bars.

    Raises:
        UserError: there is no molecule, a file of patterns cannot be used, or FCD is
            wanted and its package is missing.
    """
    filters = filters or FilterOptions()
    texts = {"generated": generated, "reference": reference, "prompts": prompts}
    for name, some in texts.items():
        if some is not None and not len(some):
            raise UserError(f"there are no {name} molecules: give at least one")
    notes = []
    if reference is not None and 0 < max_reference < len(reference):
        chosen = np.random.default_rng(seed).permutation(len(reference))
        texts["reference"] = [reference[i] for i in np.sort(chosen[:max_reference])]
        notes.append(
            f"The reference is a random {max_reference:,} of {len(reference):,} "
            "molecules; SNN, Frag, Scaf and FCD depend on how many there are."
        )
    if fcd and not chemnet.is_installed():
        raise UserError(
            f"FCD needs the package fcd: {chemnet.INSTALL}, or leave it out"
        )
    profiles = {
        name: profile_all(
            some, filters, processes=processes, label=name, progress=progress
        )
        for name, some in texts.items()
        if some is not None
    }
    known = _known(train, processes, progress)
    draws = Draws(seed, replicates)
    columns = {
        name: _alone(some, known, unique_at, draws) for name, some in profiles.items()
    }
    readable = {name: _readable(some) for name, some in profiles.items()}
    if reference is not None:
        for name in ("generated", "prompts"):
            if name in readable:
                columns[name] |= _beside(
                    readable[name], readable["reference"], fcd, draws
                )
        halves = _halves(readable["reference"], len(readable["generated"]), seed)
        columns["reference"] |= _beside(*halves, fcd, draws)
    else:
        notes.append(
            "No reference: SNN, Frag, Scaf, FCD and the distances of properties are "
            "left out."
        )
    if known is None:
        notes.append("No training molecules: novelty is left out.")
    if reference is not None and not fcd:
        notes.append(
            "FCD is left out: it is computed on demand (--fcd)"
            + ("." if chemnet.is_installed() else f" and needs {chemnet.INSTALL}.")
        )
    valid = len(readable["generated"])
    if few := [f"{k:,}" for k in unique_at if valid < k]:
        notes.append(f"Fewer than {' and '.join(few)} are valid: unique@k is over all.")
    if not valid:
        notes.append("None of the generated molecules can be read.")
    return Metrics(
        generated=generated,
        columns=columns,
        failures={name: shares(p.verdicts) for name, p in readable.items()},
        neutral_failures={
            name: shares(p.neutral_verdicts) for name, p in readable.items()
        },
        profiles=profiles,
        notes=tuple(notes),
        settings={
            "molecules": {name: len(some) for name, some in profiles.items()},
            "readable": {name: len(some) for name, some in readable.items()},
            "train": None if known is None else len(known),
            "mcf": str(filters.mcf) if filters.mcf else "own rules",
            "pains": str(filters.pains) if filters.pains else "RDKit's catalogue",
            "every_reason": filters.every,
            "seed": seed,
            "replicates": replicates,
        },
    )


def metrics_table(metrics: Metrics) -> str:
    """Two tables, of metrics and of what filters reject, with a legend."""
    columns = [name for name in COLUMNS if name in metrics.columns]
    header = ["metric", "over"]
    for name in columns:
        header += [name, "95 % interval"][: _WIDTHS[name]]
    names = list(dict.fromkeys(n for c in columns for n in metrics.columns[c]))
    rows = []
    for name in names:
        first = metrics.columns["generated"].get(name)
        row = [name, f"{first.over:,}" if first else "-"]
        for column in columns:
            cells = _cells(metrics.columns[column].get(name))
            row += cells[: _WIDTHS[column]]
        rows.append(row)
    rejected = []
    for kind, found in (
        ("as they are", metrics.failures),
        ("neutralised", metrics.neutral_failures),
    ):
        for rule in ("pass", *RULES[1:]):
            cells = [f"{100 * found[column][rule]:.1f} %" for column in columns]
            rejected.append([rule if rule == "pass" else f"- {rule}", kind, *cells])
    parts = [
        markdown_table(header, rows),
        markdown_table(["filters of MOSES", "molecules", *columns], rejected),
        "\n".join(f"- {line}" for line in _legend(metrics)),
    ]
    return "\n\n".join(parts)


def _alone(
    profiles: Profiles, known: np.ndarray | None, unique_at: Sequence[int], draws: Draws
) -> Column:
    """What needs no reference."""
    some = _readable(profiles)
    column = {"valid": set_metrics.mean_of(profiles.valid, draws)}
    for k in unique_at:
        column[f"unique@{k:,}"] = set_metrics.uniqueness(some.canonical, k, draws)
    if known is not None:
        keys = np.array([molecule_key(smiles) for smiles in some.canonical], np.uint64)
        column["novelty"] = set_metrics.novelty(keys, known, draws)
    for name, verdicts in (
        ("filters", some.verdicts),
        ("filters, neutralised", some.neutral_verdicts),
    ):
        passed = np.array([not verdict for verdict in verdicts], bool)
        column[name] = set_metrics.mean_of(passed, draws)
    bits = some.bits
    if len(bits) > MOST_PAIRED:
        places = np.random.default_rng(draws.seed).permutation(len(bits))
        bits = bits[places[:MOST_PAIRED]]
    return column | set_metrics.internal_diversity(bits, draws)


def _beside(some: Profiles, reference: Profiles, fcd: bool, draws: Draws) -> Column:
    """What compares readable molecules with readable ones of a reference."""
    column = {
        "SNN": set_metrics.nearest_similarity(some.bits, reference.bits, draws),
        "Frag": set_metrics.count_cosine(some.fragments, reference.fragments, draws),
        "Scaf": set_metrics.count_cosine(
            _listed(some.scaffolds), _listed(reference.scaffolds), draws
        ),
    }
    for place, name in enumerate(PROPERTIES):
        column[f"{name} distance{_UNITS.get(name, '')}"] = set_metrics.wasserstein(
            some.properties[:, place], reference.properties[:, place], draws
        )
    if fcd:
        first, second = map(chemnet.activations, (some.canonical, reference.canonical))
        column["FCD"] = set_metrics.frechet(first, second, draws)
    return column


def _known(
    train: Sequence[str | None] | np.ndarray | None,
    processes: int | None,
    progress: bool,
) -> np.ndarray | None:
    if train is None:
        return None
    if isinstance(train, np.ndarray) and train.dtype == np.uint64:
        return np.unique(train)
    return canonical_keys(list(train), processes=processes, progress=progress)


def _readable(profiles: Profiles) -> Profiles:
    return profiles.take(np.flatnonzero(profiles.valid))


def _halves(some: Profiles, most: int, seed: int) -> tuple[Profiles, Profiles]:
    """A random half, of at most so many, and the other half."""
    places = np.random.default_rng(seed).permutation(len(some))
    middle = len(some) // 2
    first = places[:middle]
    return some.take(first[: max(1, most)]), some.take(places[middle:])


def _listed(scaffolds: Sequence[str | None]) -> list[tuple[str, ...]]:
    return [(name,) if name else () for name in scaffolds]


def _cells(estimate: Estimate | None) -> list[str]:
    if estimate is None or not np.isfinite(estimate.value):
        return ["-", "-"]
    if estimate.interval is None:
        return [_number(estimate.value), "-"]
    low, high = map(_number, estimate.interval)
    return [_number(estimate.value), f"{low} - {high}"]


def _number(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.2f}"


def _legend(metrics: Metrics) -> list[str]:
    lines = [
        "over: generated molecules the figure is computed from. Intervals: percentiles "
        "of the bootstrap for means over molecules, of random halves for the rest; "
        "they speak of the sample, and where all its molecules are alike they have no "
        "width and say nothing.",
        "IntDiv2 (program): the root taken for each molecule, as the program of MOSES "
        "does; IntDiv2 is the published formula.",
        "filters: shares of readable molecules by their "
        + ("reasons" if metrics.settings["every_reason"] else "first reason")
        + f"; MCF from {metrics.settings['mcf']}, PAINS from "
        f"{metrics.settings['pains']}. neutralised: after charges were taken away "
        "where hydrogens can do so.",
    ]
    if "reference" in metrics.columns:
        lines.append(
            "reference: of the reference data themselves; SNN, Frag, Scaf, FCD and "
            "distances are of a random half of them against the other half."
        )
    return lines + list(metrics.notes)


def _json(estimate: Estimate) -> dict[str, float | int | None]:
    low, high = estimate.interval or (None, None)
    value = float(estimate.value)
    return {
        "value": value if np.isfinite(value) else None,
        "low": low,
        "high": high,
        "over": estimate.over,
    }
