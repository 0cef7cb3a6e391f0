"""Prompts in a cache of keys and values, and caches of other sizes.

Sizes come from short lists, so that few programs are compiled. Prompts are padded on
the left, so that all rows write to the same slot of the cache.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from chemscale_jax.core.errors import UserError
from chemscale_jax.core.partition import row_sharding
from chemscale_jax.core.types import Array, Params
from chemscale_jax.models import gpt
from chemscale_jax.models.gpt import Cache, GptOptions

# Sizes of the cache; the attention of a step costs as much as all slots of the cache.
SLOTS = (32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)
PROMPT_SLOTS = (1, 8, 16, 24, 32, 48, *SLOTS[1:])
LEAST_ROWS = 8
CACHE_ROW_AXIS = 2


class Prefilled(NamedTuple):
    """Prompts in a cache of P' >= P rows and T slots; rows from P on are padding."""

    prompts: Sequence[np.ndarray]
    cache: Cache
    valid_PT: Array  # slots that hold a token
    logits_PV: Array  # scores of what follows each prompt
    log_prob_P: Array  # of each prompt's tokens but the first


def check_lengths(
    options: GptOptions, prompts: Sequence[np.ndarray], max_new: int
) -> None:
    """Refuses prompts that are empty or leave no room for the continuation."""
    if max_new < 1:
        raise UserError(f"max_new is {max_new}; generate at least one token")
    lengths = [len(prompt) for prompt in prompts]
    if not lengths or min(lengths) < 1:
        raise UserError("a prompt is empty; begin it with the begin token")
    if max(lengths) + max_new > options.positions:
        raise UserError(
            f"a prompt of {max(lengths)} tokens and max_new={max_new} do not fit the "
            f"model's {options.positions} positions; lower max_new"
        )


def bucket(sizes: Sequence[int], least: int) -> int:
    """The smallest of the sizes that is large enough, else ``least`` itself."""
    return next((size for size in sizes if size >= least), least)


def rows_bucket(rows: int, mesh: Mesh | None) -> int:
    """A power of two times the devices of the data axes, no less than ``rows``."""
    size = 1 if mesh is None else mesh.shape["data"] * mesh.shape["fsdp"]
    while size < max(rows, LEAST_ROWS):
        size *= 2
    return size


def prefill(
    options: GptOptions,
    params: Params,
    prompts: Sequence[np.ndarray],
    mesh: Mesh | None = None,
) -> Prefilled:
    """Puts prompts into a cache."""
    T = bucket(PROMPT_SLOTS, max(len(prompt) for prompt in prompts))
    P = rows_bucket(len(prompts), mesh)
    tokens_PT = np.zeros((P, T), np.int32)
    valid_PT = np.zeros((P, T), bool)
    for row in range(P):
        # Rows of padding repeat the first prompt.
        prompt = prompts[row if row < len(prompts) else 0]
        tokens_PT[row, T - len(prompt) :] = prompt
        valid_PT[row, T - len(prompt) :] = True
    if mesh is not None:
        tokens_PT, valid_PT = jax.device_put((tokens_PT, valid_PT), row_sharding(mesh))
    cache, logits_PV, log_prob_P = _prefill(options, params, tokens_PT, valid_PT)
    return Prefilled(prompts, cache, jnp.asarray(valid_PT), logits_PV, log_prob_P)


@functools.partial(jax.jit, static_argnums=0)
def _prefill(
    options: GptOptions, params: Params, tokens_PT: Array, valid_PT: Array
) -> tuple[Cache, Array, Array]:
    P, T = tokens_PT.shape
    logits_PTV, cache = gpt.extend(
        options,
        params,
        gpt.init_cache(options, P, T),
        tokens_PT,
        jnp.maximum(jnp.cumsum(valid_PT, axis=1) - 1, 0),
        jnp.int32(0),
        valid_PT,
    )
    said_PTV = jax.nn.log_softmax(logits_PTV[:, :-1], axis=-1)
    said_PT1 = jnp.take_along_axis(said_PTV, tokens_PT[:, 1:, None], axis=-1)
    log_prob_P = jnp.sum(jnp.where(valid_PT[:, :-1], said_PT1[..., 0], 0), axis=1)
    return cache, logits_PTV[:, -1], log_prob_P


@functools.partial(jax.jit, static_argnums=(0, 4))
def resize(
    options: GptOptions, cache: Cache, valid_PT: Array, take_B: Array, slots: int
) -> tuple[Cache, Array]:
    """A cache and its valid slots with other rows, and with at least as many slots."""
    cache = jax.tree.map(lambda x: jnp.take(x, take_B, axis=CACHE_ROW_AXIS), cache)
    valid_BT = valid_PT[take_B]
    B, T = valid_BT.shape
    if slots > T:
        cache = jax.tree.map(
            lambda x, empty: jax.lax.dynamic_update_slice(empty, x, (0,) * x.ndim),
            cache,
            gpt.init_cache(options, B, slots),
        )
    return cache, jnp.pad(valid_BT, ((0, 0), (0, slots - T)))
