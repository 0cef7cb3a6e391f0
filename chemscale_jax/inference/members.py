"""What an ensemble predicts: the mean of its members, and how far they differ."""

import dataclasses
import json
from collections.abc import Sequence

import numpy as np

from chemscale_jax.core.errors import UserError
from chemscale_jax.core.predictions import Predictions
from chemscale_jax.core.workdir import METRIC_FIELDS, Workdir, read_json, write_json

# Arrays of `Predictions` with one entry per atom, not per frame.
PER_ATOM = (
    "frame",
    "species",
    "forces_true",
    "forces_pred",
    "forces_mask",
    "forces_std",
)


def combine(members: Sequence[Predictions]) -> Predictions:
    """Mean predictions, with the sample standard deviation over the members.

    ``energy_std`` is that of a frame's energy; ``forces_std`` is the root of the summed
    variances of an atom's three force components.

    Args:
        members: two or more, of the same frames in any order.

    Raises:
        UserError: the frames differ.
    """
    ordered = [_by_index(member) for member in members]
    first = ordered[0]
    for k, other in enumerate(ordered[1:], start=1):
        if not np.array_equal(first.index, other.index):
            raise UserError(
                f"member {k} predicts {len(other)} frames that are not the "
                f"{len(first)} of member 0; give runs of the same data and splits"
            )
    energy_KF = np.stack([member.energy_pred for member in ordered])
    forces_KA3 = np.stack([member.forces_pred for member in ordered]).astype(np.float64)
    variance_A = forces_KA3.var(axis=0, ddof=1).sum(-1)
    return dataclasses.replace(
        first,
        energy_pred=energy_KF.mean(0),
        forces_pred=forces_KA3.mean(0).astype(np.float32),
        energy_std=energy_KF.std(axis=0, ddof=1),
        forces_std=np.sqrt(variance_A).astype(np.float32),
    )


def write_ensemble(workdir: Workdir, members: Sequence[Workdir]) -> None:
    """Writes what an ensemble has of its own, from the folders of its members.

    Predictions of every split, artifacts.json (that of member 0, without what belongs
    to single weights) and metrics.jsonl, whose values are means over the members that
    have a record.

    Args:
        workdir: of the ensemble.
        members: finished runs with predictions, two or more.
    """
    for path in sorted(members[0].predictions.glob("*.npz")):
        loaded = [Predictions.load(m.predictions / path.name) for m in members]
        combine(loaded).save(workdir.predictions / path.name)
    artifacts = read_json(members[0].artifacts_json)
    own = {k: v for k, v in artifacts.items() if not k.startswith("calibration")}
    write_json(workdir.artifacts_json, own)
    means: dict[tuple, list[dict]] = {}
    for member in members:
        for record in member.metrics():
            # Epochs of members differ in length; records of steps are matched by step.
            step = record["step"] if record["split"] == "train" else -1
            key = (record["epoch"], step, record["split"], record["name"])
            means.setdefault(key, []).append(record)
    records = sorted(
        (_mean(records) for records in means.values()), key=lambda r: r["step"]
    )
    text = "".join(json.dumps(record) + "\n" for record in records)
    draft = workdir.metrics_jsonl.with_suffix(".jsonl.new")
    draft.write_text(text)
    draft.replace(workdir.metrics_jsonl)


def _mean(records: list[dict]) -> dict:
    values = [r["value"] for r in records if r["value"] is not None]
    merged = {
        **records[0],
        "step": max(r["step"] for r in records),
        "value": float(np.mean(values)) if values else None,
        "count": sum(r["count"] for r in records),
    }
    return {name: merged[name] for name in (*METRIC_FIELDS, "time")}


def _by_index(frames: Predictions) -> Predictions:
    """The same frames in the order of their source."""
    order = np.argsort(frames.index, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    frame = place[frames.frame]
    atoms = np.argsort(frame, kind="stable")
    changed: dict[str, np.ndarray] = {}
    for field in dataclasses.fields(frames):
        array = getattr(frames, field.name)
        if array is not None:
            changed[field.name] = array[atoms if field.name in PER_ATOM else order]
    changed["frame"] = frame[atoms].astype(np.int32)
    return dataclasses.replace(frames, **changed)
