"""The molecules of a map: embeddings of one input in several spaces, labels, choice.

Spaces are compared on the same molecules: those that have an embedding in each, every
compound once. All other rows of the input are listed with the reason.
"""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from chemscale_jax.analysis.maps.embedding_maps import LEAST_MOLECULES
from chemscale_jax.chem.scaffolds import scaffold_of
from chemscale_jax.core.embedding_table import EmbeddingTable, read_embeddings
from chemscale_jax.core.errors import UserError
from chemscale_jax.data.inputs.open_input import open_input

SCAFFOLD = "scaffold"
ACYCLIC_NAME = "(acyclic)"
# More points are neither told apart nor laid out in minutes.
MOST_POINTS = 20_000
# Fewer different numbers are taken for names of groups.
_LEAST_NUMBERS = 11
# Share of the cells that must be numbers; others are then missing.
_MOSTLY = 0.9
_SHOWN = "shown"


@dataclasses.dataclass(frozen=True, eq=False)
class Coloring:
    """A label of each of n molecules.

    Attributes:
        name: of the column, or "scaffold".
        groups: (n,) str, "" where unknown; None for numbers.
        numbers: (n,) float64, NaN where unknown; None for groups.
        unread: cells that hold text though the others are numbers.
    """

    name: str
    groups: np.ndarray | None = None
    numbers: np.ndarray | None = None
    unread: int = 0

    @property
    def known(self) -> np.ndarray:
        """(n,) bool, which molecules have a label."""
        if self.groups is not None:
            return self.groups != ""
        assert self.numbers is not None
        return np.isfinite(self.numbers)

    def ranked(self) -> dict[str, int]:
        """Known groups and their molecules, the largest first."""
        assert self.groups is not None
        names, counts = np.unique_counts(self.groups[self.known])
        order = np.lexsort((names, -counts))
        return {str(names[i]): int(counts[i]) for i in order}


@dataclasses.dataclass(frozen=True, eq=False)
class MappedMolecules:
    """M rows of input, n of which are shown, in S spaces.

    Attributes:
        index: (M,) row of the input, the first being 0.
        where: (M,) str.
        smiles: (M,) str, canonical.
        state: (M,) str, "shown" or why a row is not.
        columns: of the input by name, (M,) str each.
        shown: (n,) int64, places of the molecules shown.
        spaces: by name, (n, D) float32 each, as they were embedded.
        about: of each space, what made it.
        scaffolds: (n,) str, with `ACYCLIC_NAME` for molecules without rings.
    """

    index: np.ndarray
    where: np.ndarray
    smiles: np.ndarray
    state: np.ndarray
    columns: Mapping[str, np.ndarray]
    shown: np.ndarray
    spaces: Mapping[str, np.ndarray]
    about: Mapping[str, Mapping]
    scaffolds: np.ndarray

    def coloring(self, name: str) -> Coloring:
        """Labels of the molecules shown.

        Args:
            name: "scaffold" or a column.

        Raises:
            UserError: there is no such column, or it has no label.
        """
        if name == SCAFFOLD and name not in self.columns:
            return Coloring(name, groups=self.scaffolds)
        if name not in self.columns:
            known = ", ".join([SCAFFOLD, *self.columns])
            raise UserError(
                f"there is no column {name!r} to colour by: there are {known}; columns "
                "of the input come with --input=FILE"
            )
        return coloring_of(name, self.columns[name][self.shown])


def coloring_of(name: str, cells: np.ndarray) -> Coloring:
    """Numbers if nearly all cells are and more than ten differ, else groups.

    Raises:
        UserError: all cells are empty.
    """
    cells = np.char.strip(cells.astype(np.str_))
    filled = cells != ""
    if not filled.any():
        raise UserError(
            f"column {name!r} is empty for all molecules shown: colour by another"
        )
    numbers = np.array([_number(cell) for cell in cells])
    read = np.isfinite(numbers)
    different = len(np.unique(numbers[read]))
    if read.sum() >= _MOSTLY * filled.sum() and different >= _LEAST_NUMBERS:
        return Coloring(name, numbers=numbers, unread=int((filled & ~read).sum()))
    return Coloring(name, groups=cells)


def read_molecules(
    paths: Sequence[str | os.PathLike],
    *,
    names: Sequence[str] = (),
    columns_from: str | os.PathLike | None = None,
    smiles_col: str = "",
    most: int = MOST_POINTS,
    seed: int = 0,
) -> MappedMolecules:
    """Reads embedding files of one input, and the columns of that input.

    Args:
        paths: of embeddings, each with the same rows.
        names: of the spaces; default the names of the files.
        columns_from: the input itself, if its columns are wanted and not kept in the
            embedding files.
        smiles_col: of that input.
        most: molecules shown; of more, a random choice.
        seed: of the choice.

    Raises:
        UserError: a file cannot be read, files have different rows, or too few
            molecules can be shown.
    """
    names = _names(paths, names)
    tables = {n: read_embeddings(path) for n, path in zip(names, paths, strict=True)}
    first = tables[names[0]]
    for name, path in zip(names[1:], paths[1:], strict=True):
        _check_alike(first, tables[name], str(paths[0]), str(path))
    columns = dict(first.columns)
    if columns_from is not None:
        columns = _input_columns(columns_from, smiles_col, first, str(paths[0]))
    smiles = first.smiles.astype(object)
    for table in tables.values():
        smiles = np.where(smiles == "", table.smiles, smiles)
    state = _states(tables, smiles, first.index)
    usable = np.flatnonzero(state == _SHOWN)
    if not LEAST_MOLECULES <= most <= MOST_POINTS:
        raise UserError(
            f"{most:,} molecules at most are asked for: make it {LEAST_MOLECULES} to "
            f"{MOST_POINTS:,}"
        )
    if len(usable) > most:
        left = np.random.default_rng(seed).permutation(len(usable))[most:]
        state[usable[left]] = f"not among the {most:,} that are shown"
    shown = np.flatnonzero(state == _SHOWN)
    if len(shown) < LEAST_MOLECULES:
        counts = dict(zip(*np.unique_counts(state.astype(np.str_)), strict=True))
        found = ", ".join(f"{n:,} {what}" for what, n in counts.items())
        raise UserError(
            f"{paths[0]}: {len(shown)} of {len(first):,} rows can be shown ({found}); "
            f"a map takes {LEAST_MOLECULES} different molecules or more"
        )
    return MappedMolecules(
        index=first.index,
        where=first.where,
        smiles=smiles.astype(np.str_),
        state=state.astype(np.str_),
        columns=columns,
        shown=shown,
        spaces={name: table.values[shown] for name, table in tables.items()},
        about={name: table.about for name, table in tables.items()},
        scaffolds=np.array([_scaffold(text) for text in smiles[shown]], np.str_),
    )


def _names(paths: Sequence, names: Sequence[str]) -> list[str]:
    if not paths:
        raise UserError("there is no file of embeddings: give one or more")
    if not names:
        names = [pathlib.Path(path).stem for path in paths]
    if len(names) != len(paths):
        raise UserError(
            f"{len(names)} names for {len(paths)} files of embeddings: give one for "
            "each, or none"
        )
    if len(set(names)) < len(names) or not all(names):
        raise UserError(
            f"the spaces are called {', '.join(names)}: give each a name of its own "
            "with --names"
        )
    return list(names)


def _check_alike(
    first: EmbeddingTable, other: EmbeddingTable, path: str, other_path: str
) -> None:
    advice = "embed the same input for both"
    if len(first) != len(other):
        raise UserError(
            f"{path} has {len(first):,} rows and {other_path} has {len(other):,}: "
            f"{advice}"
        )
    named = (first.smiles != "") & (other.smiles != "")
    differs = (first.index != other.index) | (named & (first.smiles != other.smiles))
    if differs.any():
        place = int(np.argmax(differs))
        raise UserError(
            f"row {first.index[place]} is '{first.smiles[place]}' in {path} and row "
            f"{other.index[place]} is '{other.smiles[place]}' in {other_path}: {advice}"
        )


def _input_columns(
    source: str | os.PathLike, smiles_col: str, table: EmbeddingTable, path: str
) -> dict[str, np.ndarray]:
    given = open_input(os.fspath(source), smiles_col=smiles_col)
    cells: dict[str, list[str]] = {name: [] for name in given.columns}
    rows = 0
    for row in given.unread_rows():
        rows += 1
        for name, found in cells.items():
            found.append(row.columns.get(name, ""))
    if rows != len(table):
        raise UserError(
            f"{source} has {rows:,} rows and {path} has {len(table):,}: give the input "
            "that was embedded"
        )
    return {name: np.array(found, np.str_) for name, found in cells.items()}


def _states(
    tables: Mapping[str, EmbeddingTable], smiles: np.ndarray, index: np.ndarray
) -> np.ndarray:
    """Why each row is shown or not: (M,) object."""
    state = np.full(len(smiles), _SHOWN, object)
    for name, table in tables.items():
        lacking = ~table.usable
        for place in np.flatnonzero(lacking & (state == _SHOWN)):
            reason = str(table.reason[place]) or "no values"
            state[place] = f"no embedding in {name}: {reason}"
    seen: dict[str, int] = {}
    for place in np.flatnonzero(state == _SHOWN).tolist():
        text = str(smiles[place])
        if not text:
            continue  # coordinates without bonds are never the same
        if (row := seen.setdefault(text, place)) != place:
            state[place] = f"the same molecule as row {index[row]}"
    return state


def _scaffold(smiles: str) -> str:
    if not smiles:
        return ""
    try:
        return scaffold_of(smiles) or ACYCLIC_NAME
    except ValueError:
        return ""


def _number(cell: str) -> float:
    try:
        found = float(cell)
    except ValueError:
        return np.nan
    return found if np.isfinite(found) else np.nan
