"""A scaling study from plan to report: all cells of a config's ``study()``, once each.

The same command goes on where a study was stopped or killed: cells that are settled are
left alone, the others resume from their checkpoints, and the results are those of an
unbroken study.
"""

import pathlib
import signal
from collections.abc import Sequence
from typing import NamedTuple

from chemscale_jax.studies import study_report
from chemscale_jax.studies.cells import Cell
from chemscale_jax.studies.local_processes import CellRuns, Place
from chemscale_jax.studies.planned_cell import PlannedCell
from chemscale_jax.studies.study_rows import (
    COLUMNS,
    RESULTS,
    TRAJECTORIES,
    Row,
    is_settled,
    rows_of,
    trajectories_of,
    write_rows,
)


class Ended(NamedTuple):
    """What came of a study, this time."""

    received: signal.Signals | None  # what stopped it
    unsettled: tuple[str, ...]  # names of the cells that are not done
    table: str  # of the cells
    report: str  # "" where no run is finished


def run_study(
    name: str,
    cells: Sequence[Cell],
    plan: Sequence[PlannedCell],
    folder: pathlib.Path,
    program: Sequence[str],
    places: Sequence[Place],
) -> Ended:
    """Trains the cells that are not settled, then writes results and report.

    Args:
        name: of the study.
        cells: all of them.
        plan: of the same cells.
        folder: of the study.
        program: the command that takes a cell's arguments.
        places: where processes run.
    """
    runs = CellRuns([c for c in cells if not is_settled(c)], program, places)
    received = runs.run()
    report = write_results(name, cells, plan, folder)
    return Ended(
        received,
        tuple(cell.name for cell in cells if not is_settled(cell)),
        runs.table(),
        report,
    )


def write_results(
    name: str,
    cells: Sequence[Cell],
    plan: Sequence[PlannedCell],
    folder: pathlib.Path,
) -> str:
    """Writes results.csv, trajectories.csv and the report from the folders of the runs.

    Returns:
        The text of the report; "" where no run is finished.
    """
    rows = rows_of(name, cells, plan)
    write_rows(folder / RESULTS, rows, COLUMNS)
    points: list[Row] = trajectories_of(cells)
    columns = list(dict.fromkeys(column for row in points for column in row))
    write_rows(folder / TRAJECTORIES, points, columns or ["cell", "seed", "step"])
    if not any(row["state"] == "finished" for row in rows):
        return ""
    task = cells[0].config["task"]
    return study_report.write_report(name, task, rows, points, folder)
