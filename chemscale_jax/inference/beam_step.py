"""One step of beam search: of all continuations the best run on or are finished."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from chemscale_jax.core.types import Array
from chemscale_jax.inference import grammar, logit_filters
from chemscale_jax.inference.grammar import Rules
from chemscale_jax.models import gpt_cache
from chemscale_jax.models.gpt import GptOptions
from chemscale_jax.models.gpt_cache import Cache

Patience = bool | Literal["never"]
NEVER = -1e9  # score of what must not be chosen


class Plan(NamedTuple):
    """What is fixed during a search, and known to the compiler."""

    options: GptOptions
    beams: int  # of one group
    groups: int
    patience: Patience
    penalised: bool  # repetition
    ruled: bool
    pad: int
    max_new: int


class Numbers(NamedTuple):
    """Settings that the compiler need not know."""

    length_penalty: Array
    diversity: Array
    repetition_penalty: Array


class Set(NamedTuple):
    """Beams of every prompt P and group G; b of each."""

    tokens_PGbN: Array
    score_PGb: Array
    log_prob_PGb: Array  # unfiltered
    owed_PGb: Array  # counters of the grammar
    atoms_PGb: Array


class State(NamedTuple):
    """What one step changes."""

    cache: Cache  # rows: prompts, groups, beams
    running: Set
    done: Set
    is_done_PGb: Array
    improvable_PG: Array  # running beams may still be better than the finished ones
    step: Array  # tokens made


def expand(
    plan: Plan,
    state: State,
    logits_PGbV: Array,
    *,
    seen_PV: Array,
    rules: Rules,
    numbers: Numbers,
) -> State:
    """One more token: the best continuations run on or are finished."""
    said_PGbV = jax.nn.log_softmax(logits_PGbV.astype(jnp.float32), axis=-1)
    scored_PGbV = _filtered(plan, state, said_PGbV, seen_PV, rules, numbers)
    P, G, b, V = scored_PGbV.shape
    taken_PV = jnp.zeros((P, V))
    running, done, is_done, origin = [], [], [], []
    for g in range(G):
        running_g, done_g = jax.tree.map(
            lambda x, g=g: x[:, g], (state.running, state.done)
        )
        scored_PbV = scored_PGbV[:, g] - numbers.diversity * taken_PV[:, None]
        parts = _expand_group(
            plan,
            running_g,
            done_g,
            state.is_done_PGb[:, g],
            state.improvable_PG[:, g],
            scored_PbV,
            said_PGbV[:, g],
            state.step,
            rules,
            numbers,
        )
        for into, part in zip((running, done, is_done, origin), parts, strict=True):
            into.append(part)
        newest_Pb = jax.lax.dynamic_index_in_dim(
            parts[0].tokens_PGbN, state.step, axis=2, keepdims=False
        )
        taken_PV = taken_PV + jnp.sum(jax.nn.one_hot(newest_Pb, V), axis=1)

    def stacked(parts: list) -> Any:
        return jax.tree.map(lambda *x: jnp.stack(x, axis=1), *parts)

    origin_PGb, is_done_PGb = stacked(origin), stacked(is_done)
    row_PGb = jnp.arange(P * G * b).reshape(P, G, b)
    row_PGb = jnp.take_along_axis(row_PGb, origin_PGb, axis=-1)
    step, slots = state.step + 1, state.cache.keys_NSHKB.shape[1]
    state = state._replace(
        cache=gpt_cache.resize(state.cache, row_PGb.ravel(), slots),
        running=stacked(running),
        done=stacked(done),
        is_done_PGb=is_done_PGb,
        step=step,
    )
    # May the best running beam still beat the worst finished one?
    length = step
    if plan.patience == "never":
        length = jnp.where(numbers.length_penalty > 0, plan.max_new, step)
    hope_PG = state.running.score_PGb[..., 0] / length**numbers.length_penalty
    full_PG = jnp.all(is_done_PGb, axis=-1)
    worst_PG = jnp.where(full_PG, jnp.min(state.done.score_PGb, axis=-1), NEVER)
    return state._replace(improvable_PG=state.improvable_PG & (hope_PG > worst_PG))


def _filtered(
    plan: Plan,
    state: State,
    said_PGbV: Array,
    seen_PV: Array,
    rules: Rules,
    numbers: Numbers,
) -> Array:
    """Log-probabilities after the grammar and the penalty on repetition."""
    running = state.running
    V = said_PGbV.shape[-1]
    if plan.penalised:
        made_bN = jnp.arange(plan.max_new) < state.step
        tokens = jnp.where(made_bN[None, None, None], running.tokens_PGbN, V)
        rows = tokens.reshape(-1, plan.max_new)
        seen = jnp.zeros((len(rows), V), bool)
        seen = seen.at[jnp.arange(len(rows))[:, None], rows].set(True, mode="drop")
        seen_PGbV = seen.reshape(said_PGbV.shape) | seen_PV[:, None, None]
        said_PGbV = logit_filters.penalise_repetition(
            said_PGbV, seen_PGbV, numbers.repetition_penalty
        )
    if plan.ruled:
        allowed = grammar.allowed_next(
            rules,
            running.owed_PGb.ravel(),
            running.atoms_PGb.ravel(),
            plan.max_new - state.step - 1,
        )
        said_PGbV = jnp.where(allowed.reshape(said_PGbV.shape), said_PGbV, -jnp.inf)
    return said_PGbV


def _expand_group(
    plan: Plan,
    running: Set,
    done: Set,
    is_done_Pb: Array,
    improvable_P: Array,
    scored_PbV: Array,
    said_PbV: Array,
    step: Array,
    rules: Rules,
    numbers: Numbers,
) -> tuple[Set, Set, Array, Array]:
    """One group's running and finished beams, and where the running ones come from."""
    P, b, V = scored_PbV.shape
    total_PC = (running.score_PGb[..., None] + scored_PbV).reshape(P, b * V)
    score_Pc, place_Pc = jax.lax.top_k(total_PC, 2 * b)
    beam_Pc, token_Pc = place_Pc // V, place_Pc % V
    found = take(running, beam_Pc)
    owed_Pc, atoms_Pc = grammar.count(rules, found.owed_PGb, found.atoms_PGb, token_Pc)
    said_Pc = jnp.take_along_axis(said_PbV.reshape(P, b * V), place_Pc, axis=1)
    found = Set(
        tokens_PGbN=jax.lax.dynamic_update_slice_in_dim(
            found.tokens_PGbN, token_Pc[..., None], step, axis=2
        ),
        score_PGb=score_Pc,
        log_prob_PGb=found.log_prob_PGb + said_Pc,
        owed_PGb=owed_Pc,
        atoms_PGb=atoms_Pc,
    )
    ends_Pc = (token_Pc == jnp.asarray(rules.end)) | (step + 1 == plan.max_new)

    onward_Pc = score_Pc + jnp.where(ends_Pc, NEVER, 0)
    score_Pb, chosen_Pb = jax.lax.top_k(onward_Pc, b)
    running = take(found, chosen_Pb)._replace(score_PGb=score_Pb)
    origin_Pb = jnp.take_along_axis(beam_Pc, chosen_Pb, axis=1)

    first_c = jnp.arange(2 * b) < b
    counts_Pc = ends_Pc & first_c[None] & improvable_P[:, None]
    if plan.patience is True:
        counts_Pc = counts_Pc & ~jnp.all(is_done_Pb, axis=-1, keepdims=True)
    final_Pc = score_Pc / (step + 1.0) ** numbers.length_penalty
    final_Pc = final_Pc + jnp.where(counts_Pc, 0, NEVER)
    merged = jax.tree.map(
        lambda old, new: jnp.concatenate([old, new], axis=1),
        done,
        found._replace(score_PGb=final_Pc),
    )
    _, kept_Pb = jax.lax.top_k(merged.score_PGb, b)
    merged_done = jnp.concatenate([is_done_Pb, counts_Pc], axis=1)
    is_done_Pb = jnp.take_along_axis(merged_done, kept_Pb, axis=1)
    return running, take(merged, kept_Pb), is_done_Pb, origin_Pb


def take(beams: Set, index: Array) -> Set:
    """Some beams of each prompt: the last axis of ``index`` counts beams."""
    axis = index.ndim - 1

    def taken(x: Array) -> Array:
        spread = index.reshape(*index.shape, *[1] * (x.ndim - index.ndim))
        return jnp.take_along_axis(x, spread, axis=axis)

    return jax.tree.map(taken, beams)
