"""GPT-Neo: a causal transformer with alternating global and local attention.

Black et al., "GPT-Neo", 2021, as in ``transformers``; Frey et al. 2023 train it on
SELFIES ("ChemGPT") with 24 layers and 16 heads at every width::

    x = wte[token] + wpe[position]
    x += out(attend(q, k, v)),  q, k, v = ln_1(x) W           (no bias on q, k, v)
    x += out(gelu(in(ln_2(x))))                               (tanh form of gelu)
    logits = ln_f(x) wte^T

Scores are not divided by sqrt(K). Even layers are global, odd ones see the last
``window`` keys, so layers come in pairs; the parameters of all pairs are stacked on a
leading axis, over which the network is a `jax.lax.scan`.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from chemscale_jax.core.errors import UserError
from chemscale_jax.core.partition import rows_apart
from chemscale_jax.core.types import Array, Key, Params
from chemscale_jax.models import attention
from chemscale_jax.models import options as checks

KINDS = ("global", "local")
LAYER_NORM_EPS = 1e-5
INIT_STD = 0.02


@dataclasses.dataclass(frozen=True)
class GptOptions:
    """Hyperparameters."""

    vocabulary: int  # V
    width: int  # D
    depth: int = 24  # layers, global and local in turn
    heads: int = 16  # H, at every width
    positions: int = 2048  # rows of the table of positions
    window: int = 256  # keys that a local layer sees, the query's own included
    dtype: str = "float32"  # of matrix products: float32, bfloat16
    remat: str = "none"  # what the backward pass computes again: none, full, dots
    attention: str = "auto"  # xla, cudnn; auto: cudnn on a GPU where it can
    segments: bool = True  # False: every row is one segment, its padding last
    unroll: int = 1  # pairs of layers in one turn of the scan
    tied: bool = True  # False: the head has a matrix of its own


def init(options: GptOptions, key: Key) -> dict[str, Params]:
    """Parameters: normal with deviation 0.02; biases 0, scales 1.

    Raises:
        UserError: for options out of range.
    """
    check(options)
    D, F, P = options.width, 4 * options.width, options.depth // 2
    keys = iter(jax.random.split(key, 3 + 4 * len(KINDS)))

    def normal(*shape: int) -> Array:
        return INIT_STD * jax.random.normal(next(keys), shape, jnp.float32)

    def norm(*shape: int) -> dict[str, Array]:
        return {"scale": jnp.ones(shape), "bias": jnp.zeros(shape)}

    def block() -> dict[str, Any]:
        return {
            "norm_1": norm(P, D),
            "qkv": {"kernel": normal(P, D, 3, D)},
            "merge": {"kernel": normal(P, D, D), "bias": jnp.zeros((P, D))},
            "norm_2": norm(P, D),
            "expand": {"kernel": normal(P, D, F), "bias": jnp.zeros((P, F))},
            "shrink": {"kernel": normal(P, F, D), "bias": jnp.zeros((P, D))},
        }

    params: dict[str, Any] = {
        "tokens": {"embedding": normal(options.vocabulary, D)},
        "positions": {"embedding": normal(options.positions, D)},
        "pairs": {kind: block() for kind in KINDS},
        "norm": norm(D),
    }
    if not options.tied:
        params["head"] = {"embedding": normal(options.vocabulary, D)}
    return {"params": params, "constants": {}}


def param_axes(options: GptOptions) -> tuple[tuple[str, tuple[str | None, ...]], ...]:
    """The logical axes of every parameter; the axis of pairs is never spread.

    "heads" is the axis of all heads side by side, whole ones where the mesh axis
    divides their number; "vocabulary" needs a size that the mesh axis divides.
    """
    rules: list[tuple[str, tuple[str | None, ...]]] = [
        ("params/tokens/embedding", ("vocabulary", "embed")),
        ("params/positions/embedding", (None, "embed")),
        ("params/pairs/.*/norm_[12]/(scale|bias)", (None, None)),
        ("params/pairs/.*/qkv/kernel", (None, "embed", None, "heads")),
        ("params/pairs/.*/merge/kernel", (None, "heads", "embed")),
        ("params/pairs/.*/expand/kernel", (None, "embed", "hidden")),
        ("params/pairs/.*/expand/bias", (None, "hidden")),
        ("params/pairs/.*/shrink/kernel", (None, "hidden", "embed")),
        ("params/pairs/.*/(merge|shrink)/bias", (None, None)),
        ("params/norm/(scale|bias)", (None,)),
    ]
    if not options.tied:
        rules.append(("params/head/embedding", ("vocabulary", "embed")))
    return tuple(rules)


def logits(
    options: GptOptions,
    params: Params,
    tokens_BL: Array,
    segment_BL: Array,
    position_BL: Array,
) -> Array:
    """The scores of each next token, (B, L, V) in float32."""
    x_BLD = hidden(options, params, tokens_BL, segment_BL, position_BL)
    return _head(options, params, x_BLD)


def hidden(
    options: GptOptions,
    params: Params,
    tokens_BL: Array,
    segment_BL: Array,
    position_BL: Array,
    layer: int = -1,
) -> Array:
    """The state after some layers, (B, L, D).

    Args:
        options: of the network.
        params: of the network.
        tokens_BL: ids.
        segment_BL: places of different segments do not see one another; padding is 0.
        position_BL: rows of the table of positions.
        layer: 0: the embeddings; depth or -1: after the last layer and its norm.
    """
    depth = options.depth if layer == -1 else layer
    block = _block_of(options, tokens_BL, segment_BL)

    def turn(x_BLD: Array, pair: Params) -> tuple[Array, None]:
        for kind in KINDS:
            x_BLD = rows_apart(block(pair[kind], x_BLD, kind))
        return x_BLD, None

    x_BLD = _embed(params, tokens_BL, position_BL)
    pairs = jax.tree.map(lambda x: x[: depth // 2], params["pairs"])
    x_BLD, _ = jax.lax.scan(
        _rematerialised(options, turn), x_BLD, pairs, unroll=options.unroll
    )
    if depth % 2:
        last = jax.tree.map(lambda x: x[depth // 2], params["pairs"]["global"])
        x_BLD = block(last, x_BLD, "global")
    return _layer_norm(params["norm"], x_BLD) if depth == options.depth else x_BLD


def read_layers(
    options: GptOptions,
    params: Params,
    tokens_BL: Array,
    segment_BL: Array,
    position_BL: Array,
    read: Callable[[Array], Array],
) -> Array:
    """What ``read`` makes of the state that `hidden` gives for each layer, in one pass.

    Only this is kept, so that all layers take little more memory than one.

    Returns:
        (depth + 1, ...), the embeddings first.
    """
    block = _block_of(options, tokens_BL, segment_BL)

    def turn(x_BLD: Array, pair: Params) -> tuple[Array, Array]:
        found = []
        for kind in KINDS:
            x_BLD = block(pair[kind], x_BLD, kind)
            found.append(read(x_BLD))
        return x_BLD, jnp.stack(found)

    start_BLD = _embed(params, tokens_BL, position_BL)
    end_BLD, found = jax.lax.scan(turn, start_BLD, params["pairs"])
    found = found.reshape(options.depth, *found.shape[2:])[:-1]
    last = read(_layer_norm(params["norm"], end_BLD))
    return jnp.concatenate([read(start_BLD)[None], found, last[None]])


def attention_weights(
    options: GptOptions,
    params: Params,
    tokens_BL: Array,
    segment_BL: Array,
    position_BL: Array,
    layer: int,
) -> Array:
    """What each place of a layer (from 0) looks at, (B, H, query, key)."""
    x_BLD = hidden(options, params, tokens_BL, segment_BL, position_BL, layer)
    kind = KINDS[layer % 2]
    block = jax.tree.map(lambda x: x[layer // 2], params["pairs"][kind])
    q, k, _ = _queries_keys_values(options, block, x_BLD)
    masks = attention.row_masks(
        tokens_BL.shape[1],
        options.window,
        segment_BL if options.segments else None,
    )
    return attention.weights(q, k, masks[kind == "local"])


def prompt_pass(
    options: GptOptions,
    params: Params,
    tokens_BL: Array,
    real_BL: Array,
    position_BL: Array,
) -> tuple[Array, Array]:
    """Scores all places of some prompts, and returns what attention keeps of them.

    Args:
        options: of the network.
        params: of the network.
        tokens_BL: ids; shorter prompts are padded on the left.
        real_BL: True where no padding is.
        position_BL: of each token, from 0 at the first real one.

    Returns:
        logits (B, L, V) in float32; keys and values (depth, 2, B, H, K, L).
    """
    attend = attention.rows_attention(
        "xla", tokens_BL.shape[1], options.window, real_BL.astype(jnp.int32)
    )

    def turn(x_BLD: Array, pair: Params) -> tuple[Array, Array]:
        kept = []
        for kind in KINDS:
            q, k, v = _queries_keys_values(options, pair[kind], x_BLD)
            out = attend(q, k, v, kind == "local")
            x_BLD = _after_attention(options, pair[kind], x_BLD, out)
            kept.append(jnp.stack([k, v]))
        return x_BLD, jnp.stack(kept)

    x_BLD = _embed(params, tokens_BL, position_BL)
    x_BLD, kept = jax.lax.scan(turn, x_BLD, params["pairs"])
    x_BLD = _layer_norm(params["norm"], x_BLD)
    kept = kept.reshape(options.depth, *kept.shape[2:])
    return _head(options, params, x_BLD), kept


def _block_of(
    options: GptOptions, tokens_BL: Array, segment_BL: Array
) -> Callable[[Params, Array, str], Array]:
    """One layer of either kind over rows of segments."""
    attend = attention.rows_attention(
        attention.choose(
            options.attention, options.width // options.heads, options.dtype
        ),
        tokens_BL.shape[1],
        options.window,
        segment_BL if options.segments else None,
    )

    def block(params: Params, x_BLD: Array, kind: str) -> Array:
        q, k, v = _queries_keys_values(options, params, x_BLD)
        out = attend(q, k, v, kind == "local")
        return _after_attention(options, params, x_BLD, out)

    return block


def _embed(params: Params, tokens_BL: Array, position_BL: Array) -> Array:
    """The sum of the embeddings of tokens and positions."""
    tokens_VD = params["tokens"]["embedding"]
    return rows_apart(
        tokens_VD[tokens_BL] + params["positions"]["embedding"][position_BL]
    )


def _head(options: GptOptions, params: Params, x_BLD: Array) -> Array:
    """Scores of the vocabulary; the matrix is that of the token embeddings."""
    kernel_VD = params["tokens" if options.tied else "head"]["embedding"]
    return _product("bld,vd->blv", x_BLD, kernel_VD, options.dtype)


def _queries_keys_values(options: GptOptions, block: Params, x_BLD: Array) -> Array:
    """Queries, keys and values, stacked: (3, B, H, K, L) in the type of products."""
    B, L, D = x_BLD.shape
    H = options.heads
    y_BLD = _layer_norm(block["norm_1"], x_BLD).astype(_dtype(options, x_BLD))
    kernel_DNC = block["qkv"]["kernel"].astype(y_BLD.dtype)
    # Written with L last: whatever reads it is fused, and reads it many times.
    out_NCBL = jnp.einsum("dnc,bld->ncbl", kernel_DNC, y_BLD)
    return out_NCBL.reshape(3, H, D // H, B, L).transpose(0, 3, 1, 2, 4)


def _after_attention(
    options: GptOptions, block: Params, x_BLD: Array, out_BHKL: Array
) -> Array:
    """The rest of a block: heads merged, then the feed-forward network."""
    B, L, D = x_BLD.shape
    merged_BLD = out_BHKL.reshape(B, D, L).swapaxes(1, 2)
    x_BLD = x_BLD + _dense(options, block["merge"], merged_BLD)
    y_BLD = _layer_norm(block["norm_2"], x_BLD)
    y_BLF = _gelu(_dense(options, block["expand"], y_BLD))
    return x_BLD + _dense(options, block["shrink"], y_BLF)


def _dense(options: GptOptions, layer: Params, x_BLD: Array) -> Array:
    y_BLF = _product("bld,df->blf", x_BLD, layer["kernel"], options.dtype)
    return y_BLF + layer["bias"][None, None]


def _product(axes: str, x: Array, kernel: Array, dtype: str) -> Array:
    """An einsum in ``dtype``, returned in the type of ``x``."""
    if dtype == "float32":
        return jnp.einsum(axes, x, kernel)
    return jnp.einsum(
        axes,
        x.astype(dtype),
        kernel.astype(dtype),
        preferred_element_type=x.dtype,
    )


def _dtype(options: GptOptions, x: Array) -> Any:
    return x.dtype if options.dtype == "float32" else jnp.dtype(options.dtype)


# The backward pass computes both of these again from what they were given: their
# intermediate results are cheaper to compute than to keep and read.
@functools.partial(jax.checkpoint, prevent_cse=False)
def _gelu(x: Array) -> Array:
    return jax.nn.gelu(x, approximate=True)


@functools.partial(jax.checkpoint, prevent_cse=False)
def _layer_norm(norm: Params, x_BLD: Array) -> Array:
    mean = jnp.mean(x_BLD, axis=-1, keepdims=True)
    centred = x_BLD - mean
    variance = jnp.mean(centred * centred, axis=-1, keepdims=True)
    scaled = centred * jax.lax.rsqrt(variance + LAYER_NORM_EPS)
    return scaled * norm["scale"][None, None] + norm["bias"][None, None]


def _rematerialised(options: GptOptions, turn: Callable[..., Any]) -> Any:
    if options.remat == "none":
        return turn
    policies = jax.checkpoint_policies
    policy = {
        "full": policies.nothing_saveable,
        "dots": policies.dots_with_no_batch_dims_saveable,
    }[options.remat]
    # Within a scan nothing can be merged across the barrier.
    return jax.checkpoint(turn, policy=policy, prevent_cse=False)


def check(options: GptOptions) -> None:
    """Refuses options out of range.

    Raises:
        UserError: naming the option.
    """
    checks.check_choices(
        options,
        {
            "dtype": checks.DTYPES,
            "remat": ("none", "full", "dots"),
            "attention": ("auto", "xla", "cudnn"),
        },
    )
    checks.check_least(
        options,
        {
            "vocabulary": 1,
            "width": 1,
            "depth": 2,
            "heads": 1,
            "positions": 1,
            "window": 1,
            "unroll": 1,
        },
    )
    if options.depth % 2:
        raise UserError(
            f"config.model.depth is {options.depth}; layers come in pairs, make it even"
        )
    if options.width % options.heads:
        raise UserError(
            f"config.model.width {options.width} is not a multiple of "
            f"config.model.heads {options.heads}; make it one"
        )
