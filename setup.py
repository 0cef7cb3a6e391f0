"""Package metadata. Tool settings live in pyproject.toml."""

import pathlib
import re

from setuptools import setup

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(
    r'__version__ = "(.+)"', (ROOT / "chemscale_jax" / "__init__.py").read_text()
).group(1)

ROOMS = (
    "analysis",
    "analysis.generation",
    "analysis.maps",
    "analysis.probes",
    "analysis.properties",
    "analysis.reports",
    "analysis.scaling",
    "analysis.search",
    "analysis.tpe",
    "chem",
    "commands",
    "core",
    "data",
    "data.conformers",
    "data.frames",
    "data.inputs",
    "data.labels",
    "data.packs",
    "data.text",
    "inference",
    "interop",
    "models",
    "runs",
    "studies",
    "tasks",
    "training",
)

# Every bound names its reason.
REQUIRES = [
    # 0.10.2 computes a vmapped matrix-vector product wrongly in float64 on CPU (JAX
    # issue 39103); 0.11 has no wheels for Python 3.11 and drops a name that Flax
    # 0.12.8 imports. The self-test in core/selftest.py guards what was chosen.
    "jax>=0.10.1,<0.11,!=0.10.2",
    # Tested pair: jax 0.10.1 with flax 0.12.8.
    "flax>=0.12.8,<0.13",
    "optax>=0.2.8",
    # AnyPreservationPolicy and step-metadata names as used in training/checkpoint.py.
    "orbax-checkpoint>=0.12.8,<0.13",
    "e3nn-jax>=0.21",
    # The last release is a pre-release.
    "jraph>=0.0.6.dev0",
    "selfies>=2.2",
    "rdkit>=2025.3",
    "safetensors>=0.5",
    "ml-collections>=1.1",
    "tensorflow-datasets>=4.9.10",
    "absl-py>=2.1",
    "array_record>=0.8",
    "grain>=0.2.18",
    "h5py>=3.12",
    "matplotlib>=3.9",
    "numpy>=2.0",
    # Simple models beside a finetuned network.
    "scikit-learn>=1.5",
    "scipy>=1.14",
    # Comes with scikit-learn, whose threads it bounds.
    "threadpoolctl>=3.5",
    "tqdm>=4.66",
]

EXTRAS = {
    "cuda12": ["jax[cuda12]"],
    "tpu": ["jax[tpu]"],
    # Calculator, molecular dynamics, ASE databases.
    "ase": ["ase>=3.23"],
    # jax.export writes its programs with it.
    "export": ["flatbuffers>=24"],
    # Makes the embedded data set again, or a larger one like it.
    "generate": ["tblite>=0.5"],
    # Published language models by their name.
    "hub": ["huggingface_hub>=0.26"],
    # The Frechet ChemNet distance; brings torch.
    "fcd": ["fcd>=1.2.2"],
    # Sweeps whose next runs follow from those before; its storage is shared.
    "optuna": ["optuna>=4"],
    # Approximate similarity search; 1.11 is the first that memory-maps all indexes.
    "search": ["faiss-cpu>=1.11"],
    # Reads molecules from parquet files.
    "parquet": ["pyarrow>=17"],
    # Lays out maps by UMAP.
    "umap": ["umap-learn>=0.5.7"],
    # Prepares conformers on a cluster.
    "beam": ["apache-beam>=2.77"],
    # Writes and reads embeddings as zarr.
    "zarr": ["zarr>=3.1"],
    # Work units on this machine; the same on a Slurm cluster.
    "xmanager": ["xmanager>=0.8.5"],
    "lxm3": ["lxm3>=0.4.2,<0.5"],
    "tensorboard": ["tensorboardX>=2.6"],
    "wandb": ["wandb>=0.17"],
    "colab": ["ase>=3.23", "ipykernel>=6.29"],
    "dev": [
        "ase>=3.23",
        "faiss-cpu>=1.11",
        "flatbuffers>=24",
        "import-linter>=2.16",
        "ipykernel>=6.29",
        "jupytext>=1.16",
        "nbclient>=0.10",
        "nbformat>=5.10",
        "optuna>=4",
        "pandas>=2.2",
        "pre-commit>=3.8",
        "pyright>=1.1.400",
        "pytest>=8.3",
        "pytest-xdist>=3.6",
        "pyarrow>=17",
        "ruff>=0.9",
        "tblite>=0.5",
        "zarr>=3.1",
    ],
    # The peers of benchmarks/, in an environment of their own.
    "peers": [
        "nequip>=0.19",
        "nequip-allegro>=0.8.3",
        "schnetpack>=2.1",
        "torch>=2.4",
        "transformers>=5",
    ],
}

setup(
    name="chemscale_jax",
    version=VERSION,
    description="Train chemical models at many scales and measure how they scale.",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=[
        "chemscale_jax",
        *(f"chemscale_jax.{room}" for room in ROOMS),
        "chemscale_jax.configs",
    ],
    # configs/ stays at the top of the repository and is installed inside the package.
    package_dir={"chemscale_jax.configs": "configs"},
    package_data={
        "chemscale_jax.chem": ["*.csv"],
        "chemscale_jax.data": [
            "embedded/*",
            "embedded/force_field/*",
            "embedded/language_model/*",
            "embedded/molecule_model/*",
        ],
    },
    install_requires=REQUIRES,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["chemscale=chemscale_jax.__main__:main"]},
)
