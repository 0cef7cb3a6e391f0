"""Steps with a cache against the full pass."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chemscale_jax.models import gpt, gpt_cache

# Beyond a block of slots, and a window that ends within one.
LENGTH, SLOTS = 37, 3 * gpt_cache.BLOCK
OPTIONS = gpt.GptOptions(
    vocabulary=24, width=16, depth=4, heads=2, positions=LENGTH, window=5
)
# Tokens of padding on the left: none, some, a whole block and more.
PADS = np.array([0, 2, 19])
# Between the cached and the full pass, in float32.
TOLERANCE = 1e-4


def sharp_params(options=OPTIONS):
    """Larger than at the start, biases included."""
    leaves, treedef = jax.tree.flatten(gpt.init(options, jax.random.key(0))["params"])
    rng = np.random.default_rng(0)
    leaves = [x + 0.3 * rng.normal(size=x.shape).astype(np.float32) for x in leaves]
    return jax.tree.unflatten(treedef, leaves)


def rows():
    """Ids, which are real, and positions."""
    tokens = np.random.default_rng(1).integers(0, 24, (len(PADS), LENGTH))
    place = np.arange(LENGTH)[None] - PADS[:, None]
    return tokens.astype(np.int32), place >= 0, np.maximum(place, 0)


def by_steps(options, params, prompt, take=None):
    """Logits of all places from ``prompt`` on, with the given rows."""
    tokens, real, position = rows()
    logits, kept = jax.jit(functools.partial(gpt.prompt_pass, options))(
        params, tokens[:, :prompt], real[:, :prompt], position[:, :prompt]
    )
    take = np.arange(len(PADS)) if take is None else take
    cache = gpt_cache.of_prompts(options, kept[:, :, take], SLOTS)
    step = jax.jit(functools.partial(gpt_cache.step, options))
    for_steps = gpt_cache.step_params(options, params)
    found = [logits[take, -1]]
    for slot in range(prompt, LENGTH):
        logits, cache = step(
            for_steps, cache, tokens[take, slot], jnp.int32(slot), PADS[take]
        )
        found.append(logits)
    return np.stack(found, axis=1)


@pytest.fixture(scope="module")
def params():
    return sharp_params()


def by_full_pass(options, params):
    tokens, real, position = rows()
    score = jax.jit(functools.partial(gpt.logits, options))
    return np.asarray(score(params, tokens, real.astype(np.int32), position))


@pytest.fixture(scope="module")
def full(params):
    return by_full_pass(OPTIONS, params)


@pytest.mark.parametrize("prompt", [1, 20])
def test_steps_give_what_the_full_pass_gives(params, full, prompt):
    found = by_steps(OPTIONS, params, prompt)
    real = rows()[1][:, prompt - 1 :]
    wanted = full[:, prompt - 1 :]
    np.testing.assert_allclose(
        found[real], wanted[real], rtol=TOLERANCE, atol=TOLERANCE
    )


def test_rows_may_be_left_out_and_repeated(params, full):
    take = np.array([2, 0, 2, 2])
    found = by_steps(OPTIONS, params, 20, take)
    np.testing.assert_allclose(
        found[:, 1:], full[take, 20:], rtol=TOLERANCE, atol=TOLERANCE
    )


def test_one_block_for_all_slots(params, full, monkeypatch):
    """As it is where blocks are of no use."""
    monkeypatch.setattr(gpt_cache, "BLOCK", SLOTS)
    found = by_steps(OPTIONS, params, 20)
    np.testing.assert_allclose(
        found[:, 1:], full[:, 20:], rtol=TOLERANCE, atol=TOLERANCE
    )


def test_a_longer_cache_of_other_rows_holds_the_same(params):
    tokens, real, position = map(jnp.asarray, rows())
    _, kept = gpt.prompt_pass(OPTIONS, params, tokens, real, position)
    cache = gpt_cache.of_prompts(OPTIONS, kept, SLOTS)
    larger = gpt_cache.resize(cache, jnp.array([2, 1, 1]), 2 * SLOTS)
    for old, new in zip(cache, larger, strict=True):
        assert new.shape[1] == 2 * SLOTS
        np.testing.assert_array_equal(new[:, :SLOTS], old[..., [2, 1, 1]])
        assert not np.any(new[:, SLOTS:])


@pytest.mark.parametrize("filled", [20, 32])
def test_rows_are_kept_in_the_memory_of_all(params, filled):
    tokens, real, position = map(jnp.asarray, rows())
    _, kept = gpt.prompt_pass(OPTIONS, params, tokens, real, position)
    cache = gpt_cache.of_prompts(OPTIONS, kept, SLOTS)
    keep = jax.jit(gpt_cache.keep_rows, donate_argnums=0)
    fewer = keep(jax.tree.map(jnp.copy, cache), jnp.array([2, 0]), filled)
    blocks = -(-filled // gpt_cache.BLOCK) * gpt_cache.BLOCK
    for old, new in zip(cache, fewer, strict=True):
        assert new.shape == old.shape
        np.testing.assert_array_equal(
            new[:, :blocks, ..., :2], old[:, :blocks][..., [2, 0]]
        )
        np.testing.assert_array_equal(new[:, blocks:], old[:, blocks:])
    # One block of temporaries at most, of keys and of values, and no second cache.
    memory = keep.lower(cache, jnp.array([2, 0]), filled).compile().memory_analysis()
    assert memory is not None
    assert memory.alias_size_in_bytes >= 2 * cache.keys_NSHKB.nbytes
    layer = cache.keys_NSHKB.nbytes / OPTIONS.depth
    assert memory.temp_size_in_bytes < 2 * layer


def test_the_untied_head_and_bfloat16():
    options = gpt.GptOptions(**{**OPTIONS.__dict__, "tied": False, "dtype": "bfloat16"})
    params = jax.tree.map(lambda x: 0.3 * x, sharp_params(options))
    wanted = by_full_pass(options, params)
    found = by_steps(options, params, 20)
    assert found.dtype == np.float32
    # 2^-8 of each product and of what is kept, through four layers.
    difference = np.abs(found - wanted[:, 19:]).max() / np.abs(wanted).max()
    assert difference < 3e-2
