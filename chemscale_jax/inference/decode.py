"""Sampling and greedy decoding with a cache of keys and values.

Rows are decoded together in one compiled loop per size of the batch. The host looks in
only when the cache is full or half of the rows are finished: then the rows that go on
are moved to a smaller batch, or all to a longer cache. What a row draws depends on the
seed and on the row's number, not on its neighbours.
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
from chemscale_jax.inference import grammar, logit_filters
from chemscale_jax.inference.grammar import Rules
from chemscale_jax.inference.logit_filters import Filters, Numbers
from chemscale_jax.inference.prefill import (
    CACHE_ROW_AXIS,
    SLOTS,
    Prefilled,
    bucket,
    check_lengths,
    prefill,
    resize,
    rows_bucket,
)
from chemscale_jax.models import gpt
from chemscale_jax.models.gpt import Cache, GptOptions

# Batches are halved down to this size.
LEAST_HALVED = 32


class Decoded(NamedTuple):
    """What was generated, without the prompts."""

    tokens: np.ndarray  # (R, N) int32; the end token is there, padding after it
    log_probs: np.ndarray  # (R, N) float32, of the model's unfiltered distribution
    finished: np.ndarray  # (R,) bool: the end token came before the limit
    lengths: np.ndarray  # (R,) tokens, the end token included
    prompt_log_probs: np.ndarray  # (R,) float32: of the prompt's tokens but its first


class State(NamedTuple):
    """What one step of decoding changes."""

    cache: Cache
    tokens_BN: Array
    log_probs_BN: Array
    last_B: Array  # the newest token, which is not in the cache yet
    position_B: Array  # of the newest token
    valid_BS: Array  # slots that hold a token
    finished_B: Array
    seen_BV: Array  # tokens that the row holds; (B, 0) if no filter asks
    owed_B: Array  # counters of the grammar
    atoms_B: Array
    key_B: Array
    step: Array  # tokens made so far


class Plan(NamedTuple):
    """What is fixed while rows are decoded, and known to the compiler."""

    options: GptOptions
    active: frozenset[str]
    greedy: bool
    ruled: bool  # there are rules to obey
    pad: int


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
        _run(plan, params, held, state, rules, filters.numbers, rows, mesh, out)
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
    B, T = len(key_B), held.valid_PT.shape[1]
    # Rows of padding repeat others and are finished before they begin.
    take_B = np.resize(which, B)
    seen_PV = np.zeros((len(held.prompts), 0), bool)
    if "repetition_penalty" in plan.active:
        seen_PV = np.zeros((len(held.prompts), plan.options.vocabulary), bool)
        for row, prompt in zip(seen_PV, held.prompts, strict=True):
            row[prompt] = True
    counters = [grammar.count_prompt(rules, prompt) for prompt in held.prompts]
    owed_P, atoms_P = np.array(counters, np.int32).T
    length_P = np.array([len(prompt) for prompt in held.prompts], np.int32)
    slots = bucket(SLOTS, T + min(max_new, SLOTS[0]) - 1)
    cache, valid_BS = resize(plan.options, held.cache, held.valid_PT, take_B, slots)
    state = State(
        cache=cache,
        tokens_BN=jnp.full((B, max_new), plan.pad, jnp.int32),
        log_probs_BN=jnp.zeros((B, max_new), jnp.float32),
        last_B=jnp.zeros(B, jnp.int32),
        position_B=jnp.asarray(length_P[take_B] - 1),
        valid_BS=valid_BS,
        finished_B=jnp.asarray(np.arange(B) >= len(which)),
        seen_BV=jnp.asarray(seen_PV[take_B]),
        owed_B=jnp.asarray(owed_P[take_B]),
        atoms_B=jnp.asarray(atoms_P[take_B]),
        key_B=key_B,
        step=jnp.asarray(0, jnp.int32),
    )
    return _first(plan, _spread(state, mesh), held.logits_PV, take_B, rules, numbers)


def _run(
    plan: Plan,
    params: Params,
    held: Prefilled,
    state: State,
    rules: Rules,
    numbers: Numbers,
    rows: np.ndarray,
    mesh: Mesh | None,
    out: Decoded,
) -> None:
    """Decodes rows to their ends and writes them to the places ``rows`` of ``out``."""
    before, max_new = held.valid_PT.shape[1], out.tokens.shape[1]
    size, slots = state.valid_BS.shape
    row_B = np.concatenate([rows, np.full(size - len(rows), -1)])
    least = max(LEAST_HALVED, rows_bucket(1, mesh))
    while True:
        half = size // 2 if size // 2 >= least else 0
        limit = min(max_new, slots - before + 1)
        bounds = np.array([before, limit, half], np.int32)
        state = advance(plan, params, state, rules, numbers, bounds)
        step, finished_B = jax.device_get((state.step, state.finished_B))
        live = np.flatnonzero(~finished_B)
        done = not len(live) or step == max_new
        if done or len(live) <= half:
            tokens, log_probs = jax.device_get((state.tokens_BN, state.log_probs_BN))
            real_B = row_B >= 0
            at = row_B[real_B]
            out.tokens[at], out.log_probs[at] = tokens[real_B], log_probs[real_B]
            out.finished[at] = finished_B[real_B]
        if done:
            return
        take_B = np.arange(size)
        if len(live) <= half:
            while size // 2 >= max(len(live), least):
                size //= 2
            take_B = np.resize(live, size)
            row_B = np.where(np.arange(size) < len(live), row_B[take_B], -1)
        if step == limit:
            slots = bucket(SLOTS, slots + 1)
        state = _spread(_move(plan, state, take_B, row_B < 0, slots), mesh)


@functools.partial(jax.jit, static_argnums=(0, 4))
def _move(plan: Plan, state: State, take_B: Array, off_B: Array, slots: int) -> State:
    """The state of other rows; those that are off count as finished."""
    cache, valid_BS = resize(plan.options, state.cache, state.valid_BS, take_B, slots)
    rest = {
        name: value
        for name, value in state._asdict().items()
        if name not in ("cache", "valid_BS", "step")
    }
    moved = {name: value[take_B] for name, value in rest.items()}
    moved["finished_B"] = moved["finished_B"] | off_B
    return State(cache=cache, valid_BS=valid_BS, step=state.step, **moved)


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
    cache = [placed(x, *[None] * CACHE_ROW_AXIS, ROW_AXES) for x in state.cache]
    return State(cache=Cache(*cache), step=placed(state.step), **rows)


def _cycled(rows: np.ndarray, mesh: Mesh | None) -> np.ndarray:
    return np.resize(rows, rows_bucket(len(rows), mesh))


@jax.jit
def _row_keys(key: Array, rows_B: Array) -> Array:
    return jax.vmap(functools.partial(jax.random.fold_in, key))(rows_B)


@functools.partial(jax.jit, static_argnums=0)
def _first(
    plan: Plan,
    state: State,
    logits_PV: Array,
    take_B: Array,
    rules: Rules,
    numbers: Numbers,
) -> State:
    return choose(plan, state, logits_PV[take_B], rules, numbers)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=2)
def advance(
    plan: Plan,
    params: Params,
    state: State,
    rules: Rules,
    numbers: Numbers,
    bounds_3: Array,
) -> State:
    """Decodes until a limit is reached or few rows are left.

    Args:
        plan: of the run.
        params: of the model.
        state: with the first token drawn; it is used up.
        rules: of the grammar.
        numbers: of the filters.
        bounds_3: slots of the prompts; tokens to stop at; rows to stop at.
    """
    before, limit, rows = bounds_3

    def goes_on(state: State) -> Array:
        return (state.step < limit) & (jnp.sum(~state.finished_B) > rows)

    def turn(state: State) -> State:
        slot = before + state.step - 1
        here_S = jnp.arange(state.valid_BS.shape[1]) == slot
        valid_BS = state.valid_BS | here_S[None]
        logits_BTV, cache = gpt.extend(
            plan.options,
            params,
            state.cache,
            state.last_B[:, None],
            state.position_B[:, None],
            slot,
            valid_BS,
        )
        state = state._replace(cache=cache, valid_BS=valid_BS)
        return choose(plan, state, logits_BTV[:, -1], rules, numbers)

    return jax.lax.while_loop(goes_on, turn, state)


def choose(
    plan: Plan, state: State, logits_BV: Array, rules: Rules, numbers: Numbers
) -> State:
    """The state with one more token in every row that is not finished."""
    logits_BV = logits_BV.astype(jnp.float32)
    max_new = state.tokens_BN.shape[1]
    scores_BV = logits_BV
    if plan.ruled:
        allowed_BV = grammar.allowed_next(
            rules, state.owed_B, state.atoms_B, max_new - state.step - 1
        )
        scores_BV = jnp.where(allowed_BV, scores_BV, -jnp.inf)
    scores_BV = logit_filters.apply(plan.active, numbers, scores_BV, state.seen_BV)
    if plan.greedy:
        token_B = jnp.argmax(scores_BV, axis=-1).astype(jnp.int32)
    else:
        token_B = logit_filters.draw(scores_BV, row_uniforms(state.key_B, state.step))
    said_B1 = jnp.take_along_axis(
        jax.nn.log_softmax(logits_BV, axis=-1), token_B[:, None], axis=-1
    )
    said_B1 = jnp.where(state.finished_B[:, None], 0, said_B1)
    token_B = jnp.where(state.finished_B, plan.pad, token_B)
    seen_BV = state.seen_BV
    if "repetition_penalty" in plan.active:
        seen_BV = seen_BV | (token_B[:, None] == jnp.arange(seen_BV.shape[1])[None])
    owed_B, atoms_B = state.owed_B, state.atoms_B
    if plan.ruled:
        owed_B, atoms_B = grammar.count(rules, owed_B, atoms_B, token_B)
    put = jax.lax.dynamic_update_slice
    return state._replace(
        tokens_BN=put(state.tokens_BN, token_B[:, None], (0, state.step)),
        log_probs_BN=put(state.log_probs_BN, said_B1, (0, state.step)),
        last_B=token_B,
        position_B=state.position_B + 1,
        finished_B=state.finished_B | (token_B == jnp.asarray(rules.end)),
        seen_BV=seen_BV,
        owed_B=owed_B,
        atoms_B=atoms_B,
        step=state.step + 1,
    )


def row_uniforms(key_B: Array, step: Array) -> Array:
    """The random number in [0, 1) of each row at a step, (B,)."""
    return jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, step)))(
        key_B
    )
