"""Small packs and tiny models for the tests of this room."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from chemscale_jax.models import ENERGY_MODELS
from tests.parity_cases.fixture import make_pack

CUTOFF_ANG = 3.0
# The smallest settings that still use every part of each model.
TINY = {
    "allegro": {
        "form": "2022",
        "width": 4,
        "depth": 2,
        "width_map": "quarter",
        "channels": 2,
        "n_bessel": 3,
        "l_max": 1,
        "learnable_bessel": True,
        "learnable_mixing": True,
        "cutoff_ang": CUTOFF_ANG,
        "elements": (1, 6, 7, 8),
        "avg_num_neighbors": 3.0,
        "energy_scale": 4.0,
    },
    "painn": {"width": 6, "depth": 2, "n_rbf": 5, "cutoff_ang": CUTOFF_ANG},
    "schnet": {"width": 6, "depth": 2, "n_rbf": 5, "cutoff_ang": CUTOFF_ANG},
    "spookynet": {"width": 6, "depth": 1, "n_rbf": 5, "cutoff_ang": CUTOFF_ANG},
}
MOLECULE = (
    np.array([8, 6, 6, 1, 7]),
    np.array(
        [
            [0.1, 0.0, 0.2],
            [1.3, 0.2, -0.1],
            [1.9, 1.5, 0.3],
            [-0.5, 0.8, 0.1],
            [3.1, 1.4, -0.6],
        ]
    ),
)
WATER = (
    np.array([8, 1, 1]),
    np.array([[0.0, 0.0, 0.1], [0.9, 0.1, -0.3], [-0.8, 0.3, -0.4]]),
)


def pack_of(*molecules, dtype="float64", room=(10, 32), charge=(), spin=()):
    """A pack of (species, positions) with all pairs within the cut-off, and all pairs.

    The room for atoms and edges is fixed, so that most tests share one compilation.
    """
    species = np.concatenate([z for z, _ in molecules])
    positions = np.concatenate([x for _, x in molecules])
    index = np.repeat(np.arange(len(molecules)), [len(z) for z, _ in molecules])
    distance = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
    together = index[:, None] == index[None]
    np.fill_diagonal(together, False)
    receivers, senders = np.nonzero(together & (distance <= CUTOFF_ANG))
    pair_receivers, pair_senders = np.nonzero(together)
    padding = (room[0] - len(species), room[1] - len(senders))
    pair_padding = 2 * room[1] - len(pair_receivers)
    assert min(*padding, pair_padding) >= 0
    return make_pack(
        species,
        positions,
        index,
        receivers,
        senders,
        dtype,
        padding,
        pairs=(pair_receivers, pair_senders),
        charge=charge,
        spin=spin,
        pair_padding=pair_padding,
    )


def stretched(distance):
    """Three atoms, the third that far from the first and far from the second."""
    positions = np.array([[0.0, 0, 0], [0, 1.1, 0], [0, 0, distance]])
    # All six edges are kept, as in a list that was made with a skin.
    pack = pack_of((np.array([8, 6, 1]), 0.1 * positions))
    return pack._replace(positions_N3=pack.positions_N3.at[:3].set(positions))


@functools.cache
def model_of(name):
    """The tiny model and its parameters, moved off their symmetric start."""
    model = ENERGY_MODELS[name](**TINY[name])
    variables = jax.device_get(jax.jit(model.init)(jax.random.key(0)))
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda x: x + rng.normal(0, 0.1, x.shape).astype(x.dtype), variables["params"]
    )
    return model, params, variables["constants"]


def as_dtype(tree, dtype="float64"):
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), tree)
