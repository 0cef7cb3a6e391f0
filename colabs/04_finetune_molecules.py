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
# # Finetune Uni-Mol2 on a csv, predict with intervals, embed molecules
#
# Uni-Mol2 ([Ji et al. 2024](https://arxiv.org/abs/2406.14969)) reads the atoms, bonds and
# geometry of a molecule. This notebook finetunes it on a table of SMILES and numbers,
# predicts other molecules with intervals, and looks at embeddings. Put your own file in
# place of the one that it makes.
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
import shutil

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Image, Markdown, display

from chemscale_jax.analysis.reports.report import write_report
from chemscale_jax.api import MolPredict, MolTrain, UniMolRepr
from chemscale_jax.core.workdir import Workdir
from chemscale_jax.data.labels.embedded_properties import embedded_properties

# CHEMSCALE_SMOKE=1 trains a tiny network on a few molecules, in under a minute.
smoke = os.environ.get("CHEMSCALE_SMOKE") == "1"
folder = pathlib.Path(f"runs/colab-finetune{'-smoke' if smoke else ''}")
folder.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## A table of molecules
#
# Any csv will do that has a column of SMILES and one or more of labels. This one has drugs
# with their octanol-water partition, computed from their bonds.

# %%
table = folder / "mols.csv"
if not table.exists():
    shutil.copy(embedded_properties(), table)
with table.open(newline="") as file:
    rows = list(csv.DictReader(file))
print(len(rows), "molecules, such as", rows[0])

# %% [markdown]
# ## Finetune
#
# Test molecules have other scaffolds than those that are trained on. The table has the
# network beside a model of Morgan fingerprints on the same split. The command line does the
# same: `chemscale finetune --data=mols.csv --targets=logP --workdir=DIR`.

# %%
small = {"data__max_rows": 60, "pretrained_model_path": "scratch", "epochs": 2}
# One shape of batches, in one go, for which less is compiled.
small |= {"data__max_atoms": 31, "batch__buckets": (31,), "train__rows_at_once": 16}
train = MolTrain(
    task="regression",
    target_cols="logP",
    split="scaffold",
    kfold=1,
    save_path=str(folder / "logP"),
    **(small if smoke else {}),
)
outcome = train.fit(table)
print(outcome)

# %%
workdir = Workdir(folder / "logP")
display(Markdown(write_report(workdir)))

# %%
for plot in sorted(workdir.plots.glob("*.png")):
    display(Image(filename=plot))

# %% [markdown]
# ## Predict
#
# Every row keeps its place; what cannot be read says why. An interval holds the true value
# with a chance of 90 % for molecules like those that were held back in training. The command
# line does the same: `chemscale predict --workdir=DIR --input=new.csv --out=predicted.csv`.

# %%
model = MolPredict(str(workdir.path))
model.predict(["CC(=O)Oc1ccccc1C(=O)O", "CCCCCCCC", "no molecule"])
for name, column in model.columns.items():
    print(name, column.tolist(), sep="  ")

# %% [markdown]
# ## Embed
#
# Vectors of molecules, of atoms and of pairs of atoms, of any layer: the same for each
# spelling of a molecule, alone and in any batch. The command line does the same:
# `chemscale embed --input=mols.csv --out=embeddings.npz`.

# %%
network = UniMolRepr(pretrained_model_path=str(workdir.path))
some = rows[: 6 if smoke else 500]
found = network.get_repr([row["smiles"] for row in some])
one, other = network.get_repr(["CCO", "OCC"])["cls_repr"]
print("two spellings of ethanol differ by", np.abs(one - other).max())

# %%
kept = np.isfinite(found["cls_repr"]).all(1)
vectors = found["cls_repr"][kept]
axes = np.linalg.svd(vectors - vectors.mean(0), full_matrices=False)[2][:2]
x, y = ((vectors - vectors.mean(0)) @ axes.T).T
figure, plane = plt.subplots(figsize=(5, 4))
points = plane.scatter(
    x, y, c=np.array([float(row["logP"]) for row in some])[kept], s=12
)
figure.colorbar(points, label="logP")
plane.set(xlabel="first component", ylabel="second component")
plt.show()

# %% [markdown]
# ## Go on
#
# - Published weights: `pretrained_model_path="checkpoint.pt"`, or
#   `chemscale finetune --init=checkpoint.pt`.
# - Folds and seeds, whose spread says more than one run: `kfold=5`, `seeds=3`.
# - Several conformers, over which predictions are averaged: `conformers=5`.
# - More on the network in
#   [docs/unimol2.md](https://github.com/chemscale/chemscale_jax/blob/main/docs/unimol2.md).
