"""Predictions of energies and forces for whole splits, molecule by molecule."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Protocol, cast

import jax
import numpy as np
from jax.sharding import Mesh

from chemscale_jax.core.batches import GraphPack
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.partition import make_mesh, replicated, row_sharding
from chemscale_jax.core.predictions import Predictions
from chemscale_jax.core.stream import Epoch
from chemscale_jax.core.task import Task
from chemscale_jax.core.types import Config, Params
from chemscale_jax.core.workdir import Workdir
from chemscale_jax.data import STREAMS
from chemscale_jax.data.packs.stream import GraphStream
from chemscale_jax.training.checkpoint import load_variables


class GraphEpoch(Epoch, Protocol):
    """An epoch of `GraphPack` batches that knows which records are in them."""

    def record_indices(self, index: int) -> np.ndarray:
        """Source indices (int64) of the records of `record_ids`, in the same order.

        Rows one after another, in each row the molecules one after another.
        """
        ...


def predict_split(
    task: Task,
    variables: Mapping[str, Params],
    epoch: GraphEpoch,
    mesh: Mesh | None = None,
) -> Predictions:
    """Energies and forces of all records of an epoch.

    Args:
        task: its ``predict_fn`` gives ``energy_M`` and ``forces_N3`` for each row.
        variables: ``params`` and ``constants``.
        epoch: the batches.
        mesh: devices of this process over which the rows are spread; one by default.
    """
    rows = None if mesh is None else row_sharding(mesh)
    predict = jax.jit(task.predict_fn)
    parts: list[dict[str, np.ndarray]] = []
    frames = 0
    for number in range(len(epoch)):
        batch: GraphPack = epoch[number]
        found = jax.device_get(
            predict(
                variables["params"], variables["constants"], jax.device_put(batch, rows)
            )
        )
        part = _unpack(batch, found["energy_M"], found["forces_N3"])
        part["id"] = np.array(epoch.record_ids(number), np.str_)
        part["index"] = np.asarray(epoch.record_indices(number), np.int64)
        for name in ("id", "index"):
            if len(part[name]) != len(part["n_atoms"]):
                raise ValueError(
                    f"batch {number} has {len(part['n_atoms'])} molecules, but the "
                    f"epoch gives {len(part[name])} entries of {name}"
                )
        part["frame"] += frames
        frames += len(part["n_atoms"])
        parts.append(part)
    if not parts:
        raise UserError("a split without batches has nothing to predict")
    return Predictions(
        **{name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    )


def with_facts(predictions: Predictions, stream: GraphStream) -> Predictions:
    """The same predictions with what the stream knows of their records."""
    source, index = stream.source, predictions.index
    return dataclasses.replace(
        predictions,
        reference=stream.reference.total(source.composition(index)),
        kind=None if source.kind is None else source.kind[index],
        molecule=np.array(source.group_names, np.str_)[source.group[index]],
    )


def write_predictions(task: Task, config: Config, workdir: Workdir, lead: bool) -> None:
    """Writes predictions/<split>.npz of a run, from its best checkpoint.

    One process predicts all rows on its own devices, however many trained. Does
    nothing for streams of other things than molecular graphs.

    Args:
        task: the task of the run.
        config: the whole config of the run.
        workdir: has at least one complete checkpoint.
        lead: whether this is the process that writes.
    """
    if not lead:
        return
    stream = STREAMS[config.data.stream](config, 0, 1)
    if not isinstance(stream, GraphStream):
        return
    devices = jax.local_devices()
    mesh = make_mesh(data=math.gcd(stream.rows, len(devices)), devices=devices)
    variables = jax.device_put(load_variables(workdir), replicated(mesh))
    for split, epoch in stream.evals.items():
        # A stream of graphs evaluates on packs, whose records it can tell.
        found = predict_split(task, variables, cast(GraphEpoch, epoch), mesh)
        found = calibrated(found, stream, workdir)
        with_facts(found, stream).save(workdir.predictions / f"{split}.npz")


def calibrated(
    predictions: Predictions, stream: GraphStream, workdir: Workdir
) -> Predictions:
    """Energies with the constants of elements that were fitted after training.

    The same predictions for a run without such constants.
    """
    if not workdir.artifacts_json.exists():
        return predictions
    constants = workdir.artifacts().get("calibration_ev", {})
    by_element = [
        constants.get(symbol, 0.0) for symbol in stream.source.element_symbols
    ]
    shift = stream.source.composition(predictions.index) @ np.array(by_element)
    return dataclasses.replace(predictions, energy_pred=predictions.energy_pred + shift)


def _unpack(
    batch: GraphPack, energy_BM: np.ndarray, forces_BN3: np.ndarray
) -> dict[str, np.ndarray]:
    """The real molecules and atoms of a batch, row after row."""
    real_BM = np.asarray(batch.molecule_mask_M)
    real_BN = np.asarray(batch.species_N) > 0
    # The number of each molecule among the real ones of the batch.
    frame_BM = np.cumsum(real_BM.ravel()).reshape(real_BM.shape) - 1
    frame_BN = np.take_along_axis(frame_BM, np.asarray(batch.molecule_N), axis=1)
    frame = frame_BN[real_BN].astype(np.int32)
    return {
        "n_atoms": np.bincount(frame, minlength=int(real_BM.sum())).astype(np.int32),
        "energy_true": np.asarray(batch.energy_M)[real_BM].astype(np.float64),
        "energy_pred": np.asarray(energy_BM)[real_BM].astype(np.float64),
        "energy_mask": np.asarray(batch.energy_mask_M)[real_BM],
        "frame": frame,
        "species": np.asarray(batch.species_N)[real_BN].astype(np.uint8),
        "forces_true": np.asarray(batch.forces_N3)[real_BN].astype(np.float32),
        "forces_pred": np.asarray(forces_BN3)[real_BN].astype(np.float32),
        "forces_mask": np.asarray(batch.forces_mask_N)[real_BN],
    }
