"""Uni-Mol2 of its authors: both tracks, their parts, heads and losses."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chemscale_jax.core.batches import MoleculeRows
from chemscale_jax.core.errors import UserError
from chemscale_jax.interop import unimol2 as interop
from chemscale_jax.models import unimol2, unimol2_blocks
from tests.parity_cases.fixture import Fixture, Outputs, take_inputs

_INPUTS = (
    *("src_token", "atom_feat", "edge_feat", "shortest_path", "degree", "src_pos"),
    *("target_token", "target_pos", "atom_mask", "pair_type", "attn_bias"),
    "src_mask_cord",
)
# What must hold for our options to say the same.
_EXPECTED = {
    "activation_fn": "gelu",
    "pooler_activation_fn": "tanh",
    "droppath_prob": 0.0,
}


def unimol2_outputs(fixture: Fixture, dtype: str) -> Outputs:
    """Every output but Gaussians, at real atoms and pairs of real atoms."""
    for field, value in _EXPECTED.items():
        if fixture.config.get(field, value) != value:
            raise UserError(f"config has {field} {fixture.config[field]!r}")
    kernel_width = fixture.config.get("gaussian_std_width", 1.0)
    options = interop.options_of(
        fixture.params, length="batch", kernel_width=kernel_width
    )
    weights = interop.import_weights(options, fixture.params)["params"]
    params = jax.tree.map(lambda x: jnp.asarray(x, dtype), weights)
    heads = jax.tree.map(
        lambda x: jnp.asarray(x, dtype), interop.import_heads(fixture.params)
    )
    tokens, atoms, edges, paths, degrees, positions, *rest = take_inputs(
        fixture, _INPUTS
    )
    target_BN, target_BN3, atom_mask, *_ = rest
    ids = (jnp.asarray(x, jnp.int32) for x in (tokens, atoms, edges, paths, degrees))
    rows = MoleculeRows(*ids, positions_BN3=jnp.asarray(positions, dtype))
    if not np.array_equal(tokens > 0, atom_mask > 0):
        raise UserError("input atom_mask is not where src_token is an element")
    alone = jax.tree.map(lambda x: x[:1], rows)

    @jax.jit
    def run(params: Any, heads: Any) -> dict[str, Any]:
        found = _tracks(options, params, rows)
        encoded = unimol2.encode(options, params, rows)
        moved = unimol2.move(options, params, encoded, rows)
        solo = dataclasses.replace(options, length="own")
        found |= {
            "atom_repr": encoded.x_BTD,
            "pair_repr": encoded.pair_BTTQ,
            "atom_repr_mol0_alone": unimol2.encode(solo, params, alone).x_BTD,
            "token_logits": unimol2.token_logits(options, params, encoded.x_BTD[:, 1:]),
            "coord_pred": moved,
            "dist_pred": unimol2.distances(moved),
            "mid/movement": moved - rows.positions_BN3,
        }
        for name, head in heads.items():
            found[f"{name}_head"] = unimol2.pooled(head, encoded.x_BTD)
        return found

    found = {name: np.asarray(x) for name, x in run(params, heads).items()}
    found["masked_token_logits"] = found["token_logits"][target_BN > 0]
    found |= _losses(found, target_BN, target_BN3, atom_mask)
    found["mid/se3_bias"] = found["mid/se3_bias"][:, 1:, 1:]
    real_BN = atom_mask > 0
    real_BT = np.pad(real_BN, ((0, 0), (1, 0)), constant_values=True)
    length = fixture.outputs["atom_repr_mol0_alone"].shape[1]
    found["atom_repr_mol0_alone"] = found["atom_repr_mol0_alone"][:, :length]
    for name, array in found.items():
        if name not in fixture.outputs:
            continue
        mask = {tokens.shape[1]: real_BN, tokens.shape[1] + 1: real_BT}.get(
            array.shape[1] if array.ndim > 1 and len(array) == len(tokens) else -1
        )
        if name == "atom_repr_mol0_alone":
            mask = real_BT[:1, :length]
        if mask is not None:
            pairs = array.ndim == 4 or name == "dist_pred"
            mask = mask[:, :, None] & mask[:, None, :] if pairs else mask
            found[name] = _where(mask, array, fixture.outputs[name])
    return found


def _tracks(
    options: unimol2.Unimol2Options, params: Any, rows: MoleculeRows
) -> dict[str, Any]:
    """What each part of each layer adds, and the tracks between them."""
    places = unimol2.make_places(options, rows)
    bare = {**params, "kernel": jax.tree.map(jnp.zeros_like, params["kernel"])}
    pair_BTTQ = unimol2.embed_pairs(options, params, rows)
    x_BTD = unimol2.embed_atoms(params, rows)
    edges_BTTQ = unimol2.embed_pairs(options, bare, rows)
    found = {
        "mid/x_embed": x_BTD,
        "mid/edge_feature": edges_BTTQ,
        "mid/se3_bias": pair_BTTQ - edges_BTTQ,
    }
    x_BTD = unimol2_blocks.layer_norm(params["norm"], x_BTD)
    pair_BTTQ = unimol2_blocks.layer_norm(params["pair_norm"], pair_BTTQ)
    for layer in range(options.depth):
        block = jax.tree.map(lambda x, layer=layer: x[layer], params["layers"])
        change = unimol2_blocks.attention(
            options, block["attention"], x_BTD, pair_BTTQ, places.real_BT
        )
        found[f"mid/attn{layer}"] = change
        x_BTD += change
        change = unimol2_blocks.feed_forward(options, block["feed_forward"], x_BTD)
        found[f"mid/ffn{layer}"] = change
        x_BTD += change
        found[f"mid/layer{layer}_x"] = x_BTD
        change = unimol2_blocks.outer_product(options, block["outer"], x_BTD, places)
        found[f"mid/opm{layer}"] = change
        pair_BTTQ += change
        change = unimol2_blocks.triangle(options, block["triangle"], pair_BTTQ, places)
        found[f"mid/trimul{layer}"] = change
        pair_BTTQ += change
        change = unimol2_blocks.feed_forward(
            options, block["pair_feed_forward"], pair_BTTQ
        )
        found[f"mid/pairffn{layer}"] = change
        pair_BTTQ += change
        found[f"mid/layer{layer}_pair"] = pair_BTTQ
    return found


def _losses(
    found: dict[str, np.ndarray],
    target_BN: np.ndarray,
    target_BN3: np.ndarray,
    atom_mask: np.ndarray,
) -> dict[str, np.ndarray]:
    """The three terms of pretraining, of equal weight, and their sum."""
    logits = found["masked_token_logits"].astype(np.float64)
    logits = logits - np.max(logits, axis=1, keepdims=True)
    log_prob = logits - np.log(np.sum(np.exp(logits), axis=1, keepdims=True))
    token = -np.mean(log_prob[np.arange(len(logits)), target_BN[target_BN > 0]])
    real_BN = atom_mask > 0
    count_B = real_BN.sum(axis=1)
    apart = np.abs(found["coord_pred"] - target_BN3).sum(axis=2)
    coordinate = np.mean(np.sum(np.where(real_BN, apart, 0), axis=1) / count_B)
    disp = target_BN3[:, :, None] - target_BN3[:, None]
    apart = np.abs(found["dist_pred"] - np.linalg.norm(disp, axis=-1))
    pair_BNN = real_BN[:, :, None] & real_BN[:, None]
    distance = np.sum(np.where(pair_BNN, apart, 0), axis=(1, 2)) / count_B**2
    terms = {
        "loss_token": token,
        "loss_coord": coordinate,
        "loss_dist": np.mean(distance),
    }
    terms["loss"] = sum(terms.values())
    return {name: np.asarray(value) for name, value in terms.items()}


def _where(mask: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Ours at real places; padding is theirs, that is, not compared."""
    mask = mask.reshape(mask.shape + (1,) * (ours.ndim - mask.ndim))
    return np.where(mask, ours, theirs)
