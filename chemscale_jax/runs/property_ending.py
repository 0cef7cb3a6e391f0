"""The end of a finetuned run: predictions, a baseline and intervals.

A run writes predictions/{valid,heldout}.npz from its best checkpoint, baseline.json,
calibration.json and split.csv.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, cast

import jax
import numpy as np

from chemscale_jax.analysis.properties import fingerprint_baseline
from chemscale_jax.analysis.properties.fingerprint_baseline import Labelled
from chemscale_jax.core import conformal
from chemscale_jax.core.partition import make_mesh, replicated
from chemscale_jax.core.property_predictions import PropertyPredictions
from chemscale_jax.core.types import Config
from chemscale_jax.core.workdir import Workdir
from chemscale_jax.data import STREAMS
from chemscale_jax.data.labels.property_stream import PropertyStream
from chemscale_jax.inference import property_split
from chemscale_jax.training.checkpoint import load_variables
from chemscale_jax.training.lane_programs import Lane

VALID = "valid"


def end_finetuning(lane: Lane, lead: bool) -> None:
    """Predicts and calibrates with a finished run."""
    if not lead:
        return
    config, workdir = lane.config, lane.workdir
    # One process predicts all rows, however many trained.
    stream = cast(PropertyStream, lane.stream)
    if jax.process_count() > 1:
        stream = cast(PropertyStream, STREAMS[config.data.stream](config, 0, 1))
    targets = stream.artifacts["targets"]
    found = _predict(lane, stream, targets)
    if config.result.baseline:
        found = _with_baseline(found, stream, targets, config, workdir)
    for split, predictions in found.items():
        predictions.save(workdir.predictions / f"{split}.npz")
    write_calibration(workdir, targets, found[VALID], VALID)
    stream.write_split(workdir.path / "split.csv")


def _predict(
    lane: Lane, stream: PropertyStream, targets: Mapping[str, Any]
) -> dict[str, PropertyPredictions]:
    """Of the splits, by the best checkpoint, averaged over all conformers."""
    devices = jax.local_devices()
    rows = math.gcd(*(shape.rows for shape in stream.shapes))
    mesh = make_mesh(data=math.gcd(rows, len(devices)), devices=devices)
    variables = jax.device_put(load_variables(lane.workdir), replicated(mesh))
    return {
        split: property_split.predict_split(
            lane.task,
            variables,
            stream.conformer_epoch(split),
            stream.molecules,
            targets,
            mesh,
        )
        for split in stream.evals
    }


def _with_baseline(
    found: Mapping[str, PropertyPredictions],
    stream: PropertyStream,
    targets: Mapping[str, Any],
    config: Config,
    workdir: Workdir,
) -> dict[str, PropertyPredictions]:
    """The same with what models of fingerprints say, whose facts are written."""
    train = np.sort(stream.split.train)
    records = stream.molecules.records(train)
    made = fingerprint_baseline.fit_baseline(
        Labelled([r.smiles for r in records], stream.molecules.targets_MT[train]),
        {split: Labelled(list(p.smiles), p.true) for split, p in found.items()},
        targets["kind"],
        targets["names"],
        classes=len(targets["classes"]),
        seed=config.seed,
    )
    made.save(workdir.baseline_json)
    return {
        split: dataclasses.replace(p, baseline=made.predictions[split])
        for split, p in found.items()
    }


def write_calibration(
    workdir: Workdir,
    targets: Mapping[str, Any],
    predictions: PropertyPredictions,
    source: str,
) -> None:
    """Writes calibration.json: how far off predictions of other molecules may be.

    Args:
        workdir: of the run or of the whole.
        targets: the artifact of this name.
        predictions: of molecules that were not trained on.
        source: what these are: "valid" or "out-of-fold".
    """
    # Out of folds, the spread is over other members than those of a new molecule.
    follows = targets["kind"] == "regression" and source == VALID
    conformal.calibrate(
        targets["kind"],
        targets["names"],
        predictions.true,
        predictions.pred,
        source=source,
        std=predictions.member_std if follows else None,
    ).save(workdir.calibration_json)
