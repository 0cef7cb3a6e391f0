"""The model card of a run: what was trained, on what, how well, and its limits."""

from collections.abc import Iterable, Mapping
from typing import Any

from chemscale_jax.analysis.markdown import markdown_table

# Longer lists and texts are cut; config.json and artifacts.json have them whole.
_MOST_ITEMS = 12
_MOST_CHARACTERS = 160

_TEMPLATE = """\
# Model card: {name}

A `{model}` model for the task `{task}`, trained by chemscale_jax {version} (commit
`{commit}`) on {devices}. The run is {state}: {reason}. This card was written from the
files of its workdir.

## Results

{results}

{plots}

## Model and training

{config}

`config.json` has every field; the same config and commit make the same run again.

## Data

{data}

{about_data}

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
    *,
    results: str,
    plots: Iterable[str],
    about_data: str,
    limits: Iterable[str],
) -> str:
    """The card in Markdown.

    Args:
        config: the resolved configuration.
        run: the contents of run.json.
        artifacts: the contents of artifacts.json.
        results: tables of results.
        plots: names of the files in plots/, without their ending.
        about_data: what a reader of the facts on the data has to know.
        limits: what the model cannot do, a sentence or two each.
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
        results=results,
        plots="\n".join(f"![{n.replace('_', ' ')}](plots/{n}.png)" for n in plots),
        config=_facts(sections),
        data=_facts({"config": config["data"], **known}),
        about_data=about_data,
        limits="\n".join(f"- {line}" for line in limits),
        run=_facts(facts),
    )


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
