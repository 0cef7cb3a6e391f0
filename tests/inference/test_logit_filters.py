"""Filters against their definitions, and against those of ``transformers``."""

import json
import operator
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chemscale_jax.core.errors import UserError
from chemscale_jax.inference import logit_filters
from chemscale_jax.inference.logit_filters import Filters

compiled = operator.methodcaller("_cache_size")  # programs of a jitted function
V = 48
CASES, ROWS = 250, 4  # together 1,000
# A sum of probabilities as near as this to 1 - top_p falls either way by rounding.
BORDER = 2e-6
# Of scores, in float32: one division or product.
RELATIVE = 1e-6


# Filters that run together; each set is a program.
SETS = (
    {"temperature": (0.7, 1.3)},
    {"top_k": (1, 5, 20, V, 1000)},
    {"top_p": (0.95, 0.9, 0.5, 0.05)},
    {"min_p": (0.05, 0.3, 1.0)},
    {"repetition_penalty": (1.3, 0.8), "top_k": (1, 5, 20), "top_p": (0.9, 0.4)},
    {
        "repetition_penalty": (1.3, 0.8),
        "temperature": (0.7, 1.3),
        "top_k": (5, 20, 1000),
        "top_p": (0.95, 0.5),
        "min_p": (0.05, 0.3),
    },
)


def cases(seed: int):
    """Scores with many ties, what was seen, and settings, in batches of a few rows."""
    rng = np.random.default_rng(seed)
    for number in range(CASES):
        scores = rng.normal(size=(ROWS, V), scale=3)
        if number % 2:  # rounded: ties everywhere, zeros among them
            scores = np.round(scores * rng.choice([0.5, 1.0]))
        if number % 5 == 0:
            scores[rng.random(scores.shape) < 0.3] = -np.inf
        seen = rng.random((ROWS, V)) < 0.2
        seen[:, 0] = True
        chosen = SETS[number % len(SETS)]
        filters = {name: rng.choice(values).item() for name, values in chosen.items()}
        yield scores.astype(np.float32), seen, Filters(**filters)


def ours(scores, seen, filters):
    return np.asarray(
        _jitted(filters.active, filters.numbers, jnp.asarray(scores), jnp.asarray(seen))
    )


_jitted = jax.jit(logit_filters.apply, static_argnums=0)


def softmax(scores):
    exps = np.exp(scores - scores.max())
    return exps / exps.sum()


def by_definition(scores, seen, filters):
    """One row, in float64, and how near a sum of probabilities came to the border."""
    scores = scores.astype(np.float64)
    near = np.inf
    penalty = filters.repetition_penalty
    lowered = np.where(scores < 0, scores * penalty, scores / penalty)
    scores = np.where(seen, lowered, scores) / filters.temperature
    scores = scores.astype(np.float32).astype(np.float64)  # ties stay ties
    if filters.top_k:
        least = np.sort(scores)[-min(filters.top_k, len(scores))]
        scores[scores < least] = -np.inf
    if filters.top_p < 1:
        order = np.argsort(scores, kind="stable")
        sums = np.cumsum(softmax(scores)[order])
        near = np.abs(sums - (1 - filters.top_p)).min()
        gone = sums <= 1 - filters.top_p
        gone[-1] = False
        scores[order[gone]] = -np.inf
    if filters.min_p:
        shares = softmax(scores)
        # A tie in float32 is one here too.
        shares = shares.astype(np.float32)
        scores[shares < np.float32(filters.min_p) * shares.max()] = -np.inf
    return scores, near


def test_the_definitions_in_numpy():
    left_out = 0
    for scores, seen, filters in cases(0):
        found = ours(scores, seen, filters)
        for row in range(ROWS):
            wanted, near = by_definition(scores[row], seen[row], filters)
            if near < BORDER:
                left_out += 1
                continue
            np.testing.assert_array_equal(np.isinf(found[row]), np.isinf(wanted))
            kept = np.isfinite(wanted)
            np.testing.assert_allclose(found[row][kept], wanted[kept], rtol=RELATIVE)
    assert left_out < 0.02 * CASES * ROWS


# In the other environment: the processors in the order in which generate has them.
PROCESSORS = """
import json, pathlib, sys
import numpy, torch
from transformers.generation import logits_process as p
made = {
    "repetition_penalty": p.RepetitionPenaltyLogitsProcessor,
    "temperature": p.TemperatureLogitsWarper,
    "top_k": p.TopKLogitsWarper,
    "top_p": p.TopPLogitsWarper,
    "min_p": p.MinPLogitsWarper,
}
folder = pathlib.Path(sys.argv[1])
given, out = numpy.load(folder / "given.npz"), {}
for i, settings in enumerate(json.loads((folder / "settings.json").read_text())):
    seen, scores = given[f"seen{i}"], torch.tensor(given[f"scores{i}"])
    # A history of one length for all rows.
    ids = [numpy.resize(numpy.flatnonzero(row), seen.shape[1]) for row in seen]
    for name, processor in made.items():
        if name in settings:
            scores = processor(settings[name])(torch.tensor(numpy.array(ids)), scores)
    out[str(i)] = scores.numpy()
numpy.savez(folder / "wanted.npz", **out)
"""


@pytest.mark.peers
def test_the_processors_of_transformers(tmp_path):
    """Needs the environment named by CHEMSCALE_PEERS, or transformers in this one."""
    python = os.environ.get("CHEMSCALE_PEERS", sys.executable)
    given = list(cases(1))
    settings = [
        {name: getattr(filters, name) for name in filters.active}
        for _, _, filters in given
    ]
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    arrays = {f"scores{i}": scores for i, (scores, _, _) in enumerate(given)}
    arrays |= {f"seen{i}": seen for i, (_, seen, _) in enumerate(given)}
    np.savez(tmp_path / "given.npz", allow_pickle=False, **arrays)
    subprocess.run([python, "-c", PROCESSORS, str(tmp_path)], check=True)
    left_out = 0
    with np.load(tmp_path / "wanted.npz") as wanted:
        for i, (scores, seen, filters) in enumerate(given):
            found = ours(scores, seen, filters)
            for row in range(ROWS):
                if by_definition(scores[row], seen[row], filters)[1] < BORDER:
                    left_out += 1
                    continue
                theirs = wanted[str(i)][row]
                # Their sort is not stable: which of equal tokens go is not settled,
                # only how many of them.
                np.testing.assert_allclose(
                    np.sort(found[row]), np.sort(theirs), RELATIVE
                )
                differs = np.isinf(found[row]) != np.isinf(theirs)
                assert len(set(np.fmax(found[row], theirs)[differs].tolist())) <= 1
                np.testing.assert_allclose(
                    found[row][~differs], theirs[~differs], RELATIVE
                )
    assert left_out < 0.02 * CASES * ROWS


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "filters"),
    [
        ("temperature_0.7", Filters(temperature=0.7)),
        ("rep_penalty_1.3", Filters(repetition_penalty=1.3)),
        ("top_k_10", Filters(top_k=10)),
        ("top_p_0.9", Filters(top_p=0.9)),
        (
            "pipeline_rp1.3_t0.7_k20_p0.9",
            Filters(temperature=0.7, top_k=20, top_p=0.9, repetition_penalty=1.3),
        ),
    ],
)
def test_recorded_filters(name, filters):
    folder = pathlib.Path(os.environ["CHEMSCALE_SHARED"]) / "parity"
    with np.load(folder / "gptneo_s0.npz") as file:
        scores, history = file["in/warp_logits"], file["in/warp_history"]
        wanted = file[f"out/warp/{name}"]
    seen = np.zeros(scores.shape, bool)
    np.put_along_axis(seen, history, True, axis=1)
    found = ours(scores, seen, filters)
    # Minus infinity is written as a number there.
    wanted = np.where(wanted <= -1e29, -np.inf, wanted)
    np.testing.assert_allclose(found, wanted, rtol=RELATIVE)


def test_ties_at_the_border():
    """Of equal tokens top-k keeps all, top-p drops the first ones it can spare."""
    scores = np.log(np.array([[4, 2, 2, 2, 2, 4]], np.float32) / 16)
    seen = np.zeros(scores.shape, bool)
    kept = np.isfinite(ours(scores, seen, Filters(top_k=3)))
    assert kept.all()
    kept = np.isfinite(ours(scores, seen, Filters(top_p=0.7)))
    np.testing.assert_array_equal(kept, [[True, False, False, True, True, True]])
    kept = np.isfinite(ours(scores, seen, Filters(top_p=0.01)))
    np.testing.assert_array_equal(kept, [[False] * 5 + [True]])


def test_one_program_for_all_values():
    before = compiled(_jitted)
    scores, seen = np.zeros((ROWS, V), np.float32), np.zeros((ROWS, V), bool)
    for top_p, top_k in ((0.31, 3), (0.32, 4), (0.33, 5)):
        ours(scores, seen, Filters(top_p=top_p, top_k=top_k))
    assert compiled(_jitted) <= before + 1


def test_draws_follow_the_probabilities():
    scores = jnp.array([[0.0, -jnp.inf, 1.0, 2.0, -jnp.inf]], jnp.float32)
    numbers = (np.arange(4096, dtype=np.float32) + 0.5) / 4096
    drawn = np.asarray(
        jax.jit(logit_filters.draw)(jnp.tile(scores, (4096, 1)), jnp.asarray(numbers))
    )
    shares = np.bincount(drawn, minlength=5) / 4096
    np.testing.assert_allclose(shares, softmax(np.asarray(scores[0])), atol=1 / 4096)


def test_extreme_numbers_draw_allowed_tokens():
    scores = np.full((2, 700), -np.inf, np.float32)
    scores[:, [3, 350]] = 1.0
    numbers = np.array([0.0, np.nextafter(np.float32(1), np.float32(0))], np.float32)
    drawn = logit_filters.draw(jnp.asarray(scores), jnp.asarray(numbers))
    assert drawn.tolist() == [3, 350]


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": 0.0},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"min_p": 2.0},
        {"repetition_penalty": 0.0},
    ],
)
def test_settings_out_of_range(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        Filters(**wrong)
