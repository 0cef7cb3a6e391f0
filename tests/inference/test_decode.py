"""Sampling and greedy decoding against the full pass, in batches of any size."""

import functools
import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chemscale_jax.core.errors import UserError
from chemscale_jax.core.partition import make_mesh
from chemscale_jax.inference import (
    decode,
    decode_step,
    grammar,
    logit_filters,
)
from chemscale_jax.inference.grammar import Rules
from chemscale_jax.inference.logit_filters import Filters
from chemscale_jax.models import gpt
from tests.inference.generation_fixture import read_recorded
from tests.inference.tiny_gpt import END, OPTIONS, PAD, make_params

PARAMS = make_params()
compiled = operator.methodcaller("_cache_size")  # programs of a jitted function
PROMPTS = [np.array([2]), np.array([2, 7, 8, 9, 7]), np.array([2, 11, 12])]
SAMPLES, MAX_NEW, SEED = 3, 20, 5
V = OPTIONS.vocabulary
# Between the cached and the full pass, in float32.
TOLERANCE = 2e-4
RULES = Rules(
    allowed_V=np.arange(V) > 2,
    owes_V=np.where(np.isin(np.arange(V), (5, 6)), 2, 0).astype(np.int32),
    atoms_V=(np.arange(V) > 14).astype(np.int32),
    end=np.int32(END),
    max_atoms=np.int32(4),
)
ALL = Filters(temperature=0.8, top_k=12, top_p=0.9, min_p=0.02, repetition_penalty=1.2)
SAMPLERS = {
    "plain": {},
    "all_filters": {"filters": ALL},
    "greedy": {"greedy": True, "filters": Filters(repetition_penalty=1.5)},
    "rules": {"rules": RULES, "filters": Filters(top_p=0.95)},
}
SLOW_SAMPLERS = {
    "temperature": {"filters": Filters(temperature=1.4)},
    "top_k": {"filters": Filters(top_k=3)},
    "top_p": {"filters": Filters(top_p=0.6)},
    "min_p": {"filters": Filters(min_p=0.2)},
    "repetition_penalty": {"filters": Filters(repetition_penalty=1.4)},
    "greedy_rules": {"greedy": True, "rules": RULES},
}


def run(**changes):
    settings: dict[str, Any] = {
        "end": END,
        "pad": PAD,
        "max_new": MAX_NEW,
        "seed": SEED,
    }
    settings |= {"samples_per_prompt": SAMPLES, **changes}
    prompts = settings.pop("prompts", PROMPTS)
    return decode.decode(OPTIONS, PARAMS, prompts, **settings)


@functools.partial(jax.jit, static_argnums=(0, 1))
def by_full_pass(active, greedy, numbers, rules, row, number, before, seen, counters):
    """What one row should hold at each step, and how likely what it holds is."""
    L, steps = len(row), jnp.arange(MAX_NEW)
    place = jnp.arange(L)[None]
    ones = jnp.ones((1, L), int)
    logits = gpt.logits(OPTIONS, PARAMS, row[None], ones, place)[0]
    logits = logits[before - 1 + steps]
    scores = logits
    if rules is not None:
        left = MAX_NEW - 1 - steps
        allowed = jax.vmap(grammar.allowed_next, (None, 0, 0, 0))(
            rules, counters[:, :1], counters[:, 1:], left
        )
        scores = jnp.where(allowed[:, 0], scores, -jnp.inf)
    scores = logit_filters.apply(active, numbers, scores, seen)
    key = jax.random.fold_in(jax.random.key(SEED), number)
    drawn = logit_filters.draw(
        scores, jax.vmap(decode_step.row_uniforms, (None, 0))(key[None], steps)[:, 0]
    )
    made = row[before + steps]
    said = jnp.take_along_axis(jax.nn.log_softmax(logits), made[:, None], axis=1)
    return (jnp.argmax(scores, axis=-1) if greedy else drawn), said[:, 0]


def chosen_by_full_pass(number, prompt, tokens, greedy, filters, rules):
    """The same for the tokens up to the end."""
    row = np.zeros(len(PROMPTS[1]) + MAX_NEW, np.int32)
    row[: len(prompt) + len(tokens)] = [*prompt, *tokens]
    seen = np.zeros((MAX_NEW, V), bool)
    counters = np.zeros((MAX_NEW, 2), np.int32)
    for i in range(len(tokens)):
        before = row[: len(prompt) + i]
        seen[i, before] = True
        if rules is not None:
            counters[i] = grammar.count_prompt(rules, before)
    active = filters.active & {"repetition_penalty"} if greedy else filters.active
    chosen, said = by_full_pass(
        *(active, greedy, filters.numbers, rules),
        *(row, number, len(prompt), seen, counters),
    )
    return np.asarray(chosen)[: len(tokens)], np.asarray(said)[: len(tokens)]


@pytest.mark.parametrize(
    "name",
    [
        *SAMPLERS,
        *[pytest.param(name, marks=pytest.mark.slow) for name in SLOW_SAMPLERS],
    ],
)
def test_equals_the_full_pass(name):
    sampler = {**SAMPLERS, **SLOW_SAMPLERS}[name]
    found = run(**sampler)
    settings = {"greedy": False, "filters": Filters(), "rules": None, **sampler}
    for number, tokens in enumerate(found.tokens):
        prompt = PROMPTS[number // SAMPLES]
        made = tokens[: found.lengths[number]]
        wanted, said = chosen_by_full_pass(number, prompt, made, **settings)
        np.testing.assert_array_equal(made, wanted)
        log_probs = found.log_probs[number]
        np.testing.assert_allclose(log_probs[: len(made)], said, atol=TOLERANCE)
        assert found.finished[number] == (END in made)
        assert np.all(tokens[len(made) :] == PAD)
        assert not np.any(log_probs[len(made) :])
    if name == "plain":
        assert 0 < found.finished.sum() < len(found.tokens)
        assert len({tuple(row) for row in found.tokens}) > SAMPLES


def test_rules_are_kept():
    found = run(rules=RULES, filters=Filters(top_p=0.99), seed=6)
    for number, tokens in enumerate(found.tokens):
        made = tokens[: found.lengths[number]]
        assert not np.isin(made, (0, 1, 2)).any()
        row = [*PROMPTS[number // SAMPLES], *made]
        assert grammar.count_prompt(RULES, row)[1] <= 4
        # Neither an end nor the limit leaves an index symbol owed.
        assert grammar.count_prompt(RULES, row[: len(row) - (END in made)])[0] == 0


def test_a_row_depends_on_its_number_alone(monkeypatch):
    """Batches of other sizes, halved and grown on the way, on one or four devices."""
    # Some rows need more slots than there are at first; half end before the others.
    settings = {"samples_per_prompt": 10, "max_new": 40}
    whole = run(**settings)
    assert whole.finished.sum() > 15
    assert whole.lengths.max() > 32
    assert np.any(run(**{**settings, "seed": 6}).tokens != whole.tokens)
    # Fewer at once, caches that grow, and batches that shrink by smaller steps and once
    # more.
    monkeypatch.setattr(decode, "FIRST_SLOTS", 16)
    monkeypatch.setattr(decode, "AMPLE_SLOTS", 0)
    monkeypatch.setattr(decode, "LEAST_ROWS", 8)
    monkeypatch.setattr(decode, "QUARTERED_ROWS", 16)
    small = run(batch_rows=16, **settings)
    for one, other in zip(whole, small, strict=True):
        np.testing.assert_allclose(one, other, atol=TOLERANCE)
    # Rows that end never give their room back, or at once.
    for least in (0.0, 1.0):
        monkeypatch.setattr(decode, "LEAST_TAKEN", least)
        other = run(batch_rows=16, **settings)
        np.testing.assert_array_equal(whole.tokens, other.tokens)
    mesh = make_mesh(data=2, fsdp=2, devices=jax.devices()[:4])
    spread = run(mesh=mesh, **settings)
    np.testing.assert_array_equal(whole.tokens, spread.tokens)
    # A part of the rows, as another call.
    part = run(prompts=[PROMPTS[2]], first_row=20, **settings)
    np.testing.assert_array_equal(whole.tokens[20:], part.tokens)


def test_batches_shrink_to_sizes_that_devices_can_share():
    assert decode._smaller_sizes(256, 16) == [192, 128, 96, 64, 32, 16, 0]
    assert decode._smaller_sizes(8 * 16, 8 * 2) == [96, 64, 32, 16, 0]
    assert decode._smaller_sizes(16, 16) == [0]


def test_few_programs_are_compiled():
    run()
    before = compiled(decode_step.advance)
    for prompt in ([2, 5, 6], [2, 5, 6, 7, 8], [2, 9]):
        run(prompts=[np.array(prompt)] * 3, filters=Filters(), seed=7)
    assert compiled(decode_step.advance) == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_new": 0}, "max_new is 0"),
        ({"max_new": 95}, "do not fit the model's 96 positions"),
        ({"prompts": [np.array([], int)]}, "a prompt is empty"),
        ({"prompts": []}, "a prompt is empty"),
    ],
)
def test_lengths_that_do_not_fit(changes, message):
    with pytest.raises(UserError, match=message):
        run(**changes)


@pytest.mark.shared
@pytest.mark.parametrize("case", ["", "_noeos", "_leftpad", "_reppen"])
def test_recorded_greedy_sequences(case):
    recorded = read_recorded()
    spec = recorded.specs[f"greedy{case}"]
    options = spec["kwargs"]
    wanted = recorded.continuations(f"greedy{case}")
    found = decode.decode(
        recorded.options,
        recorded.params,
        recorded.prompts(spec["input"]),
        end=options["eos_token_id"],
        pad=options["pad_token_id"],
        max_new=options["max_new_tokens"],
        greedy=True,
        filters=Filters(repetition_penalty=options.get("repetition_penalty", 1.0)),
    )
    np.testing.assert_array_equal(found.tokens[:, : wanted.shape[1]], wanted)
    assert np.all(found.tokens[:, wanted.shape[1] :] == options["pad_token_id"])
