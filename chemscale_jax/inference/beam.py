"""Beam search, with the meaning that ``transformers`` 5.23 gives it.

Of all continuations of the running beams the best ``2 * num_beams`` are looked at.
Those among the first ``num_beams`` that end are finished beams and score ``sum of log
p / length^length_penalty``, where the length counts generated tokens only, the end
token included (versions before the end of 2023 counted the prompt). The best
``num_beams`` of the others run on.

Groups (Vijayakumar et al. 2018, which ``transformers`` 5 no longer has): every group is
a beam search of its own; groups choose one after another, and a token loses
``diversity`` for each beam of an earlier group that took it at this step. As in
``transformers`` 4, that loss stays in the score of the beam.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from chemscale_jax.core.errors import UserError
from chemscale_jax.core.partition import replicated
from chemscale_jax.core.types import Array, Params
from chemscale_jax.inference import grammar, prefill
from chemscale_jax.inference.beam_step import (
    NEVER,
    Numbers,
    Patience,
    Plan,
    Set,
    State,
    expand,
    take,
)
from chemscale_jax.inference.grammar import Rules
from chemscale_jax.inference.prefill import Prefilled
from chemscale_jax.models import gpt_cache
from chemscale_jax.models.gpt import GptOptions


class Beams(NamedTuple):
    """The best continuations of each prompt, best first."""

    tokens: np.ndarray  # (P, R, N) int32; the end token is there, padding after it
    scores: np.ndarray  # (P, R) float32, with the length penalty
    log_probs: np.ndarray  # (P, R) float32: log p of the tokens, given the prompt
    finished: np.ndarray  # (P, R) bool: the end token came before the limit
    prompt_log_probs: np.ndarray  # (P,) float32


def beam_search(
    options: GptOptions,
    params: Params,
    prompts: Sequence[np.ndarray],
    *,
    end: int | None,
    pad: int,
    max_new: int,
    num_beams: int = 4,
    num_return: int = 1,
    length_penalty: float = 1.0,
    early_stopping: Patience = False,
    groups: int = 1,
    diversity: float = 0.0,
    repetition_penalty: float = 1.0,
    rules: Rules | None = None,
    batch_rows: int = 256,
    mesh: Mesh | None = None,
    on_rows: Callable[[int], object] = lambda rows: None,
) -> Beams:
    """The most likely continuations of each prompt that a search of this width finds.

    Args:
        options: of the model.
        params: of the model.
        prompts: ids, the begin token included.
        end: id of the token that ends a beam; None: beams go on to the limit.
        pad: id that fills beams after their end.
        max_new: tokens at most.
        num_beams: of each prompt, all groups together.
        num_return: beams that are returned of each prompt.
        length_penalty: exponent; above 0 it favours long molecules.
        early_stopping: True: a prompt is done when it has ``num_beams`` finished
            beams; False: when the best running beam, at its present length, scores
            below the worst of them; "never": when no running beam can get better at
            any length.
        groups: of beams, see above.
        diversity: what a token loses for each earlier group's beam that took it.
        repetition_penalty: see `logit_filters`; applied to log-probabilities here.
        rules: of a grammar.
        batch_rows: beams that are searched together at most.
        mesh: devices over which prompts are spread; one by default.
        on_rows: called with how many prompts were added, after each batch.

    Raises:
        UserError: the numbers do not fit together, or exceed the table of positions.
    """
    prefill.check_lengths(options, prompts, max_new)
    _check(options, num_beams, num_return, groups, early_stopping)
    plan = Plan(
        options=options,
        beams=num_beams // groups,
        groups=groups,
        patience=early_stopping,
        penalised=repetition_penalty != 1.0,
        ruled=rules is not None and end is not None,
        pad=pad,
        max_new=max_new,
    )
    if rules is None or end is None:
        rules = grammar.free_rules(options.vocabulary, -1 if end is None else end)
    numbers = Numbers(
        *jnp.array([length_penalty, diversity, repetition_penalty], jnp.float32)
    )
    if mesh is not None:
        params = jax.device_put(params, replicated(mesh))
    for_steps = prefill.step_params(options, params)
    parts = []
    each = max(batch_rows // num_beams, 1)
    for first in range(0, len(prompts), each):
        some = prompts[first : first + each]
        held = prefill.prefill(options, params, some, mesh)
        parts.append(_search(plan, for_steps, held, rules, numbers, num_return))
        on_rows(len(some))
    found = Beams(*map(np.concatenate, zip(*parts, strict=True)))
    return found._replace(
        finished=np.any(found.tokens == (-1 if end is None else end), axis=-1)
    )


def _check(
    options: GptOptions,
    num_beams: int,
    num_return: int,
    groups: int,
    patience: Patience,
) -> None:
    if num_beams < 1 or not 1 <= num_return <= num_beams:
        raise UserError(
            f"num_beams={num_beams} cannot return {num_return} molecules of a prompt; "
            "return at most num_beams, and 1 or more"
        )
    if groups < 1 or num_beams % groups:
        raise UserError(
            f"num_beams={num_beams} is not a multiple of beam_groups={groups}; make it "
            "one"
        )
    if patience not in (True, False, "never"):
        raise UserError(
            f"early_stopping is {patience!r}, expected True, False, 'never'"
        )
    if 2 * num_beams > options.vocabulary:
        raise UserError(
            f"num_beams={num_beams} needs {2 * num_beams} continuations of a prompt, "
            f"the vocabulary has {options.vocabulary} tokens; use fewer beams"
        )


def _search(
    plan: Plan,
    params: Params,
    held: Prefilled,
    rules: Rules,
    numbers: Numbers,
    num_return: int,
) -> Beams:
    """One batch of prompts."""
    prompts, P = held.prompts, len(held.first_P)
    slots = prefill.slots_bucket(held.kept_N2PHKT.shape[-1] + plan.max_new - 1)
    padded = [*prompts, *[prompts[0]] * (P - len(prompts))]
    counters = [grammar.count_prompt(rules, prompt) for prompt in padded]
    seen_PV = np.zeros((P, plan.options.vocabulary if plan.penalised else 0), bool)
    for row, prompt in zip(seen_PV, padded, strict=True):
        row[prompt[prompt < len(row)]] = True
    result = _search_program(
        plan,
        slots,
        params,
        held.kept_N2PHKT,
        held.first_P,
        held.logits_PV,
        np.array(counters, np.int32),
        seen_PV,
        rules,
        numbers,
    )
    best: Set = jax.device_get(result)
    n = len(prompts)
    return Beams(
        tokens=np.asarray(best.tokens_PGbN)[:n, 0, :num_return],
        scores=np.asarray(best.score_PGb)[:n, 0, :num_return],
        log_probs=np.asarray(best.log_prob_PGb)[:n, 0, :num_return],
        finished=np.zeros((n, num_return), bool),
        prompt_log_probs=np.asarray(jax.device_get(held.log_prob_P))[:n],
    )


@functools.partial(jax.jit, static_argnums=(0, 1))
def _search_program(
    plan: Plan,
    slots: int,
    params: Params,
    kept_N2PHKT: Array,
    first_P: Array,
    logits_PV: Array,
    counters_P2: Array,
    seen_PV: Array,
    rules: Rules,
    numbers: Numbers,
) -> Set:
    """The whole search; beams of all groups together, best first, as one group."""
    P, T = len(first_P), kept_N2PHKT.shape[-1]
    G, b, N = plan.groups, plan.beams, plan.max_new
    shape = (P, G, b)
    each_row = jnp.repeat(jnp.arange(P), G * b)
    # Only the first beam of a group counts at first: the others are equal to it.
    only_first_b = jnp.where(jnp.arange(b) == 0, 0.0, NEVER)
    empty = Set(
        tokens_PGbN=jnp.full((*shape, N), plan.pad, jnp.int32),
        score_PGb=jnp.full(shape, NEVER),
        log_prob_PGb=jnp.zeros(shape),
        owed_PGb=jnp.broadcast_to(counters_P2[:, 0, None, None], shape),
        atoms_PGb=jnp.broadcast_to(counters_P2[:, 1, None, None], shape),
    )
    state = State(
        cache=prefill.cache_of(plan.options, kept_N2PHKT, each_row, slots),
        running=empty._replace(
            score_PGb=jnp.broadcast_to(only_first_b[None, None], shape)
        ),
        done=empty,
        is_done_PGb=jnp.zeros(shape, bool),
        improvable_PG=jnp.ones((P, G), bool),
        step=jnp.int32(0),
    )
    expand_one = functools.partial(
        expand, plan, seen_PV=seen_PV, rules=rules, numbers=numbers
    )

    def goes_on(state: State) -> Array:
        open_PG = state.improvable_PG
        if plan.patience is True:
            open_PG = open_PG & ~jnp.all(state.is_done_PGb, axis=-1)
        return jnp.any(open_PG) & (state.step < N)

    def turn(state: State) -> State:
        last_PGb = jax.lax.dynamic_index_in_dim(
            state.running.tokens_PGbN, state.step - 1, axis=3, keepdims=False
        )
        logits_BV, cache = gpt_cache.step(
            plan.options,
            params,
            state.cache,
            last_PGb.ravel(),
            T + state.step - 1,
            first_P[each_row],
        )
        state = state._replace(cache=cache)
        return expand_one(state, logits_BV.reshape(*shape, -1))

    first_PGbV = jnp.broadcast_to(
        logits_PV[:, None, None], (*shape, logits_PV.shape[-1])
    )
    state = jax.lax.while_loop(goes_on, turn, expand_one(state, first_PGbV))
    merged = jax.tree.map(lambda x: x.reshape(P, 1, G * b, *x.shape[3:]), state.done)
    order = jnp.argsort(-merged.score_PGb, axis=-1, stable=True)
    return take(merged, order)
