"""Sampling and greedy decoding with a cache of keys and values.

Rows are decoded together in one compiled loop per size of the batch. The host looks in
only when the cache is full or a good part of the rows is finished: then the rows that
go on are moved to a smaller batch, or all to a longer cache. What a row draws depends
on the seed and on the row's number, not on its neighbours.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from chemscale_jax.core.partition import ROW_AXES, replicated
from chemscale_jax.core.types import Array, Params
from chemscale_jax.inference import grammar
from chemscale_jax.inference.decode_step import (
    Plan,
    State,
    advance,
    first_token,
    move,
    narrow,
)
from chemscale_jax.inference.grammar import Rules
from chemscale_jax.inference.logit_filters import Filters, Numbers
from chemscale_jax.inference.prefill import (
    Prefilled,
    cache_of,
    check_lengths,
    prefill,
    rows_bucket,
    slots_bucket,
    step_params,
)
from chemscale_jax.models.gpt import GptOptions
from chemscale_jax.models.gpt_cache import ROW_AXIS, Cache

# Batches are halved down to this size.
LEAST_ROWS = 16
# Batches of at least so many rows lose a quarter at first: each size is compiled, and a
# step of fewer rows costs little less.
QUARTERED_ROWS = 128
# Rows that end leave their room in the cache empty, until so small a part is taken.
LEAST_TAKEN = 0.3
# Slots for what is generated that a cache has at first.
FIRST_SLOTS = 64
# Slots of all rows together that a cache may well have later.
AMPLE_SLOTS = 8192


class Decoded(NamedTuple):
    """What was generated, without the prompts."""

    tokens: np.ndarray  # (R, N) int32; the end token is there, padding after it
    log_probs: np.ndarray  # (R, N) float32, of the model's unfiltered distribution
    finished: np.ndarray  # (R,) bool: the end token came before the limit
    lengths: np.ndarray  # (R,) tokens, the end token included
    prompt_log_probs: np.ndarray  # (R,) float32: of the prompt's tokens but its first


def decode(
    options: GptOptions,
    params: Params,
    prompts: Sequence[np.ndarray],
    *,
    end: int | None,
    pad: int,
    max_new: int,
    filters: Filters | None = None,
    greedy: bool = False,
    samples_per_prompt: int = 1,
    seed: int = 0,
    first_row: int = 0,
    rules: Rules | None = None,
    batch_rows: int = 256,
    mesh: Mesh | None = None,
    on_rows: Callable[[int], object] = lambda rows: None,
) -> Decoded:
    """Continues each prompt until the end token or ``max_new`` tokens.

    Row ``p * samples_per_prompt + s`` of the result is sample s of prompt p.

    Args:
        options: of the model.
        params: of the model.
        prompts: ids, the begin token included; at least one token each.
        end: id of the token that ends a row; None: rows go on to the limit.
        pad: id that fills rows after their end.
        max_new: tokens at most.
        filters: on the scores; greedy decoding heeds the penalty on repetition only,
            as ``transformers`` does.
        greedy: take the best token instead of drawing one.
        samples_per_prompt: rows of each prompt.
        seed: of the random numbers.
        first_row: number of the first row, for calls that go on where one stopped.
        rules: of a grammar.
        batch_rows: rows that are decoded together at most.
        mesh: devices over which the rows are spread; one by default.
        on_rows: called with how many rows were added, after each batch.

    Raises:
        UserError: prompt and continuation do not fit the table of positions.
    """
    check_lengths(options, prompts, max_new)
    filters = filters or Filters()
    rules = rules if end is not None else None
    plan = Plan(
        options=options,
        active=filters.active & {"repetition_penalty"} if greedy else filters.active,
        greedy=greedy,
        ruled=rules is not None,
        pad=pad,
    )
    if rules is None:
        rules = grammar.free_rules(options.vocabulary, -1 if end is None else end)
    if mesh is not None:
        params = jax.device_put(params, replicated(mesh))
    for_steps = step_params(options, params)
    total = len(prompts) * samples_per_prompt
    out = Decoded(
        tokens=np.full((total, max_new), pad, np.int32),
        log_probs=np.zeros((total, max_new), np.float32),
        finished=np.zeros(total, bool),
        lengths=np.zeros(total, np.int64),
        prompt_log_probs=np.zeros(total, np.float32),
    )
    # Prompts of one length together: less padding on the left.
    lengths = np.repeat([len(prompt) for prompt in prompts], samples_per_prompt)
    order = np.argsort(lengths, kind="stable")
    for first in range(0, total, batch_rows):
        rows = order[first : first + batch_rows]
        numbers, which = np.unique(rows // samples_per_prompt, return_inverse=True)
        held = prefill(options, params, [prompts[i] for i in numbers], mesh)
        out.prompt_log_probs[rows] = np.asarray(jax.device_get(held.log_prob_P))[which]
        key_B = _row_keys(jax.random.key(seed), _cycled(rows, mesh) + first_row)
        state = _begin(plan, held, which, key_B, rules, filters.numbers, max_new, mesh)
        before = held.kept_N2PHKT.shape[-1]
        args = (state, rules, filters.numbers, rows, mesh, out)
        _run(plan, for_steps, before, *args)
        on_rows(len(rows))
    out.lengths[:] = np.where(out.finished, _end_places(out.tokens, end), max_new)
    return out


def _end_places(tokens: np.ndarray, end: int | None) -> np.ndarray:
    """How many tokens each row has up to its first end token."""
    return np.argmax(tokens == (-1 if end is None else end), axis=1) + 1


def _begin(
    plan: Plan,
    held: Prefilled,
    which: np.ndarray,
    key_B: Array,
    rules: Rules,
    numbers: Numbers,
    max_new: int,
    mesh: Mesh | None,
) -> State:
    """The state of rows whose first token is drawn.

    Args:
        plan: of the run.
        held: the distinct prompts.
        which: prompt of each row, as many as there are rows to decode.
        key_B: of each row, those of padding included.
        rules: of the grammar.
        numbers: of the filters.
        max_new: tokens at most.
        mesh: of the devices.
    """
    B, T = len(key_B), held.kept_N2PHKT.shape[-1]
    # Rows of padding repeat others and are finished before they begin.
    take_B = np.resize(which, B)
    seen_PV = np.zeros((len(held.prompts), 0), bool)
    if "repetition_penalty" in plan.active:
        seen_PV = np.zeros((len(held.prompts), plan.options.vocabulary), bool)
        for row, prompt in zip(seen_PV, held.prompts, strict=True):
            row[prompt] = True
    counters = [grammar.count_prompt(rules, prompt) for prompt in held.prompts]
    owed_P, atoms_P = np.array(counters, np.int32).T
    slots = slots_bucket(T + min(max_new, FIRST_SLOTS) - 1)
    state = State(
        cache=cache_of(plan.options, held.kept_N2PHKT, take_B, slots),
        tokens_BN=jnp.full((B, max_new), plan.pad, jnp.int32),
        log_probs_BN=jnp.zeros((B, max_new), jnp.float32),
        last_B=jnp.zeros(B, jnp.int32),
        first_B=jnp.asarray(held.first_P[take_B]),
        finished_B=jnp.asarray(np.arange(B) >= len(which)),
        seen_BV=jnp.asarray(seen_PV[take_B]),
        owed_B=jnp.asarray(owed_P[take_B]),
        atoms_B=jnp.asarray(atoms_P[take_B]),
        key_B=key_B,
        step=jnp.asarray(0, jnp.int32),
    )
    state = _spread(state, mesh)
    return first_token(plan, state, held.logits_PV, take_B, rules, numbers)


def _run(
    plan: Plan,
    params: Params,
    before: int,
    state: State,
    rules: Rules,
    numbers: Numbers,
    rows: np.ndarray,
    mesh: Mesh | None,
    out: Decoded,
) -> None:
    """Decodes rows to their ends and writes them to the places ``rows`` of ``out``."""
    max_new = out.tokens.shape[1]
    size, slots = len(state.last_B), state.cache.keys_NSHKB.shape[1]
    room = size  # rows that fit into the cache
    row_B = np.concatenate([rows, np.full(size - len(rows), -1)])
    smaller = _smaller_sizes(size, rows_bucket(LEAST_ROWS, mesh))
    while True:
        limit = min(max_new, slots - before + 1)
        bounds = np.array([before, limit, smaller[0]], np.int32)
        state = advance(plan, params, state, rules, numbers, bounds)
        step, finished_B = jax.device_get((state.step, state.finished_B))
        live = np.flatnonzero(~finished_B)
        done = not len(live) or step == max_new
        fewer = len(live) <= smaller[0]
        if done or fewer:
            tokens, log_probs = jax.device_get((state.tokens_BN, state.log_probs_BN))
            real_B = row_B >= 0
            at = row_B[real_B]
            out.tokens[at], out.log_probs[at] = tokens[real_B], log_probs[real_B]
            out.finished[at] = finished_B[real_B]
        if done:
            return
        filled = before + int(step) - 1
        take_B = np.arange(size) if size < room else None
        if fewer:
            while smaller[0] >= len(live):
                size = smaller.pop(0)
            take_B = np.resize(live, size)
            row_B = np.where(np.arange(size) < len(live), row_B[take_B], -1)
            if mesh is None and filled < slots and size > LEAST_TAKEN * room:
                state = narrow(state, take_B, row_B < 0, filled)
                continue
        room = size
        slots = _room(slots, size, filled + 1, before + max_new - 1)
        state = _spread(move(state, take_B, row_B < 0, slots), mesh)


def _smaller_sizes(size: int, least: int) -> list[int]:
    """Sizes of the batches that may follow one of ``size`` rows; 0 is the last.

    Args:
        size: a power of two times the devices, as `rows_bucket` has it.
        least: the smallest of them.
    """
    sizes = []
    while size > least:
        # Whatever divides half of a half divides three of them.
        if size >= QUARTERED_ROWS and size // 4 >= least:
            sizes.append(3 * size // 4)
        size //= 2
        sizes.append(size)
    return [*sizes, 0]


def _room(slots: int, rows: int, needed: int, most: int) -> int:
    """Slots of a new cache: more of them for few rows, so that it will not grow soon.

    Args:
        slots: of the old one.
        rows: of the new one.
        needed: slots at least.
        most: slots that can ever be used.
    """
    return max(slots, slots_bucket(max(needed, min(AMPLE_SLOTS // rows, most))))


def _spread(state: State, mesh: Mesh | None) -> State:
    """The state on the devices of a mesh, rows over its data axes."""
    if mesh is None:
        return state

    def placed(x: Array, *axes: str | tuple[str, ...] | None) -> Array:
        return jax.device_put(x, NamedSharding(mesh, PartitionSpec(*axes)))

    rows = {
        name: placed(value, ROW_AXES)
        for name, value in state._asdict().items()
        if name not in ("cache", "step")
    }
    cache = [placed(x, *[None] * ROW_AXIS, ROW_AXES) for x in state.cache]
    return State(cache=Cache(*cache), step=placed(state.step), **rows)


def _cycled(rows: np.ndarray, mesh: Mesh | None) -> np.ndarray:
    return np.resize(rows, rows_bucket(len(rows), mesh))


@jax.jit
def _row_keys(key: Array, rows_B: Array) -> Array:
    return jax.vmap(functools.partial(jax.random.fold_in, key))(rows_B)
