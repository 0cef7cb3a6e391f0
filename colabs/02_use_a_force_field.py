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
# # Train, check and use a force field
#
# This notebook trains a small PaiNN on the data set of the package, checks the physics
# of the result, and runs ethanol with it: relaxation, vibrations, and molecular
# dynamics whose total energy is followed.

# %%
# On a fresh Colab the package is missing.
import subprocess
import sys

if "google.colab" in sys.modules:
    source = "chemscale_jax[ase] @ git+https://github.com/chemscale/chemscale_jax"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", source], check=True)

# %%
import os
import pathlib

import matplotlib.pyplot as plt
from ase.build import molecule
from IPython.display import Markdown, display

from chemscale_jax import main
from chemscale_jax.analysis.reports.report import write_report
from chemscale_jax.core.workdir import Workdir
from chemscale_jax.inference.calculator import ForceFieldCalculator
from chemscale_jax.inference.check import write_check
from chemscale_jax.inference.dynamics import relax, run_nve
from chemscale_jax.inference.vibrations import vibrations
from chemscale_jax.runs.run import run

# CHEMSCALE_SMOKE=1 trains a tiny model on a few frames, in under a minute.
smoke = os.environ.get("CHEMSCALE_SMOKE") == "1"
form = "smoke" if smoke else "embedded"
folder = pathlib.Path(f"runs/colab-use-{form}")
steps = 100 if smoke else 10_000

# %% [markdown]
# ## Train
#
# With `--config.train.ensemble=4` four seeds would train together, and everything below
# would have their spread as an uncertainty.

# %%
config = main.parse(
    ["colab", f"--config=configs/painn_ani1x.py:{form}", f"--workdir={folder}"]
)
assert run(config) == "finished"

# %% [markdown]
# ## Check
#
# Symmetries, conservation laws, forces against differences of the energy, smoothness at
# the cut-off, precision. Each line has a tolerance and a verdict.

# %%
print(write_check(Workdir(folder), nve=not smoke))

# %% [markdown]
# The card of the run has it too, with the errors:

# %%
display(Markdown(write_report(Workdir(folder))))

# %% [markdown]
# ## Relax ethanol
#
# The calculator is one of ASE: it works in its optimisers, dynamics and databases.

# %%
calculator = ForceFieldCalculator(folder)
relaxed = relax(molecule("CH3CH2OH"), calculator, max_steps=steps)
print(f"{relaxed.steps} steps, {relaxed.energy_ev:.3f} eV")

# %% [markdown]
# ## Vibrations

# %%
found = vibrations(relaxed.atoms, calculator)
fig, ax = plt.subplots(figsize=(7, 2))
ax.vlines(found.wavenumber_cm1, 0, 1)
ax.set(xlabel="wavenumber (1/cm)", yticks=[], title="harmonic vibrations of ethanol")
plt.show()

# %% [markdown]
# ## Molecular dynamics
#
# At constant energy the total energy is a straight line; its slope is the drift.

# %%
run = run_nve(
    relaxed.atoms,
    calculator,
    steps=steps,
    timestep_fs=0.5,
    temperature_k=300,
    seed=0,
)
print(f"drift {run.drift.mev_per_atom:.3f} meV/atom over the run")
print("broken bonds:", ", ".join(run.broken_bonds) or "none")

# %%
fig, ax = plt.subplots(figsize=(7, 3))
time_ps = run.samples.time_fs / 1000
total = run.samples.total_ev
ax.plot(time_ps, 1e3 * (total - total[0]))
ax.set(xlabel="time (ps)", ylabel="total energy (meV)", title="NVE, ethanol")
plt.show()

# %% [markdown]
# ## Go on
#
# `chemscale md` does the same from the command line, and writes trajectories; see
# [docs/using_a_force_field.md](https://github.com/chemscale/chemscale_jax/blob/main/docs/using_a_force_field.md).
