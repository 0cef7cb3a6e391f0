"""Activations of ChemNet, which the Frechet ChemNet distance compares.

The network and its weights are those of the package ``fcd`` of its authors (Preuer et
al. 2018), which brings PyTorch along; it is asked for by the extra of that name.
"""

import importlib
import importlib.util
import warnings
from collections.abc import Sequence

import numpy as np

from chemscale_jax.core.errors import UserError

INSTALL = "pip install 'chemscale_jax[fcd]'"


def is_installed() -> bool:
    """Whether the package that computes activations is there."""
    return importlib.util.find_spec("fcd") is not None


def activations(canonical: Sequence[str]) -> np.ndarray:
    """(n, 512) float32: ChemNet's last hidden layer, for canonical SMILES.

    Raises:
        UserError: the package is not installed.
    """
    try:
        fcd = importlib.import_module("fcd")
    except ImportError as error:
        raise UserError(
            f"FCD needs the package {error.name or 'fcd'}, which is not installed: "
            f"{INSTALL}, or leave FCD out"
        ) from None
    with warnings.catch_warnings():
        # It uses a deprecated name of NumPy, and tells of SMILES over 350 characters.
        warnings.simplefilter("ignore")
        return fcd.get_predictions(
            fcd.load_ref_model(), list(canonical), n_jobs=0, device="cpu"
        )
