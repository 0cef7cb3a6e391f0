"""Causal attention as GPT-Neo has it: scores not scaled, every other layer local.

Query i sees key j where 0 <= i - j < window (global layers: without the window) and
both lie in the same segment. Softmax is computed in float32 or wider.

How it is computed: with 16 heads at every width, K is 1 to 16 in the narrow models, and
time goes into passes over the (S, L) scores, not into products. So scores lie with the
keys S before the queries L, which makes every reduction one over a leading axis; narrow
ones are sums of K products that XLA computes anew wherever they are read; the sum of
the softmax is one more column of the values; and the backward pass computes the
exponentials again instead of storing them, so that a scan over layers keeps none.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from chemscale_jax.core.errors import UserError
from chemscale_jax.core.types import Array

# Of scores that are masked. Finite: a query that sees nothing gets no NaN.
MASKED = -1e30
# Widths per head whose scores are sums of products, not a matrix product.
_MOST_NARROW = 16

# q, k, v of shapes (B, H, K, L or S), whether the layer is local -> (B, H, K, L)
Attention = Callable[[Array, Array, Array, bool], Array]


def rows_attention(
    implementation: str, length: int, window: int, segment_BL: Array | None
) -> Attention:
    """Attention within rows.

    Args:
        implementation: xla or cudnn, see `choose`.
        length: of the rows.
        window: how many keys a local layer sees, the query's own included. In rows
            that are no longer, all layers are the same.
        segment_BL: the segment of each place; None: each row is one segment, of which
            padding is the end.
    """
    if implementation == "cudnn":
        same = None if segment_BL is None else _same(segment_BL)

        def with_cudnn(q: Array, k: Array, v: Array, local: bool) -> Array:
            heads_last = (x.transpose(0, 3, 1, 2) for x in (q, k, v))
            out_BLHK = jax.nn.dot_product_attention(
                *heads_last,
                mask=same,
                scale=1.0,
                is_causal=True,
                local_window_size=(
                    (window - 1, 0) if local and window < length else None
                ),
                implementation="cudnn",
            )
            return out_BLHK.transpose(0, 2, 3, 1).astype(jnp.float32)

        return with_cudnn
    masks = row_masks(length, window, segment_BL)
    return lambda q, k, v, local: attend(q, k, v, masks[local])


def row_masks(
    length: int, window: int, segment_BL: Array | None
) -> tuple[Array, Array]:
    """What global and local layers see within rows, (B or 1, 1, S, L)."""
    place_L = jnp.arange(length)
    distance_SL = place_L[None, :] - place_L[:, None]
    seen = (distance_SL >= 0)[None, None]
    if segment_BL is not None:
        seen = seen & _same(segment_BL)
    if window >= length:
        return seen, seen
    return seen, seen & (distance_SL < window)[None, None]


def _same(segment_BL: Array) -> Array:
    return segment_BL[:, None, :, None] == segment_BL[:, None, None, :]


def choose(implementation: str, head_width: int, dtype: str) -> str:
    """The implementation, xla or cudnn, of ``config.model.attention``.

    cuDNN takes bfloat16 and heads whose width is a multiple of 8, at most 128. It has
    no segments: rows of several take a mask of (B, 1, L, L), still without storing
    scores.

    Raises:
        UserError: cuDNN is asked for and cannot be used.
    """
    possible = dtype == "bfloat16" and head_width % 8 == 0 and head_width <= 128
    on_gpu = jax.default_backend() == "gpu"
    if implementation == "auto":
        return "cudnn" if possible and on_gpu else "xla"
    if implementation == "cudnn" and not (possible and on_gpu):
        raise UserError(
            "config.model.attention is 'cudnn', which needs a GPU, dtype bfloat16 and "
            f"width / heads a multiple of 8 up to 128; found {jax.default_backend()}, "
            f"{dtype} and {head_width}; use 'auto'"
        )
    return implementation


@jax.custom_vjp
def attend(q_BHKL: Array, k_BHKS: Array, v_BHKS: Array, mask: Array) -> Array:
    """``softmax(q k^T) v`` over the keys that the mask shows.

    Args:
        q_BHKL: queries.
        k_BHKS: keys.
        v_BHKS: values.
        mask: (B or 1, 1, S, L), True where a query sees a key.

    Returns:
        (B, H, K, L), in float32 or wider.
    """
    return _forward(q_BHKL, k_BHKS, v_BHKS, mask)[0]


def _forward(q: Array, k: Array, v: Array, mask: Array) -> tuple[Array, Array, Array]:
    """The outcome, and of each query the largest score and the sum of the softmax."""
    top_BH1L = jnp.max(_scores(q, k, mask), axis=2, keepdims=True)
    exp_BHSL = jnp.exp(_scores(q, k, mask) - top_BH1L)
    sums = _product("bhks,bhsl->bhkl", _with_one(v), exp_BHSL.astype(v.dtype))
    total_BH1L = sums[:, :, -1:]
    return sums[:, :, :-1] / total_BH1L, top_BH1L, total_BH1L


def _attend_forward(q: Array, k: Array, v: Array, mask: Array) -> tuple[Array, tuple]:
    out, top_BH1L, total_BH1L = _forward(q, k, v, mask)
    return out, (q, k, v, mask, out, top_BH1L, total_BH1L)


def _attend_backward(kept: tuple, dout: Array) -> tuple:
    q, k, v, mask, out, top_BH1L, total_BH1L = kept
    if q.shape[2] <= _MOST_NARROW and jax.default_backend() == "cpu":
        q, k, v = (_written(x) for x in (q, k, v))
    exp_BHSL = jnp.exp(_scores(q, k, mask) - top_BH1L)
    # Of the sums: out = sums[:-1] / sums[-1].
    dsums = jnp.concatenate([dout, -jnp.sum(dout * out, 2, keepdims=True)], axis=2)
    dsums = dsums / total_BH1L
    dscores = (exp_BHSL * _scores(dsums, _with_one(v))).astype(q.dtype)
    exp_BHSL, dsums = exp_BHSL.astype(v.dtype), dsums[:, :, :-1].astype(v.dtype)
    dq = _product("bhks,bhsl->bhkl", k, dscores)
    dk = _product("bhkl,bhsl->bhks", q, dscores)
    dv = _product("bhkl,bhsl->bhks", dsums, exp_BHSL)
    return dq.astype(q.dtype), dk.astype(k.dtype), dv.astype(v.dtype), None


attend.defvjp(_attend_forward, _attend_backward)


def weights(q_BHKL: Array, k_BHKS: Array, mask: Array) -> Array:
    """The softmax itself, (B, H, L, S), to look at."""
    return jax.nn.softmax(_scores(q_BHKL, k_BHKS, mask), axis=2).swapaxes(2, 3)


def _scores(q: Array, k: Array, mask: Array | None = None) -> Array:
    """``k^T q``, (B, H, S, L), in float32 or wider."""
    wide = jnp.result_type(q.dtype, k.dtype, jnp.float32)
    if q.shape[2] <= _MOST_NARROW + 1:
        pairs = [
            k[:, :, c, :, None].astype(wide) * q[:, :, c, None, :].astype(wide)
            for c in range(q.shape[2])
        ]
        scores = sum(pairs[1:], start=pairs[0])
    else:
        scores = _product("bhks,bhkl->bhsl", k.astype(q.dtype), q)
    return scores if mask is None else jnp.where(mask, scores, MASKED)


def _product(axes: str, x: Array, y: Array) -> Array:
    wide = jnp.result_type(x.dtype, y.dtype, jnp.float32)
    return jnp.einsum(axes, x, y, preferred_element_type=wide)


def _written(x_BHKL: Array) -> Array:
    """The same numbers, as an array of their own.

    A product with the unit matrix; a barrier changed nothing there. In a scan, what
    the forward pass kept lies stacked; XLA would pick every number that a score is
    made of from the stack, one at a time, which takes ten times as long.
    """
    unit_KK = jnp.eye(x_BHKL.shape[2], dtype=x_BHKL.dtype)
    exact = jax.lax.Precision.HIGHEST
    return jnp.einsum("ck,bhkl->bhcl", unit_KK, x_BHKL, precision=exact)


def _with_one(v: Array) -> Array:
    """The values and, as last of their columns, ones."""
    return jnp.concatenate([v, jnp.ones_like(v[:, :, :1])], axis=2)
