"""Prompts in a cache of keys and values.

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
from chemscale_jax.models import gpt, gpt_cache
from chemscale_jax.models.gpt import GptOptions
from chemscale_jax.models.gpt_cache import Cache

# Sizes of the cache. What a step costs depends on the slots in use, not on these.
SLOTS = (32, 64, 128, 256, 512, 1024, 2048)
PROMPT_SLOTS = (1, 8, 16, 24, 32, 48, 64, 96, *SLOTS[2:])
LEAST_ROWS = 8


class Prefilled(NamedTuple):
    """What is kept of P' >= P prompts in T slots each; rows from P on are padding."""

    prompts: Sequence[np.ndarray]
    kept_N2PHKT: Array  # keys and values of all layers
    first_P: np.ndarray  # slot of each prompt's first token
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


def slots_bucket(least: int) -> int:
    """Slots of a cache that has room for ``least`` of them."""
    return -(-bucket(SLOTS, least) // gpt_cache.BLOCK) * gpt_cache.BLOCK


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
    """Passes prompts through the network, and holds what attention keeps of them."""
    T = bucket(PROMPT_SLOTS, max(len(prompt) for prompt in prompts))
    P = rows_bucket(len(prompts), mesh)
    tokens_PT = np.zeros((P, T), np.int32)
    first_P = np.zeros(P, np.int32)
    for row in range(P):
        # Rows of padding repeat the first prompt.
        prompt = prompts[row if row < len(prompts) else 0]
        first_P[row] = T - len(prompt)
        tokens_PT[row, first_P[row] :] = prompt
    batch = (tokens_PT, first_P)
    if mesh is not None:
        batch = jax.device_put(batch, row_sharding(mesh))
    found = _prefill(options, params, *batch)
    return Prefilled(prompts, found[0], first_P, *found[1:])


@functools.partial(jax.jit, static_argnums=0)
def _prefill(
    options: GptOptions, params: Params, tokens_PT: Array, first_P: Array
) -> tuple[Array, Array, Array]:
    place_PT = jnp.arange(tokens_PT.shape[1])[None] - first_P[:, None]
    real_PT = place_PT >= 0
    logits_PTV, kept = gpt.prompt_pass(
        options, params, tokens_PT, real_PT, jnp.maximum(place_PT, 0)
    )
    said_PTV = jax.nn.log_softmax(logits_PTV[:, :-1], axis=-1)
    said_PT1 = jnp.take_along_axis(said_PTV, tokens_PT[:, 1:, None], axis=-1)
    log_prob_P = jnp.sum(jnp.where(real_PT[:, :-1], said_PT1[..., 0], 0), axis=1)
    return kept, logits_PTV[:, -1], log_prob_P


@functools.partial(jax.jit, static_argnums=(0, 3))
def cache_of(
    options: GptOptions, kept_N2PHKT: Array, take_B: Array, slots: int
) -> Cache:
    """A cache of rows that begin with some of the prompts."""
    kept = jnp.take(kept_N2PHKT, take_B, axis=2)
    return gpt_cache.of_prompts(options, kept, slots)


@functools.partial(jax.jit, static_argnums=0)
def step_params(options: GptOptions, params: Params) -> Params:
    """The parameters as `gpt_cache.step` takes them."""
    return gpt_cache.step_params(options, params)
