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
# # Find similar molecules by embeddings
#
# A language model of molecules turns each of them into a vector. Are molecules near whose
# vectors are near? This notebook embeds a library, indexes it, looks for neighbours of a
# drug by embeddings and by Morgan fingerprints, and measures which of the two finds
# molecules that are more like the query: for one query, as
# [Frey et al. 2023](https://doi.org/10.1038/s42256-023-00740-3) do in their Table A.2,
# and for many, with intervals.
#
# Run all cells. Whatever was stopped goes on where it was.

# %%
# On a fresh Colab the package is missing.
import subprocess
import sys

if "google.colab" in sys.modules:
    source = "chemscale_jax[search] @ git+https://github.com/chemscale/chemscale_jax"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", source], check=True)

# %%
import os
import pathlib
import time

import numpy as np
from IPython.display import Image, Markdown, display
from matplotlib import pyplot as plt

from chemscale_jax import commands
from chemscale_jax.analysis.maps.scaffold_plots import draw_structure
from chemscale_jax.analysis.search.applicability import applicability
from chemscale_jax.analysis.search.own_neighbours import recall_of
from chemscale_jax.analysis.search.vector_index import VectorIndex
from chemscale_jax.api import embed
from chemscale_jax.chem.drawings import drawing_of
from chemscale_jax.chem.drugs import drugs
from chemscale_jax.chem.fingerprint_search import packed_fingerprints
from chemscale_jax.data.text.embedded_corpus import embedded_smiles

# CHEMSCALE_SMOKE=1 searches few molecules by counts of substructures, in seconds.
smoke = os.environ.get("CHEMSCALE_SMOKE") == "1"
model = "morgan" if smoke else "chemgpt"
folder = pathlib.Path(f"runs/colab-search{'-smoke' if smoke else ''}")
folder.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## A library
#
# Drug-like molecules that the package makes without a download. Any csv with a column of
# SMILES does as well, and so does the workdir of any model that you trained. On the
# command line this is `chemscale embed --workdir=chemgpt --input=FILE --out=FILE`.

# %%
if smoke:
    lines = sorted({drug.smiles for drug in drugs()})[:200]
else:
    lines = embedded_smiles(20_000).read_text().split()
library = folder / "library.smi"
library.write_text("\n".join(lines) + "\n")
embed(library, model, out=folder / "library.npz", progress=True)

# %% [markdown]
# ## Two indexes
#
# One that compares every vector, and one that looks only around the nearest of some
# centres. Vectors are reduced to principal components, as in the paper. Both are folders
# that are read memory-mapped, and hold Morgan fingerprints too.

# %%
for kind in ("flat", "ivf"):
    flags = [f"--embeddings={folder / 'library.npz'}", f"--out={folder / kind}"]
    sizes = ["--pca=20", "--k=10"] if smoke else ["--pca=50"]
    assert commands.load("index").main([*flags, *sizes, f"--kind={kind}"]) == 0

# %% [markdown]
# ## Neighbours of a drug
#
# The upper row is nearest by embeddings, the lower one by fingerprints.

# %%
query = "COc1ccc2cc([C@H](C)C(=O)O)ccc2c1"
index = VectorIndex.open(folder / "flat")
asked = embed([query], model).values
near = index.search(index.project(asked), 5)
alike, tanimoto = index.similar(packed_fingerprints([query]), 5)
labels = ["query", *near.distances[0].round(3), "query", *tanimoto[0].round(3)]
drawn = [query, *index.smiles(near.ids[0]), query, *index.smiles(alike[0])]
figure, panels = plt.subplots(2, 6, figsize=(14, 5))
for axes, label, smiles in zip(panels.ravel(), labels, drawn, strict=True):
    draw_structure(axes, drawing_of(str(smiles)))
    axes.set_aspect("equal")
    axes.axis("off")
    axes.set_title(str(label), fontsize=9)
figure.tight_layout()
plt.show()

# %% [markdown]
# ## What an approximate search misses
#
# Looking at more centres takes longer and finds more. The command above chose the least
# effort that finds 95 % of the nearest on vectors of the library.

# %%
coarse = VectorIndex.open(folder / "ivf")
some = np.random.default_rng(0).permutation(len(coarse))[: 50 if smoke else 500]
vectors = np.asarray(coarse.store.vectors[some])
exact = coarse.search(vectors, 10, exact=True).ids
tried = []
for effort in (1, 2, 4, 8, 16, 32, 64):
    start = time.perf_counter()
    found = coarse.search(vectors, 10, effort=effort).ids
    milliseconds = 1e3 * (time.perf_counter() - start) / len(vectors)
    tried.append((effort, milliseconds, recall_of(found, exact)))
figure, axes = plt.subplots(figsize=(6, 4))
axes.plot([t[1] for t in tried], [t[2] for t in tried], "o-")
axes.axhline(0.95, color="grey", linestyle="--")
axes.set(xlabel="ms per query, in a batch", ylabel="recall@10", xscale="log")
plt.show()
print(f"chosen effort: {coarse.facts['effort']}, recall {coarse.facts['recall']:.3f}")

# %% [markdown]
# ## Are neighbours alike in their properties?
#
# The distance of a molecule's logP, SA, QED and weight from the mean and median of its
# nearest neighbours. Look at the intervals before believing a single query, and at what
# molecules drawn at random give.

# %%
flags = [
    f"--index={folder / 'flat'}",
    f"--names={model}",
    f"--out={folder / 'neighbours'}",
    f"--query={query}",
    *(["--queries=15", "--k=10"] if smoke else ["--queries=200"]),
]
assert commands.load("neighbours").main(flags) == 0
display(Markdown((folder / "neighbours" / "report.md").read_text()))
for name in ("query", "differences"):
    display(Image(filename=folder / "neighbours" / f"{name}.png"))

# %% [markdown]
# ## Is a molecule like those of the library?
#
# Its distance to the nearest one, and the share of the library whose own nearest other
# one is nearer than that. On the command line it is `chemscale search --applicability`.

# %%
others = [query, "C" * 40, "[Na+].[Cl-]", "OB(O)c1ccc(cc1)[Si](C)(C)C"]
embedded = embed(others, model)
far = applicability(index, index.project(embedded.values))
for smiles, distance, quantile in zip(others, far.distance, far.quantile, strict=True):
    print(f"{distance:8.3f}  quantile {quantile:5.2f}  {smiles}")
