"""Which rows of a user's table probes are fitted on, and why not the others.

Embeddings and labels are matched by the number of the row in the file that was
embedded. Every row of it is accounted for.
"""

import csv
import dataclasses
import pathlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from chemscale_jax.core.embedding_table import EmbeddingTable
from chemscale_jax.core.errors import UserError
from chemscale_jax.data.inputs.molecule_input import MoleculeInput
from chemscale_jax.data.labels.label_columns import Labels, read_labels

USED, UNLABELLED, UNEMBEDDED = "used", "no label", "not embedded"
# A target with fewer labels cannot be measured.
LEAST_LABELS = 10
# Rows whose molecules are compared with those of the input, evenly spread.
_COMPARED_ROWS = 100
# More rows that differ than this share: it is another file, or another order.
_MOST_OTHER = 0.5
_COLUMNS = ("row", "where", "smiles", "status", "reason", "same_molecule_as_row")


@dataclasses.dataclass(frozen=True, eq=False)
class ProbeRows:
    """M molecules with embeddings in every file and a label; and all N rows of input.

    Attributes:
        data_set: name of the table.
        row: (M,) int64, of the input, the first being 0.
        smiles: (M,) str, canonical.
        values: {representation: (M, D)}.
        about: {representation: what made it}, see `EmbeddingTable`.
        targets: T names.
        units: T texts; "" where unknown.
        kind: one of `core.property_predictions.KINDS`.
        classes: of a multiclass target, in the order of their numbers.
        true: (M, T) float64; NaN where there is no label.
        where: (N,) str, where each row of the input stands.
        all_smiles: (N,) str; "" where nothing could be read.
        status: (N,) str: used, no label, not embedded.
        reason: (N,) str, of those that are not used.
    """

    data_set: str
    row: np.ndarray
    smiles: np.ndarray
    values: Mapping[str, np.ndarray]
    about: Mapping[str, Mapping[str, Any]]
    targets: tuple[str, ...]
    units: tuple[str, ...]
    kind: str
    classes: tuple[str, ...]
    true: np.ndarray
    where: np.ndarray
    all_smiles: np.ndarray
    status: np.ndarray
    reason: np.ndarray

    def __len__(self) -> int:
        return len(self.row)

    @property
    def statuses(self) -> dict[str, int]:
        """Number of rows of the input by status."""
        return dict(Counter(self.status.tolist()).most_common())


def read_probe_rows(
    tables: Mapping[str, EmbeddingTable],
    source: MoleculeInput | None,
    *,
    data_set: str,
    targets: Sequence[str] = (),
    units: Sequence[str] = (),
    kind: str = "auto",
) -> ProbeRows:
    """Matches embeddings and labels.

    Args:
        tables: {representation: embeddings}, at least one.
        source: the table that was embedded; None: labels are in the columns that the
            first file of embeddings kept.
        data_set: its name, for reports.
        targets: columns of labels; none: all others that hold numbers.
        units: of the targets, or one of all.
        kind: see `label_columns.read_labels`.

    Raises:
        UserError: a file has other rows than the input, a column is missing, or no
            molecule is left.
    """
    first = next(iter(tables.values()))
    known = _kept(tables) if source is None else _read(source)
    _check_rows(tables, known)
    labels = read_labels(
        known.cells, targets=targets, kind=kind, besides=(known.smiles_col,)
    )
    status = np.full(len(first), USED, object)
    reason = np.full(len(first), "", object)
    for name, table in tables.items():
        failed = ~table.usable & (status == USED)
        status[failed] = UNEMBEDDED
        for n in np.flatnonzero(failed):
            reason[n] = f"{name}: {table.reason[n] or 'no finite embedding'}"
    for n, fault in enumerate(labels.faults):
        if fault and status[n] == USED:
            status[n], reason[n] = UNLABELLED, fault
    used = np.flatnonzero(status == USED)
    if not len(used):
        n = int(np.flatnonzero(status != USED)[0])
        raise UserError(
            f"no row of {data_set} has both a label and embeddings; of the first, "
            f"{first.where[n]}: {reason[n]}"
        )
    true = labels.values_RT[used]
    _check_labels(labels, true)
    return ProbeRows(
        data_set=data_set,
        row=used.astype(np.int64),
        smiles=first.smiles[used],
        values={name: table.values[used] for name, table in tables.items()},
        about={name: dict(table.about) for name, table in tables.items()},
        targets=labels.names,
        units=_units(units, labels.names),
        kind=labels.kind,
        classes=labels.classes,
        true=true,
        where=first.where,
        all_smiles=first.smiles,
        status=status.astype(np.str_),
        reason=reason.astype(np.str_),
    )


def write_rows(rows: ProbeRows, path: pathlib.Path) -> None:
    """Writes a csv with one line for each row of the input, in its order."""
    seen: dict[str, int] = {}
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(_COLUMNS)
        for n, smiles in enumerate(rows.all_smiles.tolist()):
            known = seen.setdefault(smiles, n) if smiles else n
            same = "" if known == n else str(known)
            cells = (rows.where[n], smiles, rows.status[n], rows.reason[n], same)
            writer.writerow((n, *cells))


class _Input(NamedTuple):
    """What the table says."""

    name: str
    cells: dict[str, list[str]]  # of each column, by row
    smiles_col: str  # "": none that is known
    smiles: np.ndarray  # (N,) str, of rows that are compared; else ""


def _read(source: MoleculeInput) -> _Input:
    cells: dict[str, list[str]] = {}
    N = source.length
    compared = set(np.linspace(0, N - 1, min(N, _COMPARED_ROWS)).astype(int).tolist())
    smiles = np.full(N, "", object)
    for n, row in enumerate(source.unread_rows()):
        for name, cell in row.columns.items():
            column = cells.setdefault(name, [])
            column.extend([""] * (n - len(column)))
            column.append(cell)
        if n in compared and (record := row.make()).status != "failed":
            smiles[n] = record.smiles
    for column in cells.values():
        column.extend([""] * (N - len(column)))
    return _Input(source.name, cells, source.smiles_col, smiles)


def _kept(tables: Mapping[str, EmbeddingTable]) -> _Input:
    """Columns that came along with the embeddings."""
    name, first = next(iter(tables.items()))
    if not first.columns:
        raise UserError(
            f"the embeddings {name!r} have no columns of the table: give it with "
            "--input=FILE"
        )
    cells = {column: x.tolist() for column, x in first.columns.items()}
    return _Input(name, cells, "", first.smiles)


def _check_rows(tables: Mapping[str, EmbeddingTable], known: _Input) -> None:
    for name, table in tables.items():
        if not np.array_equal(table.index, np.arange(len(table))):
            raise UserError(
                f"the embeddings {name!r} lack rows of what was embedded, or are in "
                "another order: give the file as chemscale embed wrote it"
            )
        if len(table) != len(known.smiles):
            raise UserError(
                f"the embeddings {name!r} have {len(table)} rows and {known.name} has "
                f"{len(known.smiles)}: rows are matched by their number, so give "
                "the file that was embedded"
            )
        both = (table.smiles != "") & (known.smiles != "")
        differ = int((table.smiles[both] != known.smiles[both]).sum())
        if differ > _MOST_OTHER * both.sum():
            raise UserError(
                f"the embeddings {name!r} are of other molecules than {known.name}: "
                f"{differ} of {both.sum()} rows that were compared differ; give the "
                "file that was embedded"
            )


def _check_labels(labels: Labels, true: np.ndarray) -> None:
    for t, name in enumerate(labels.names):
        found = true[np.isfinite(true[:, t]), t]
        if len(found) < LEAST_LABELS or len(np.unique(found)) < 2:
            raise UserError(
                f"target {name!r} has {len(found)} labels of {len(np.unique(found))} "
                f"different values: name targets with at least {LEAST_LABELS} labels "
                "that are not all equal"
            )


def _units(units: Sequence[str], targets: Sequence[str]) -> tuple[str, ...]:
    found = tuple(units) or ("",)
    found = found * len(targets) if len(found) == 1 else found
    if len(found) != len(targets):
        raise UserError(
            f"there are {len(found)} units for {len(targets)} targets "
            f"({', '.join(targets[:5])}): give one for each, or one for all"
        )
    return found
