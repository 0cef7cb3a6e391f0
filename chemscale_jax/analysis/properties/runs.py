"""What finetuning left in a folder: predictions, calibration, baselines, members.

A folder is that of one run, or of several, which lie in it and which ``finetune.json``
names: of several seeds, of several folds, or both.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from chemscale_jax.analysis.splits import in_order
from chemscale_jax.core.conformal import Calibration
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.property_predictions import PropertyPredictions
from chemscale_jax.core.workdir import Workdir, read_json

MEMBERS_JSON = "finetune.json"
HELDOUT, OUT_OF_FOLD = "heldout", "out_of_fold"
NETWORK, FINGERPRINT = "network", "fingerprint"
SIZE, TRIVIAL = "size", "trivial"


class Split(NamedTuple):
    """Predictions of some molecules, by the network and by simpler models."""

    network: PropertyPredictions
    rivals: Mapping[str, np.ndarray]  # {FINGERPRINT, SIZE, TRIVIAL: (M, P)}


class Member(NamedTuple):
    """One of several runs."""

    workdir: Workdir
    fold: int
    seed: int


@dataclasses.dataclass(frozen=True)
class Finetuned:
    """A finished run, or several of them."""

    workdir: Workdir
    kind: str
    targets: tuple[str, ...]
    units: tuple[str, ...]
    splits: Mapping[str, Split]  # in the order of reports
    calibration: Calibration | None
    # {target: which model of fingerprints was chosen}, of the first member
    chosen: Mapping[str, str]
    members: tuple[Member, ...] = ()  # of several runs
    folds: int = 0  # 0: none

    @property
    def tested(self) -> str:
        """The split that says how good predictions of other molecules are."""
        for name in (HELDOUT, OUT_OF_FOLD):
            if name in self.splits:
                return name
        return next(iter(self.splits))


def read_finetuned(workdir: Workdir) -> Finetuned:
    """Reads what a report needs.

    Raises:
        UserError: there are no predictions yet.
    """
    targets = workdir.artifacts()["targets"]
    kind, names = targets["kind"], tuple(targets["names"])
    found = _predictions(workdir)
    members, folds = _members(workdir)
    sources = members or (Member(workdir, 0, 0),)
    facts = [_facts(member.workdir.baseline_json) for member in sources]
    chosen = next((f["targets"] for f in facts if f), [])
    path = workdir.calibration_json
    return Finetuned(
        workdir=workdir,
        kind=kind,
        targets=names,
        units=tuple(targets["units"]) if any(targets["units"]) else ("",) * len(names),
        splits={
            split: Split(predictions, _rivals(split, predictions, sources, facts))
            for split, predictions in found.items()
        },
        calibration=Calibration.load(path) if path.is_file() else None,
        chosen={fact["name"]: fact["model"] for fact in chosen},
        members=members,
        folds=folds,
    )


def member_split(member: Member, split: str) -> PropertyPredictions | None:
    """What one of several runs predicts of a split; None if it has no such split."""
    path = member.workdir.predictions / f"{split}.npz"
    return PropertyPredictions.load(path) if path.is_file() else None


def _predictions(workdir: Workdir) -> dict[str, PropertyPredictions]:
    paths = {path.stem: path for path in workdir.predictions.glob("*.npz")}
    if not paths:
        raise UserError(
            f"{workdir.path} has no predictions yet; they are written at the end of a "
            "run, so give its command again and let it finish"
        )
    return {split: PropertyPredictions.load(paths[split]) for split in in_order(paths)}


def _members(workdir: Workdir) -> tuple[tuple[Member, ...], int]:
    path = workdir.path / MEMBERS_JSON
    if not path.is_file():
        return (), 0
    content = read_json(path)
    members = tuple(
        Member(Workdir(workdir.path / run["folder"]), run["fold"], run["seed"])
        for run in content["runs"]
    )
    return members, content["folds"]


def _facts(path: pathlib.Path) -> dict[str, Any]:
    """Of simpler models; empty where there are none."""
    return read_json(path) if path.is_file() else {}


def _rivals(
    split: str,
    predictions: PropertyPredictions,
    members: Sequence[Member],
    facts: Sequence[Mapping[str, Any]],
) -> dict[str, np.ndarray]:
    """What simpler models predict of the same molecules.

    Out of folds, a molecule is predicted by models of the fold that it is the test set
    of, as with the network.
    """
    rivals = {}
    if predictions.baseline is not None:
        rivals[FINGERPRINT] = predictions.baseline
    trivial = np.full(predictions.pred.shape, np.nan)
    size = np.full(predictions.pred.shape, np.nan)
    for member, fact in zip(members, facts, strict=True):
        if not fact:
            continue
        rows = slice(None)
        if split == OUT_OF_FOLD:
            own = member_split(member, HELDOUT)
            if own is None:
                continue
            rows = np.flatnonzero(np.isin(predictions.index, own.index))
        trivial[rows] = fact["trivial"]
        if fact["size"]:
            smiles = predictions.smiles[rows].tolist()
            # Comes with RDKit and scikit-learn, for which other reports need not wait.
            from chemscale_jax.analysis.properties.fingerprint_baseline import (
                size_predictions,
            )

            size[rows] = size_predictions(fact, smiles)
        if split != OUT_OF_FOLD:
            break
    for name, found in ((SIZE, size), (TRIVIAL, trivial)):
        if np.isfinite(found).all() and len(found):
            rivals[name] = found
    return rivals
