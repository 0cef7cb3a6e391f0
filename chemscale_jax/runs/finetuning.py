"""Finetuning to its end: predictions, a baseline and intervals, of one run or several.

A run writes predictions/{valid,heldout}.npz from its best checkpoint, baseline.json,
calibration.json, split.csv and its report. Several folds or seeds are ordinary runs in
``folds/<fold>-<seed>`` of a folder that holds

================  ==================================================================
finetune.json     which runs belong to it, see `write_members`
config.json       that of its first run, with the folder itself as workdir
artifacts.json    the targets
run.json          state: "running", "interrupted" or "finished"
predictions/      of folds out_of_fold.npz, each molecule by the runs that did not
                  train on it; else valid.npz and heldout.npz, means over the runs
calibration.json  of these predictions
plots/, card.md   the report of the whole
================  ==================================================================
"""

import dataclasses
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import jax
import numpy as np

from chemscale_jax.analysis import fingerprint_baseline, report
from chemscale_jax.analysis.fingerprint_baseline import Labelled
from chemscale_jax.core import conformal
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.partition import make_mesh, replicated
from chemscale_jax.core.property_predictions import PropertyPredictions
from chemscale_jax.core.types import Config
from chemscale_jax.core.workdir import Workdir, write_json
from chemscale_jax.data import STREAMS
from chemscale_jax.data.property_stream import PropertyStream
from chemscale_jax.inference import property_split
from chemscale_jax.inference.molecule_model import MEMBERS_JSON
from chemscale_jax.runs.assembly import with_start
from chemscale_jax.runs.run import run
from chemscale_jax.training import setup
from chemscale_jax.training.checkpoint import load_variables
from chemscale_jax.training.lane_programs import Lane

TASK = "property_regression"
OUT_OF_FOLD = "out_of_fold"
VALID, HELDOUT = "valid", "heldout"


class Member(NamedTuple):
    """One run of several."""

    fold: int
    seed: int

    @property
    def folder(self) -> str:
        """Of the run, within that of the whole."""
        return f"folds/{self.fold}-{self.seed}"


def end_finetuning(lane: Lane, lead: bool) -> str:
    """Predicts, calibrates and reports a finished run; returns its table."""
    if not lead:
        return ""
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
    return report.write_report(workdir)


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


def finetune(config: Config, *, folds: int = 0, seeds: Sequence[int] = (0,)) -> str:
    """Trains a run, or one for each fold and seed, and reports on the whole.

    A run that is finished is not trained again, so the same call goes on where it was,
    and a call with more seeds adds theirs.

    Args:
        config: the whole config; its seed and fold are set here, and the number of
            folds where it is given.
        folds: parts of the data, each of which is the test set once; 0: one split.
        seeds: of initialisation, order and noise; the split has its own.

    Returns:
        "finished" or "interrupted".

    Raises:
        UserError: something cannot be used, or the folder holds other runs.
    """
    if config.task != TASK:
        raise UserError(f"config.task is {config.task!r}, finetuning is of {TASK!r}")
    if not seeds or len(set(seeds)) < len(seeds) or folds < 0 or folds == 1:
        raise UserError(
            f"folds={folds} and seeds={tuple(seeds)} make no sense: give 0 or at least "
            "2 folds, and different seeds"
        )
    members = [Member(fold, seed) for fold in range(folds or 1) for seed in seeds]
    config = _member_config(config, members[0], folds)
    if len(members) == 1:
        return run(config)
    workdir = setup.open_workdir(_of_whole(config), True)
    setup.claim(workdir, _of_whole(config))
    for number, member in enumerate(members):
        own = _member_config(config, member, folds)
        own.workdir = str(workdir.path / member.folder)
        # The baseline of a split does not depend on the seed of the network.
        own.result.baseline = config.result.baseline and member.seed == seeds[0]
        if _is_done(own):
            print(f"{member.folder} is finished")
            continue
        print(f"run {number + 1} of {len(members)}: fold {member.fold}, ", end="")
        print(f"seed {member.seed}", flush=True)
        if run(own) != "finished":
            setup.update_run(workdir, state="interrupted", stop_reason=member.folder)
            return "interrupted"
    write_members(workdir, members, folds)
    setup.update_run(
        workdir, state="finished", stop_reason=f"{len(members)} runs are finished"
    )
    print(report.write_report(workdir))
    return "finished"


def _member_config(config: Config, member: Member, folds: int) -> Config:
    own = config.copy_and_resolve_references()
    own.seed, own.data.fold = member.seed, member.fold
    if folds:
        own.data.folds = folds
    return own


def _of_whole(config: Config) -> dict[str, Any]:
    """What config.json of several runs says: its seed is that of the first."""
    return {**config.to_dict(), "seed": 0}


def _is_done(config: Config) -> bool:
    """Whether the folder of a run holds its report."""
    workdir = Workdir(pathlib.Path(config.workdir))
    if not workdir.card.exists() or workdir.run().get("state") != "finished":
        return False
    # Refuses a folder with a run of another config.
    setup.open_workdir(with_start(config).to_dict(), True)
    return True


def write_members(workdir: Workdir, members: Sequence[Member], folds: int) -> None:
    """Writes what finished runs have in common: members, predictions, calibration.

    ``finetune.json`` has "task", "folds" (0: none), "seeds", "members" (their folders)
    and "runs" (folder, fold and seed of each).

    Args:
        workdir: of the whole; the runs lie in it.
        members: the runs, fold after fold.
        folds: how many there are; 0: one split.
    """
    runs = {m: Workdir(workdir.path / m.folder) for m in members}
    targets = runs[members[0]].artifacts()["targets"]
    by_fold: dict[int, list[Workdir]] = {}
    for member, folder in runs.items():
        by_fold.setdefault(member.fold, []).append(folder)
    means = [_means(of_fold) for of_fold in by_fold.values()]
    if folds:
        whole = property_split.join([splits[HELDOUT] for splits in means])
        whole.save(workdir.predictions / f"{OUT_OF_FOLD}.npz")
        write_calibration(workdir, targets, whole, "out-of-fold")
    else:
        for split, predictions in means[0].items():
            predictions.save(workdir.predictions / f"{split}.npz")
        write_calibration(workdir, targets, means[0][VALID], VALID)
    write_json(
        workdir.artifacts_json,
        {"targets": {**targets, "scaling": None}},
    )
    write_json(
        workdir.path / MEMBERS_JSON,
        {
            "task": TASK,
            "folds": folds,
            "seeds": sorted({m.seed for m in members}),
            "members": [m.folder for m in members],
            "runs": [{"folder": m.folder, **m._asdict()} for m in members],
        },
    )


def _means(runs: Sequence[Workdir]) -> dict[str, PropertyPredictions]:
    """Predictions of each split, over runs of one split."""
    names = sorted(path.name for path in runs[0].predictions.glob("*.npz"))
    return {
        name.removesuffix(".npz"): property_split.combine(
            [PropertyPredictions.load(one.predictions / name) for one in runs]
        )
        for name in names
    }
