"""Finetuned networks as the other arm: predictions of runs on the same folds."""

import pathlib

import numpy as np

from chemscale_jax.analysis.probes.cells import ProbeSettings
from chemscale_jax.analysis.probes.rows import ProbeRows
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.property_predictions import PropertyPredictions
from chemscale_jax.core.workdir import Workdir

_HELDOUT = "heldout.npz"


def read_networks(
    folder: pathlib.Path, rows: ProbeRows, settings: ProbeSettings, folds: np.ndarray
) -> np.ndarray:
    """What ``chemscale finetune`` predicts of each molecule: (S, M, P).

    Args:
        folder: has a workdir SEED-FOLD for each file splits/SEED-FOLD.csv of the
            comparison, trained on that split.
        rows: molecules with labels.
        settings: how they are tested.
        folds: (S, M) int.

    Returns:
        Values or chances; NaN of molecules that a run could not read.

    Raises:
        UserError: a run is missing or unfinished, or was trained on other molecules or
            targets.
    """
    P = len(rows.classes) if rows.kind == "multiclass" else len(rows.targets)
    pred = np.full((len(settings.seeds), len(rows), P), np.nan)
    for place, seed in enumerate(settings.seeds):
        for fold in range(settings.folds):
            run = folder / f"{seed}-{fold}"
            path = run / "predictions" / _HELDOUT
            if not path.is_file():
                raise UserError(
                    f"{path} does not exist: finetune with --split=file --split-file="
                    f"splits/{seed}-{fold}.csv of this folder and --workdir={run}, and "
                    "let it finish"
                )
            found = PropertyPredictions.load(path)
            columns = _columns(run, rows)
            at = np.searchsorted(rows.row, found.index).clip(max=len(rows) - 1)
            known = rows.row[at] == found.index
            if (folds[place, at[known]] != fold).any():
                raise UserError(
                    f"{run} was tested on molecules that it should have been trained "
                    f"on: give splits/{seed}-{fold}.csv to --split-file"
                )
            pred[place, at[known]] = found.pred[known][:, columns]
    return pred


def _columns(run: pathlib.Path, rows: ProbeRows) -> list[int]:
    """Which outputs of a run are the targets, or the classes."""
    targets = Workdir(run).artifacts()["targets"]
    names, classes = list(targets["names"]), tuple(targets.get("classes", ()))
    lacking = [name for name in rows.targets if name not in names]
    if lacking or targets["kind"] != rows.kind or classes != tuple(rows.classes):
        raise UserError(
            f"{run} predicts {', '.join(names)} ({targets['kind']}) and not "
            f"{', '.join(rows.targets)} ({rows.kind}): finetune with the same "
            "--targets and --kind"
        )
    if rows.kind == "multiclass":
        return list(range(len(classes)))
    return [names.index(name) for name in rows.targets]
