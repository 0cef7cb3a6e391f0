"""What readers of file formats give: frames in our units, and bad ones."""

import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from chemscale_jax.chem import units
from chemscale_jax.core.errors import UserError


class Frames(NamedTuple):
    """F frames of one molecule with its N atoms in one order, in our units.

    A label that the file does not have is None; a NaN that it does have makes a bad
    frame.
    """

    name: str  # of the molecule; part of the records' names
    rows: np.ndarray  # (F,) where they are in the file; the other part
    species: np.ndarray  # (N,) atomic numbers
    positions: np.ndarray  # (F, N, 3) angstrom
    energy: np.ndarray | None  # (F,) eV, total
    forces: np.ndarray | None  # (F, N, 3) eV/angstrom
    charge: float = 0.0  # elementary charges
    spin: float = 0.0  # number of unpaired electrons
    cell: np.ndarray | None = None  # (F, 3, 3) cell vectors as rows, angstrom
    part: np.ndarray | None = None  # (F,) int8, see `FrameSource.given_split`


class Bad(NamedTuple):
    """A frame that cannot be used, found by a reader."""

    reason: str
    name: str


# Fills its argument with facts for the report and yields the frames of a file.
Reader = Callable[[dict[str, Any]], Iterator[Frames | Bad]]


class UnitNames(NamedTuple):
    """Units of a file; "auto" stands for those that its format implies."""

    energy: str = "auto"
    force: str = "auto"
    length: str = "auto"

    def filled(self, energy: str, force: str, length: str) -> "UnitNames":
        """The same with units in place of "auto", in this package's spelling.

        Raises:
            UserError: a unit is unknown.
        """
        implied = (energy, force, length)
        names = UnitNames(
            *(
                units.spelled_out(other if own == "auto" else own)
                for own, other in zip(self, implied, strict=True)
            )
        )
        names.factors()
        return names

    def factors(self) -> tuple[float, float, float]:
        """What energies, forces and lengths are multiplied by to be in our units."""
        try:
            energy, force, length = (
                units.unit_factor(quantity, unit)
                for quantity, unit in self._asdict().items()
            )
        except ValueError as error:
            raise UserError(f"config.data: {error}") from error
        return energy, force, length


# Whatever the format implies.
AUTO_UNITS = UnitNames()


def existing_file(path: str | pathlib.Path, what: str) -> pathlib.Path:
    """The path of a file that is there and is not empty.

    Args:
        path: what the user gave.
        what: what it should be, for the messages, such as "an extxyz file".

    Raises:
        UserError: it is not.
    """
    if not str(path):
        raise UserError(f"config.data.path is empty: name {what}")
    found = pathlib.Path(path).expanduser()
    if found.is_dir():
        raise UserError(f"{found} is a folder: name {what}")
    if not found.exists():
        raise UserError(f"there is no file {found}: name {what}")
    if not found.stat().st_size:
        raise UserError(f"{found} is empty (0 bytes): name {what}")
    if not os.access(found, os.R_OK):
        raise UserError(f"{found} may not be read by this user: change its permissions")
    return found


def same_parts(
    paths: Mapping[int, pathlib.Path],
    read_one: Callable[[pathlib.Path, dict[str, Any]], Iterator[Frames | Bad]],
) -> Reader:
    """A reader of one file for each part of a split that several files make up.

    Args:
        paths: part (see `FrameSource.given_split`) -> file. With one file no split is
            given.
        read_one: reads one file.
    """

    def read(facts: dict[str, Any]) -> Iterator[Frames | Bad]:
        first_row = 0
        for part, path in paths.items():
            n_rows = 0
            for block in read_one(path, facts):
                if isinstance(block, Frames) and len(paths) > 1 and len(block.rows):
                    n_rows = max(n_rows, int(block.rows.max()) + 1)
                    # So that no name comes twice, rows of a second file go on.
                    block = block._replace(
                        rows=block.rows + first_row,
                        part=np.full(len(block.rows), part, np.int8),
                    )
                yield block
            first_row += n_rows

    return read
