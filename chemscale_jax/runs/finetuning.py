"""Finetuning from config to report: one run, or one for each fold and seed.

What one run writes at its end is in `property_ending`. Several folds or seeds are
ordinary runs in ``folds/<fold>-<seed>`` of a folder that holds

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

import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from chemscale_jax.analysis.reports import report
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.property_predictions import PropertyPredictions
from chemscale_jax.core.types import Config
from chemscale_jax.core.workdir import Workdir, write_json
from chemscale_jax.inference import property_split
from chemscale_jax.inference.molecule_model import MEMBERS_JSON
from chemscale_jax.runs.assembly import with_start
from chemscale_jax.runs.property_ending import VALID, write_calibration
from chemscale_jax.runs.run import run
from chemscale_jax.training import setup

TASK = "property_regression"
OUT_OF_FOLD = "out_of_fold"
HELDOUT = "heldout"


class Member(NamedTuple):
    """One run of several."""

    fold: int
    seed: int

    @property
    def folder(self) -> str:
        """Of the run, within that of the whole."""
        return f"folds/{self.fold}-{self.seed}"


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
