"""The report of maps: which space knows scaffolds and labels, with intervals."""

import csv
import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from chemscale_jax.analysis import plots
from chemscale_jax.analysis.maps.cluster_quality import Gap, Measure
from chemscale_jax.analysis.maps.plots import map_figure
from chemscale_jax.analysis.maps.study import HEADLINES, Finding, MapStudy
from chemscale_jax.analysis.markdown import markdown_table
from chemscale_jax.core.errors import UserError

REPORT_MD, REPORT_JSON, MAP_CSV = "report.md", "report.json", "map.csv"
_TITLES = {
    "balanced": "balanced purity",
    "purity": "purity",
    "silhouette": "silhouette",
    "contrast": "contrast",
}
_METHODS = {"tsne": "t-SNE", "pca": "PCA", "umap": "UMAP"}
_SCALES = {
    "columns": "each dimension to deviation 1",
    "rows": "each vector to length 1",
    "none": "none",
}


def write_map_report(study: MapStudy, folder: pathlib.Path) -> str:
    """Writes report.md, report.json, map.csv and map_LABEL.png; returns the report.

    Raises:
        UserError: the folder cannot be written.
    """
    text = report_text(study)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for finding in study.findings:
            figure = map_figure(study.maps, finding.coloring, _title(study, finding))
            path = folder / plot_name(finding.coloring.name)
            figure.savefig(path, dpi=plots.DPI, bbox_inches="tight")
        _write_csv(study, folder / MAP_CSV)
        facts = json.dumps(report_facts(study), indent=2, allow_nan=False)
        (folder / REPORT_JSON).write_text(facts + "\n", encoding="utf-8")
        (folder / REPORT_MD).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written ({error.strerror}): choose another folder"
        ) from None
    return text


def plot_name(label: str) -> str:
    """File of the plot of a label."""
    plain = "".join(c if c.isalnum() or c in "-_." else "_" for c in label)
    return f"map_{plain}.png"


def report_text(study: MapStudy) -> str:
    """The report as Markdown."""
    n = len(study.molecules.shown)
    parts = [f"# {_METHODS[study.settings.method]} maps of {n:,} molecules"]
    parts.append(_rows(study))
    parts.append(_spaces(study))
    for finding in study.findings:
        parts.append(f"## By {finding.coloring.name}")
        parts.append(verdict(finding))
        if finding.spaces:
            parts.append(_measures(finding))
    parts.append(_legend(study))
    return "\n\n".join(parts) + "\n"


def verdict(finding: Finding) -> str:
    """Which space wins, in words, with the paired intervals."""
    label = finding.coloring.name
    if not finding.spaces:
        return f"Too few molecules have a label of {label} for numbers."
    lower = HEADLINES[finding.headline]
    title = _TITLES[finding.headline]
    values = {name: m[finding.headline] for name, m in finding.spaces.items()}
    ranked = sorted(values, key=lambda name: values[name].value, reverse=not lower)
    best, rest = ranked[0], ranked[1:]
    level = "lowest" if lower else "highest"
    first = f"{best} has the {level} {title}, {_with_interval(values[best])}"
    close = [name for name in rest if _sign(_gap(finding, best, name)) == 0]
    if not rest:
        lines = [f"{title} of {best}: {_with_interval(values[best])}."]
    elif not close:
        lines = [f"**{best} wins**: {first}, better than every other."]
    else:
        lines = [f"**No single winner**: {first}, not told apart from {_and(close)}."]
    for one, other in finding.gaps:
        gap = finding.gaps[one, other]
        sign = _sign(gap) * (-1 if lower else 1)
        words = {1: "is better than", -1: "is worse than", 0: "is not told apart from"}
        lines.append(f"- {one} {words[sign]} {other}: {_gap_text(gap)}.")
    for name, measure in values.items():
        if measure.p > 0.05:
            lines.append(
                f"- {name} does not know {label}: labels permuted at random do as "
                f"well in {measure.p:.0%} of all draws."
            )
    return lines[0] + ("\n\n" + "\n".join(lines[1:]) if lines[1:] else "")


def report_facts(study: MapStudy) -> dict[str, Any]:
    """The report as what JSON can hold."""
    molecules = study.molecules
    states, counts = np.unique_counts(_kinds(molecules.state))
    return {
        "rows": len(molecules.index),
        "states": dict(zip(states.tolist(), counts.tolist(), strict=True)),
        "method": study.settings.method,
        "seed": study.settings.seed,
        "neighbors": study.study.neighbors,
        "least_members": study.study.least_members,
        "spaces": {
            name: {
                "dimensions": molecules.spaces[name].shape[1],
                "scale": study.scales[name],
                "kept_neighbors": study.kept[name],
                "about": dict(molecules.about[name]),
            }
            for name in study.maps
        },
        "labels": [_label_facts(finding) for finding in study.findings],
    }


def _label_facts(finding: Finding) -> dict[str, Any]:
    def measures(found: Mapping[str, Mapping[str, Measure]]) -> dict[str, Any]:
        return {
            space: {name: _measure_facts(m) for name, m in own.items()}
            for space, own in found.items()
        }

    return {
        "name": finding.coloring.name,
        "kind": "numbers" if finding.coloring.groups is None else "groups",
        "molecules": finding.molecules,
        "groups": finding.groups,
        "headline": finding.headline,
        "spaces": measures(finding.spaces),
        "maps": measures(finding.maps),
        "differences": [
            {
                "first": first,
                "second": second,
                "value": gap.value,
                "interval": gap.interval,
            }
            for (first, second), gap in finding.gaps.items()
        ],
    }


def _measure_facts(measure: Measure) -> dict[str, Any]:
    return {
        "value": measure.value,
        "interval": measure.interval,
        "chance": measure.chance,
        "chance_interval": measure.chance_interval,
        "p": measure.p,
        "molecules": measure.molecules,
    }


def _rows(study: MapStudy) -> str:
    states = study.molecules.state
    kinds = _kinds(states)
    names, first, counts = np.unique(kinds, return_index=True, return_counts=True)
    rows = []
    for i in np.argsort(-counts, kind="stable"):
        name, example = str(names[i]), str(states[first[i]])
        reason = example.removeprefix(name)
        if reason and reason != example:
            name += f", such as row {study.molecules.index[first[i]]}{reason}"
        rows.append([f"{counts[i]:,}", name])
    return (
        "## Rows of the input\n\n"
        + markdown_table(("rows", "state"), rows)
        + f"\n\nEach row by its number is in {MAP_CSV}."
    )


def _kinds(states: np.ndarray) -> np.ndarray:
    """States without what differs from row to row."""
    same = "the same molecule as"
    return np.array(
        [
            f"{same} another" if text.startswith(same) else text.partition(":")[0]
            for text in states.tolist()
        ]
    )


def _spaces(study: MapStudy) -> str:
    header = ("space", "model", "dimensions", "scaling", "neighbours kept")
    rows = [
        [
            name,
            _model(about),
            f"{study.molecules.spaces[name].shape[1]:,}",
            _SCALES[study.scales[name]],
            f"{study.kept[name]:.0%}",
        ]
        for name, about in study.molecules.about.items()
    ]
    return "## Spaces\n\n" + markdown_table(header, rows)


def _model(about: Mapping[str, Any]) -> str:
    model = str(about.get("model") or about.get("task") or "-")
    return f"{model}, untrained" if about.get("untrained") is not None else model


def _measures(finding: Finding) -> str:
    measures = list(next(iter(finding.spaces.values())))
    header = ["space", *(_TITLES[m] for m in measures)]
    header += [f"on the map: {_TITLES[finding.headline]}", "by chance"]
    rows = []
    for name, own in finding.spaces.items():
        headline = own[finding.headline]
        rows.append(
            [
                name,
                *(_with_interval(own[m]) for m in measures),
                _with_interval(finding.maps[name][finding.headline]),
                f"{headline.chance:.3f}",
            ]
        )
    what = f"{finding.molecules:,} molecules"
    if finding.groups:
        what += f" in {finding.groups:,} groups"
    if finding.coloring.unread:
        what += f"; {finding.coloring.unread:,} cells hold no number and count as empty"
    return f"{what}:\n\n" + markdown_table(header, rows)


def _legend(study: MapStudy) -> str:
    k, least = study.study.neighbors, study.study.least_members
    return (
        f"Neighbours are the {k} nearest by Euclidean distance in the scaled space, in "
        "all its dimensions; the map only shows them, and keeps the share of them that "
        "is given. purity: share of a molecule's neighbours in its own group, mean "
        f"over molecules; balanced: mean over groups. Groups have at least {least} "
        "molecules. silhouette: from -1 to 1. contrast: mean difference of a "
        "molecule's value from its neighbours', over that of all pairs; lower is "
        "better, 1 is chance. In brackets: 95 % intervals over molecules, from random "
        "halves; differences are paired. by chance: labels permuted. Several "
        "comparisons stand side by side, and are not corrected for their number."
    )


def _title(study: MapStudy, finding: Finding) -> str:
    return (
        f"{_METHODS[study.settings.method]} of {len(study.molecules.shown):,} "
        f"molecules, by {finding.coloring.name}"
    )


def _gap(finding: Finding, one: str, other: str) -> Gap:
    if (one, other) in finding.gaps:
        return finding.gaps[one, other]
    gap = finding.gaps[other, one]
    ends = None if gap.interval is None else (-gap.interval[1], -gap.interval[0])
    return Gap(-gap.value, ends)


def _sign(gap: Gap) -> int:
    """1 or -1 if the interval is on one side of 0, else 0."""
    if gap.interval is None:
        return 0
    return int(gap.interval[0] > 0) - int(gap.interval[1] < 0)


def _with_interval(measure: Measure) -> str:
    if not math.isfinite(measure.value):
        return "-"
    if measure.interval is None:
        return f"{measure.value:.3f}"
    low, high = measure.interval
    return f"{measure.value:.3f} [{low:.3f}, {high:.3f}]"


def _gap_text(gap: Gap) -> str:
    text = f"difference {gap.value:+.3f}"
    if gap.interval is None:
        return text
    return f"{text} [{gap.interval[0]:+.3f}, {gap.interval[1]:+.3f}]"


def _and(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)


def _write_csv(study: MapStudy, path: pathlib.Path) -> None:
    """Every row of the input, with its place on each map if it is shown."""
    molecules = study.molecules
    places = {int(row): i for i, row in enumerate(molecules.shown)}
    header = ["row", "where", "canonical_smiles", "state", "scaffold"]
    header += [f"{axis}_{name}" for name in study.maps for axis in "xy"]
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        for row, index in enumerate(molecules.index.tolist()):
            own = [index, molecules.where[row], molecules.smiles[row]]
            own.append(molecules.state[row])
            if (place := places.get(row)) is None:
                writer.writerow([*own, "", *[""] * (2 * len(study.maps))])
                continue
            points = [
                f"{x:.4f}" for points in study.maps.values() for x in points[place]
            ]
            writer.writerow([*own, molecules.scaffolds[place], *points])
