"""What is kept of an evaluation of generated molecules: figures, verdicts, a plot."""

import csv
import json
import pathlib

import numpy as np
from matplotlib.figure import Figure

from chemscale_jax.analysis import plots
from chemscale_jax.analysis.generation.generated_metrics import COLUMNS, Metrics
from chemscale_jax.chem.descriptors import PROPERTIES
from chemscale_jax.core.errors import UserError

METRICS_JSON = "metrics.json"
FILTERS_CSV = "filters.csv"
PROPERTIES_PNG = "properties.png"
_AXIS_LABELS = {
    "logP": "logP",
    "SA": "SA score (1 easy, 10 hard)",
    "QED": "QED",
    "MW": "molecular mass (g/mol)",
}
_BINS = 40


def write_evaluation(metrics: Metrics, folder: pathlib.Path) -> None:
    """Writes metrics.json, filters.csv and properties.png into a folder.

    Raises:
        UserError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(metrics.to_json(), indent=2)
        (folder / METRICS_JSON).write_text(f"{text}\n", encoding="utf-8")
        _write_verdicts(metrics, folder / FILTERS_CSV)
        property_plot(metrics).savefig(folder / PROPERTIES_PNG, dpi=plots.DPI)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written ({error.strerror}): choose another folder"
        ) from None


def property_plot(metrics: Metrics) -> Figure:
    """Distributions of the properties, of each set over the same bins."""
    figure = Figure(figsize=(9.0, 6.5), layout="constrained")
    panels = figure.subplots(2, 2).ravel()
    names = [name for name in COLUMNS if name in metrics.profiles]
    for place, (axes, quantity) in enumerate(zip(panels, PROPERTIES, strict=True)):
        values = {}
        for name in names:
            some = metrics.profiles[name].properties[:, place]
            values[name] = some[np.isfinite(some)]
        edges = _edges(np.concatenate(list(values.values())))
        for index, (name, some) in enumerate(values.items()):
            style = plots.style_of(index)
            if not len(some):
                continue
            # Those beyond the edges are drawn in the outermost bins.
            inside = np.clip(some, edges[0], edges[-1])
            axes.hist(
                inside,
                bins=list(edges),
                weights=np.full(len(inside), 1 / len(inside)),
                histtype="step",
                color=style.color,
                linestyle=style.line,
                linewidth=1.5,
                label=f"{name} ({len(some):,})",
            )
        axes.set_xlabel(_AXIS_LABELS[quantity])
        axes.set_ylabel("share of molecules")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(visible=True, color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
    handles, labels = panels[0].get_legend_handles_labels()
    if handles:
        figure.legend(
            handles, labels, loc="outside upper center", ncols=3, frameon=False
        )
    return figure


def _edges(values: np.ndarray) -> np.ndarray:
    """Bins over all but the most extreme of the values."""
    if not len(values):
        return np.linspace(0, 1, _BINS + 1)
    low, high = np.percentile(values, [0.5, 99.5])
    if high <= low:
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, _BINS + 1)


def _write_verdicts(metrics: Metrics, path: pathlib.Path) -> None:
    found = metrics.profiles["generated"]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(
            (
                "number",
                "smiles",
                "canonical",
                "passes",
                "reasons",
                "passes_neutralised",
                "reasons_neutralised",
                *PROPERTIES,
            )
        )
        for i, text in enumerate(metrics.generated):
            row = [i + 1, text or "", found.canonical[i]]
            for verdict in (found.verdicts[i], found.neutral_verdicts[i]):
                row += ["no" if verdict else "yes", "; ".join(map(str, verdict))]
            numbers = found.properties[i]
            row += [f"{x:.4f}" if np.isfinite(x) else "" for x in numbers]
            writer.writerow(row)
