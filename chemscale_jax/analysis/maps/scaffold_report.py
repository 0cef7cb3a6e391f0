"""How molecules spread over Murcko scaffolds, and what a second set adds to a first.

The counts of Table 1, and the frequencies of Fig. 1, of Ji et al. 2024 (Uni-Mol2), for
any one or two sets.
"""

import csv
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from chemscale_jax.analysis import plots
from chemscale_jax.analysis.maps.scaffold_plots import scaffold_figure
from chemscale_jax.analysis.markdown import markdown_table
from chemscale_jax.core.errors import UserError
from chemscale_jax.data.conformers.scaffold_sampling import TAU, scaffold_probabilities
from chemscale_jax.data.conformers.scaffold_table import ScaffoldTable

REPORT_MD = "report.md"
SCAFFOLDS_CSV = "scaffolds.csv"
SCAFFOLDS_PNG = "scaffolds.png"
ACYCLIC_NAME = "(acyclic)"
_SHOWN = 20


class Overlap(NamedTuple):
    """What two sets share: of molecules, or of scaffolds."""

    first: int
    second: int
    both: int

    @property
    def added(self) -> int:
        """In the second set and not in the first."""
        return self.second - self.both

    @property
    def together(self) -> int:
        """In either."""
        return self.first + self.added


def overlaps(first: ScaffoldTable, second: ScaffoldTable) -> dict[str, Overlap]:
    """Table 1 for two sets: distinct molecules and distinct scaffolds."""
    molecules = np.intersect1d(first.keys, second.keys, assume_unique=True)
    scaffolds = set(first.scaffolds) & set(second.scaffolds)
    return {
        "molecules": Overlap(len(first.keys), len(second.keys), len(molecules)),
        "scaffolds": Overlap(
            len(first.scaffolds), len(second.scaffolds), len(scaffolds)
        ),
    }


def write_scaffold_report(tables: Sequence[ScaffoldTable], folder: pathlib.Path) -> str:
    """Writes report.md, scaffolds.csv and scaffolds.png; returns the report.

    Args:
        tables: one or two sets, each of at least one molecule.
        folder: to write into; made if it is not there.

    Raises:
        UserError: a set has no molecule, or the folder cannot be written.
    """
    for table in tables:
        if not len(table.keys):
            raise UserError(
                f"{table.name} holds no molecule in {table.lines} lines: give another "
                "file, or the column of its SMILES with --column"
            )
    text = report_text(tables)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / REPORT_MD).write_text(text, encoding="utf-8")
        _write_csv(tables, folder / SCAFFOLDS_CSV)
        scaffold_figure(tables).savefig(folder / SCAFFOLDS_PNG, dpi=plots.DPI)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written ({error.strerror}): choose another folder"
        ) from None
    return text


def report_text(tables: Sequence[ScaffoldTable]) -> str:
    """The report as Markdown."""
    parts = [f"# Scaffolds of {' and '.join(table.name for table in tables)}"]
    parts.append(_sizes(tables))
    if len(tables) == 2:
        parts.append(_added(tables[0], tables[1]))
    parts.append(_spread(tables))
    parts += [_most_frequent(table) for table in tables]
    parts.append(
        f"All scaffolds are in {SCAFFOLDS_CSV}, the plot in {SCAFFOLDS_PNG}. Scaffolds "
        "are those of Bemis and Murcko, without stereo and isotopes; all molecules "
        "without rings share one. Molecules are distinct by canonical SMILES."
    )
    return "\n\n".join(parts) + "\n"


def _sizes(tables: Sequence[ScaffoldTable]) -> str:
    header = ("set", "lines", "unread", "molecules", "scaffolds", "per scaffold")
    rows = []
    for table in tables:
        M, n_scaffolds = len(table.keys), len(table.scaffolds)
        numbers = (table.lines, table.unread, M, n_scaffolds)
        cells = [table.name, *(f"{number:,}" for number in numbers)]
        rows.append([*cells, f"{M / n_scaffolds:.2f}"])
    return "## Sizes\n\n" + markdown_table(header, rows, names=1)


def _added(first: ScaffoldTable, second: ScaffoldTable) -> str:
    header = ("", first.name, second.name, "in both", "newly added", "together")
    rows = [
        [what, *(f"{n:,}" for n in (*found, found.added, found.together))]
        for what, found in overlaps(first, second).items()
    ]
    return f"## What {second.name} adds\n\n" + markdown_table(header, rows, names=1)


def _spread(tables: Sequence[ScaffoldTable]) -> str:
    header = (
        *("set", "top 1", "top 10", "top 100", "half of all in", "singletons"),
        *("acyclic", "top 1 drawn"),
    )
    rows = []
    for table in tables:
        total = table.counts.sum()
        ends = np.cumsum(table.counts) / total
        top = [ends[min(n, len(ends)) - 1] for n in (1, 10, 100)]
        half = int(np.searchsorted(ends, 0.5)) + 1
        acyclic = dict(zip(table.scaffolds, table.counts, strict=True)).get("", 0)
        drawn = scaffold_probabilities(table.counts, "softmax")[0]
        rows.append(
            [
                table.name,
                *(f"{share:.2%}" for share in top),
                f"{half:,}",
                f"{np.mean(table.counts == 1):.1%}",
                f"{acyclic / total:.2%}",
                f"{drawn:.3%}",
            ]
        )
    legend = (
        "top n: share of molecules with one of the n most frequent scaffolds; half of "
        "all in: so many scaffolds hold half of the molecules; singletons: share of "
        "scaffolds with one molecule; top 1 drawn: how often the most frequent one "
        f"comes when scaffolds are drawn by softmax(P / {TAU:g})."
    )
    return "## Spread\n\n" + markdown_table(header, rows, names=1) + "\n\n" + legend


def _most_frequent(table: ScaffoldTable) -> str:
    total = table.counts.sum()
    rows = [
        [
            str(rank),
            f"`{smiles}`" if smiles else ACYCLIC_NAME,
            f"{n:,}",
            f"{n / total:.3%}",
        ]
        for rank, (smiles, n) in enumerate(
            zip(table.scaffolds[:_SHOWN], table.counts[:_SHOWN], strict=True), 1
        )
    ]
    header = ("rank", "scaffold", "molecules", "share")
    return f"## Most frequent in {table.name}\n\n" + markdown_table(header, rows)


def _write_csv(tables: Sequence[ScaffoldTable], path: pathlib.Path) -> None:
    """Every scaffold with its count in each set, by rank in the first one."""
    counts = [
        dict(zip(table.scaffolds, table.counts.tolist(), strict=True))
        for table in tables
    ]
    every = dict.fromkeys(smiles for table in tables for smiles in table.scaffolds)
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("scaffold", *(table.name for table in tables)))
        writer.writerows(
            (smiles, *(found.get(smiles, 0) for found in counts)) for smiles in every
        )
