"""The report of a prompting study: what each setting gives, models side by side.

Definitions follow Fig. 6 of Frey et al. 2023: the share of generated molecules that
passes the filters of MOSES, and how their molecular weight differs from that of the
molecule whose first symbols were the prompt. Beside these: validity, uniqueness, and
whether the prompt is still there. The pass rate of the prompt molecules themselves (and
of reference molecules) says what to compare the pass rates with.
"""

import csv
import itertools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from chemscale_jax.analysis import plots
from chemscale_jax.analysis.generation import prompting_plots
from chemscale_jax.analysis.generation.prompting_plots import Cells, pooled
from chemscale_jax.analysis.generation.prompting_rows import (
    FIGURES,
    Cell,
    Summary,
    difference,
    summarise,
)
from chemscale_jax.analysis.generation.set_metrics import Draws, Estimate
from chemscale_jax.analysis.markdown import markdown_table
from chemscale_jax.core.errors import UserError

REPORT_MD = "report.md"
SETTINGS_CSV = "settings.csv"
# Rows of a table that is about all prompt lengths together.
ALL = "all"
_NAMES = {
    "finished": "ended",
    "valid": "valid",
    "unique": "unique",
    "kept": "prompt kept",
    "passes": "pass",
    "weight_difference": "MW difference",
}
_PLAIN = ("finished", "valid", "unique")
_LEGEND = """\
- Each figure is a mean over the prompt molecules; brackets hold the 95 % interval of
  the bootstrap over these: they speak of other prompts, not of more samples, and where
  all prompts agree they have no width and say nothing.
- ended: by themselves, not at the limit of tokens; where few do, mass says little.
  valid: readable by RDKit, of all samples. unique: of the valid ones. prompt kept: of
  the valid ones, those that hold the fragment their prompt stands for, bond by bond on
  Kekule forms.
- pass: of the new molecules (valid, neither the prompt molecule nor an earlier sample
  of the same prompt and setting) those that pass the filters of MOSES. MW difference:
  mass of the new molecules less that of the prompt molecule, g/mol."""


class Report(NamedTuple):
    """A study for a reader."""

    table: str  # Markdown, also for terminals
    figures: Mapping[str, Figure]  # by the name of their file
    text: str  # Markdown, of report.md


def make_report(cells: Cells, facts: Mapping[str, Any], draws: Draws) -> Report:
    """Tables, plots and text of the cells of a study.

    Args:
        cells: {cell: its molecules}, in the order they are shown.
        facts: what study.json says: models, molecules, settings.
        draws: of the intervals.
    """
    models = [name for name in facts["models"] if pooled(cells, model=name)]
    parts = [_by_setting(cells, models, draws), _by_length(cells, models, draws)]
    if len(models) > 1:
        parts.append(_differences(cells, models, draws))
    notes = [_LEGEND, *(f"- {line}" for line in _notes(cells, facts, models))]
    table = "\n\n".join([*parts, "\n".join(notes)])
    figures = {
        "pass_rate": prompting_plots.pass_rates(cells, models),
        "weight_difference": prompting_plots.weight_differences(cells, models),
        "prompt_length": prompting_plots.prompt_lengths(cells, models, draws),
    }
    return Report(table, figures, _text(table, figures, facts, models))


def write_report(
    report: Report, cells: Cells, folder: pathlib.Path, draws: Draws
) -> None:
    """Writes report.md, settings.csv and plots/*.png.

    Raises:
        UserError: the folder cannot be written.
    """
    try:
        (folder / "plots").mkdir(parents=True, exist_ok=True)
        for name, figure in report.figures.items():
            path = folder / "plots" / f"{name}.png"
            figure.savefig(path, dpi=plots.DPI)
        _write_settings(cells, folder / SETTINGS_CSV, draws)
        (folder / REPORT_MD).write_text(report.text, encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written ({error.strerror}): choose another --workdir"
        ) from None


def _by_setting(cells: Cells, models: Sequence[str], draws: Draws) -> str:
    rows = []
    for knob, value in dict.fromkeys((cell.knob, cell.value) for cell in cells):
        for model in models:
            some = pooled(cells, model=model, knob=knob, value=value)
            if some:
                found = _cells(summarise(some, draws))
                rows.append([f"{knob} {value}", model, *found])
    header = ("setting", "model", "molecules", *_NAMES.values())
    return "All prompt lengths together:\n\n" + markdown_table(header, rows)


def _by_length(cells: Cells, models: Sequence[str], draws: Draws) -> str:
    rows = []
    for length in dict.fromkeys(cell.length for cell in cells):
        for model in models:
            some = pooled(cells, model=model, length=length)
            if some:
                rows.append([length, model, *_cells(summarise(some, draws))])
    header = ("prompt", "model", "molecules", *_NAMES.values())
    return "All settings together, by symbols of the prompt:\n\n" + markdown_table(
        header, rows
    )


def _differences(cells: Cells, models: Sequence[str], draws: Draws) -> str:
    """Other models less the first one, prompt by prompt."""
    rows = []
    first = models[0]
    for knob, value in dict.fromkeys((cell.knob, cell.value) for cell in cells):
        for model in models[1:]:
            one, other = (
                pooled(cells, model=name, knob=knob, value=value)
                for name in (first, model)
            )
            gaps = [
                _number(name, difference(one, other, name, draws), sign=True)
                for name in ("passes", "kept", "weight_difference")
            ]
            rows.append([f"{knob} {value}", f"{model} - {first}", *gaps])
    header = ("setting", "models", "pass", "prompt kept", "MW difference")
    return "Between models, on the same prompts:\n\n" + markdown_table(header, rows)


def _cells(summary: Summary) -> list[str]:
    """Intervals of the first ones are in settings.csv, where there is room."""
    found = {
        name: estimate._replace(interval=None) if name in _PLAIN else estimate
        for name, estimate in summary.figures.items()
    }
    return [
        f"{summary.molecules:,}",
        *(_number(name, found[name]) for name in FIGURES),
    ]


def _number(name: str, estimate: Estimate, sign: bool = False) -> str:
    if not np.isfinite(estimate.value):
        return "-"
    plus = "+" if sign or name == "weight_difference" else ""
    form = f"{plus}.1f" if name == "weight_difference" else f"{plus}.3f"
    text = format(estimate.value, form)
    if estimate.interval is None:
        return text
    low, high = (format(end, form) for end in estimate.interval)
    return f"{text} [{low}, {high}]"


def _notes(cells: Cells, facts: Mapping[str, Any], models: Sequence[str]) -> list[str]:
    molecules = facts["molecules"]
    passing = sum(molecule["passes"] for molecule in molecules)
    lines = [
        f"Of the {len(molecules)} prompt molecules themselves {passing} pass the "
        "filters."
    ]
    if reference := facts["reference"]:
        lines.append(
            f"Of {reference['molecules']:,} reference molecules "
            f"({reference['source']}) {reference['passes']:.1%} pass."
        )
    else:
        lines.append(
            "No reference: a model imitates its training data, so compare its pass "
            "rate with theirs (--config.reference.path=FILE)."
        )
    for model in models:
        size = facts["models"][model]["vocabulary"]
        idle = [
            cell.value
            for cell in cells
            if (cell.model, cell.knob) == (model, "top_k") and int(cell.value) >= size
        ]
        if idle:
            values = ", ".join(dict.fromkeys(idle))
            lines.append(
                f"top_k {values} keeps all {size} tokens of {model}: plain sampling."
            )
    lines += [f"Left out: {reason}" for reason in facts["left_out"]]
    return lines


def _text(
    table: str,
    figures: Mapping[str, Figure],
    facts: Mapping[str, Any],
    models: Sequence[str],
) -> str:
    sizes = [
        (
            name,
            str(known["place"]),
            f"{known['width']}",
            f"{known['depth']}",
            f"{known['parameters']:,}",
            f"{known['vocabulary']}",
            known["notation"],
        )
        for name, known in facts["models"].items()
        if name in models
    ]
    header = (
        *("model", "from", "width", "layers", "parameters without embeddings"),
        *("tokens", "notation"),
    )
    prompts = [
        (
            molecule["name"],
            f"`{molecule['smiles']}`",
            f"{molecule['weight']:.1f}",
            "yes" if molecule["passes"] else "no",
        )
        for molecule in facts["molecules"]
    ]
    parts = [
        "# Prompting study",
        "Language models go on from the first symbols of known molecules, as in Fig. 6 "
        "of Frey et al. 2023 (Neural scaling of deep chemical models).",
        f"{facts['samples']} samples of each prompt (beam search: as many as beams, at "
        f"most), up to {facts['max_tokens']} tokens each, seed {facts['seed']}. One "
        "setting is varied at a time, the others are off. Random numbers are the same "
        "in all settings of all models.",
        "## Models",
        markdown_table(header, sizes),
        "## Results",
        table,
        *(f"![{name}](plots/{name}.png)" for name in figures),
        "Boxes: quartiles, whiskers from 5 % to 95 %, mean as a mark. `pass_rate` has "
        "a value for each prompt, `weight_difference` one for each new molecule.",
        "## Prompt molecules",
        markdown_table(("name", "SMILES", "MW (g/mol)", "passes"), prompts),
        f"`{SETTINGS_CSV}` has every setting at every prompt length, `molecules.csv` "
        "every molecule.",
    ]
    return "\n\n".join(parts) + "\n"


def _write_settings(cells: Cells, path: pathlib.Path, draws: Draws) -> None:
    """Every setting at every length, and at all of them; an empty cell: undefined."""
    wanted: dict[Cell, list] = {}
    for cell, rows in cells.items():
        wanted[cell] = list(rows)
        wanted.setdefault(cell._replace(length=ALL), []).extend(rows)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        ends = [(name, f"{name}_low", f"{name}_high") for name in FIGURES]
        writer.writerow((*Cell._fields, "molecules", *itertools.chain(*ends)))
        for cell, rows in wanted.items():
            summary = summarise(rows, draws)
            numbers: list[float] = []
            for name in FIGURES:
                value, interval, _ = summary.figures[name]
                numbers += [value, *(interval or (float("nan"),) * 2)]
            cut = [f"{x:.6g}" if np.isfinite(x) else "" for x in numbers]
            writer.writerow((*cell, summary.molecules, *cut))
