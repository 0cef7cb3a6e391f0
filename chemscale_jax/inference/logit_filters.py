"""Filters on the scores of the next token, and the choice among what they leave.

Order and meaning are those of ``transformers`` (5.23): penalty on repetition,
temperature, top-k, top-p, min-p. A token that is filtered out scores minus infinity.

Nothing is sorted. The values that separate kept tokens from others are found bit by
bit: for floats mapped to integers of the same order, 32 counts (or sums) give the
exact threshold, whatever k and p are, so that they need not be known to the compiler.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from chemscale_jax.core.errors import UserError
from chemscale_jax.core.types import Array

_BITS = 32


@dataclasses.dataclass(frozen=True)
class Filters:
    """What is done to the scores before a token is drawn; the default is nothing.

    There is no hidden top-k: ``generate`` of ``transformers`` takes 50 where none is
    set, so that comparing with it needs ``top_k=0`` there.
    """

    temperature: float = 1.0  # scores are divided by it
    top_k: int = 0  # keep the k best and what equals the last of them; 0: all
    top_p: float = 1.0  # keep the best that together reach this probability
    min_p: float = 0.0  # keep what has this share of the best token's probability
    # Scores of tokens that the row has, prompt included, are divided by it (negative
    # ones multiplied). SELFIES must repeat symbols: rarely of use for molecules.
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        ranges = {
            "temperature": (self.temperature > 0, "above 0 (for greedy, use greedy)"),
            "top_k": (self.top_k >= 0, "0 (off) or more"),
            "top_p": (0 < self.top_p <= 1, "above 0 and at most 1"),
            "min_p": (0 <= self.min_p <= 1, "between 0 and 1"),
            "repetition_penalty": (self.repetition_penalty > 0, "above 0"),
        }
        for name, (good, wanted) in ranges.items():
            if not good:
                raise UserError(f"{name} is {getattr(self, name)}, it must be {wanted}")

    @property
    def active(self) -> frozenset[str]:
        """Names of the filters that do something; each set has its own program."""
        return frozenset(
            field.name
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != field.default
        )

    @property
    def numbers(self) -> "Numbers":
        """The settings as arrays, which a compiled program takes as arguments."""
        return Numbers(
            temperature=jnp.asarray(self.temperature, jnp.float32),
            top_k=jnp.asarray(self.top_k, jnp.int32),
            # The subtraction is done before rounding, as transformers does it.
            tail=jnp.asarray(1 - self.top_p, jnp.float32),
            min_p=jnp.asarray(self.min_p, jnp.float32),
            repetition_penalty=jnp.asarray(self.repetition_penalty, jnp.float32),
        )


class Numbers(NamedTuple):
    """The settings of `Filters` as scalar arrays."""

    temperature: Array
    top_k: Array
    tail: Array  # 1 - top_p
    min_p: Array
    repetition_penalty: Array


def apply(
    active: frozenset[str], numbers: Numbers, logits_BV: Array, seen_BV: Array
) -> Array:
    """The scores after all filters, (B, V) in float32.

    Args:
        active: names of the filters to run, see `Filters.active`.
        numbers: their settings.
        logits_BV: scores.
        seen_BV: tokens that the row holds already, for the penalty on repetition.
    """
    logits_BV = logits_BV.astype(jnp.float32)
    if "repetition_penalty" in active:
        logits_BV = penalise_repetition(logits_BV, seen_BV, numbers.repetition_penalty)
    if "temperature" in active:
        logits_BV = logits_BV / numbers.temperature
    if "top_k" in active:
        logits_BV = keep_top_k(logits_BV, numbers.top_k)
    if "top_p" in active:
        logits_BV = keep_top_p(logits_BV, numbers.tail)
    if "min_p" in active:
        logits_BV = keep_min_p(logits_BV, numbers.min_p)
    return logits_BV


def penalise_repetition(logits_BV: Array, seen_BV: Array, penalty: Array) -> Array:
    """Lowers scores of tokens that were seen, once per token (Keskar et al. 2019)."""
    lowered_BV = jnp.where(logits_BV < 0, logits_BV * penalty, logits_BV / penalty)
    return jnp.where(seen_BV, lowered_BV, logits_BV)


def keep_top_k(logits_BV: Array, k: Array) -> Array:
    """Keeps scores that are not below the k-th largest; k is cut to V."""
    order_BV = _ordered(logits_BV)
    wanted = jnp.minimum(k, logits_BV.shape[-1])

    def enough(bound_B1: Array) -> Array:
        count_B1 = jnp.sum(order_BV >= bound_B1, axis=-1, keepdims=True, dtype="int32")
        return count_B1 >= wanted

    return jnp.where(order_BV >= _largest(enough, logits_BV), logits_BV, -jnp.inf)


def keep_top_p(logits_BV: Array, tail: Array) -> Array:
    """Removes the least likely tokens while together they have ``tail`` at most.

    So the token that crosses is kept, and the best one always is. Of equal tokens at
    the border, those with the lower ids go first, as a stable ascending sort has it
    (``torch.sort`` leaves open which of them go).
    """
    order_BV = _ordered(logits_BV)
    share_BV = jax.nn.softmax(logits_BV, axis=-1)

    def mass_below(bound_B1: Array) -> Array:
        return jnp.sum(
            jnp.where(order_BV < bound_B1, share_BV, 0), axis=-1, keepdims=True
        )

    border_B1 = _largest(lambda bound_B1: mass_below(bound_B1) <= tail, logits_BV)
    best_B1 = jnp.max(order_BV, axis=-1, keepdims=True)
    border_B1 = jnp.minimum(border_B1, best_B1)
    equal_BV = order_BV == border_B1
    rank_BV = jnp.cumsum(equal_BV, axis=-1)
    mass_BV = mass_below(border_B1) + rank_BV * share_BV
    last_BV = (border_B1 == best_B1) & (rank_BV == rank_BV[..., -1:])
    kept_BV = (order_BV > border_B1) | (equal_BV & ((mass_BV > tail) | last_BV))
    return jnp.where(kept_BV, logits_BV, -jnp.inf)


def keep_min_p(logits_BV: Array, min_p: Array) -> Array:
    """Keeps tokens with at least ``min_p`` of the best token's probability."""
    share_BV = jax.nn.softmax(logits_BV, axis=-1)
    least_B1 = min_p * jnp.max(share_BV, axis=-1, keepdims=True)
    return jnp.where(share_BV < least_B1, -jnp.inf, logits_BV)


def draw(logits_BV: Array, uniform_B: Array) -> Array:
    """One token per row with probabilities ``softmax(logits)``, int32 (B,).

    The first token whose cumulative probability exceeds the row's number: one random
    number per row and step. A token that scores minus infinity is never drawn.

    Args:
        logits_BV: scores.
        uniform_B: in [0, 1).
    """
    weight_BV = jnp.exp(logits_BV - jnp.max(logits_BV, axis=-1, keepdims=True))
    reach_BV = jnp.cumsum(weight_BV, axis=-1)
    total_B1 = reach_BV[..., -1:]
    # Rounding must not carry the goal to the total, which nothing exceeds.
    goal_B1 = jnp.minimum(uniform_B[..., None], np.float32(1 - 2**-22)) * total_B1
    # Sums of blocks are rounded apart: they may rise where nothing was added.
    found_BV = (reach_BV > goal_B1) & (weight_BV > 0)
    first_B = jnp.argmax(found_BV, axis=-1)
    best_B = jnp.argmax(logits_BV, axis=-1)
    return jnp.where(jnp.any(found_BV, axis=-1), first_B, best_B).astype(jnp.int32)


def _ordered(x_BV: Array) -> Array:
    """Floats as unsigned integers in the same order; both zeros are one number."""
    x_BV = jnp.where(x_BV == 0, jnp.float32(0), x_BV)
    bits_BV = jax.lax.bitcast_convert_type(x_BV, jnp.uint32)
    negative_BV = (bits_BV >> (_BITS - 1)) == 1
    return jnp.where(negative_BV, ~bits_BV, bits_BV | jnp.uint32(1 << (_BITS - 1)))


def _largest(holds: Callable[[Array], Array], like_BV: Array) -> Array:
    """The largest 32-bit number per row for which a falling condition holds."""

    def with_bit(i: Array, found_B1: Array) -> Array:
        bit = jnp.uint32(1) << (_BITS - 1 - i).astype(jnp.uint32)
        more_B1 = found_B1 | bit
        return jnp.where(holds(more_B1), more_B1, found_B1)

    start_B1 = jnp.zeros((*like_BV.shape[:-1], 1), jnp.uint32)
    return jax.lax.fori_loop(0, _BITS, with_bit, start_B1)
