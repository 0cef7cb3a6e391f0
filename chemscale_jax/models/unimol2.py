"""Uni-Mol2: a transformer over atoms and pairs of atoms, from 1M to 1.1B parameters.

Ji et al. 2024. Molecules come without hydrogens; a virtual atom is put before them, so
a row of N atoms has T = N + 1 places. Atoms start as sums of embeddings (element,
8 features, degree); pairs as sums of embeddings of shortest path and bond, plus a
function of their distance d::

    psi = linear(gelu(linear(phi))),  phi_k = N(scale d + shift; mean_k, deviation)

where scale and shift depend on the types of both atoms. Parameters of the layers
(`unimol2_blocks`) are stacked on a leading axis, over which the network is a
`jax.lax.scan`. Heads are in `unimol2_heads`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chemscale_jax.core.batches import MoleculeRows
from chemscale_jax.core.partition import rows_apart
from chemscale_jax.core.types import Array, Key, Params
from chemscale_jax.models import unimol2_blocks as blocks
from chemscale_jax.models.layers import safe_norm
from chemscale_jax.models.unimol2_blocks import Encoded
from chemscale_jax.models.unimol2_heads import (
    head_axes,
    init_head,
    move,
    pooled,
    token_logits,
)
from chemscale_jax.models.unimol2_init import init, param_axes, parameter_count
from chemscale_jax.models.unimol2_options import (
    SIZES,
    Unimol2Options,
    check,
    clean,
    faithful,
    forward_flops,
)

__all__ = [
    "SIZES",
    "Encoded",
    "Unimol2Options",
    "atom_mask",
    "check",
    "clean",
    "distances",
    "embed_atoms",
    "embed_pairs",
    "encode",
    "faithful",
    "forward_flops",
    "head_axes",
    "init",
    "init_head",
    "kernel_centres",
    "make_places",
    "move",
    "param_axes",
    "parameter_count",
    "pooled",
    "token_logits",
]

# As written in the published code.
_PI = 3.14159
# Ids of the first atom feature, which is chirality, in the table of pair types.
_CHIRALITY_OFFSETS = (1, 129)
_ELEMENT_OFFSETS = (0, 128)


def encode(
    options: Unimol2Options,
    params: Params,
    rows: MoleculeRows,
    key: Key | None = None,
    layer: int = -1,
) -> Encoded:
    """Both tracks after some layers. There is no norm after the last one.

    No gradient reaches the positions, as in the published code.

    Args:
        options: of the network.
        params: of the network.
        rows: molecules. What they hold at padding changes nothing real.
        key: of dropout; None: there is none.
        layer: 0: the normed embeddings; depth or -1: after the last layer.
    """
    depth = options.depth if layer == -1 else layer
    places = make_places(options, rows)
    tracks = Encoded(
        rows_apart(blocks.layer_norm(params["norm"], embed_atoms(params, rows))),
        rows_apart(
            blocks.layer_norm(params["pair_norm"], embed_pairs(options, params, rows))
        ),
    )

    def turn(
        tracks: Encoded, scanned: tuple[Params, Key | None]
    ) -> tuple[Encoded, None]:
        tracks = blocks.layer(options, scanned[0], tracks, places, scanned[1])
        return Encoded(*map(rows_apart, tracks)), None

    keys = None if key is None else jax.random.split(key, options.depth)[:depth]
    layers = jax.tree.map(lambda x: x[:depth], params["layers"])
    tracks, _ = jax.lax.scan(
        _rematerialised(options, turn), tracks, (layers, keys), unroll=options.unroll
    )
    return tracks


def atom_mask(rows: MoleculeRows) -> Array:
    """True for real atoms, (B, N)."""
    return rows.species_BN != 0


def make_places(options: Unimol2Options, rows: MoleculeRows) -> blocks.Places:
    """Which places are real, and the lengths by which sums are scaled."""
    real_BN = atom_mask(rows)
    B, N = real_BN.shape
    real_BT = jnp.concatenate([jnp.ones((B, 1), bool), real_BN], axis=1)
    if options.length == "batch":
        return blocks.Places(real_BT, jnp.full(B, _multiple_of_4(N + 1)))
    length_B = jnp.sum(real_BT, axis=1)
    if options.length == "own":
        length_B = _multiple_of_4(length_B)
    return blocks.Places(real_BT, length_B)


def _multiple_of_4(length: Any) -> Any:
    return (length + 3) // 4 * 4


def embed_atoms(params: Params, rows: MoleculeRows) -> Array:
    """Sums of embeddings, the virtual atom first, (B, T, D)."""
    x_BND = _looked_up(params["tokens"], rows.species_BN)
    x_BND += jnp.sum(_looked_up(params["atoms"], rows.atom_BN8), axis=2)
    x_BND += _looked_up(params["degrees"], rows.degree_BN)
    virtual_D = params["virtual_atom"]["embedding"]
    B, _, D = x_BND.shape
    first_B1D = jnp.broadcast_to(virtual_D, (B, 1, D))
    return jnp.concatenate([first_B1D, x_BND], axis=1)


def embed_pairs(options: Unimol2Options, params: Params, rows: MoleculeRows) -> Array:
    """Embeddings of paths and bonds and of distances, (B, T, T, Q)."""
    pair_BNNQ = _looked_up(params["paths"], rows.path_BNN)
    bond_BNNQ = sum(
        _looked_up(params["bonds"], rows.bond_BNN3[..., column]) for column in range(3)
    )
    pair_BNNQ = pair_BNNQ + bond_BNNQ / 3 + _kernel(options, params["kernel"], rows)
    virtual_Q = params["virtual_pair"]["embedding"]
    B, N, _, Q = pair_BNNQ.shape
    column_BN1Q = jnp.broadcast_to(virtual_Q, (B, N, 1, Q))
    row_B1TQ = jnp.broadcast_to(virtual_Q, (B, 1, N + 1, Q))
    pair_BNTQ = jnp.concatenate([column_BN1Q, pair_BNNQ], axis=2)
    return jnp.concatenate([row_B1TQ, pair_BNTQ], axis=1)


def distances(positions_BN3: Array) -> Array:
    """Distances of all pairs, (B, N, N); the gradient of a distance of 0 is 0."""
    return safe_norm(positions_BN3[:, None, :, :] - positions_BN3[:, :, None, :])


def kernel_centres(options: Unimol2Options) -> tuple[np.ndarray, np.ndarray]:
    """Centres and deviation of the Gaussians, rounded as the published code has them.

    torch counts from both ends to the middle, in float32 with one rounding.
    """
    from_start = np.arange(64, dtype=np.float64)
    start, stop = np.float32(options.kernel_start), np.float32(options.kernel_stop)
    step = np.float64((stop - start) / np.float32(127))
    lower = np.float64(start) + step * from_start
    upper = np.float64(stop) - step * from_start[::-1]
    centres = np.concatenate([lower, upper]).astype(np.float32)
    return centres, np.float32(options.kernel_width) * (centres[1] - centres[0])


# Always in the type of the parameters: Gaussians are narrow, and this is done once.
def _kernel(options: Unimol2Options, params: Params, rows: MoleculeRows) -> Array:
    """The part of the distances in the pairs, psi, (B, N, N, Q)."""
    d_BNN = jax.lax.stop_gradient(distances(rows.positions_BN3))
    if options.pair_type == "element":
        kind_BN, (first, second) = rows.species_BN, _ELEMENT_OFFSETS
    else:
        kind_BN, (first, second) = rows.atom_BN8[..., 0], _CHIRALITY_OFFSETS
    kind_BN = kind_BN.astype(jnp.int32)

    def of_pairs(table: Array) -> Array:
        one_BN, other_BN = table[kind_BN + first], table[kind_BN + second]
        return one_BN[:, :, None] + other_BN[:, None, :]

    scale_BNN = of_pairs(jnp.abs(params["scale"]["embedding"]))
    d_BNN = scale_BNN * d_BNN + of_pairs(params["shift"]["embedding"])
    centre_K, deviation = kernel_centres(options)

    def psi(params: Params, d_BNN: Array) -> Array:
        centre_111K = jnp.asarray(centre_K, d_BNN.dtype)[None, None, None]
        width = jnp.asarray(deviation, d_BNN.dtype)
        phi = jnp.exp(-0.5 * ((d_BNN[..., None] - centre_111K) / width) ** 2)
        phi = phi / ((2 * _PI) ** 0.5 * width)
        hidden = blocks.gelu(_exact_dense(params["expand"], phi))
        return _exact_dense(params["shrink"], hidden)

    layers = {name: params[name] for name in ("expand", "shrink")}
    # Kept for the backward pass are distances, not Gaussians.
    return jax.checkpoint(psi, prevent_cse=False)(layers, d_BNN)


def _exact_dense(params: Params, x: Array) -> Array:
    y = jnp.matmul(x, params["kernel"], precision=jax.lax.Precision.HIGHEST)
    return y + jnp.broadcast_to(params["bias"], y.shape)


def _looked_up(params: Params, index: Array) -> Array:
    table = params["embedding"]
    return table.at[index.astype(jnp.int32)].get(mode="promise_in_bounds")


def _rematerialised(options: Unimol2Options, turn: Callable[..., Any]) -> Any:
    if options.remat == "none":
        return turn
    policies = jax.checkpoint_policies
    policy = {
        "full": policies.nothing_saveable,
        "dots": policies.save_only_these_names(blocks.KEPT),
    }[options.remat]
    # Within a scan nothing can be merged across the barrier.
    return jax.checkpoint(turn, policy=policy, prevent_cse=False)
