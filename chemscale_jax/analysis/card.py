"""The model card of a run: what was trained, on what, how well, and its limits."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from chemscale_jax.analysis.tables import markdown_table
from chemscale_jax.chem.elements import symbol_of
from chemscale_jax.core.predictions import Predictions

# Longer lists and texts are cut; config.json and artifacts.json have them whole.
_MOST_ITEMS = 12
_MOST_CHARACTERS = 160

_TEMPLATE = """\
# Model card: {name}

A `{model}` model for the task `{task}`, trained by chemscale_jax {version} (commit
`{commit}`) on {devices}. The run is {state}: {reason}. This card was written from the
files of its workdir.

## Results

{table}

![learning curves](plots/learning_curves.png)
![force parity](plots/force_parity.png)
![energy parity](plots/energy_parity.png)
![error per element](plots/error_per_element.png)

## Model and training

{config}

`config.json` has every field; the same config and commit make the same run again.

## Data

{data}

Predicted splits:

{splits}

Energies are in eV, lengths in Å, forces in eV/Å; the tables say where they differ. A
model predicts energies without the reference energies of the elements, which
`artifacts.json` keeps.

## Limits

{limits}

## Software and hardware

{run}
"""
_CONFIG_SECTIONS = ("model", "loss", "optimizer", "train", "batch", "init", "seed")
# Described in words at the top of the card.
_SAID_ABOVE = ("schema", "state", "stop_reason")
# Recognises a file on one machine; says nothing on the data.
_NOT_FOR_READERS = ("data_identity",)


def model_card(
    config: Mapping[str, Any],
    run: Mapping[str, Any],
    artifacts: Mapping[str, Any],
    splits: Mapping[str, Predictions],
    table: str,
) -> str:
    """The card in Markdown.

    Args:
        config: the resolved configuration.
        run: the contents of run.json.
        artifacts: the contents of artifacts.json.
        splits: {split: its frames}.
        table: the results table.
    """
    sections = {key: config[key] for key in _CONFIG_SECTIONS if key in config}
    facts = {k: v for k, v in run.items() if k not in _SAID_ABOVE}
    known = {k: v for k, v in artifacts.items() if k not in _NOT_FOR_READERS}
    return _TEMPLATE.format(
        name=config["name"],
        model=config["model"]["name"],
        task=config["task"],
        version=run["chemscale_jax"],
        commit=run["commit"],
        devices=_devices(run["devices"]),
        state=run["state"],
        reason=run.get("stop_reason", "no reason to stop yet"),
        table=table,
        config=_facts(sections),
        data=_facts({"config": config["data"], **known}),
        splits=_splits(splits),
        limits="\n".join(f"- {line}" for line in _limits(config, artifacts, splits)),
        run=_facts(facts),
    )


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


def _facts(tree: Mapping[str, Any]) -> str:
    rows = [(f"`{key}`", _short(value)) for key, value in _flat(tree)]
    return markdown_table(("field", "value"), rows)


def _flat(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    flat = []
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat += _flat(value, f"{prefix}{key}.")
        else:
            flat.append((f"{prefix}{key}", value))
    return flat


def _short(value: Any) -> str:
    if isinstance(value, list | tuple):
        shown = ", ".join(_short(item) for item in value[:_MOST_ITEMS]) or "none"
        more = len(value) - _MOST_ITEMS
        text = f"{shown} and {more:,} more" if more > 0 else shown
    elif isinstance(value, float):
        text = f"{value:.10g}"
    elif isinstance(value, int) and not isinstance(value, bool):
        text = str(value)
    else:
        text = str(value) if value not in ("", None, {}) else "none"
    text = " ".join(text.split()).replace("|", "\\|")
    if len(text) > _MOST_CHARACTERS:
        text = f"{text[:_MOST_CHARACTERS]}..."
    return text


def _devices(kinds: list[str]) -> str:
    names = sorted(set(kinds))
    return ", ".join(f"{kinds.count(name)} x {name}" for name in names)


def _symbols(frames: Predictions) -> list[str]:
    return [symbol_of(int(z)) for z in np.unique(frames.species)]
