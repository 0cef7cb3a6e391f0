"""The report of a force field: errors by the size of the forces, plots and card."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from chemscale_jax.analysis import card, force_errors, plots
from chemscale_jax.analysis.markdown import markdown_table
from chemscale_jax.analysis.report_files import Report
from chemscale_jax.analysis.reports.check_table import check_section
from chemscale_jax.analysis.splits import read_splits
from chemscale_jax.chem.elements import symbol_of
from chemscale_jax.core.predictions import Predictions
from chemscale_jax.core.workdir import Workdir

_ABOUT_DATA = """\
Predicted splits:

{splits}

Energies are in eV, lengths in Å, forces in eV/Å; the tables say where they differ. A
model predicts energies without the reference energies of the elements, which
`artifacts.json` keeps."""


def force_field_report(workdir: Workdir) -> Report:
    """Table, plots and card from predictions, logs and the model check.

    Raises:
        UserError: the run has made no predictions.
    """
    config, artifacts = workdir.config(), workdir.artifacts()
    splits = read_splits(workdir)
    forces_alone = force_only(config)
    table = force_errors.results_table(splits, forces_alone)
    curves = plots.curves_of(workdir.metrics())
    figures: dict[str, Figure] = {
        "learning_curves": plots.learning_curves(
            curves, "force_mae", "force MAE (meV/Å)"
        ),
        "force_parity": plots.force_parity(splits),
        "energy_parity": plots.energy_parity(splits, forces_alone),
        "error_per_element": plots.error_per_element(splits),
    }
    text = card.model_card(
        config,
        workdir.run(),
        artifacts,
        results=table,
        plots=figures,
        about_data=_ABOUT_DATA.format(splits=_splits(splits)),
        limits=_limits(config, artifacts, splits),
    )
    return Report(table, figures, text + check_section(workdir))


def force_only(config: Mapping[str, Any]) -> bool:
    """Whether energies were left out of the training loss."""
    return not config["loss"]["alpha_energy"]


def _splits(splits: Mapping[str, Predictions]) -> str:
    header = ("split", "elements", "frames", "stretched", "atoms", "atoms per frame")
    rows = [
        (
            split,
            " ".join(_symbols(frames)),
            f"{len(frames):,}",
            "unknown" if frames.kind is None else f"{int(frames.stretched.sum()):,}",
            f"{len(frames.species):,}",
            f"{frames.n_atoms.min()}-{frames.n_atoms.max()}" if len(frames) else "-",
        )
        for split, frames in splits.items()
    ]
    return markdown_table(header, rows)


def _doubts(artifacts: Mapping[str, Any]) -> list[str]:
    """What checks of the data found that a reader of errors should know."""
    lines = []
    labels = artifacts.get("label_check", {})
    if labels.get("outcome", "agrees") != "agrees":
        lines.append(
            f"Whether forces fit energies in the data: {labels['outcome']} "
            f"({labels['reason']})."
        )
    shared = artifacts.get("duplicates", {}).get("in_train", {})
    if repeated := ", ".join(f"{n:,} of `{part}`" for part, n in shared.items() if n):
        lines.append(
            f"Evaluated frames that were also trained on: {repeated}; errors on them "
            "say nothing about new frames."
        )
    if artifacts.get("split", {}).get("kind") == "blocks":
        lines.append(
            "Validation frames are blocks of the trajectories of the training frames."
        )
    return lines


def _limits(
    config: Mapping[str, Any],
    artifacts: Mapping[str, Any],
    splits: Mapping[str, Predictions],
) -> list[str]:
    symbols = sorted(
        {symbol for frames in splits.values() for symbol in _symbols(frames)}
    )
    lines = [
        *_doubts(artifacts),
        f"Measured on molecules of {', '.join(symbols) or 'no element'} only; other "
        "elements, charges, spins and periodic systems are untested unless the data "
        "above contain them.",
        "It imitates the method that made its labels, with that method's errors.",
        "Errors grow with the forces and away from the training geometries: compare "
        "the bands, and do not trust bonds stretched beyond the data.",
    ]
    if "cutoff_ang" in config["model"]:
        lines.append(
            f"Atoms further apart than {config['model']['cutoff_ang']:g} Å act on each "
            "other only through atoms between them."
        )
    if "heldout" in splits:
        lines.append(
            "For molecules that were not in training, read the `heldout` rows; those "
            "of `valid` are new geometries of known molecules."
        )
    if "test" in splits:
        lines.append("The `test` rows steered nothing during training.")
    if "heldout" not in splits:
        lines.append(
            "No molecules were held out: the errors say nothing on new molecules."
        )
    if force_only(config):
        lines.append(
            "Trained on forces only: its energies lack a constant for each molecule, "
            "so compare energies of one molecule only."
        )
    return lines


def _symbols(frames: Predictions) -> list[str]:
    return [symbol_of(int(z)) for z in np.unique(frames.species)]
