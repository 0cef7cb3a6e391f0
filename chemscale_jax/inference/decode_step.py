"""The compiled loop of decoding: one more token in every row, until few rows go on."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from chemscale_jax.core.types import Array, Params
from chemscale_jax.inference import grammar, logit_filters
from chemscale_jax.inference.grammar import Rules
from chemscale_jax.inference.logit_filters import Numbers
from chemscale_jax.models import gpt_cache
from chemscale_jax.models.gpt import GptOptions
from chemscale_jax.models.gpt_cache import Cache


class State(NamedTuple):
    """What one step of decoding changes."""

    cache: Cache
    tokens_BN: Array
    log_probs_BN: Array
    last_B: Array  # the newest token, which is not in the cache yet
    first_B: Array  # slot of the row's first token
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
        params: of `gpt_cache.step_params`.
        state: with the first token drawn; it is used up.
        rules: of the grammar.
        numbers: of the filters.
        bounds_3: slots of the prompts; tokens to stop at; rows to stop at.
    """
    before, limit, rows = bounds_3

    def goes_on(state: State) -> Array:
        return (state.step < limit) & (jnp.sum(~state.finished_B) > rows)

    def turn(state: State) -> State:
        logits_BV, cache = gpt_cache.step(
            plan.options,
            params,
            state.cache,
            state.last_B,
            before + state.step - 1,
            state.first_B,
        )
        return choose(plan, state._replace(cache=cache), logits_BV, rules, numbers)

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


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def first_token(
    plan: Plan,
    state: State,
    logits_PV: Array,
    take_B: Array,
    rules: Rules,
    numbers: Numbers,
) -> State:
    """The state with the tokens that follow the prompts, row b of prompt take_B[b]."""
    return choose(plan, state, logits_PV[take_B], rules, numbers)


@functools.partial(jax.jit, static_argnums=3)
def move(state: State, take_B: Array | None, off_B: Array, slots: int) -> State:
    """The state of other rows (None: of the same), with more slots.

    Args:
        state: of the rows so far.
        take_B: which of them.
        off_B: rows of padding among the new ones; they count as finished.
        slots: of the new cache.
    """
    cache = gpt_cache.resize(state.cache, take_B, slots)
    if take_B is None:
        return state._replace(cache=cache)
    return state._replace(cache=cache, **_take(_by_row(state), take_B, off_B))


def narrow(state: State, take_B: np.ndarray, off_B: np.ndarray, slots: int) -> State:
    """The state of fewer rows, in the memory of the old cache, which is used up.

    Args:
        state: of the rows so far.
        take_B: which of them.
        off_B: rows of padding among the new ones; they count as finished.
        slots: of the cache that are filled.
    """
    cache = _keep_rows(state.cache, take_B, slots)
    return state._replace(cache=cache, **_take(_by_row(state), take_B, off_B))


_keep_rows = jax.jit(gpt_cache.keep_rows, donate_argnums=0)


def _by_row(state: State) -> dict[str, Array]:
    """What a state holds of each row, but for the cache."""
    alike = ("cache", "step")
    return {name: x for name, x in state._asdict().items() if name not in alike}


@jax.jit
def _take(by_row: dict[str, Array], take_B: Array, off_B: Array) -> dict[str, Array]:
    taken = {name: x[take_B] for name, x in by_row.items()}
    return taken | {"finished_B": taken["finished_B"] | off_B}
