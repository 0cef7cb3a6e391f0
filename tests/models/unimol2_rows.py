"""Rows of made-up molecules for Uni-Mol2, and parameters that let everything act."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chemscale_jax.core.batches import MoleculeRows
from chemscale_jax.models import unimol2

TINY = unimol2.Unimol2Options(
    width=16, depth=2, heads=2, pair_width=12, pair_hidden=4, ffn_width=24
)


def molecule(atoms, seed=0):
    """One molecule without padding, its arrays without a row axis."""
    rng = np.random.default_rng([seed, atoms])
    upper = np.triu(rng.integers(2, 20, (3, atoms, atoms)), 1)
    path = np.triu(rng.integers(2, 9, (atoms, atoms)), 1)
    leaves: list[Any] = [
        rng.integers(6, 9, atoms).astype(np.uint8),
        (3 + 16 * np.arange(8) + rng.integers(0, 3, (atoms, 8))).astype(np.uint16),
        (upper + upper.swapaxes(1, 2) + 2).transpose(1, 2, 0).astype(np.uint8),
        (path + path.T + 1).astype(np.uint16),
        rng.integers(2, 6, atoms).astype(np.uint8),
        rng.normal(0, 1.5, (atoms, 3)).astype(np.float32),
    ]
    return MoleculeRows(*leaves)


def batch(molecules, places, garbage=False):
    """Rows of so many atoms; padding is 0, or anything but for the elements."""
    rng = np.random.default_rng(7)
    empty = molecule(places, seed=1)
    rows = []
    for one in molecules:
        atoms = len(one.species_BN)
        row = []
        for filling, array in zip(empty, one, strict=True):
            pairs = array is one.bond_BNN3 or array is one.path_BNN
            shape = (places, places) if pairs else (places,)
            whole = np.zeros((*shape, *array.shape[len(shape) :]), array.dtype)
            if garbage and array is not one.species_BN:
                whole[...] = rng.permutation(filling)
            inner = (slice(atoms),) * len(shape)
            whole[inner] = array
            row.append(whole)
        rows.append(row)
    return MoleculeRows(*(jnp.asarray(np.stack(x)) for x in zip(*rows, strict=True)))


def rough(options, seed=0, size=0.1):
    """Normal parameters, biases included; scales are about 1."""
    shapes = jax.eval_shape(lambda key: unimol2.init(options, key), jax.random.key(0))
    rng = np.random.default_rng(seed)

    def draw(path, x):
        start = 1.0 if path[-1].key == "scale" else 0.0
        return jnp.asarray(start + size * rng.normal(size=x.shape), jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes["params"])
