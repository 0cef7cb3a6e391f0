# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Measure a scaling law, with honest error bars
#
# How does the loss of a chemical model fall with its size and its data? A line through
# four points in a log-log plot always has a slope, whether the points support one or
# not. This notebook plants a law, measures it through noisy runs, and asks what comes
# back: exponents with intervals, terms that the runs cannot identify, the best use of
# compute, and the run to make next. Then it trains a small grid of its own.
#
# Forms and facts are those of
# [Frey et al. 2023](https://doi.org/10.1038/s42256-023-00740-3),
# [Hoffmann et al. 2022](https://arxiv.org/abs/2203.15556) and
# [Ji et al. 2024](https://arxiv.org/abs/2406.14969).

# %%
# On a fresh Colab the package is missing.
import subprocess
import sys

if "google.colab" in sys.modules:
    source = "chemscale_jax @ git+https://github.com/chemscale/chemscale_jax"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", source], check=True)

# %%
import csv
import os
import pathlib

import numpy as np
from IPython.display import Image, Markdown, display

from chemscale_jax import main
from chemscale_jax.analysis.reports.report import write_report
from chemscale_jax.analysis.scaling import published_laws
from chemscale_jax.analysis.scaling.data import Columns
from chemscale_jax.analysis.scaling.fit import prediction
from chemscale_jax.analysis.scaling.forms import FORMS, make_inputs
from chemscale_jax.analysis.scaling.report import Settings, study_of, write_study
from chemscale_jax.core.workdir import Workdir
from chemscale_jax.runs.run import run

# CHEMSCALE_SMOKE=1 trains tiny models on a few molecules, in under a minute.
smoke = os.environ.get("CHEMSCALE_SMOKE") == "1"
folder = pathlib.Path(f"runs/colab-scaling-{'smoke' if smoke else 'embedded'}")

# %% [markdown]
# ## A law that we know
#
# Four sizes, four amounts of data, three seeds, with noise of 1.5 %.

# %%
LAW = {"E": 0.6, "A": 60.0, "a": 0.35, "B": 100.0, "b": 0.30}


def planted_rows(sizes, amounts, noise=0.015, seeds=3):
    """Rows as a study leaves them, with losses of the planted law."""
    rng = np.random.default_rng(0)
    rows = []
    for size in sizes:
        for data in amounts:
            at = make_inputs({"N": np.array([size]), "D": np.array([data])})
            loss = float(prediction(FORMS["chinchilla"], LAW, at)[0])
            for seed in range(seeds):
                noisy = loss * np.exp(noise * rng.normal())
                row = {"parameters": size, "data": data, "flops": 6 * size * data}
                row |= {"seed": seed, "valid_loss": noisy}
                rows.append({name: str(value) for name, value in row.items()})
    return rows


sizes, amounts = np.geomspace(8e4, 5e6, 4), np.geomspace(1e5, 1e8, 4)
settings = Settings(replicates=100 if smoke else 1000)
study = study_of(planted_rows(sizes, amounts), settings=settings)
report = write_study(study, folder / "planted")
display(Markdown(report.split("### Forms")[1].split("### Loss with size")[0]))

# %% [markdown]
# The intervals hold what was planted. They are profile likelihoods: the bootstrap over
# 16 cells is often too narrow. A law through the same points without a floor would have
# a much smaller exponent.

# %%
for name in ("law_by_data", "law_by_size", "loss_by_compute"):
    display(Image(filename=folder / "planted" / "plots" / f"{name}.png"))

# %% [markdown]
# ## A grid that cannot tell
#
# When all runs have twenty records for each parameter, size and data grow together. The
# points are as good as before, but no fit can tell the two exponents apart, so none is
# reported.

# %%
rows = [
    row
    for size in np.geomspace(8e4, 1e8, 6 if smoke else 12)
    for row in planted_rows([size], [20 * size])
]
(analysis,) = study_of(rows, settings=settings).analyses
for one in analysis.law.estimates:
    print(f"{one.name:>2}", one.why_not or f"{one.value:.3g} {one.interval}")

# %% [markdown]
# ## A published law
#
# Uni-Mol2's law has a term of compute. What is it worth?

# %%
for finding in published_laws.audit():
    print(f"{finding.claim}?  {finding.found}")
    for name, value in finding.numbers.items():
        print(f"    {name}: {value:.4g}")

# %% [markdown]
# ## A small study of our own
#
# ChemGPT of a few widths on a few amounts of the corpus that the package makes by
# itself. Whatever was stopped goes on where it was. On the command line, a study of any
# size is `chemscale study --config=... --workdir=DIR`, and the rest is
# `chemscale fit DIR/results.csv --out=report`.

# %%
widths = (16,) if smoke else (16, 32, 64)
molecules = (100, 200, 400) if smoke else (500, 2_000, 8_000, 32_000)
# Rows of one length, in one go, for which less is compiled.
tiny = []
if smoke:
    tiny = ["--config.batch.buckets=(128,)", "--config.train.rows_at_once=16"]
    tiny += ["--config.sample.molecules=0", "--config.sample.scored=0"]


def train(width, number):
    """Trains one model, or opens the one that is there; its folder."""
    path = folder / f"w{width}-n{number}"
    flags = [
        f"--config=configs/chemgpt.py:{'smoke' if smoke else 'embedded'}",
        f"--config.model.width={width}",
        f"--config.data.embedded_molecules={number}",
        f"--config.train.epochs={1 if smoke else 4}",
        f"--workdir={path}",
        *tiny,
    ]
    assert run(main.parse(["colab", *flags])) == "finished"
    return Workdir(path)


rows = []
for width in widths:
    for number in molecules:
        workdir = train(width, number)
        losses = workdir.series("valid", "loss")
        best = int(np.argmin(losses[1]))
        rows.append(
            {
                "cell": workdir.path.name,
                "width": width,
                "parameters_nonembedding": 24 * (12 * width**2 + 10 * width)
                + 2 * width,
                "data": number,
                "train_loss": workdir.series("epoch", "train_loss")[1][-1],
                "valid_loss": losses[1][best],
                "loss_unit": "nats/token",
                "best_step": losses[0][best],
                "steps": workdir.run()["steps"],
                "epochs_planned": 1,
                "stop_reason": workdir.run()["stop_reason"],
                "wall_s": workdir.run()["total_s"],
            }
        )
        print(workdir.path.name, f"{rows[-1]['valid_loss']:.3f}")
display(Markdown(write_report(workdir)))

# %%
folder.mkdir(parents=True, exist_ok=True)
with (folder / "results.csv").open("w", newline="") as file:
    writer = csv.DictWriter(file, rows[0])
    writer.writeheader()
    writer.writerows(rows)
rows = [{name: str(value) for name, value in row.items()} for row in rows]
study = study_of(rows, Columns(size="parameters_nonembedding"), settings)
display(Markdown(write_study(study, folder / "fit")))

# %% [markdown]
# Look at the column that says what limits each cell: short runs like these are limited
# by their steps, so their slopes say how long they were trained, not how they scale.

# %%
display(Image(filename=folder / "fit" / "plots" / "power_law_by_data.png"))
