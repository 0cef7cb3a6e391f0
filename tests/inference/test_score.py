"""Log-likelihoods of given sequences."""

import numpy as np
import pytest

from chemscale_jax.core.errors import UserError
from chemscale_jax.inference import decode, score
from tests.inference.tiny_gpt import END, OPTIONS, PAD, make_params

PARAMS = make_params()
PROMPTS = [np.array([2]), np.array([2, 7, 8, 9, 7])]
TOLERANCE = 3e-4  # a sum over 30 tokens in float32


def test_equals_what_the_sampler_said():
    samples = 6
    found = decode.decode(
        OPTIONS,
        PARAMS,
        PROMPTS,
        end=END,
        pad=PAD,
        max_new=30,
        samples_per_prompt=samples,
    )
    sequences = [
        np.array([*PROMPTS[i // samples], *tokens[:length]])
        for i, (tokens, length) in enumerate(
            zip(found.tokens, found.lengths, strict=True)
        )
    ]
    said = found.prompt_log_probs + found.log_probs.sum(axis=1)
    # Small batches, in the order of lengths; the order given comes back.
    scores = score.log_likelihoods(OPTIONS, PARAMS, sequences)
    np.testing.assert_allclose(scores, said, atol=TOLERANCE)
    each = score.token_log_probs(OPTIONS, PARAMS, sequences, batch_tokens=64)
    for sequence, one, total in zip(sequences, each, scores, strict=True):
        assert one.shape == (len(sequence) - 1,)
        assert abs(one.sum() - total) < TOLERANCE


def test_nothing_to_score():
    assert len(score.log_likelihoods(OPTIONS, PARAMS, [])) == 0
    with pytest.raises(UserError, match="fewer than two tokens"):
        score.log_likelihoods(OPTIONS, PARAMS, [np.array([2])])
    with pytest.raises(UserError, match=r"sequence 1 has 97 tokens"):
        score.log_likelihoods(OPTIONS, PARAMS, [np.full(97, 2)])
