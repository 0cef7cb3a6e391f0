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
# # Prompt language models of molecules, and compare settings and sizes
#
# A ChemGPT goes on from the first symbols of a molecule. How long the prompt is, how
# tokens are drawn and how large the model is decide what comes out: molecules that hold
# the prompt or not, that are heavier or lighter than what they began as, that pass
# medicinal-chemistry filters or not. This notebook trains two small models on the corpus
# that the package makes by itself, and compares them as Fig. 6 of
# [Frey et al. 2023](https://doi.org/10.1038/s42256-023-00740-3) does.
#
# Run all cells. Whatever was stopped goes on where it was.

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

from IPython.display import Image, Markdown, display

from chemscale_jax import main
from chemscale_jax.analysis.reports.report import write_report
from chemscale_jax.core.workdir import Workdir
from chemscale_jax.runs.prompting import run_study
from chemscale_jax.runs.run import run

# CHEMSCALE_SMOKE=1 trains tiny models on a few molecules, in under a minute.
smoke = os.environ.get("CHEMSCALE_SMOKE") == "1"
form = "smoke" if smoke else "embedded"
folder = pathlib.Path(f"runs/colab-prompts-{form}")
# Rows of one length, in one go, and few settings, for which less is compiled.
tiny, few = [], []
if smoke:
    tiny = ["--config.batch.buckets=(128,)", "--config.train.rows_at_once=16"]
    tiny += ["--config.sample.molecules=0"]
    few = ["--config.grid.temperature=()", "--config.prompts.lengths=('5', '7')"]


def train(name, width):
    """Trains a model of some width, or opens the one that is there; its folder."""
    flags = [
        f"--config=configs/chemgpt.py:{form}",
        f"--config.model.width={width}",
        f"--config.data.embedded_molecules={200 if smoke else 20_000}",
        "--config.train.epochs=1",
        f"--workdir={folder / name}",
        *tiny,
    ]
    assert run(main.parse(["colab", *flags])) == "finished"
    return Workdir(folder / name)


# %% [markdown]
# ## Two sizes
#
# Without embeddings, 24 layers of width 16 have 77,600 parameters, of width 64 there are
# 1,195,136.

# %%
small = train("small", 16)
display(Markdown(write_report(small)))

# %%
large = train("large", 32 if smoke else 64)
display(Markdown(write_report(large)))

# %% [markdown]
# ## The study
#
# Ten well-known drugs are cut to their first 5, 10 and 20 symbols, and to all but three.
# One setting is varied at a time. The command line does the same:
# `chemscale prompt-study --workdir=DIR --config.models=SMALL,LARGE`.

# %%
config = main.parse(
    [
        "colab",
        f"--config=configs/prompting.py:{'smoke' if smoke else 'paper'}",
        f"--config.models={small.path},{large.path}",
        f"--config.sampling.samples={4 if smoke else 20}",
        f"--workdir={folder / 'study'}",
        *few,
    ]
)
for part in (config.prompts, config.sampling, config.grid):
    print(part.to_dict())

# %%
study = run_study(config)
display(Markdown(study.table))

# %% [markdown]
# A pass rate says little alone: a model imitates its training data, so compare it with
# theirs, with `--config.reference.path=FILE`.

# %%
for plot in sorted((folder / "study" / "plots").glob("*.png")):
    display(Image(filename=plot))

# %% [markdown]
# ## The molecules
#
# All are in `molecules.csv`, with likelihoods, verdicts and reasons.

# %%
with (folder / "study" / "molecules.csv").open(newline="") as file:
    new = [row for row in csv.DictReader(file) if row["new"] == "yes"]
for row in new[:10]:
    print(row["model"], row["molecule"], row["length"], row["smiles"], sep="  ")

# %% [markdown]
# ## Go on
#
# - Molecules of your own: `--config.prompts.path=FILE`; models of your own, or published
#   ones: `--config.models=DIR,hub:owner/name`.
# - More in
#   [docs/language_models.md](https://github.com/chemscale/chemscale_jax/blob/main/docs/language_models.md#compare-prompts-settings-and-sizes).
