"""What can be read from Uni-Mol2 after every layer, in one pass."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from chemscale_jax.core.batches import MoleculeRows
from chemscale_jax.core.types import Params
from chemscale_jax.models import unimol2, unimol2_blocks
from chemscale_jax.models.unimol2_blocks import Encoded
from chemscale_jax.models.unimol2_options import Unimol2Options


def read_layers(
    options: Unimol2Options,
    params: Params,
    rows: MoleculeRows,
    read: Callable[[Encoded], Any],
) -> Any:
    """What ``read`` makes of the tracks that `unimol2.encode` gives for each layer.

    Only this is kept, so that all layers take little more memory than one.

    Args:
        options: of the network.
        params: of the network.
        rows: molecules.
        read: makes arrays, or a tree of them, of the tracks.

    Returns:
        The same tree with a new first axis of depth + 1: the normed embeddings, and
        what is there after each layer.
    """
    places = unimol2.make_places(options, rows)
    norm = unimol2_blocks.layer_norm
    start = Encoded(
        norm(params["norm"], unimol2.embed_atoms(params, rows)),
        norm(params["pair_norm"], unimol2.embed_pairs(options, params, rows)),
    )

    def turn(tracks: Encoded, layer: Params) -> tuple[Encoded, Any]:
        tracks = unimol2_blocks.layer(options, layer, tracks, places, None)
        return tracks, read(tracks)

    _, later = jax.lax.scan(turn, start, params["layers"], unroll=options.unroll)

    def joined(first: Any, rest: Any) -> Any:
        return jnp.concatenate([first[None], rest])

    return jax.tree.map(joined, read(start), later)
