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
# # Choose hyperparameters from the first epochs
#
# Early training losses tell which of many runs will be the best: training performance
# estimation ranks runs by `TSE`, the sum of the mean losses of their first epochs (Eq. 7
# of [Frey et al. 2023](https://doi.org/10.1038/s42256-023-00740-3)), and predicts the
# final loss by a line through it (Eq. 8). This notebook trains a grid of learning rates
# and batch sizes of a PaiNN force field to the end, and then looks at what could have
# been known, and saved, after a fifth of it.
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
import os
import pathlib

from IPython.display import Image, Markdown, display

from chemscale_jax import commands
from chemscale_jax.analysis.markdown import markdown_table
from chemscale_jax.analysis.reports.report import write_report
from chemscale_jax.analysis.tpe.estimate import estimate
from chemscale_jax.analysis.tpe.plots import estimate_plot
from chemscale_jax.analysis.tpe.report import write_estimate
from chemscale_jax.analysis.tpe.run_curves import read_curves
from chemscale_jax.core.workdir import Workdir
from chemscale_jax.studies import regret
from chemscale_jax.studies.policies import POLICIES, make_policy

# CHEMSCALE_SMOKE=1 trains four runs of a tiny model, in under a minute.
smoke = os.environ.get("CHEMSCALE_SMOKE") == "1"
folder = pathlib.Path(f"runs/colab-tpe-{'smoke' if smoke else 'grid'}")
batches = "16" if smoke else "4, 8, 16, 32"
rates = "1e-2, 3e-3, 1e-3, 1e-4" if smoke else "3e-2, 1e-2, 3e-3, 1e-3, 1e-4"

# %% [markdown]
# ## A grid, every run to its end
#
# Runs of one batch size differ in nothing that a program is compiled for, so they train
# as lanes of one program.

# %%
flags = [
    "--config=configs/tpe_rmd17.py:smoke,model=painn",
    f"--workdir={folder}",
    "--policy=full",
    "--search=grid",
    f"--space=batch.exact_molecules=choice({batches})",
    f"--space=optimizer.lr=choice({rates})",
    f"--config.data.max_frames={100 if smoke else 1000}",
    f"--config.model.width={8 if smoke else 16}",
    f"--config.train.epochs={9 if smoke else 20}",
]
assert commands.load("sweep").main(flags) == 0
curves = read_curves(folder)

# %% [markdown]
# ## What the first fifth says
#
# R^2 in sample is what the paper gives; left out, each run is predicted by the line
# through the others. The command line does the same: `chemscale tpe --runs=DIR`.

# %%
found = estimate(curves, 0.2, "tse")
display(Markdown(write_estimate(curves, found, folder)))
display(Image(filename=folder / "tpe.png"))

# %% [markdown]
# Other scores and other fractions: the last epoch's loss forgets how a run began, which
# the sum does not.

# %%
display(Image(filename=folder / "tpe_windows.png"))

# %% [markdown]
# ## Runs that are not finished
#
# Every other run cut to its first fifth: the finished ones calibrate the line, which
# gives each of the others a prediction interval.

# %%
early = [curve if i % 2 else curve.upto(0.2) for i, curve in enumerate(curves)]
guess = estimate(early, 0.2, "tse")
finals = {curve.name: curve.final for curve in curves}
rows = [
    [
        row.label,
        f"{row.predicted:.4g}",
        f"{row.interval[0]:.4g} to {row.interval[1]:.4g}",
        f"{finals[row.curve.name]:.4g}",
    ]
    for row in guess.rows
    if row.state == "unfinished"
]
display(Markdown(markdown_table(("run", "expected", "95 %", "true"), rows)))
estimate_plot(guess).savefig(folder / "expected.png", dpi=120)
display(Image(filename=folder / "expected.png"))

# %% [markdown]
# ## What policies would have picked, and spent
#
# `chemscale sweep --policy=NAME` stops runs that do not look good and lets the others go
# on from their checkpoints. On one grid this is an anecdote: `chemscale regret` compares
# policies over resamplings of several.

# %%
recorded = regret.Recorded(curves)
names = [curve.name for curve in curves]
rows = []
for name in POLICIES:
    outcome = regret.replay(recorded, regret.Setting(make_policy(name)), names)
    rows.append([name, "", f"{100 * outcome.cost:.0f}", f"{100 * outcome.regret:.1f}"])
display(Markdown(markdown_table(("policy", "", "cost, %", "regret, %"), rows)))

# %% [markdown]
# ## The best run
#
# It is an ordinary run, with checkpoints, predictions and a card.

# %%
best = min(curves, key=lambda curve: curve.final)
print(best.name)
display(Markdown(write_report(Workdir(folder / best.name))))

# %% [markdown]
# ## Go on
#
# - Any config has a grid in its `sweep()`, or takes ranges: `chemscale sweep --help`.
# - More in
#   [docs/studies.md](https://github.com/chemscale/chemscale_jax/blob/main/docs/studies.md).
