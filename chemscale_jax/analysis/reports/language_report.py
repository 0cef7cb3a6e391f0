"""The report of a language model: losses in several units, curves, samples and card."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from chemscale_jax.analysis import bootstrap, card, plots
from chemscale_jax.analysis.markdown import markdown_table
from chemscale_jax.analysis.report_files import Report
from chemscale_jax.core.likelihoods import Likelihoods
from chemscale_jax.core.workdir import Workdir

# Written beside the sampled molecules, for this report.
SAMPLES_TABLE = "table.md"
_HEADER = (
    "split",
    "at",
    "molecules",
    "nats/token",
    "nats/symbol",
    "nats/molecule",
    "perplexity of symbols",
)
_SCORED_HEADER = (
    "scored alone",
    "at",
    "molecules",
    "nats/molecule",
    "95 % interval",
    "nats/token",
    "95 % interval",
)
_REPLICATES = 1000
_LEGEND = """\
- nats/token counts the end of each molecule, nats/symbol does not; nats/molecule is the
  sum over one molecule and compares across notations. Molecules of `valid` are not in
  the training set, nor are their neutral or stereo-free forms.
- scored alone: the first molecules of the split, each in a row of its own; intervals
  are of the bootstrap over molecules."""
_ABOUT_DATA = """\
Each molecule is `[CLS]`, its symbols and `[SEP]`; `artifacts.json` has the
vocabulary."""


def language_report(workdir: Workdir) -> Report:
    """Tables, plots and card from the log and from the molecules in samples/."""
    config, artifacts = workdir.config(), workdir.artifacts()
    curves = plots.curves_of(workdir.metrics())
    table = "\n\n".join([_losses(curves, artifacts), *_scored(workdir), _LEGEND])
    samples = workdir.samples / SAMPLES_TABLE
    if samples.exists():
        table += "\n\n" + samples.read_text(encoding="utf-8")
    figures: dict[str, Figure] = {
        "learning_curves": plots.learning_curves(
            curves, "nll_molecule", "nats per molecule"
        )
    }
    text = card.model_card(
        config,
        workdir.run(),
        artifacts,
        results=table,
        plots=figures,
        about_data=_ABOUT_DATA,
        limits=_limits(artifacts),
    )
    return Report(table, figures, text)


def _losses(curves: plots.Curves, artifacts: Mapping[str, Any]) -> str:
    """The best validation, whose weights are kept, and the last one."""
    valid = curves["valid"]
    steps, losses = valid["loss"]
    rows = []
    for name, place in (("best", int(losses.argmin())), ("last", len(losses) - 1)):
        nats = {
            unit: float(valid[unit][1][place])
            for unit in ("nll", "nll_symbols", "nll_molecule")
        }
        rows.append(
            (
                "valid",
                f"{name}, step {int(steps[place])}",
                f"{artifacts['validation_set']['molecules']:,}",
                f"{nats['nll']:.4f}",
                f"{nats['nll_symbols']:.4f}",
                f"{nats['nll_molecule']:.2f}",
                f"{math.exp(nats['nll_symbols']):.3f}",
            )
        )
    return markdown_table(_HEADER, rows)


def _scored(workdir: Workdir) -> list[str]:
    """Losses of single molecules with their intervals, if the run has them."""
    tables = []
    for path in sorted(workdir.predictions.glob("*.npz")):
        found = Likelihoods.load(path)
        cells = [path.stem, "best", f"{len(found):,}"]
        for counts, digits in ((np.ones(len(found)), 2), (found.tokens, 4)):
            mean = found.nats.sum() / counts.sum()
            interval = bootstrap.mean_interval(found.nats, 0, _REPLICATES, counts)
            ends = "-"
            if interval is not None:
                ends = " - ".join(f"{end:.{digits}f}" for end in interval)
            cells += [f"{mean:.{digits}f}", ends]
        tables.append(markdown_table(_SCORED_HEADER, [cells]))
    return tables


def _limits(artifacts: Mapping[str, Any]) -> list[str]:
    notation = artifacts["notation"]
    lines = [
        f"It writes {notation} and knows {len(artifacts['vocabulary']['tokens'])} "
        "tokens; a molecule with any other symbol can be neither scored nor made.",
        "It imitates its training molecules: what they lack (charges, stereo, salts, "
        "elements), it does not make.",
        "That a molecule is valid or likely says nothing on whether it can be made, is "
        "safe, or does anything.",
    ]
    if notation.startswith("selfies"):
        lines.append(
            "Nearly every SELFIES string is a molecule, so validity does not tell good "
            "models from bad ones."
        )
    return lines
