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
# # Look at what a model makes of molecules
#
# A map shows embeddings in two dimensions, as Fig. 7 of
# [Frey et al. 2023](https://doi.org/10.1038/s42256-023-00740-3) does for ChemGPT. Maps
# persuade easily, so this one comes with two controls, the same network with fresh
# parameters and Morgan fingerprints, and with numbers: do neighbours share a scaffold, or
# a property, and in which of the spaces do they so the most?
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

from IPython.display import IFrame, Image, Markdown, display

from chemscale_jax import commands
from chemscale_jax.analysis.maps.embedding_maps import MapSettings
from chemscale_jax.analysis.maps.files import write_maps
from chemscale_jax.analysis.maps.mapped_molecules import read_molecules
from chemscale_jax.data.labels.embedded_properties import embedded_properties

# CHEMSCALE_SMOKE=1 lays fewer molecules out, with one control, by PCA.
smoke = os.environ.get("CHEMSCALE_SMOKE") == "1"
folder = pathlib.Path(f"runs/colab-maps{'-smoke' if smoke else ''}")

# %% [markdown]
# ## A table of molecules
#
# Any csv will do that has a column of SMILES. This one has drugs with their octanol-water
# partition, computed from their bonds.

# %%
table = folder / "mols.csv"
if not table.exists():
    folder.mkdir(parents=True, exist_ok=True)
    lines = embedded_properties().read_text().splitlines(keepends=True)
    table.write_text("".join(lines[: 101 if smoke else None]))
print(table.read_text()[:200])

# %% [markdown]
# ## Embed and map
#
# The columns to colour by, other models and all else are fields of the config:
# `--config.embed.workdir=runs/my-run`.

# %%
flags = [
    f"--config=configs/maps.py:{'smoke' if smoke else 'table'}",
    f"--input={table}",
    f"--out={folder}",
    "--config.map.color=('scaffold', 'logP')",
]
assert commands.load("map").main(flags) == 0

# %% [markdown]
# ## Which space wins
#
# Intervals are over molecules, and differences are paired. A model that does not beat its
# untrained twin learned nothing that shows here; one that does not beat fingerprints knows
# less of the label than a list of substructures.

# %%
display(Markdown((folder / "report.md").read_text()))

# %%
for plot in sorted(folder.glob("map_*.png")):
    display(Image(filename=plot))

# %% [markdown]
# ## The page
#
# The structure under the pointer, in every space at once. It is one file, which loads
# nothing; open `map.html` in a browser of its own for a larger view.

# %%
display(IFrame(src=str(folder / "map.html"), width="100%", height=700))

# %% [markdown]
# ## Another layout of the same embeddings
#
# Principal components keep distances, and t-SNE neighbours: the numbers in the space are the
# same, those on the map are not.

# %%
names = [path.stem for path in sorted((folder / "embeddings").glob("*.npz"))]
paths = [folder / "embeddings" / f"{name}.npz" for name in names]
molecules = read_molecules(paths, most=60 if smoke else 20_000)
other = MapSettings(method="tsne" if smoke else "pca")
written = write_maps(
    molecules, folder / other.method, color=["logP"], settings=other, progress=False
)
for name, kept in written.study.kept.items():
    print(f"{name}: {kept:.0%} of the neighbours are kept by {other.method}")
display(Image(filename=folder / other.method / "map_logP.png"))
