"""One more token for rows of a GPT-Neo whose keys and values are kept.

A step reads all weights and all that is kept, and computes little with either, so what
matters is how both are read. Rows B lie last in every array: each pass is one over
whole vectors, however narrow a head is, and a product is a matrix (F, D), transposed
once for all steps, times (D, B), which is fast for few rows too. Attention goes through
the slots in blocks, up to the newest, with the largest score and the sums of the
softmax so far (Milakov and Gimelshein 2018): a step costs what is kept, not what there
is room for, and scores never leave the processor's cache.

All rows put their next token into the same slot. Shorter prompts are padded on the
left, so a row is described by the slot of its first real token.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from chemscale_jax.core.types import Array, Params
from chemscale_jax.models.attention import MASKED
from chemscale_jax.models.gpt import KINDS, LAYER_NORM_EPS, GptOptions

ROW_AXIS = 4
# Slots of a block on a CPU, where blocks stay in its cache; elsewhere all are one.
BLOCK = 16


class Cache(NamedTuple):
    """Keys and values of all layers; slots S are a multiple of `BLOCK`.

    There may be more rows B than are still decoded, which then are the first.
    """

    keys_NSHKB: Array
    values_NSHKB: Array


def step_params(options: GptOptions, params: Params) -> Params:
    """The parameters as `step` takes them: layers in turn, kernels (out, in)."""

    def in_turn(*kinds: Array) -> Array:
        return jnp.stack(kinds, axis=1).reshape(-1, *kinds[0].shape[1:])

    layers = jax.tree.map(in_turn, *(params["pairs"][kind] for kind in KINDS))
    for name in ("qkv", "merge", "expand", "shrink"):
        kernel = layers[name]["kernel"]
        kernel_NDF = kernel.reshape(*kernel.shape[:2], -1)
        kernel_NFD = kernel_NDF.swapaxes(1, 2).astype(options.dtype)
        layers[name] = {**layers[name], "kernel": kernel_NFD}
    head = params["tokens" if options.tied else "head"]["embedding"]
    return {
        "tokens": params["tokens"]["embedding"],
        "positions": params["positions"]["embedding"],
        "layers": layers,
        "norm": params["norm"],
        "head": head.astype(options.dtype),
    }


def resize(cache: Cache, take_B: Array | None, slots: int) -> Cache:
    """A cache of some rows (None: of all), with ``slots`` slots, no fewer than before.

    Layer by layer: all at once, XLA gathers in another order and takes five times as
    long.
    """
    more = ((0, slots - cache.keys_NSHKB.shape[1]), (0, 0), (0, 0), (0, 0))

    def layer(_: None, kept: Cache) -> tuple[None, Cache]:
        if take_B is not None:
            some = (x.at[..., take_B].get(mode="promise_in_bounds") for x in kept)
            kept = Cache(*some)
        return None, Cache(*(jnp.pad(x, more) for x in kept))

    return jax.lax.scan(layer, None, cache)[1]


def keep_rows(cache: Cache, take_B: Array, slots: Array) -> Cache:
    """The cache with rows ``take_B`` as its first, the others and its size as before.

    Args:
        cache: to be donated, so that its memory stays where it is: new memory, of
            which each page must be had from the system, costs more than the copy.
        take_B: which rows, in ascending order or not.
        slots: how many of them are filled; the others are left alone.
    """
    N, _, H, K, B = cache.keys_NSHKB.shape
    blocks = (slots + BLOCK - 1) // BLOCK

    def keep(i: Array, cache: Cache) -> Cache:
        start = (i // blocks, i % blocks * BLOCK, 0, 0, 0)

        def kept(x_NSHKB: Array) -> Array:
            old = jax.lax.dynamic_slice(x_NSHKB, start, (1, BLOCK, H, K, B))
            new = old.at[..., take_B].get(mode="promise_in_bounds")
            # Fused with the update it would read what it writes, so XLA would copy all.
            new = jax.lax.optimization_barrier(new)
            return jax.lax.dynamic_update_slice(x_NSHKB, new, start)

        return Cache(*map(kept, cache))

    return jax.lax.fori_loop(0, N * blocks, keep, cache)


def of_prompts(options: GptOptions, kept_N2BHKT: Array, slots: int) -> Cache:
    """A cache that begins with what `gpt.prompt_pass` returned."""
    kept = kept_N2BHKT.astype(options.dtype).transpose(1, 0, 5, 3, 4, 2)
    more = ((0, 0), (0, slots - kept.shape[2]), (0, 0), (0, 0), (0, 0))
    return Cache(*(jnp.pad(x, more) for x in kept))


def step(
    options: GptOptions,
    params: Params,
    cache: Cache,
    token_B: Array,
    slot: Array,
    first_B: Array,
) -> tuple[Array, Cache]:
    """Puts one token of each row into the cache, and scores what follows it.

    Args:
        options: of the network.
        params: of `step_params`.
        cache: with the tokens before; it may have more rows, which are not read.
        token_B: ids.
        slot: of the cache for these tokens, the same for all rows.
        first_B: slot of each row's first token.

    Returns:
        logits (B, V) in float32, and the cache with the new tokens.
    """
    D, H = options.width, options.heads
    B = token_B.shape[0]
    slot = jnp.asarray(slot, jnp.int32)

    # The cache is carried, not scanned over, which would copy it.
    def turn(
        carry: tuple[Array, Cache], at: tuple[Params, Array, Array]
    ) -> tuple[tuple[Array, Cache], None]:
        (x_DB, cache), (layer, number, window) = carry, at
        y_DB = _layer_norm(layer["norm_1"], x_DB)
        qkv = _kernel(layer["qkv"], y_DB).reshape(3, H, D // H, B)
        start = (number, slot, 0, 0, 0)
        cache = Cache(
            *(
                jax.lax.dynamic_update_slice(kept, new[None, None], start)
                for kept, new in zip(cache, qkv[1:].astype(options.dtype), strict=True)
            )
        )
        out = _attend(qkv[0], cache, number, slot, window, first_B)
        x_DB = x_DB + _dense(layer["merge"], out.reshape(D, B))
        y_DB = _layer_norm(layer["norm_2"], x_DB)
        y_FB = jax.nn.gelu(_dense(layer["expand"], y_DB), approximate=True)
        return (x_DB + _dense(layer["shrink"], y_FB), cache), None

    x_BD = params["tokens"][token_B] + params["positions"][slot - first_B]
    number_N = jnp.arange(options.depth, dtype=jnp.int32)
    window_N = jnp.where(number_N % 2 == 1, options.window, options.positions)
    (x_DB, cache), _ = jax.lax.scan(
        turn, (x_BD.T, cache), (params["layers"], number_N, window_N)
    )
    x_BD = _layer_norm(params["norm"], x_DB).T
    head_VD = params["head"]
    return _product("bd,vd->bv", x_BD.astype(head_VD.dtype), head_VD), cache


def _attend(
    q_HKB: Array,
    cache: Cache,
    number: Array,
    slot: Array,
    window: Array,
    first_B: Array,
) -> Array:
    """``softmax(q k^T) v`` over the slots that the newest token of each row sees."""
    slots = cache.keys_NSHKB.shape[1]
    H, K, B = q_HKB.shape
    block = BLOCK if jax.default_backend() == "cpu" else slots

    def block_of(kept: Array, at: Array) -> Array:
        start = (number, at, 0, 0, 0)
        found = jax.lax.dynamic_slice(kept, start, (1, block, H, K, B))[0]
        return found.astype(q_HKB.dtype)

    def turn(i: Array, sums: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        top_HB, total_HB, out_HKB = sums
        at = i * block
        place_S1 = at + jnp.arange(block, dtype=jnp.int32)[:, None]
        seen_SB = (place_S1 >= first_B[None]) & (place_S1 <= slot)
        seen_SB = seen_SB & (place_S1 > slot - window)
        score_SHB = jnp.sum(block_of(cache.keys_NSHKB, at) * q_HKB[None], axis=2)
        score_SHB = jnp.where(seen_SB[:, None], score_SHB, MASKED)
        new_top_HB = jnp.maximum(top_HB, jnp.max(score_SHB, axis=0))
        exp_SHB = jnp.exp(score_SHB - new_top_HB[None])
        # Of blocks without a slot that is seen, the first that follows leaves nothing.
        shrunk_HB = jnp.exp(top_HB - new_top_HB)
        values_SHKB = block_of(cache.values_NSHKB, at)
        return (
            new_top_HB,
            total_HB * shrunk_HB + jnp.sum(exp_SHB, axis=0),
            out_HKB * shrunk_HB[:, None]
            + jnp.sum(exp_SHB[:, :, None] * values_SHKB, axis=0),
        )

    nothing = (
        jnp.full((H, B), MASKED, q_HKB.dtype),
        jnp.zeros((H, B), q_HKB.dtype),
        jnp.zeros((H, K, B), q_HKB.dtype),
    )
    first = jnp.maximum(slot - window + 1, 0) // block
    _, total_HB, out_HKB = jax.lax.fori_loop(first, slot // block + 1, turn, nothing)
    return out_HKB / total_HB[:, None]


def _product(axes: str, x: Array, y: Array) -> Array:
    """An einsum in the type of kernels, returned in float32."""
    if jax.default_backend() == "cpu":
        # XLA has no product of bfloat16 numbers in float32 there for all shapes.
        x, y = x.astype(jnp.float32), y.astype(jnp.float32)
    return jnp.einsum(axes, x, y, preferred_element_type=jnp.float32)


def _dense(layer: Params, x_DB: Array) -> Array:
    return _kernel(layer, x_DB) + layer["bias"][:, None]


def _kernel(layer: Params, x_DB: Array) -> Array:
    kernel_FD = layer["kernel"]
    return _product("fd,db->fb", kernel_FD, x_DB.astype(kernel_FD.dtype))


def _layer_norm(norm: Params, x_DB: Array) -> Array:
    centred = x_DB - jnp.mean(x_DB, axis=0, keepdims=True)
    variance = jnp.mean(centred * centred, axis=0, keepdims=True)
    scaled = centred * jax.lax.rsqrt(variance + LAYER_NORM_EPS)
    return scaled * norm["scale"][:, None] + norm["bias"][:, None]
