"""The results of a study as one tidy csv file: a row per run, seeds as runs of a cell.

Rows are read from the folders of the runs and from the plan, never from memory, so that
a study that was killed and went on has the same rows as one that was not, but for the
clock (``wall_s``).
"""

import csv
import json
import math
import os
import pathlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from chemscale_jax.analysis.scaling.data import groups_of
from chemscale_jax.core.workdir import Workdir
from chemscale_jax.studies.cells import Cell
from chemscale_jax.studies.planned_cell import PlannedCell

RESULTS, TRAJECTORIES = "results.csv", "trajectories.csv"
# The columns, in their order; those of a clock differ between equal runs.
COLUMNS = (
    "study",
    "cell",
    "model",
    "seed",
    "width",
    "depth",
    "capacity",  # width times depth, Eq. 6 of Frey et al. 2023
    "parameters",
    "parameters_nonembedding",
    "data",  # how much was trained on, in data_unit; repeats are in epochs
    "data_unit",
    "tokens",
    "molecules",
    "frames",
    "steps",
    "epochs",  # passes over the data
    "epochs_planned",
    "batch",  # frames, molecules, or rows of text
    "flops",  # of the training, without validation
    "wall_s",  # of a seed's share of its process
    "train_loss",  # mean of the last whole epoch
    "valid_loss",  # the lowest
    "heldout_loss",  # of the same weights
    "loss_unit",
    "best_step",
    "stop_reason",
    "state",
    "limit",  # see analysis/scaling/limits.py
)
CLOCKS = ("wall_s",)
FINISHED, DIVERGED = "finished", "diverged"
# By the config's task: unit of the loss.
_UNITS = {
    "force_field": "eV/A",
    "causal_lm": "nats/token",
    "conformer_denoising": "nats + A + A",
}
# Terms of the loss that are of interest by themselves, by the config's task.
_TERMS = {"conformer_denoising": ("token", "coord", "dist")}

Row = dict[str, str]


def rows_of(
    study: str, cells: Sequence[Cell], plan: Sequence[PlannedCell]
) -> list[Row]:
    """A row for every run of a study, in the order of its plan, with their limits.

    Args:
        study: what the study is called.
        cells: all of them; those that did not run have rows without results.
        plan: of the same cells.
    """
    rows = []
    for cell, planned in zip(cells, plan, strict=True):
        for seed, workdir, state in runs_of(cell):
            rows.append(_row(study, cell, planned, seed, workdir, state))
    if any(row["valid_loss"] for row in rows):
        for group in groups_of(rows):
            for found in group.cells:
                for row in found.rows:
                    # The rows that were handed in.
                    row["limit"] = found.limit  # pyright: ignore
    return rows


def runs_of(cell: Cell) -> Iterator[tuple[int, Workdir, str]]:
    """Seed, folder and state of the runs of a cell."""
    seed, seeds = cell.config["seed"], cell.config["train"]["ensemble"]
    state = state_of(cell.workdir)
    if seeds <= 1:
        yield seed, cell.workdir, state
        return
    for k in range(seeds):
        workdir = Workdir(cell.workdir.path / "lanes" / str(k))
        # Where all lanes diverged, only the run that they make up says so.
        yield seed + k, workdir, state if state == DIVERGED else state_of(workdir)


def state_of(workdir: Workdir) -> str:
    """The state of a run; "diverged" where its loss was not finite."""
    if not workdir.run_json.exists():
        return "new"
    run = workdir.run()
    state = run.get("state", "new")
    if state == "failed" and "not finite" in run.get("stop_reason", ""):
        return DIVERGED
    return state


def is_settled(cell: Cell) -> bool:
    """Whether running a cell again would change nothing."""
    if cell.done:
        return True
    runs = list(runs_of(cell))
    if all(state != DIVERGED for _, _, state in runs):
        return False
    return all(
        state == DIVERGED or (state == FINISHED and workdir.card.exists())
        for _, workdir, state in runs
    )


def trajectories_of(cells: Iterable[Cell]) -> list[Row]:
    """Every validation of every finished run, with its terms where there are several.

    Along a run whose learning rate decays, steps and decay act together.
    """
    rows: list[Row] = []
    for cell in cells:
        names = ("loss", *_TERMS.get(cell.config["task"], ()))
        for seed, workdir, state in runs_of(cell):
            if state != FINISHED:
                continue
            at: dict[int, dict[str, float | None]] = {}
            for record in workdir.metrics():
                if record["split"] == "valid" and record["name"] in names:
                    at.setdefault(record["step"], {})[record["name"]] = record["value"]
            for step, values in at.items():
                row = {"cell": cell.name, "seed": str(seed), "step": str(step)}
                row |= {f"valid_{k}": _text(v) for k, v in values.items()}
                rows.append(row)
    return rows


def write_rows(path: pathlib.Path, rows: Sequence[Row], columns: Sequence[str]) -> None:
    """Writes a csv file in one piece: a kill leaves the old or the new one."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    os.chmod(name, 0o644)
    os.replace(name, path)


def _row(
    study: str,
    cell: Cell,
    planned: PlannedCell,
    seed: int,
    workdir: Workdir,
    state: str,
) -> Row:
    config = cell.config
    model = config["model"]
    width, depth = _shape(model)
    amount, unit = _data(config, planned)
    values: dict[str, Any] = {
        "study": study,
        "cell": cell.name,
        "model": model["name"],
        "seed": seed,
        "width": width,
        "depth": depth,
        "capacity": width * depth,
        "parameters": planned.parameters,
        "parameters_nonembedding": planned.parameters_nonembedding,
        "data": amount,
        "data_unit": unit,
        "tokens": planned.tokens,
        "molecules": planned.molecules,
        "frames": planned.frames,
        "epochs_planned": _passes(config, planned, planned.steps),
        "batch": planned.batch,
        "loss_unit": _UNITS.get(config["task"], ""),
        "state": state,
    }
    if state in (FINISHED, DIVERGED) and workdir.metrics_jsonl.exists():
        steps = last_step(workdir)
        seeds = max(config["train"]["ensemble"], 1)
        values |= {
            "steps": steps,
            "epochs": _passes(config, planned, steps),
            "flops": planned.flops_per_step * steps,
            "wall_s": round(seconds_of(workdir) / seeds, 1),
            "stop_reason": workdir.run().get("stop_reason", ""),
            **_losses(workdir),
        }
    return {name: _text(values.get(name)) for name in COLUMNS}


def _shape(model: Mapping[str, Any]) -> tuple[int, int]:
    if "width" in model:
        return model["width"], model["depth"]
    # Imported only where a size has a name.
    from chemscale_jax.models.unimol2_options import SIZES

    size = SIZES[model["size"]]
    return size["width"], size["depth"]


def _data(config: Mapping[str, Any], planned: PlannedCell) -> tuple[int | None, str]:
    if planned.frames is not None:
        return planned.frames, "frames"
    if planned.tokens is not None:
        return planned.tokens, "tokens"
    if config["data"].get("sampling", "once") != "once":
        # Of an endless supply: what counts is how many were drawn.
        return round(planned.steps * planned.batch), "draws"
    return planned.molecules, "molecules"


def _passes(config: Mapping[str, Any], planned: PlannedCell, steps: int) -> float:
    """How often the data were gone over in some steps; 1 where they were drawn."""
    if config["data"].get("sampling", "once") != "once":
        return 1.0
    epochs = steps / planned.steps_per_epoch
    return round(epochs * config["data"].get("passes", 1), 4)


def _losses(workdir: Workdir) -> dict[str, Any]:
    """The last epoch's training loss, and the losses of the best weights."""
    train = None
    valid: list[tuple[float, int]] = []
    heldout: dict[int, float | None] = {}
    for record in workdir.metrics():
        place, value = (record["split"], record["name"]), record["value"]
        if place == ("epoch", "train_loss"):
            train = value
        elif place == ("valid", "loss") and value is not None:
            valid.append((value, record["step"]))
        elif place == ("heldout", "loss"):
            heldout[record["step"]] = value
    if not valid:
        return {"train_loss": train}
    # Of equal losses the first, whose weights are kept.
    best, step = min(valid, key=lambda pair: pair[0])
    return {
        "train_loss": train,
        "valid_loss": best,
        "heldout_loss": heldout.get(step),
        "best_step": step,
    }


def last_step(workdir: Workdir) -> int:
    """How many batches a run was trained on, as far as its log goes."""
    last = workdir.last_record()
    return 0 if last is None else last["step"]


def seconds_of(workdir: Workdir) -> float:
    """Seconds of all processes of a run together, from start to last record.

    The records of a process that was killed before it saved are gone, and with them its
    time.
    """
    total = before = 0.0
    for line in workdir.metrics_jsonl.read_text().splitlines():
        try:
            now = json.loads(line)["time"]["run_s"]
        except (json.JSONDecodeError, KeyError):
            continue
        if now < before:
            total += before  # another process went on
        before = now
    return total + before


def _text(value: Any) -> str:
    """A number in the fewest digits that give it back; nothing for None."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return str(value)
