"""Which cells train as lanes of one program."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from chemscale_jax.studies.cells import Cell
from chemscale_jax.training.lanes import obstacles

# Exit status of a process of lanes whose cells turn out not to be lanes of one program.
APART = 3
# Tasks whose runs the trainer takes one by one, see runs/run.py.
_APART = ("property_regression",)


def lane_groups(cells: Sequence[Cell], jobs: int, most: int) -> list[list[Cell]]:
    """Cells in groups that may share a program, in their order.

    Batches may turn out to have other shapes once the data are read, which only the
    process of a group can tell, see `lane_process`.

    Args:
        cells: whose configs are compared.
        jobs: processes that run at a time; a group leaves none of them without work.
        most: lanes of a group; 1: every cell is a group of its own.
    """
    families: list[list[Cell]] = []
    for cell in cells:
        for family in families:
            if most > 1 and _share(family[0].config, cell.config):
                family.append(cell)
                break
        else:
            families.append([cell])
    groups = []
    for family in families:
        parts = max(math.ceil(len(family) / most), min(jobs, len(family)))
        sizes = [
            len(family) // parts + (part < len(family) % parts) for part in range(parts)
        ]
        for size in sizes:
            groups.append(family[:size])
            family = family[size:]
    return groups


def _share(first: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    if first["task"] in _APART or "wandb" in first["log"]["writers"]:
        return False
    return _terms(first) == _terms(other) and not obstacles(first, other)


def _terms(config: Mapping[str, Any]) -> dict[str, bool]:
    """Which terms of the loss there are: a weight of 0 takes one out."""
    weights = config.get("loss", {})
    return {
        name: bool(value)
        for name, value in weights.items()
        if name.startswith(("alpha_", "final_alpha_"))
    }
