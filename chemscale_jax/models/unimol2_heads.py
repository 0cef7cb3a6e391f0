"""What is read from the tracks of Uni-Mol2: tokens, moved atoms, properties."""

import jax
import jax.numpy as jnp

from chemscale_jax.core.batches import MoleculeRows
from chemscale_jax.core.types import Array, Key, Params
from chemscale_jax.models import unimol2_blocks as blocks
from chemscale_jax.models import unimol2_init
from chemscale_jax.models.unimol2_options import Unimol2Options


def token_logits(options: Unimol2Options, params: Params, x_BND: Array) -> Array:
    """Scores of the 128 tokens for each atom, in float32 or wider.

    Args:
        options: of the network.
        params: of the network.
        x_BND: the atoms, ``x_BTD[:, 1:]``, or some of them.
    """
    head = params["token_head"]
    dtype = blocks.compute_type(options, x_BND)
    y_BND = blocks.layer_norm(head["norm"], x_BND)
    y_BND = blocks.gelu(blocks.dense(head["dense"], y_BND, dtype))
    return blocks.dense(head["out"], y_BND, dtype).astype(x_BND.dtype)


def move(
    options: Unimol2Options,
    params: Params,
    encoded: blocks.Encoded,
    rows: MoleculeRows,
    key: Key | None = None,
) -> Array:
    """Positions that the network proposes in place of those given, (B, N, 3).

    With the attention A of the head, its values v, and one vector w for all axes::

        r_i + sum_j (sum_h A_hij v_hj w_h) (r_j - r_i)

    So they turn, mirror and shift with those given. Padding stays where it is.
    Directions take no gradient, as in the published code.

    Args:
        options: of the network.
        params: of the network.
        encoded: the last state of the tracks.
        rows: what was encoded; positions in angstrom.
        key: of dropout; None: there is none.
    """
    head = params["move_head"]
    x_BND, pair_BNNQ = encoded.x_BTD[:, 1:], encoded.pair_BTTQ[:, 1:, 1:]
    B, N, D = x_BND.shape
    H = options.heads
    dtype = blocks.compute_type(options, x_BND)
    y_BND = blocks.layer_norm(head["norm"], x_BND).astype(dtype)
    kernel_D3D = head["qkv"]["kernel"]
    # Values are only ever multiplied by w: one number per head is left of them.
    force_HK = head["force"]["kernel"].reshape(H, D // H)
    kernel_DHK = kernel_D3D[:, 2].reshape(D, H, D // H)
    kernel_DH = jnp.einsum(
        "dhk,hk->dh", kernel_DHK, force_HK, precision=jax.lax.Precision.HIGHEST
    )
    value_BNH = (y_BND @ kernel_DH.astype(dtype)).astype(x_BND.dtype)
    qk_2BND = jnp.einsum("bnd,dtc->tbnc", y_BND, kernel_D3D[:, :2].astype(dtype))
    q, k = qk_2BND.reshape(2, B, N, H, D // H)
    z_BNNQ = blocks.layer_norm(head["pair_norm"], pair_BNNQ)
    bias_BHNN = blocks.pair_bias(options, head["bias"], z_BNNQ)
    real_BN = rows.species_BN != 0
    weight_BHNN = blocks.attention_weights(q, k, bias_BHNN, real_BN)
    weight_BHNN = blocks.dropout(weight_BHNN, options.attention_dropout, key)
    pull_BNN = jnp.sum(weight_BHNN * value_BNH.swapaxes(1, 2)[:, :, None], axis=1)
    positions_BN3 = rows.positions_BN3
    to_BNN3 = positions_BN3[:, None, :, :] - positions_BN3[:, :, None, :]
    to_BNN3 = jax.lax.stop_gradient(to_BNN3)
    # A sum, not a product: accelerators narrow the factors of products.
    step_BN3 = jnp.sum(pull_BNN[..., None] * to_BNN3, axis=2)
    return positions_BN3 + jnp.where(real_BN[..., None], step_BN3, 0)


def init_head(
    options: Unimol2Options, key: Key, outputs: int, form: str = "tanh"
) -> dict[str, Params]:
    """Parameters of a head for properties of molecules.

    Args:
        options: of the network that it is put on.
        key: of what it starts with, uniform as in the published code.
        outputs: how many numbers it gives.
        form: "tanh", as in the published code, or "linear", as in its tools.
    """
    D = options.width
    keys = iter(jax.random.split(key, 4))

    def linear(width: int) -> dict[str, Array]:
        return {
            "kernel": unimol2_init.uniform(next(keys), D, (D, width)),
            "bias": unimol2_init.uniform(next(keys), D, (width,)),
        }

    head: dict[str, Params] = {"out": linear(outputs)}
    return {**head, "dense": linear(D)} if form == "tanh" else head


def head_axes(
    form: str = "tanh", prefix: str = "params/head"
) -> unimol2_init.AxisRules:
    """The logical axes of the parameters of a head, at ``prefix`` in the tree."""
    out = (
        (f"{prefix}/out/kernel", ("embed", None)),
        (f"{prefix}/out/bias", (None,)),
    )
    dense = (
        (f"{prefix}/dense/kernel", ("embed", "hidden")),
        (f"{prefix}/dense/bias", ("hidden",)),
    )
    return out + dense if form == "tanh" else out


def pooled(
    head: Params, x_BTD: Array, rate: float = 0.0, key: Key | None = None
) -> Array:
    """What a head makes of the virtual atom, (B, outputs) in the type of ``x_BTD``.

    ``linear(drop(tanh(linear(drop(x)))))``, or ``linear(drop(x))`` where the head has
    no "dense".

    Args:
        head: parameters, of `init_head` or imported.
        x_BTD: the atoms after the last layer, the virtual one first.
        rate: of dropout.
        key: of dropout; None: there is none.
    """
    keys = (None, None) if key is None else jax.random.split(key)
    x_BD = blocks.dropout(x_BTD[:, 0], rate, keys[0])
    if "dense" in head:
        y_BD = jnp.tanh(blocks.dense(head["dense"], x_BD, x_BD.dtype))
        x_BD = blocks.dropout(y_BD, rate, keys[1])
    return blocks.dense(head["out"], x_BD, x_BD.dtype)
