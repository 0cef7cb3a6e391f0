"""What is made of a trained model: predictions, checks, a table, plots and a card."""

from collections.abc import Callable, Mapping, Sequence
from typing import cast

from chemscale_jax.analysis.reports import report
from chemscale_jax.core.worker_processes import usable_processes, worker_processes
from chemscale_jax.inference import calibrate, check, predict
from chemscale_jax.training.lane_programs import Lane

# The reports of so few runs are drawn sooner than processes start for it.
_FEW = 3


def end_runs(lanes: Sequence[Lane], lead: bool) -> list[str]:
    """Ends finished runs one after another; returns their tables of results.

    Reports of many are drawn by processes of their own, while the next run predicts.

    Args:
        lanes: the runs.
        lead: whether this process writes; else there are no tables.

    Raises:
        UserError: a folder cannot be written.
    """
    if not lead or len(lanes) <= _FEW:
        texts = []
        for lane in lanes:
            ENDINGS[lane.config.task](lane, lead)
            if lead:
                texts.append(report.write_report(lane.workdir))
        return texts
    count = min(usable_processes(), len(lanes))
    with worker_processes(count, "the same command draws the reports again") as pool:
        drawn = []
        for lane in lanes:
            ENDINGS[lane.config.task](lane, lead)
            drawn.append(pool.submit(report.write_report, lane.workdir))
        return [one.result() for one in drawn]


def end_force_field(lane: Lane, lead: bool) -> None:
    """Calibrates, predicts and checks a finished force field."""
    calibrate.write_calibration(lane.task, lane.config, lane.workdir, lead)
    predict.write_predictions(lane.task, lane.config, lane.workdir, lead)
    if lead and lane.config.check != "none":
        print(check.write_check(lane.workdir, nve=lane.config.check == "full"))


def end_language_model(lane: Lane, lead: bool) -> None:
    """Scores and samples molecules of a finished language model.

    ``config.sample`` says how many, 0: none; samples are compared with validation
    molecules.
    """
    if not lead:
        return
    # These read molecules, for which runs of force fields need not wait.
    from chemscale_jax.inference.language_model import open_language_model
    from chemscale_jax.runs import sampled_molecules, scored_molecules

    # A language model is trained on no other stream.
    stream = cast(sampled_molecules.TokenStream, lane.stream)
    wanted = lane.config.sample
    if wanted.scored or wanted.molecules:
        model = open_language_model(lane.workdir.path)
        if wanted.scored:
            scored_molecules.write_likelihoods(model, stream, lane.config, lane.workdir)
        if wanted.molecules:
            sampled_molecules.write_samples(model, stream, lane.config, lane.workdir)


def end_pretraining(lane: Lane, lead: bool) -> None:
    """Adds nothing: the report has losses and baselines from the log."""


def end_finetuning(lane: Lane, lead: bool) -> None:
    """Predicts and calibrates properties of molecules."""
    # Comes with RDKit and scikit-learn.
    from chemscale_jax.runs import property_ending

    property_ending.end_finetuning(lane, lead)


# By the config's task: (finished run, whether this process writes); reports come after.
ENDINGS: Mapping[str, Callable[[Lane, bool], None]] = {
    "force_field": end_force_field,
    "causal_lm": end_language_model,
    "conformer_denoising": end_pretraining,
    "property_regression": end_finetuning,
}
