"""Labels as networks learn them, and back: each target is shifted and scaled.

Fitted on the training set in float64. NumPy only. A fitted scaling is JSON-able and is
kept in the artifacts of a run, ``artifacts["targets"]["scaling"]``:
``{"method": ..., "shift": [one of each target], "scale": [likewise]}``.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from chemscale_jax.core.errors import UserError

# auto is standard. What each one subtracts, and what it divides by:
METHODS = {
    "auto": "mean and standard deviation",
    "standard": "mean and standard deviation",
    "robust": "median and interquartile range",
    "minmax": "least value and range",
    "log1p": "of log(1 + value): mean and standard deviation",
    "none": "0 and 1",
}
Scaling = Mapping[str, Any]


def fit_scaling(
    targets_MT: np.ndarray, method: str, names: Sequence[str] = ()
) -> dict[str, Any]:
    """The scaling of some labels.

    A target without two different values is shifted only.

    Args:
        targets_MT: (M, T) in the units of the data; NaN where there is no label.
        method: one of `METHODS`.
        names: of the targets, for messages.

    Raises:
        UserError: there is no such method, a target has no label, or log1p is asked
            for values of -1 or less.
    """
    if method not in METHODS:
        raise UserError(
            f"config.data.scaling={method!r} is unknown: use one of {(*METHODS,)}"
        )
    method = "standard" if method == "auto" else method
    shifts, scales = [], []
    for place, column in enumerate(np.asarray(targets_MT, np.float64).T):
        name = names[place] if names else place + 1
        known = column[np.isfinite(column)]
        if not len(known):
            raise UserError(f"target {name!r} has no label in the training set")
        if method == "log1p":
            known = _log1p(known, f"target {name!r}")
        shift, scale = _fit(known, method)
        shifts.append(float(shift))
        # What remains of equal numbers by rounding is no spread.
        tiny = 1e-12 * float(np.abs(known).max())
        scales.append(float(scale) if scale > tiny else 1.0)
    return {"method": method, "shift": shifts, "scale": scales}


def _log1p(values: np.ndarray, what: str) -> np.ndarray:
    if (values <= -1).any():  # NaN is not
        raise UserError(
            f"config.data.scaling='log1p', but {what} has the value "
            f"{np.nanmin(values):g}, which has no log(1 + value): use 'standard'"
        )
    return np.log1p(values)


def _fit(known: np.ndarray, method: str) -> tuple[float, float]:
    if method == "none":
        return 0.0, 1.0
    if method == "robust":
        low, middle, high = np.quantile(known, (0.25, 0.5, 0.75))
        return middle, high - low
    if method == "minmax":
        return known.min(), known.max() - known.min()
    return known.mean(), known.std()


def no_scaling(targets: int) -> dict[str, Any]:
    """The scaling of labels that are classes."""
    return {"method": "none", "shift": [0.0] * targets, "scale": [1.0] * targets}


def scale(targets: np.ndarray, scaling: Scaling) -> np.ndarray:
    """Labels as networks learn them, float64.

    Args:
        targets: (..., T) in the units of the data; NaN stays.
        scaling: from `fit_scaling`.

    Raises:
        UserError: see `fit_scaling`.
    """
    values = np.asarray(targets, np.float64)
    if scaling["method"] == "log1p":
        values = _log1p(values, "a target")
    return (values - np.array(scaling["shift"])) / np.array(scaling["scale"])


def unscale(scaled: np.ndarray, scaling: Scaling) -> np.ndarray:
    """Labels in the units of the data, float64; undoes `scale`.

    Args:
        scaled: (..., T), such as the output of a network.
        scaling: from `fit_scaling`.
    """
    values = np.asarray(scaled, np.float64) * np.array(scaling["scale"])
    values = values + np.array(scaling["shift"])
    return np.expm1(values) if scaling["method"] == "log1p" else values
