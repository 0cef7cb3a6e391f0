"""What is made of a trained model: predictions, checks, a table, plots and a card."""

from collections.abc import Callable, Mapping
from typing import cast

from chemscale_jax.analysis import report
from chemscale_jax.inference import calibrate, check, predict
from chemscale_jax.training.lane_programs import Lane


def end_force_field(lane: Lane, lead: bool) -> str:
    """Calibrates, predicts and checks a finished force field; returns its table."""
    calibrate.write_calibration(lane.task, lane.config, lane.workdir, lead)
    predict.write_predictions(lane.task, lane.config, lane.workdir, lead)
    if not lead:
        return ""
    if lane.config.check != "none":
        print(check.write_check(lane.workdir, nve=lane.config.check == "full"))
    return report.write_report(lane.workdir)


def end_language_model(lane: Lane, lead: bool) -> str:
    """Scores and samples molecules of a finished language model; returns its tables.

    ``config.sample`` says how many, 0: none; samples are compared with validation
    molecules.
    """
    if not lead:
        return ""
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
    return report.write_report(lane.workdir)


def end_pretraining(lane: Lane, lead: bool) -> str:
    """Reports the losses of a pretrained network beside their baselines."""
    return report.write_report(lane.workdir) if lead else ""


def end_finetuning(lane: Lane, lead: bool) -> str:
    """Predicts, calibrates and reports properties of molecules; returns the table."""
    # Comes with RDKit and scikit-learn.
    from chemscale_jax.runs import property_ending

    return property_ending.end_finetuning(lane, lead)


# By the config's task: (finished run, whether this process writes) -> table of results.
ENDINGS: Mapping[str, Callable[[Lane, bool], str]] = {
    "force_field": end_force_field,
    "causal_lm": end_language_model,
    "conformer_denoising": end_pretraining,
    "property_regression": end_finetuning,
}
