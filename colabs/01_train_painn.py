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
# # Train PaiNN on the embedded data set
#
# About 20,000 geometries of 462 organic molecules, with GFN2-xTB energies and forces,
# come with the package. This notebook trains a PaiNN force field on them, as
# `python -m chemscale_jax.main --config=configs/painn_ani1x.py` does, and shows what
# it has learned, on new geometries of known molecules (`valid`) and on molecules it has
# never seen (`heldout`).
#
# Run all cells. A run that was stopped goes on where it was.

# %%
# On a fresh Colab the package is missing.
import subprocess
import sys

if "google.colab" in sys.modules:
    source = "chemscale_jax @ git+https://github.com/chemscale/chemscale_jax"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", source], check=True)

# %%
import os
import pathlib

from IPython.display import Image, Markdown, display

from chemscale_jax import main
from chemscale_jax.analysis.reports.report import write_report
from chemscale_jax.core.workdir import Workdir
from chemscale_jax.runs.run import run

# CHEMSCALE_SMOKE=1 trains a tiny model on a few frames, in under a minute.
form = "smoke" if os.environ.get("CHEMSCALE_SMOKE") == "1" else "embedded"
folder = pathlib.Path(f"runs/colab-painn-{form}")

# %% [markdown]
# ## The experiment
#
# A config is a nested dictionary. Any field can be set as on the command line:
# `--config.optimizer.lr=3e-4`.

# %%
config = main.parse(
    [
        "colab",
        f"--config=configs/painn_ani1x.py:{form}",
        f"--workdir={folder}",
    ]
)
print(config)

# %% [markdown]
# ## Train

# %%
assert run(config) == "finished"

# %% [markdown]
# ## Results
#
# Rows are bands of a frame's mean absolute force component, in eV/Å. `zero MAE` is the
# error of predicting no force, `element MAE` that of each element's mean force: both are
# to be beaten.

# %%
workdir = Workdir(folder)
display(Markdown(write_report(workdir)))

# %%
for plot in sorted(workdir.plots.glob("*.png")):
    display(Image(filename=plot))

# %% [markdown]
# ## Go on
#
# - The run is a folder: `metrics.jsonl` holds the log, `checkpoints/` the weights.
# - Train longer, wider, or on your own file in the ANI-1x layout: see
#   [docs/force_fields.md](https://github.com/chemscale/chemscale_jax/blob/main/docs/force_fields.md).

# %%
steps, losses = workdir.series("valid", "loss")
print(f"best validation loss {min(losses):.4g}, after {len(steps)} validations")
