"""Table A.2 for one query and for many, with paired intervals, and what they say."""

import csv
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from chemscale_jax.analysis import plots
from chemscale_jax.analysis.bootstrap import LEVEL, mean_interval
from chemscale_jax.analysis.markdown import markdown_table
from chemscale_jax.analysis.search.neighbour_plots import (
    density_figure,
    difference_figure,
)
from chemscale_jax.analysis.search.neighbour_properties import (
    FINGERPRINT,
    RANDOM,
    STATISTICS,
    Corpus,
    Deltas,
    Neighbourhoods,
)
from chemscale_jax.chem.descriptors import PROPERTIES
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.workdir import write_json

REPORT_MD, RESULTS_JSON, QUERIES_CSV = "report.md", "results.json", "queries.csv"
REPLICATES = 2000
_QUERIES_HEADER = (
    *("query", "smiles", "representation", "property", "value"),
    *("mean_less", "median_less"),
)


class Compared(NamedTuple):
    """A mean over queries, with its interval."""

    mean: float
    interval: tuple[float, float] | None


def paired_results(
    deltas: Deltas, seed: int = 0
) -> dict[str, dict[str, dict[str, Compared]]]:
    """Means of Delta_p, and of what each representation differs by from fingerprints.

    Intervals are of the bootstrap over queries; a query where a value is not defined
    is left out of that comparison.

    Returns:
        {representation: {"logP mean": {"delta": ..., "less_fingerprint": ...}}}.
    """
    results = {}
    reference = np.abs(deltas.signed[FINGERPRINT])
    for name, signed in deltas.signed.items():
        size, cells = np.abs(signed), {}
        for p, prop in enumerate(PROPERTIES):
            for s, statistic in enumerate(STATISTICS):
                cell = {"delta": _compared(size[:, p, s], seed)}
                if name != FINGERPRINT:
                    less = size[:, p, s] - reference[:, p, s]
                    cell["less_fingerprint"] = _compared(less, seed)
                cells[f"{prop} {statistic}"] = cell
        results[name] = cells
    return results


def write_neighbour_report(
    folder: pathlib.Path,
    facts: Mapping[str, Any],
    corpus: Corpus,
    one: tuple[Neighbourhoods, Deltas],
    many: tuple[Neighbourhoods, Deltas],
    seed: int,
) -> str:
    """Writes report.md, results.json, queries.csv and two plots; returns the report.

    Args:
        folder: to write into.
        facts: "k", "molecules", and "indexes": {representation: what it is}.
        corpus: of the neighbourhoods.
        one: the single query.
        many: the random ones.
        seed: of the bootstrap.

    Raises:
        UserError: the folder cannot be written.
    """
    results = paired_results(many[1], seed)
    text = _report(facts, one, many, results)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / REPORT_MD).write_text(text, encoding="utf-8")
        _write_queries(folder / QUERIES_CSV, many)
        _write_members(folder / "neighbours.csv", corpus, one)
        figures = {
            "query": density_figure(str(one[0].queries[0]), one[1]),
            "differences": difference_figure(many[1]),
        }
        for name, figure in figures.items():
            figure.savefig(folder / f"{name}.png", dpi=plots.DPI)
        write_json(
            folder / RESULTS_JSON,
            {
                **facts,
                "queries": len(many[0].queries),
                "level": LEVEL,
                "query": {"smiles": str(one[0].queries[0]), "delta": _single(one[1])},
                "results": {
                    name: {
                        cell: {k: v._asdict() for k, v in values.items()}
                        for cell, values in cells.items()
                    }
                    for name, cells in results.items()
                },
            },
        )
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written ({error.strerror}): choose another folder"
        ) from None
    return text


def verdict(compared: Compared) -> str:
    """Which of two is nearer, as far as the interval tells."""
    if compared.interval is None:
        return "not enough queries"
    low, high = compared.interval
    if high < 0:
        return "nearer"
    return "farther" if low > 0 else "undecided"


def _compared(values: np.ndarray, seed: int) -> Compared:
    known = values[np.isfinite(values)]
    if not len(known):
        return Compared(float("nan"), None)
    return Compared(float(known.mean()), mean_interval(known, seed, REPLICATES))


def _single(deltas: Deltas) -> dict[str, dict[str, float]]:
    return {
        name: {
            f"{prop} {statistic}": float(abs(signed[0, p, s]))
            for p, prop in enumerate(PROPERTIES)
            for s, statistic in enumerate(STATISTICS)
        }
        for name, signed in deltas.signed.items()
    }


def _report(
    facts: Mapping[str, Any],
    one: tuple[Neighbourhoods, Deltas],
    many: tuple[Neighbourhoods, Deltas],
    results: Mapping[str, Mapping[str, Mapping[str, Compared]]],
) -> str:
    k, Q = facts["k"], len(many[0].queries)
    names = list(results)
    others = [name for name in names if name not in (FINGERPRINT, RANDOM)]
    lines = [f"- {name}: {what}" for name, what in facts["indexes"].items()]
    parts = [
        "# Properties of nearest neighbours",
        f"{k} nearest of {facts['molecules']:,} distinct molecules, the query itself "
        "left out; all searches are exact. Delta_p = |p(query) - mean or median of p "
        "over the neighbours|: small where neighbours are like the query.",
        "\n".join(
            [
                *lines,
                f"- {FINGERPRINT}: Morgan, radius 2, 2048 bits, Tanimoto similarity",
                f"- {RANDOM}: {k} molecules of the corpus, drawn at random",
            ]
        ),
        "## What wins",
        "\n".join(f"- {_sentence(name, results[name], Q)}" for name in others),
        f"## Delta_p over {Q:,} random queries",
        _means_table(names, results),
        f"Means over queries with {LEVEL:.0%} intervals of the bootstrap over queries; "
        f"MW in g/mol, the others without unit.",
        "## Less the fingerprint's, on the same queries",
        _paired_table([n for n in names if n != FINGERPRINT], results),
        "Negative: neighbours are more like the query than those of the fingerprint. "
        f"Each interval has {LEVEL:.0%} by itself; the more of them are looked at, "
        "the more will lie beside zero by chance.",
        f"## One query: `{one[0].queries[0]}`",
        _single_table(one[1]),
        "One query has no interval: another one may say the opposite. Its neighbours "
        "are in neighbours.csv, densities in query.png; all random queries are in "
        f"{QUERIES_CSV}, densities of their differences in differences.png.",
    ]
    return "\n\n".join(parts) + "\n"


def _sentence(name: str, cells: Mapping[str, Mapping[str, Compared]], Q: int) -> str:
    """Who wins where, in words."""
    said: dict[str, list[str]] = {}
    for cell, values in cells.items():
        difference = values["less_fingerprint"]
        shown = f"{cell} ({_numbers(difference)})"
        said.setdefault(verdict(difference), []).append(shown)
    counts = {v: len(said.get(v, ())) for v in ("nearer", "farther", "undecided")}
    head = (
        f"**{name}** against fingerprint over {Q:,} queries: wins {counts['nearer']} "
        f"of {len(cells)}, loses {counts['farther']}, undecided {counts['undecided']}"
    )
    words = {
        "nearer": "its neighbours are more like the query in",
        "farther": "the fingerprint's are in",
        "undecided": "undecided in",
        "not enough queries": "too few queries for",
    }
    found = [f"{words[v]} {', '.join(said[v])}" for v in words if v in said]
    return f"{head}. Less the fingerprint's: {'; '.join(found)}."


def _means_table(
    names: Sequence[str],
    results: Mapping[str, Mapping[str, Mapping[str, Compared]]],
) -> str:
    cells = next(iter(results.values()))
    rows = [
        [*cell.split(), *(_numbers(results[n][cell]["delta"]) for n in names)]
        for cell in cells
    ]
    return markdown_table(("property", "of", *names), rows)


def _paired_table(
    names: Sequence[str],
    results: Mapping[str, Mapping[str, Mapping[str, Compared]]],
) -> str:
    cells = next(iter(results.values()))
    rows = []
    for cell in cells:
        found = [results[n][cell]["less_fingerprint"] for n in names]
        shown = [f"{_numbers(each)} {verdict(each)}" for each in found]
        rows.append([*cell.split(), *shown])
    return markdown_table(("property", "of", *names), rows)


def _single_table(deltas: Deltas) -> str:
    names = list(deltas.signed)
    rows = [
        [
            prop,
            f"{deltas.own[0, p]:.3g}",
            *(
                " / ".join(f"{abs(x):.3g}" for x in deltas.signed[n][0, p])
                for n in names
            ),
        ]
        for p, prop in enumerate(PROPERTIES)
    ]
    header = ("property", "query", *(f"{n}, mean / median" for n in names))
    return markdown_table(header, rows)


def _numbers(compared: Compared) -> str:
    if compared.interval is None:
        return f"{compared.mean:.3g}"
    low, high = compared.interval
    return f"{compared.mean:.3g} [{low:.3g}, {high:.3g}]"


def _write_queries(path: pathlib.Path, many: tuple[Neighbourhoods, Deltas]) -> None:
    """One row for each query, representation and property; differences are signed."""
    found, deltas = many
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_QUERIES_HEADER)
        for q, smiles in enumerate(found.queries.tolist()):
            for name, signed in deltas.signed.items():
                for p, prop in enumerate(PROPERTIES):
                    numbers = (deltas.own[q, p], *signed[q, p])
                    shown = [f"{x:.6g}" for x in numbers]
                    writer.writerow((q, smiles, name, prop, *shown))


def _write_members(
    path: pathlib.Path, corpus: Corpus, one: tuple[Neighbourhoods, Deltas]
) -> None:
    """The neighbours of the single query, with their properties."""
    found, deltas = one
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("representation", "rank", "smiles", *PROPERTIES))
        for name, members in found.members.items():
            for rank, place in enumerate(members[0].tolist(), 1):
                shown = [f"{x:.6g}" for x in deltas.near[name][0, rank - 1]]
                writer.writerow((name, rank, corpus.smiles[place], *shown))
