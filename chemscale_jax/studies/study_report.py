"""The report of a study: what ran, what limits it, and the laws of its paper's figures.

The laws, their intervals and plots are those of `analysis.scaling_report`; here is
decided which of them a study is about, and what its figures say in words.
"""

import collections
import pathlib
from collections.abc import Callable, Mapping, Sequence

from chemscale_jax.analysis.markdown import markdown_table
from chemscale_jax.analysis.scaling import limits
from chemscale_jax.analysis.scaling.data import Columns
from chemscale_jax.analysis.scaling.published_laws import FREY_SIZE_EXPONENTS
from chemscale_jax.analysis.scaling.report import (
    Settings,
    Study,
    study_of,
    write_study,
)
from chemscale_jax.analysis.scaling.tables import interval, number
from chemscale_jax.core.errors import UserError
from chemscale_jax.studies import equivariance, steps_report
from chemscale_jax.studies.study_rows import Row

REPORT = "study.md"
# Capacity of the models whose data exponents Frey et al. compare (Fig. A.5).
COMPARED_CAPACITY = 64.0


def write_report(
    name: str,
    task: str,
    rows: Sequence[Row],
    trajectories: Sequence[Row],
    folder: pathlib.Path,
) -> str:
    """Writes study.md, and a folder of fits for each loss; returns the text.

    Args:
        name: of the study.
        task: of its configs.
        rows: of results.csv, some of them of finished runs.
        trajectories: of trajectories.csv.
        folder: of the study.
    """
    parts = [f"# {name}", _overview(rows), _unconverged(rows)]
    if task in _BY_TASK:
        parts += _BY_TASK[task](rows, trajectories, folder)
    else:
        parts += _plain(rows, trajectories, folder)
    text = "\n\n".join(part for part in parts if part) + "\n"
    (folder / REPORT).write_text(text, encoding="utf-8")
    return text


def fitted(
    rows: Sequence[Row],
    folder: pathlib.Path,
    columns: Columns,
    settings: Settings | None = None,
) -> Study | str:
    """A folder with the fits of one loss, or why there are none."""
    try:
        study = study_of([dict(row) for row in rows], columns, settings)
        write_study(study, folder)
    except UserError as error:
        return str(error)
    return study


def _overview(rows: Sequence[Row]) -> str:
    states = collections.Counter(row["state"] for row in rows)
    cells = len({row["cell"] for row in rows})
    said = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    return f"{cells} cells, {len(rows)} runs: {said}. `results.csv` has a row for each."


def _unconverged(rows: Sequence[Row]) -> str:
    """How many cells each limit holds, and which ran out of steps."""
    by_cell = {row["cell"]: row for row in rows if row["limit"]}
    if not by_cell:
        return ""
    groups: dict[str, collections.Counter] = {}
    for row in by_cell.values():
        groups.setdefault(row["model"], collections.Counter())[row["limit"]] += 1
    table = markdown_table(
        ("model", "cells", *limits.LIMITS),
        [
            (model, str(counts.total()), *(str(counts[name]) for name in limits.LIMITS))
            for model, counts in groups.items()
        ],
    )
    starved = [name for name, row in by_cell.items() if row["limit"] == limits.STEP]
    parts = ["## What limits the cells", "Decided by rule before any fit:", table]
    if starved:
        parts.append(
            "These did not converge, as their budget of updates ended while the loss "
            f"fell: {'; '.join(starved)}."
        )
    return "\n\n".join(parts)


def _force_fields(
    rows: Sequence[Row], trajectories: Sequence[Row], folder: pathlib.Path
) -> list[str]:
    """Fig. 5 and A.3 to A.5 of Frey et al. 2023, on seen and on held-out molecules."""
    del trajectories
    settings = Settings(size=COMPARED_CAPACITY)
    parts = []
    for title, column in (
        ("frames of seen molecules", "valid_loss"),
        ("held-out molecules", "heldout_loss"),
    ):
        if not any(row[column] for row in rows):
            continue
        columns = Columns(loss=column, size="capacity")
        study = fitted(rows, folder / column, columns, settings)
        parts.append(f"## Loss on {title}")
        if isinstance(study, str):
            parts.append(f"Nothing is fitted: {study}.")
            continue
        parts.append(
            f"[{column}/report.md]({column}/report.md) has all laws; of its plots, "
            "`power_law_by_data` and `power_law_by_size` correspond to Fig. 5, A.3 and "
            "A.4 of the paper, `groups_by_data` to Fig. A.5."
        )
        parts.append(equivariance.exponents(study, COMPARED_CAPACITY))
        parts.append(
            equivariance.verdict(study, rows, column, COMPARED_CAPACITY, title)
        )
    return parts


def _language(
    rows: Sequence[Row], trajectories: Sequence[Row], folder: pathlib.Path
) -> list[str]:
    """Fig. 3, 4, A.1 and A.2 of Frey et al. 2023."""
    del trajectories
    columns = Columns(size="parameters_nonembedding", data="tokens")
    study = fitted(rows, folder / "valid_loss", columns)
    if isinstance(study, str):
        return [f"Nothing is fitted: {study}."]
    parts = [
        "## Loss with model size, and with data",
        "[valid_loss/report.md](valid_loss/report.md) has all laws; of its plots, "
        "`power_law_by_size` corresponds to Fig. 3, A.1 and A.2 of the paper, "
        "`power_law_by_data` to Fig. 4. Size is the number of parameters without "
        "embeddings, data are tokens.",
    ]
    for analysis in study.analyses:
        table = []
        for one in analysis.by_size:
            law = one.law
            paper = FREY_SIZE_EXPONENTS.get(round(one.at))
            table.append(
                (
                    number(one.at),
                    f"{one.every.beta:.3f}",
                    f"{law.beta:.3f}",
                    interval(law.interval),
                    f"{number(law.low)} to {number(law.high)}",
                    "-" if paper is None else f"{paper[0]:.2f}",
                )
            )
        header = ("tokens", "beta, all sizes", "beta", "95 %", "window", "paper")
        parts.append(markdown_table(header, table))
    return parts


def _steps(
    rows: Sequence[Row], trajectories: Sequence[Row], folder: pathlib.Path
) -> list[str]:
    """Fig. 3, 4 and Table 3 of Ji et al. 2024."""
    return steps_report.sections(rows, trajectories, folder)


def _plain(
    rows: Sequence[Row], trajectories: Sequence[Row], folder: pathlib.Path
) -> list[str]:
    del trajectories
    study = fitted(rows, folder / "valid_loss", Columns())
    said = "see [valid_loss/report.md](valid_loss/report.md)"
    return [f"Laws: {study if isinstance(study, str) else said}."]


_BY_TASK: Mapping[
    str, Callable[[Sequence[Row], Sequence[Row], pathlib.Path], list[str]]
] = {
    "force_field": _force_fields,
    "causal_lm": _language,
    "conformer_denoising": _steps,
}
