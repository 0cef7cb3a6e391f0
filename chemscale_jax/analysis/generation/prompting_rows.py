"""The molecules of a prompting study in one csv file, and figures of some of them.

A cell is one setting of one model at one prompt length. Its rows are appended in one
piece; what a kill cut short is dropped when the file is opened again, so a cell is
there as a whole or not at all.
"""

import csv
import io
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from chemscale_jax.analysis.generation.set_metrics import Draws, Estimate, mean_of
from chemscale_jax.core.errors import UserError

KNOBS = ("top_k", "top_p", "temperature", "num_beams")
FIGURES = ("finished", "valid", "unique", "kept", "passes", "weight_difference")


class Cell(NamedTuple):
    """One setting of one model at one prompt length."""

    model: str
    knob: str  # of KNOBS: the one that is set
    value: str
    length: str  # rule of the prompts, such as "l-3"

    @property
    def setting(self) -> str:
        """For a reader, such as "top_k 50"."""
        return f"{self.knob} {self.value}"


class Row(NamedTuple):
    """One generated molecule.

    Attributes:
        model: that made it.
        knob: of KNOBS.
        value: of the knob.
        length: rule of the prompt.
        molecule: name of the molecule that the prompt is cut from.
        number: of the sample, from 0; best first for beams.
        prompt_symbols: that were kept of the molecule.
        smiles: canonical; "" where it is no molecule.
        tokens: generated, the end token included.
        log_likelihood: in nats, given the prompt, of the unfiltered model.
        finished: whether it ended by itself.
        kept: whether it holds what the prompt stands for, on Kekule forms; None where
            that is not known.
        new: it is a molecule, and neither the one the prompt is cut from nor an
            earlier sample of the same cell and prompt.
        passes: the filters of MOSES; None where it is no molecule.
        reason: why not.
        weight_difference: its mass less that of the molecule the prompt is cut from,
            g/mol; NaN where it is no molecule.
    """

    model: str
    knob: str
    value: str
    length: str
    molecule: str
    number: int
    prompt_symbols: int
    smiles: str
    tokens: int
    log_likelihood: float
    finished: bool
    kept: bool | None
    new: bool
    passes: bool | None
    reason: str
    weight_difference: float

    @property
    def cell(self) -> Cell:
        """That it belongs to."""
        return Cell(self.model, self.knob, self.value, self.length)


def append_rows(path: pathlib.Path, rows: Sequence[Row]) -> None:
    """Appends the rows of a cell, and waits until they are on the disk."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if not path.exists():
        writer.writerow(Row._fields)
    writer.writerows([_text(value) for value in row] for row in rows)
    with path.open("ab") as file:
        file.write(text.getvalue().encode())
        file.flush()
        os.fsync(file.fileno())


def read_rows(path: pathlib.Path, sizes: Mapping[str, int]) -> dict[Cell, list[Row]]:
    """The cells of a file; one that is cut short is dropped, there and here.

    Args:
        path: of the file, which may be missing.
        sizes: {knob and value, as `Cell.setting`: rows of a cell}; cells of settings
            that are not named are left as they are.

    Raises:
        UserError: the file holds something else.
    """
    if not path.exists():
        return {}
    # Without a line end, the last line is torn.
    whole = path.read_bytes().rpartition(b"\n")[0].decode()
    cells: dict[Cell, list[Row]] = {}
    for number, line in enumerate(csv.reader(io.StringIO(whole)), start=1):
        if number == 1:
            if tuple(line) != Row._fields:
                raise UserError(
                    f"{path} is not the file of a prompting study of this version; "
                    "choose another workdir"
                )
            continue
        try:
            row = _row(line)
        except (ValueError, KeyError, TypeError):
            raise UserError(
                f"{path}, line {number} cannot be read; delete the line, and the cell "
                "it belongs to is made again"
            ) from None
        cells.setdefault(row.cell, []).append(row)
    good = {
        cell: rows
        for cell, rows in cells.items()
        if len(rows) == sizes.get(cell.setting, len(rows))
    }
    if good.keys() != cells.keys() or not path.read_bytes().endswith(b"\n"):
        draft = path.with_suffix(".new")
        draft.unlink(missing_ok=True)
        for rows in good.values():
            append_rows(draft, rows)
        if good:
            draft.replace(path)
        else:
            path.unlink()
    return good


class Summary(NamedTuple):
    """Figures of some rows, each a mean over prompt molecules with its interval."""

    molecules: int
    figures: dict[str, Estimate]  # of FIGURES


def by_molecule(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """The figures of each prompt molecule by itself; NaN where there is none.

    finished, valid: shares of all samples; unique: share of the valid ones that no
    earlier sample of the same cell and prompt equals; kept: share of the valid ones
    that hold the prompt; passes: share of the new ones that the filters let through;
    weight difference: mean over the new ones.
    """
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.molecule, []).append(row)
    found = {}
    for name, some in groups.items():
        valid = [row for row in some if row.smiles]
        new = [row for row in valid if row.new]
        found[name] = {
            "finished": _mean([row.finished for row in some]),
            "valid": len(valid) / len(some),
            "unique": _mean([row is first for row, first in _firsts(valid)]),
            "kept": _mean([row.kept for row in valid if row.kept is not None]),
            "passes": _mean([bool(row.passes) for row in new]),
            "weight_difference": _mean([row.weight_difference for row in new]),
        }
    return found


def summarise(rows: Sequence[Row], draws: Draws) -> Summary:
    """Means over prompt molecules, each of the same weight.

    The interval is of the bootstrap over prompt molecules: it says what other molecules
    of their kind would give, not what more samples of the same would.
    """
    each = by_molecule(rows)
    return Summary(
        len(rows), {name: _over(each, name, draws) for name in FIGURES} if each else {}
    )


def difference(
    first: Sequence[Row], second: Sequence[Row], figure: str, draws: Draws
) -> Estimate:
    """Second less first, mean over the prompt molecules that both have."""
    one, other = by_molecule(first), by_molecule(second)
    gaps = np.array(
        [other[name][figure] - one[name][figure] for name in one if name in other]
    )
    return mean_of(gaps[np.isfinite(gaps)], draws)


def _over(each: Mapping[str, Mapping[str, float]], name: str, draws: Draws) -> Estimate:
    values = np.array([figures[name] for figures in each.values()], np.float64)
    return mean_of(values[np.isfinite(values)], draws)


def _firsts(rows: Sequence[Row]) -> list[tuple[Row, Row]]:
    """Each row with the first one of its cell that is the same molecule."""
    seen: dict[tuple[Cell, str], Row] = {}
    return [(row, seen.setdefault((row.cell, row.smiles), row)) for row in rows]


def _mean(values: Sequence[float | bool]) -> float:
    return float(np.mean(values)) if values else math.nan


def _text(value: str | float | bool | None) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4f}" if math.isfinite(value) else ""
    return str(value)


_FLAGS = {"yes": True, "no": False}


def _row(line: Sequence[str]) -> Row:
    cells = dict(zip(Row._fields, line, strict=True))
    return Row(
        model=cells["model"],
        knob=cells["knob"],
        value=cells["value"],
        length=cells["length"],
        molecule=cells["molecule"],
        number=int(cells["number"]),
        prompt_symbols=int(cells["prompt_symbols"]),
        smiles=cells["smiles"],
        tokens=int(cells["tokens"]),
        log_likelihood=float(cells["log_likelihood"] or "nan"),
        finished=_FLAGS[cells["finished"]],
        kept=_FLAGS.get(cells["kept"]),
        new=_FLAGS[cells["new"]],
        passes=_FLAGS.get(cells["passes"]),
        reason=cells["reason"],
        weight_difference=float(cells["weight_difference"] or "nan"),
    )
