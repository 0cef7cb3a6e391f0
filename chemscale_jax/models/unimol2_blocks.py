"""The parts of a layer of Uni-Mol2: two tracks, atoms x (T, D) and pairs p (T, T, Q).

Ji et al. 2024, as their code computes it (their Eq. 4 lacks a residual, and their
Eq. 5 has p where x stands)::

    x += merge(softmax(q k^T / sqrt(K) + linear(p)) v),  q, k, v = LN(x) W
    x += feed_forward(LN(x))
    p += outer(LN(x))
    p += triangle(LN(p))
    p += feed_forward(LN(p))

Place 0 is the virtual atom. Each function below returns what is added. Padded places
hold finite numbers that no real place reads: attention masks keys, triangles mask the
place they sum over, and all else acts on one place or one pair.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from chemscale_jax.core.errors import UserError
from chemscale_jax.core.types import Array, Key, Params
from chemscale_jax.models.unimol2_options import Unimol2Options

LAYER_NORM_EPS = 1e-5
# Added to the share of a pair in the mean over places, as in the published code.
OUTER_EPS = 1e-3
# Of scores that are masked. Finite: a query that sees nothing gets no NaN.
MASKED = -1e30
# From this length on, cuDNN's attention gains over XLA's.
LEAST_CUDNN_LENGTH = 64
# What "dots" keeps for the backward pass: products that are dear to compute again,
# and masks of dropout, whose random numbers are dear too.
KEPT = "kept for the backward pass"


class Places(NamedTuple):
    """What the parts know about the places of each molecule."""

    real_BT: Array  # bool, False for padding
    length_B: Array  # T by which a molecule's sums are scaled


class Encoded(NamedTuple):
    """The state of both tracks; place 0 is the virtual atom."""

    x_BTD: Array
    pair_BTTQ: Array


def layer(
    options: Unimol2Options,
    params: Params,
    tracks: Encoded,
    places: Places,
    key: Key | None,
) -> Encoded:
    """One layer; dropout only with a key."""
    x_BTD, pair_BTTQ = tracks
    keys = [None] * 6 if key is None else list(jax.random.split(key, 6))
    rate = options.dropout

    change = attention(
        options, params["attention"], x_BTD, pair_BTTQ, places.real_BT, keys[0]
    )
    x_BTD = _add(x_BTD, dropout(change, rate, keys[1]))
    change = feed_forward(options, params["feed_forward"], x_BTD)
    x_BTD = _add(x_BTD, dropout(change, rate, keys[2]))
    change = outer_product(options, params["outer"], x_BTD, places)
    pair_BTTQ = _add(pair_BTTQ, dropout(change, rate, keys[3]))
    change = triangle(options, params["triangle"], pair_BTTQ, places)
    change = dropout(change, options.pair_dropout, keys[4], shared_axis=1)
    pair_BTTQ = _add(pair_BTTQ, change)
    change = feed_forward(options, params["pair_feed_forward"], pair_BTTQ)
    pair_BTTQ = _add(pair_BTTQ, dropout(change, rate, keys[5]))
    return Encoded(x_BTD, pair_BTTQ)


def attention(
    options: Unimol2Options,
    params: Params,
    x_BTD: Array,
    pair_BTTQ: Array,
    real_BT: Array,
    key: Key | None = None,
) -> Array:
    """Attention between places, biased by the pairs as they are, without their norm."""
    B, T, D = x_BTD.shape
    H = options.heads
    dtype = compute_type(options, x_BTD)
    y_BTD = layer_norm(params["norm"], x_BTD).astype(dtype)
    kernel_DNC = params["qkv"]["kernel"].astype(dtype)
    qkv_NBTC = checkpoint_name(jnp.einsum("btd,dnc->nbtc", y_BTD, kernel_DNC), KEPT)
    q, k, v = qkv_NBTC.reshape(3, B, T, H, D // H)
    bias_BHTT = pair_bias(options, params["bias"], pair_BTTQ)
    dropped = key is not None and options.attention_dropout > 0
    if choose_attention(options, T, dropped) == "cudnn":
        out_BTHK = jax.nn.dot_product_attention(
            q,
            k,
            v,
            bias=bias_BHTT.astype(dtype),
            mask=jnp.broadcast_to(real_BT[:, None, None, :], (B, 1, T, T)),
            scale=(D // H) ** -0.5,
            implementation="cudnn",
        )
    else:
        weight_BHTT = attention_weights(q, k, bias_BHTT, real_BT)
        weight_BHTT = dropout(weight_BHTT, options.attention_dropout, key)
        out_BTHK = jnp.einsum("bhts,bshk->bthk", weight_BHTT.astype(dtype), v)
    return dense(params["merge"], out_BTHK.reshape(B, T, D), dtype)


def attention_weights(
    q_BTHK: Array, k_BTHK: Array, bias_BHTT: Array, seen_BT: Array
) -> Array:
    """``softmax(q k^T / sqrt(K) + bias)`` over the keys that are seen, (B, H, T, T)."""
    wide = jnp.result_type(q_BTHK.dtype, jnp.float32)
    scores = jnp.einsum("bthk,bshk->bhts", q_BTHK, k_BTHK, preferred_element_type=wide)
    scores = scores * q_BTHK.shape[-1] ** -0.5 + bias_BHTT
    return jax.nn.softmax(jnp.where(seen_BT[:, None, None, :], scores, MASKED), axis=-1)


def pair_bias(options: Unimol2Options, params: Params, pair_BTTQ: Array) -> Array:
    """The bias of each head's scores, (B, H, T, T) in float32 or wider."""
    dtype = compute_type(options, pair_BTTQ)
    wide = jnp.result_type(dtype, jnp.float32)
    # Written with heads first, the CPU's product in bfloat16 fails.
    bias_BTTH = jnp.einsum(
        "btsq,qh->btsh",
        pair_BTTQ.astype(dtype),
        params["kernel"].astype(dtype),
        preferred_element_type=wide,
    )
    return bias_BTTH.transpose(0, 3, 1, 2) + params["bias"][None, :, None, None]


def choose_attention(options: Unimol2Options, length: int, dropped: bool) -> str:
    """The implementation, xla or cudnn, of ``options.attention``.

    cuDNN takes bfloat16, heads whose width is a multiple of 8, an even number of
    places where gradients of the bias are wanted, and no dropout of weights.

    Raises:
        UserError: cuDNN is asked for and cannot be used.
    """
    if options.attention == "xla":
        return "xla"
    head_width = options.width // options.heads
    problem = None
    if (backend := jax.default_backend()) != "gpu":
        problem = f"a GPU, found {backend}"
    elif options.dtype != "bfloat16":
        problem = f"config.model.dtype bfloat16, found {options.dtype}"
    elif head_width % 8 or head_width > 128:
        problem = f"width / heads a multiple of 8 up to 128, found {head_width}"
    elif length % 2:
        problem = f"an even number of places, atoms and the virtual one, found {length}"
    elif dropped:
        problem = "config.model.attention_dropout 0 while training"
    if options.attention == "auto":
        return "xla" if problem or length < LEAST_CUDNN_LENGTH else "cudnn"
    if problem:
        raise UserError(
            f"config.model.attention is 'cudnn', which needs {problem}; use 'auto'"
        )
    return "cudnn"


def feed_forward(options: Unimol2Options, params: Params, x: Array) -> Array:
    """``shrink(gelu(expand(LN(x))))`` of atoms or pairs, with the exact gelu."""
    dtype = compute_type(options, x)
    y = dense(params["expand"], layer_norm(params["norm"], x), dtype)
    return dense(params["shrink"], gelu(checkpoint_name(y, KEPT)), dtype)


def outer_product(
    options: Unimol2Options, params: Params, x_BTD: Array, places: Places
) -> Array:
    """Products of all channels of two atoms, mapped to the channels of their pair.

    With one T for each molecule::

        [a, b] = linear(LN(x)) / sqrt(T)
        (sum_cd a_ic b_jd W_cdq + bias_q) / (1/1000 + 1/T)

    The published code forms all C^2 products of each pair. Here W takes in ``a``
    first: the same sum with a twentieth of the operations at T = 28, C = 64.
    """
    dtype = compute_type(options, x_BTD)
    C = options.pair_hidden
    ab_BTC = dense(params["expand"], layer_norm(params["norm"], x_BTD), dtype)
    share_B = 1.0 / places.length_B.astype(x_BTD.dtype)
    scale_B = 1.0 / (OUTER_EPS + share_B)
    a_BTC = (ab_BTC[..., :C] * (share_B * scale_B)[:, None, None]).astype(dtype)
    kernel_CCQ = params["shrink"]["kernel"].astype(dtype)
    out_BTTQ = _products(a_BTC, ab_BTC[..., C:], kernel_CCQ)
    bias_BQ = scale_B[:, None] * params["shrink"]["bias"][None]
    return out_BTTQ + bias_BQ[:, None, None].astype(dtype)


# Computed again by the backward pass: its first product has T C Q numbers per
# molecule, more than a pair track, and costs a twentieth of a layer.
@functools.partial(jax.checkpoint, prevent_cse=False)
def _products(a_BTC: Array, b_BTC: Array, kernel_CCQ: Array) -> Array:
    half_BTCQ = jnp.einsum("bic,cdq->bidq", a_BTC, kernel_CCQ)
    return jnp.einsum("bidq,bjd->bijq", half_BTCQ, b_BTC)


def triangle(
    options: Unimol2Options, params: Params, pair_BTTQ: Array, places: Places
) -> Array:
    """Pairs as sums over a third place k, of edges from it and of edges to it.

    Gates are sigmoids, but for that of the outcome, as in the published code::

        [a, b] = linear(z) sigmoid(linear(z)) / sqrt(T),  z = LN(p)
        t_ij = sum_k a_ik b_jk + a_ki b_kj
        linear(z) * linear(LN(t))
    """
    dtype = compute_type(options, pair_BTTQ)
    C = options.pair_hidden
    z_BTTQ = layer_norm(params["norm"], pair_BTTQ)
    y_BTTF = checkpoint_name(dense(params["expand"], z_BTTQ, dtype), KEPT)
    mask_BTT = places.real_BT[:, :, None] & places.real_BT[:, None, :]
    middle_BTTC = _third_places(
        y_BTTF[..., : 4 * C], mask_BTT, places.length_B.astype(pair_BTTQ.dtype)
    )
    y_BTTC = layer_norm(params["middle_norm"], middle_BTTC)
    return y_BTTF[..., 4 * C :] * dense(params["shrink"], y_BTTC, dtype)


# Computed again by the backward pass: elementwise, and products of no cost.
@functools.partial(jax.checkpoint, prevent_cse=False)
def _third_places(y_BTTF: Array, mask_BTT: Array, length_B: Array) -> Array:
    """The sums over third places, (B, T, T, C) in float32 or wider."""
    C = y_BTTF.shape[-1] // 4
    gated = y_BTTF[..., : 2 * C] * jax.nn.sigmoid(y_BTTF[..., 2 * C :])
    gated = jnp.where(mask_BTT[..., None], gated, 0)
    a, b = jnp.split(gated.transpose(3, 0, 1, 2), 2)
    wide = jnp.result_type(y_BTTF.dtype, length_B.dtype)
    out_CBTT = jnp.einsum("cbik,cbjk->cbij", a, b, preferred_element_type=wide)
    out_CBTT += jnp.einsum("cbki,cbkj->cbij", a, b, preferred_element_type=wide)
    return out_CBTT.transpose(1, 2, 3, 0) / length_B[:, None, None, None]


def dense(params: Params, x: Array, dtype: Any) -> Array:
    """``x @ kernel + bias`` over the last axis, in ``dtype``."""
    y = x.astype(dtype) @ params["kernel"].astype(dtype)
    return y + jnp.broadcast_to(params["bias"].astype(dtype), y.shape)


@functools.partial(jax.checkpoint, prevent_cse=False)
def layer_norm(params: Params, x: Array) -> Array:
    """LayerNorm over the last axis; its statistics are as wide as ``x``."""
    mean = jnp.mean(x, axis=-1, keepdims=True)
    centred = x - mean
    variance = jnp.mean(centred * centred, axis=-1, keepdims=True)
    scaled = centred * jax.lax.rsqrt(variance + LAYER_NORM_EPS)
    scale, bias = (jnp.broadcast_to(params[n], x.shape) for n in ("scale", "bias"))
    return scaled * scale + bias


@functools.partial(jax.checkpoint, prevent_cse=False)
def gelu(x: Array) -> Array:
    """``x (1 + erf(x / sqrt(2))) / 2``."""
    return jax.nn.gelu(x, approximate=False)


def dropout(
    x: Array, rate: float, key: Key | None, shared_axis: int | None = None
) -> Array:
    """Puts 0 at a share of places and scales the others up; nothing without a key.

    Args:
        x: any array.
        rate: the share, rounded to 1 / 65536: half the random bits are enough.
        key: of the mask.
        shared_axis: along which the mask is the same.
    """
    threshold = round(rate * 65536)
    if key is None or threshold == 0:
        return x
    shape = [1 if n == shared_axis else size for n, size in enumerate(x.shape)]
    bits = jax.random.bits(key, tuple(shape), jnp.uint16)
    kept = checkpoint_name(bits >= threshold, KEPT)
    return jnp.where(kept, x / (1 - threshold / 65536), 0).astype(x.dtype)


def compute_type(options: Unimol2Options, x: Array) -> Any:
    """The type of products with ``x``: bfloat16, or that of ``x`` itself."""
    return x.dtype if options.dtype == "float32" else jnp.dtype(options.dtype)


def _add(track: Array, change: Array) -> Array:
    return track + change.astype(track.dtype)
