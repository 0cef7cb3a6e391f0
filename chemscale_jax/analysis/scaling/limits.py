"""What limits a run: its data, its capacity, or its steps. Decided before any fit.

The rule, on the runs of a cell (equal but for their seeds):

1. gap = 1 - training loss / validation loss. Above `GAP` the run learnt its training
   set by heart: it is limited by **data**.
2. Otherwise it generalises as well as it fits, and a better fit is what it lacks. Did
   it stop because validation no longer improved (early stopping, or the best weights
   are from before `LATE` of its steps)? Then it converged: limited by **capacity** if
   the next larger model on the same data reaches a lower loss, by **data** if the same
   model with more data does (and more so than a larger model), by nothing that was
   varied (**none**) if neither does.
3. Otherwise its budget ended while it improved. It is limited by **step**, unless a
   neighbour with no more steps reaches a lower loss: then by **capacity** or by
   **data**, as in 2.

A lower loss is one lower by more than `CHANGE` and by more than the noise of the cells.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

DATA, CAPACITY, STEP, NONE = "data", "capacity", "step", "none"
LIMITS = (DATA, CAPACITY, STEP, NONE)
# Relative gap of the losses.
GAP = 0.1
# Share of the steps after which the best weights count as the last ones.
LATE = 0.9
# Relative change of the loss that counts.
CHANGE = 0.01
# Runs with up to this many times the steps had as many.
_AS_MANY = 1.1
# What a run says that stopped because validation no longer improved.
_CONVERGED = "did not improve"


class Cell(NamedTuple):
    """Means over the seeds of a cell, and where it is in the grid."""

    size: float
    data: float
    train_loss: float  # of the last epoch, as it was optimised; NaN if not known
    valid_loss: float  # the best, in the same unit
    stop_reason: str
    best_share: float  # step of the best weights, of all steps; NaN if not known
    steps: float  # NaN if not known
    noise: float  # standard error of log valid_loss over the seeds; 0 if not known


def limit_of(
    train_loss: float,
    valid_loss: float,
    stop_reason: str,
    best_share: float,
    larger_model: float | None = None,
    more_data: float | None = None,
    noise: float = 0.0,
) -> str:
    """What limits a cell, by the rule of this file.

    Args:
        train_loss: mean of the last epoch; NaN if it is not known.
        valid_loss: of the best weights, in the same unit.
        stop_reason: of run.json.
        best_share: step of the best weights, of all steps; NaN if it is not known.
        larger_model: validation loss of the next larger model on the same data; of a
            run that did not converge only one with no more steps counts, and likewise
        more_data: validation loss of the same model with the next more data.
        noise: standard error of the logarithms of validation losses.
    """
    if 1 - train_loss / valid_loss > GAP:
        return DATA
    least = max(CHANGE, 2 * noise)
    by_size = _fall(valid_loss, larger_model)
    by_data = _fall(valid_loss, more_data)
    if max(by_size, by_data) > least:
        return DATA if by_data > by_size else CAPACITY
    return NONE if converged(stop_reason, best_share) else STEP


def converged(stop_reason: str, best_share: float) -> bool:
    """Whether a run stopped, or could have, because nothing improved any more."""
    return _CONVERGED in stop_reason or best_share < LATE


def label(cells: Sequence[Cell]) -> list[str]:
    """What limits each cell of a grid (of one group of models)."""
    at = {(cell.size, cell.data): cell for cell in cells}
    sizes = sorted({cell.size for cell in cells})
    amounts = sorted({cell.data for cell in cells})
    found = []
    for cell in cells:
        larger = [(size, cell.data) for size in sizes if size > cell.size]
        more = [(cell.size, data) for data in amounts if data > cell.data]
        found.append(
            limit_of(
                cell.train_loss,
                cell.valid_loss,
                cell.stop_reason,
                cell.best_share,
                _next(at, cell, larger),
                _next(at, cell, more),
                cell.noise,
            )
        )
    return found


def _next(
    at: Mapping[tuple[float, float], Cell],
    cell: Cell,
    places: Sequence[tuple[float, float]],
) -> float | None:
    """The loss of the first of some places that was run and can be compared."""
    done = converged(cell.stop_reason, cell.best_share)
    for place in places:
        if place in at and (done or not at[place].steps > _AS_MANY * cell.steps):
            return at[place].valid_loss
    return None


def _fall(loss: float, other: float | None) -> float:
    """By how much a loss falls, in logarithms; -inf where there is no other."""
    return -np.inf if other is None else float(np.log(loss / other))
