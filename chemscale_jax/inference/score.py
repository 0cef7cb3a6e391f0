"""Exact log-likelihoods of given molecules under a language model."""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from chemscale_jax.core.errors import UserError
from chemscale_jax.core.partition import replicated, row_sharding
from chemscale_jax.core.types import Array, Params
from chemscale_jax.inference.prefill import bucket, rows_bucket
from chemscale_jax.models import gpt
from chemscale_jax.models.gpt import GptOptions

# Rows are padded to these lengths; beyond the last, to its multiples.
LENGTHS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
BATCH_TOKENS = 16_384


def token_log_probs(
    options: GptOptions,
    params: Params,
    sequences: Sequence[np.ndarray],
    *,
    batch_tokens: int = BATCH_TOKENS,
    mesh: Mesh | None = None,
    on_rows: Callable[[int], object] = lambda rows: None,
) -> list[np.ndarray]:
    """``log p(token i + 1 | tokens up to i)`` of each sequence, float32 (n - 1,).

    Args:
        options: of the model.
        params: of the model.
        sequences: ids with begin and end token, two at least.
        batch_tokens: places of a batch, padding included.
        mesh: devices over which the rows are spread; one by default.
        on_rows: called with how many sequences were added, after each batch.

    Raises:
        UserError: a sequence is too short or too long for the model.
    """
    lengths = np.array([len(sequence) for sequence in sequences], np.int64)
    if len(lengths) and lengths.min() < 2:
        raise UserError("a sequence has fewer than two tokens: nothing to score")
    if len(lengths) and lengths.max() > options.positions:
        raise UserError(
            f"sequence {int(lengths.argmax()) + 1} has {lengths.max()} tokens, the "
            f"model's positions are {options.positions}; leave it out"
        )
    if mesh is not None:
        params = jax.device_put(params, replicated(mesh))
    scores: list[np.ndarray] = [np.zeros(0, np.float32)] * len(sequences)
    order = np.argsort(lengths, kind="stable")
    first = 0
    while first < len(order):
        L = padded_length(options, int(lengths[order[first]]))
        # A power of two, so that few sizes are compiled.
        most = rows_bucket(max(batch_tokens // L // 2, 1) + 1, mesh)
        rows = order[first : first + most]
        rows = rows[lengths[rows] <= L]
        B = rows_bucket(len(rows), mesh)
        tokens_BL = np.zeros((B, L), np.int32)
        for row, index in zip(tokens_BL, rows, strict=False):
            row[: lengths[index]] = sequences[index]
        length_B = np.zeros(B, np.int32)
        length_B[: len(rows)] = lengths[rows]
        batch = tokens_BL, length_B
        if mesh is not None:
            batch = jax.device_put(batch, row_sharding(mesh))
        found_BL = np.asarray(jax.device_get(_score(options, params, *batch)))
        for index, row in zip(rows, found_BL, strict=False):
            scores[index] = row[: lengths[index] - 1]
        first += len(rows)
        on_rows(len(rows))
    return scores


def log_likelihoods(
    options: GptOptions,
    params: Params,
    sequences: Sequence[np.ndarray],
    *,
    mesh: Mesh | None = None,
    on_rows: Callable[[int], object] = lambda rows: None,
) -> np.ndarray:
    """``log p`` of each sequence given its first token, in nats, float64 (R,)."""
    scores = token_log_probs(options, params, sequences, mesh=mesh, on_rows=on_rows)
    return np.array([score.sum(dtype=np.float64) for score in scores])


def padded_length(options: GptOptions, length: int) -> int:
    """Places of the rows that sequences of some length stand in."""
    L = bucket(LENGTHS, length)
    if L > LENGTHS[-1]:
        L = -(-length // LENGTHS[-1]) * LENGTHS[-1]
    return min(L, options.positions)


@functools.partial(jax.jit, static_argnums=0)
def _score(
    options: GptOptions, params: Params, tokens_BL: Array, length_B: Array
) -> Array:
    B, L = tokens_BL.shape
    place_BL = jnp.broadcast_to(jnp.arange(L)[None], (B, L))
    segment_BL = (place_BL < length_B[:, None]).astype(jnp.int32)
    logits_BLV = gpt.logits(options, params, tokens_BL, segment_BL, place_BL)
    said_BLV = jax.nn.log_softmax(logits_BLV[:, :-1].astype(jnp.float32), axis=-1)
    return jnp.take_along_axis(said_BLV, tokens_BL[:, 1:, None], axis=-1)[..., 0]
