"""Predictions of properties for whole splits, averaged over conformers and members."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np
from jax.sharding import Mesh

from chemscale_jax.core.errors import UserError
from chemscale_jax.core.partition import row_sharding
from chemscale_jax.core.property_predictions import PropertyPredictions
from chemscale_jax.core.stream import Epoch
from chemscale_jax.core.target_scaling import unscale
from chemscale_jax.core.task import Task
from chemscale_jax.core.types import Params
from chemscale_jax.data.labels.labelled_molecules import LabelledMolecules


class PropertyEpoch(Epoch, Protocol):
    """Batches of `PropertyRows` that know which molecules are in them."""

    def record_indices(self, index: int) -> np.ndarray:
        """Numbers of the molecules of batch ``index``, one per row, in order."""
        ...


def in_units(outputs_MP: np.ndarray, targets: Mapping[str, Any]) -> np.ndarray:
    """What a network's outputs mean, float64: values in units, or probabilities.

    Args:
        outputs_MP: scaled values or logits.
        targets: the artifact of this name.
    """
    wide = np.asarray(outputs_MP, np.float64)
    if targets["kind"] == "regression":
        return unscale(wide, targets["scaling"])
    if targets["kind"] == "binary":
        return np.exp(-np.logaddexp(0.0, -wide))
    shifted = np.exp(wide - wide.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def predict_split(
    task: Task,
    variables: Mapping[str, Params],
    epoch: PropertyEpoch,
    molecules: LabelledMolecules,
    targets: Mapping[str, Any],
    mesh: Mesh | None = None,
) -> PropertyPredictions:
    """Predictions of all molecules of an epoch, each a mean over its conformers.

    Means and deviations are of values in units, or of probabilities.

    Args:
        task: its ``predict_fn`` gives ``outputs_BP``.
        variables: ``params`` and ``constants``.
        epoch: all conformers of the molecules, each of them once.
        molecules: what is known of them.
        targets: the artifact of this name.
        mesh: devices of this process over which the rows are spread; one by default.

    Raises:
        UserError: there is no molecule.
    """
    rows = None if mesh is None else row_sharding(mesh)
    predict = jax.jit(task.predict_fn)
    numbers, outputs = [np.zeros(0, np.int64)], []
    for index in range(len(epoch)):
        batch = jax.device_put(epoch[index], rows)
        found = predict(variables["params"], variables["constants"], batch)
        shown = np.asarray(epoch.record_indices(index), np.int64)
        numbers.append(shown)
        outputs.append(jax.device_get(found["outputs_BP"])[: len(shown)])
    if not outputs:
        raise UserError("a split without molecules has nothing to predict")
    members, place = np.unique(np.concatenate(numbers), return_inverse=True)
    values = in_units(np.concatenate(outputs), targets)
    count = np.bincount(place, minlength=len(members))
    mean = _sums(values, place, len(members)) / count[:, None]
    squares = _sums((values - mean[place]) ** 2, place, len(members))
    order = np.argsort(np.asarray(molecules.row)[members], kind="stable")
    chosen = members[order]
    return PropertyPredictions(
        id=np.array([molecules.where[i] for i in chosen], np.str_),
        smiles=np.array([r.smiles for r in molecules.records(chosen)], np.str_),
        index=np.asarray(molecules.row, np.int64)[chosen],
        true=np.asarray(molecules.targets_MT, np.float64)[chosen],
        pred=mean[order],
        conformer_std=np.sqrt(squares / count[:, None])[order],
        conformers=count[order].astype(np.int32),
    )


def _sums(values_MP: np.ndarray, place: np.ndarray, molecules: int) -> np.ndarray:
    total = np.zeros((molecules, values_MP.shape[1]))
    np.add.at(total, place, values_MP)
    return total


def combine(members: Sequence[PropertyPredictions]) -> PropertyPredictions:
    """Means over members that predict the same molecules.

    ``member_std`` is the sample standard deviation over them, ``conformer_std`` the
    root of the mean variance over conformers. The baseline is that of the first member
    that has one.

    Args:
        members: one or more; a single one is returned as it is.

    Raises:
        UserError: their molecules differ.
    """
    first = members[0]
    if len(members) == 1:
        return first
    for k, other in enumerate(members[1:], start=1):
        if not np.array_equal(first.index, other.index):
            raise UserError(
                f"member {k} predicts {len(other)} molecules that are not the "
                f"{len(first)} of member 0; give runs of the same data and splits"
            )
    pred = np.stack([member.pred for member in members])
    spread = np.stack([member.conformer_std for member in members])
    baselines = [m.baseline for m in members if m.baseline is not None]
    return dataclasses.replace(
        first,
        pred=pred.mean(axis=0),
        conformer_std=np.sqrt((spread**2).mean(axis=0)),
        member_std=pred.std(axis=0, ddof=1),
        baseline=baselines[0] if baselines else None,
    )


def join(parts: Sequence[PropertyPredictions]) -> PropertyPredictions:
    """Predictions of molecules of which each is in one part, by their row.

    What not all parts have is left out.
    """
    joined: dict[str, np.ndarray] = {}
    for field in dataclasses.fields(PropertyPredictions):
        arrays = [getattr(part, field.name) for part in parts]
        if all(array is not None for array in arrays):
            joined[field.name] = np.concatenate(arrays)
    order = np.argsort(joined["index"], kind="stable")
    return PropertyPredictions(**{name: x[order] for name, x in joined.items()})
