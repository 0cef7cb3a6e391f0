"""Beam search against a plain one without cache, and what ``transformers`` found."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chemscale_jax.core.errors import UserError
from chemscale_jax.inference import beam, score
from chemscale_jax.models import gpt
from tests.inference.generation_fixture import read_recorded
from tests.inference.tiny_gpt import END, OPTIONS, PAD, make_params

PARAMS = make_params()
PROMPTS = [np.array([2]), np.array([2, 7, 8, 9, 7])]
MAX_NEW, BEAMS = 8, 4
TOLERANCE = 1e-4
LONGEST = len(PROMPTS[1]) + MAX_NEW


def run(**changes):
    settings: dict[str, Any] = {
        "num_beams": BEAMS,
        "num_return": BEAMS,
        "max_new": MAX_NEW,
        **changes,
    }
    return beam.beam_search(OPTIONS, PARAMS, PROMPTS, end=END, pad=PAD, **settings)


@jax.jit
def next_log_probs(rows_BL, length):
    B, L = rows_BL.shape
    place_BL = jnp.tile(jnp.arange(L)[None], (B, 1))
    logits = gpt.logits(OPTIONS, PARAMS, rows_BL, jnp.ones((B, L), int), place_BL)
    return jax.nn.log_softmax(logits[:, length - 1])


def expansions(prompt, running, penalty, taken):
    """(score, tokens) of every continuation of the running beams."""
    rows = np.zeros((BEAMS, LONGEST), np.int32)
    for row, (_, tokens) in zip(rows, running, strict=False):
        row[: len(prompt) + len(tokens)] = [*prompt, *tokens]
    length = len(prompt) + len(running[0][1])
    scores = np.array(next_log_probs(jnp.asarray(rows), length))
    for row, (total, tokens) in zip(scores, running, strict=False):
        for token in {*prompt.tolist(), *tokens}:
            row[token] *= penalty
        for token, value in enumerate(row):
            yield total + value - taken.count(token), [*tokens, token]


def search(prompt, groups=1, length_penalty=1.0, early_stopping=False, penalty=1.0):
    """The definition, with lists. Diversity is 1."""
    width = BEAMS // groups
    running = [[(0.0, [])] for _ in range(groups)]
    done = [[] for _ in range(groups)]
    closed = [False] * groups
    for step in range(1, MAX_NEW + 1):
        taken = []
        for g in range(groups):
            found = sorted(
                expansions(prompt, running[g], penalty, taken), key=lambda x: -x[0]
            )[: 2 * width]
            ends = [t[-1] == END or step == MAX_NEW for _, t in found]
            full = len(done[g]) == width
            if not closed[g] and not (early_stopping is True and full):
                done[g] += [
                    (total / step**length_penalty, tokens)
                    for (total, tokens), end in zip(found[:width], ends, strict=False)
                    if end
                ]
                done[g] = sorted(done[g], key=lambda x: -x[0])[:width]
            onward = [x for x, end in zip(found, ends, strict=True) if not end]
            if step == MAX_NEW:
                taken += [tokens[-1] for _, tokens in found[:width]]
                continue
            running[g] = onward[:width]
            taken += [tokens[-1] for _, tokens in running[g]]
            length = step
            if early_stopping == "never" and length_penalty > 0:
                length = MAX_NEW
            hope = running[g][0][0] / length**length_penalty
            if len(done[g]) == width and hope <= done[g][-1][0]:
                closed[g] = True
    return sorted((x for group in done for x in group), key=lambda x: -x[0])


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"early_stopping": True, "length_penalty": 0.4, "penalty": 1.3},
        {"early_stopping": "never", "length_penalty": 1.5},
        {"groups": 2, "early_stopping": True},
    ],
)
def test_the_definition(settings):
    ours = dict(settings)
    ours["repetition_penalty"] = ours.pop("penalty", 1.0)
    ours["diversity"] = 1.0
    found = run(**ours)
    for p, prompt in enumerate(PROMPTS):
        wanted = search(prompt, **settings)
        assert len(wanted) == BEAMS
        for b, (total, tokens) in enumerate(wanted):
            padded = tokens + [PAD] * (MAX_NEW - len(tokens))
            assert found.tokens[p, b].tolist() == padded
            assert abs(found.scores[p, b] - total) < TOLERANCE
            assert found.finished[p, b] == (tokens[-1] == END)
    if not settings:
        assert found.finished.any()
        assert not found.finished.all()
        rows = [
            np.array([*PROMPTS[1], *[t for t in tokens if t != PAD]])
            for tokens in found.tokens[1]
        ]
        whole = score.log_likelihoods(OPTIONS, PARAMS, rows)
        said = found.log_probs[1] + found.prompt_log_probs[1]
        np.testing.assert_allclose(whole, said, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_return": 5}, "cannot return 5"),
        ({"groups": 3}, "not a multiple of beam_groups=3"),
        ({"num_beams": 13}, "the vocabulary has 24 tokens"),
        ({"early_stopping": "soon"}, "early_stopping is 'soon'"),
    ],
)
def test_settings_that_do_not_fit(changes, message):
    with pytest.raises(UserError, match=message):
        run(**changes)


@pytest.mark.shared
@pytest.mark.parametrize("case", ["beam4", "beam4_lp0.6_early", "beam4_leftpad"])
def test_recorded_beams(case):
    recorded = read_recorded()
    spec = recorded.specs[case]
    options = spec["kwargs"]
    found = beam.beam_search(
        recorded.options,
        recorded.params,
        recorded.prompts(spec["input"]),
        end=options["eos_token_id"],
        pad=options["pad_token_id"],
        max_new=options["max_new_tokens"],
        num_beams=options["num_beams"],
        num_return=options["num_return_sequences"],
        length_penalty=options.get("length_penalty", 1.0),
        early_stopping=options.get("early_stopping", False),
    )
    wanted = recorded.continuations(case)
    tokens = found.tokens.reshape(len(wanted), -1)
    np.testing.assert_array_equal(tokens[:, : wanted.shape[1]], wanted)
    scores = recorded.arrays[f"out/gen/{case}/sequences_scores"]
    np.testing.assert_allclose(found.scores.ravel(), scores, atol=TOLERANCE)
