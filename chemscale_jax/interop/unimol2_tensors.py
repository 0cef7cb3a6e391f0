"""The tensors of Uni-Mol2 under the names of its authors, and in our tree.

Theirs are one set per layer, with kernels as (out, in); ours are stacked over layers,
with kernels as (in, out) and with those side by side that act on the same input.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from chemscale_jax.core.errors import UserError

State = Mapping[str, np.ndarray]

# A buffer of theirs that follows from the options.
CENTRES = "se3_invariant_kernel.gaussian.mean"
# Where heads of properties are, each under a name of its own.
HEADS = "classification_heads."

# Ours: theirs. Kernels are (in, out) here and (out, in) there.
_DENSE = {
    "kernel/expand": "se3_invariant_kernel.out_proj.layer1",
    "kernel/shrink": "se3_invariant_kernel.out_proj.layer2",
    "token_head/dense": "lm_head.dense",
    "move_head/bias": "movement_pred_head.linear_bias",
}
_NORMS = {
    "norm": "encoder.layer_norm",
    "pair_norm": "encoder.pair_layer_norm",
    "token_head/norm": "lm_head.layer_norm",
    "move_head/norm": "movement_pred_head.layer_norm",
    "move_head/pair_norm": "movement_pred_head.pair_layer_norm",
}
_TABLES = {
    "tokens": "embed_tokens",
    "atoms": "atom_feature.atom_encoder",
    "degrees": "atom_feature.degree_encoder",
    "bonds": "edge_feature.edge_encoder",
    "paths": "edge_feature.shorest_path_encoder",
}
# Tables of one row, and of one column.
_ROWS = {
    "virtual_atom": "atom_feature.vnode_encoder",
    "virtual_pair": "edge_feature.vnode_virtual_distance",
}
_COLUMNS = {
    "kernel/scale": "se3_invariant_kernel.gaussian.mul",
    "kernel/shift": "se3_invariant_kernel.gaussian.bias",
}
_LAYER_DENSE = {
    "attention/bias": "self_attn.linear_bias",
    "attention/merge": "self_attn.linear_o",
    "feed_forward/expand": "ffn.linear_1",
    "feed_forward/shrink": "ffn.linear_2",
    "outer/expand": "opm.linear_in",
    "triangle/shrink": "pair_tri_mul.linear_z",
    "pair_feed_forward/expand": "pair_ffn.linear_1",
    "pair_feed_forward/shrink": "pair_ffn.linear_2",
}
_LAYER_NORMS = {
    "attention/norm": "self_attn_layer_norm",
    "feed_forward/norm": "final_layer_norm",
    "outer/norm": "x_layer_norm_opm",
    "triangle/norm": "pair_layer_norm_trimul",
    "triangle/middle_norm": "pair_tri_mul.layer_norm_out",
    "pair_feed_forward/norm": "pair_layer_norm_ffn",
}
_TRIANGLE_PARTS = ("linear_ab_p", "linear_ab_g", "linear_g")


def to_theirs(params: Any, depth: int) -> dict[str, Any]:
    """Their tensors, but `CENTRES`, of our parameters or of gradients by them."""
    state: dict[str, Any] = {}
    for path, name in _TABLES.items():
        state[f"{name}.weight"] = _at(params, path)["embedding"]
    for path, name in _ROWS.items():
        state[f"{name}.weight"] = _at(params, path)["embedding"][None]
    for path, name in _COLUMNS.items():
        state[f"{name}.weight"] = _at(params, path)["embedding"][:, None]
    _export_dense(state, params, _DENSE, "")
    _export_norms(state, params, _NORMS, "")
    state["lm_head.weight"] = _at(params, "token_head/out")["kernel"].T
    state["lm_head.bias"] = _at(params, "token_head/out")["bias"]
    move = params["move_head"]
    for column, name in enumerate("qkv"):
        kernel = move["qkv"]["kernel"][:, column]
        state[f"movement_pred_head.{name}_proj.weight"] = kernel.T
    state["movement_pred_head.force_proj1.weight"] = move["force"]["kernel"][None]
    for number in range(depth):
        block = jax.tree.map(lambda x, number=number: x[number], params["layers"])
        prefix = f"encoder.layers.{number}."
        _export_dense(state, block, _LAYER_DENSE, prefix)
        _export_norms(state, block, _LAYER_NORMS, prefix)
        state |= {prefix + name: array for name, array in _export_fused(block)}
    return state


def _export_fused(block: Any) -> Iterator[tuple[str, Any]]:
    """What has another form here: kernels side by side, and products of channels."""
    for column, name in enumerate("qkv"):
        kernel = block["attention"]["qkv"]["kernel"][:, column]
        yield f"self_attn.linear_{name}.weight", kernel.T
    kernel = block["outer"]["shrink"]["kernel"]
    yield "opm.linear_out.weight", kernel.reshape(-1, kernel.shape[-1]).T
    yield "opm.linear_out.bias", block["outer"]["shrink"]["bias"]
    expand = block["triangle"]["expand"]
    C = kernel.shape[0]
    for name, part in zip(_TRIANGLE_PARTS, _triangle_slices(C), strict=True):
        yield f"pair_tri_mul.{name}.weight", expand["kernel"][:, part].T
        yield f"pair_tri_mul.{name}.bias", expand["bias"][part]


def _triangle_slices(hidden: int) -> tuple[slice, slice, slice]:
    both = 2 * hidden
    return slice(0, both), slice(both, 2 * both), slice(2 * both, None)


def to_ours(state: State, depth: int, hidden: int) -> dict[str, Any]:
    """Our parameters, float32 or wider, of their tensors.

    Args:
        state: what `to_theirs` gives, every tensor of its shape.
        depth: layers.
        hidden: C, channels of outer products and triangles.
    """
    given = {name: _wide(array) for name, array in state.items()}
    params: dict[str, Any] = {}
    for path, name in _TABLES.items():
        _put(params, path, {"embedding": given[f"{name}.weight"]})
    for path, name in _ROWS.items():
        _put(params, path, {"embedding": given[f"{name}.weight"][0]})
    for path, name in _COLUMNS.items():
        _put(params, path, {"embedding": given[f"{name}.weight"][:, 0]})
    _import_dense(params, given, _DENSE, "")
    _import_norms(params, given, _NORMS, "")
    head = {"kernel": given["lm_head.weight"].T, "bias": given["lm_head.bias"]}
    _put(params, "token_head/out", head)
    qkv = [given[f"movement_pred_head.{name}_proj.weight"].T for name in "qkv"]
    _put(params, "move_head/qkv", {"kernel": np.stack(qkv, axis=1)})
    force = given["movement_pred_head.force_proj1.weight"][0]
    _put(params, "move_head/force", {"kernel": force})
    blocks = [
        _import_block(given, f"encoder.layers.{number}.", hidden)
        for number in range(depth)
    ]
    params["layers"] = jax.tree.map(lambda *x: np.stack(x), *blocks)
    return params


def _import_block(given: State, prefix: str, hidden: int) -> dict[str, Any]:
    block: dict[str, Any] = {}
    _import_dense(block, given, _LAYER_DENSE, prefix)
    _import_norms(block, given, _LAYER_NORMS, prefix)
    qkv = [given[f"{prefix}self_attn.linear_{name}.weight"].T for name in "qkv"]
    _put(block, "attention/qkv", {"kernel": np.stack(qkv, axis=1)})
    weight, bias = (given[f"{prefix}opm.linear_out.{n}"] for n in ("weight", "bias"))
    kernel = weight.T.reshape(hidden, hidden, -1)
    _put(block, "outer/shrink", {"kernel": kernel, "bias": bias})
    parts = [prefix + "pair_tri_mul." + name for name in _TRIANGLE_PARTS]
    kernel = np.concatenate([given[f"{name}.weight"] for name in parts]).T
    bias = np.concatenate([given[f"{name}.bias"] for name in parts])
    _put(block, "triangle/expand", {"kernel": kernel, "bias": bias})
    return block


def import_heads(state: State) -> dict[str, Any]:
    """Heads of properties by name, {} where there are none.

    Raises:
        UserError: a head lacks a tensor, or has one that it should not have.
    """
    found: dict[str, dict[str, np.ndarray]] = {}
    for full, array in state.items():
        if full.startswith(HEADS):
            name, _, tensor = full.removeprefix(HEADS).partition(".")
            found.setdefault(name, {})[tensor] = _wide(array)
    out, dense = ({f"{n}.weight", f"{n}.bias"} for n in ("out_proj", "dense"))
    heads: dict[str, Any] = {}
    for name, tensors in found.items():
        if set(tensors) not in (out, out | dense):
            raise UserError(
                f"weights have the head {HEADS}{name} of {sorted(tensors)}, expected "
                f"{sorted(out)}, or these and {sorted(dense)}"
            )
        heads[name] = {}
        _import_dense(heads[name], tensors, _head_parts(tensors), "")
    return heads


def export_head(name: str, head: Mapping[str, Any]) -> dict[str, Any]:
    """Their tensors of a head of properties."""
    state: dict[str, Any] = {}
    parts = _head_parts({"dense.weight": None} if "dense" in head else {})
    _export_dense(state, head, parts, f"{HEADS}{name}.")
    return state


def _head_parts(tensors: Mapping[str, Any]) -> dict[str, str]:
    parts = {"out": "out_proj"}
    return {**parts, "dense": "dense"} if "dense.weight" in tensors else parts


def _export_dense(
    state: dict[str, Any], tree: Any, names: Mapping[str, str], prefix: str
) -> None:
    for path, name in names.items():
        state[f"{prefix}{name}.weight"] = _at(tree, path)["kernel"].T
        state[f"{prefix}{name}.bias"] = _at(tree, path)["bias"]


def _export_norms(
    state: dict[str, Any], tree: Any, names: Mapping[str, str], prefix: str
) -> None:
    for path, name in names.items():
        state[f"{prefix}{name}.weight"] = _at(tree, path)["scale"]
        state[f"{prefix}{name}.bias"] = _at(tree, path)["bias"]


def _import_dense(
    tree: dict[str, Any], given: State, names: Mapping[str, str], prefix: str
) -> None:
    for path, name in names.items():
        weight, bias = (given[f"{prefix}{name}.{n}"] for n in ("weight", "bias"))
        _put(tree, path, {"kernel": weight.T, "bias": bias})


def _import_norms(
    tree: dict[str, Any], given: State, names: Mapping[str, str], prefix: str
) -> None:
    for path, name in names.items():
        scale, bias = (given[f"{prefix}{name}.{n}"] for n in ("weight", "bias"))
        _put(tree, path, {"scale": scale, "bias": bias})


def _at(tree: Any, path: str) -> Any:
    for key in path.split("/"):
        tree = tree[key]
    return tree


def _put(tree: dict[str, Any], path: str, value: dict[str, Any]) -> None:
    *folders, leaf = path.split("/")
    for key in folders:
        tree = tree.setdefault(key, {})
    tree[leaf] = value


def _wide(array: np.ndarray) -> np.ndarray:
    return array.astype(np.promote_types(array.dtype, np.float32), copy=False)
