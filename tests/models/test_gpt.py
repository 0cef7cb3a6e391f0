import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chemscale_jax.core.errors import UserError
from chemscale_jax.interop import hf_gpt_neo
from chemscale_jax.models import attention, gpt
from tests.models import gpt_reference

TINY = gpt.GptOptions(vocabulary=24, width=16, depth=4, heads=2, positions=16, window=3)
# Two molecules and padding.
SEGMENT = np.array([1] * 5 + [2] * 5 + [0] * 2, np.int32)
POSITION = np.array([0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 0], np.int32)
LENGTH = len(SEGMENT)

# Name of the model, and its parameters without embeddings, as published.
COUNTS = {
    16: 77_600,
    32: 302_656,
    64: 1_195_136,
    128: 4_749_568,
    256: 18_936_320,
    512: 75_621_376,
    1024: 302_237_696,
    2048: 1_208_455_168,
}


def rough(options, seed=0):
    """Parameters that are larger than at the start, biases included."""
    variables = gpt.init(options, jax.random.key(seed))
    leaves, treedef = jax.tree.flatten(variables["params"])
    rng = np.random.default_rng(seed)
    leaves = [x + 0.3 * rng.normal(size=x.shape).astype(np.float32) for x in leaves]
    return jax.tree.unflatten(treedef, leaves)


@pytest.fixture(scope="module")
def params():
    return rough(TINY)


@pytest.fixture(scope="module")
def rows():
    tokens = np.random.default_rng(1).integers(0, 24, (2, LENGTH)).astype(np.int32)
    one = np.where(np.arange(LENGTH) < 11, 1, 0).astype(np.int32)
    return (
        jnp.asarray(tokens),
        jnp.asarray(np.stack([SEGMENT, one])),
        jnp.asarray(np.stack([POSITION, np.arange(LENGTH, dtype=np.int32)])),
    )


@pytest.fixture(scope="module")
def scores(params, rows):
    return jax.jit(functools.partial(gpt.logits, TINY))(params, *rows)


@pytest.mark.parametrize("width", COUNTS)
def test_published_numbers_of_parameters(width):
    options = gpt.GptOptions(vocabulary=684, width=width)
    shapes = jax.eval_shape(lambda key: gpt.init(options, key), jax.random.key(0))
    sizes = {name: 0 for name in shapes["params"]}
    for name, part in shapes["params"].items():
        sizes[name] = sum(leaf.size for leaf in jax.tree.leaves(part))
    assert sizes.pop("tokens") == 684 * width
    assert sizes.pop("positions") == 2048 * width
    assert sum(sizes.values()) == COUNTS[width]


def test_every_hidden_state_is_that_of_plain_loops(params, rows, scores):
    state = hf_gpt_neo.export_weights(TINY, params)
    tables = [np.asarray(x) for x in rows]
    expected = [
        gpt_reference.states(state, TINY.heads, TINY.window, *row)
        for row in zip(*tables, strict=True)
    ]
    layers = range(TINY.depth + 1)
    found = jax.jit(lambda p: [gpt.hidden(TINY, p, *rows, layer=n) for n in layers])(
        params
    )
    real = tables[1] > 0
    for layer in layers:
        ours, theirs = found[layer], np.stack([row[layer] for row in expected])
        # float32 through four layers.
        np.testing.assert_allclose(ours[real], theirs[real], rtol=1e-4, atol=1e-4)
    logits = (
        np.stack([row[-1] for row in expected])
        @ np.asarray(state["transformer.wte.weight"], np.float64).T
    )
    np.testing.assert_allclose(scores[real], logits[real], rtol=1e-4, atol=1e-3)


def influence(options, segment, position):
    """How much each place (second axis) moves the scores of each place."""
    # Each place has a token of its own, and the head a matrix of its own.
    options = dataclasses.replace(options, vocabulary=LENGTH, tied=False)
    params = rough(options, 2)
    tokens = jnp.arange(LENGTH)[None]

    @jax.jit
    @jax.jacrev
    def jacobian(table):
        held = {**params, "tokens": {"embedding": table}}
        places = (tokens, jnp.asarray(segment)[None], jnp.asarray(position)[None])
        return jnp.sum(gpt.logits(options, held, *places)[0, :, :3], axis=1)

    return np.abs(np.asarray(jacobian(params["tokens"]["embedding"]))).max(axis=2)


def test_no_later_token_and_no_other_molecule_influences_a_prediction():
    moved = influence(TINY, SEGMENT, POSITION)
    same = SEGMENT[:, None] == SEGMENT[None, :]
    np.testing.assert_array_equal(moved > 0, same & np.tri(LENGTH, dtype=bool))


@pytest.mark.parametrize("segments", [True, False])
def test_in_rows_cut_from_one_text_other_molecules_do_influence(segments):
    options = dataclasses.replace(TINY, segments=segments)
    one = np.ones_like(SEGMENT) if segments else SEGMENT
    moved = influence(options, one, np.arange(LENGTH, dtype=np.int32))
    np.testing.assert_array_equal(moved > 0, np.tri(LENGTH, dtype=bool))


def test_local_layers_see_the_last_keys_of_the_window(params, rows):
    ones = jnp.ones_like(rows[1])
    looked = [
        jax.jit(functools.partial(gpt.attention_weights, TINY, layer=layer))(
            params, rows[0], ones, rows[2]
        )
        for layer in (0, 1)
    ]
    back = np.arange(LENGTH)[:, None] - np.arange(LENGTH)[None, :]
    for weights, seen in zip(
        looked, (back >= 0, (back >= 0) & (back <= 2)), strict=True
    ):
        np.testing.assert_array_equal(np.all(np.asarray(weights) > 0, (0, 1)), seen)
        np.testing.assert_allclose(np.sum(weights, -1), 1.0, rtol=1e-5)


@pytest.mark.parametrize("width", [1, 4, 20])
def test_attention_and_its_gradient_are_those_of_the_softmax(width):
    """Widths on both sides of where scores become a matrix product."""
    rng = np.random.default_rng(width)
    shape = (2, 3, width, 7)
    q, k, v, g = (jnp.asarray(rng.normal(size=shape), jnp.float32) for _ in range(4))
    mask = jnp.asarray((rng.random((2, 1, 7, 7)) < 0.5) | np.eye(7, dtype=bool))

    def plain(q, k, v):
        score = jnp.einsum("bhks,bhkl->bhls", k, 3 * q)
        score = jnp.where(mask.swapaxes(2, 3), score, -jnp.inf)
        return jnp.einsum("bhls,bhks->bhkl", jax.nn.softmax(score), v)

    def both(function):
        return jax.jit(
            lambda q, k, v: (function(q, k, v), *jax.vjp(function, q, k, v)[1](g))
        )

    ours = both(lambda q, k, v: attention.attend(3 * q, k, v, mask))(q, k, v)
    for found, expected in zip(ours, both(plain)(q, k, v), strict=True):
        # Scores reach 40, where float32 has five digits behind the point.
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_a_query_that_sees_nothing_stays_finite():
    x = jnp.full((1, 1, 2, 3), 1e4)
    off = jnp.zeros((1, 1, 3, 3), bool)
    found = jax.jit(
        jax.value_and_grad(lambda q: jnp.sum(attention.attend(q, x, x, off)))
    )(x)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(found))


def test_cudnn_is_asked_for_the_same(monkeypatch, params, rows, scores):
    """Its own kernel needs a GPU; here the call is answered by XLA."""
    plain, asked = jax.nn.dot_product_attention, []

    def answer(*args, implementation, **kwargs):
        asked.append(implementation)
        return plain(*args, implementation="xla", **kwargs)

    monkeypatch.setattr(jax.nn, "dot_product_attention", answer)
    monkeypatch.setattr(attention, "choose", lambda *_: "cudnn")
    found = gpt.logits(TINY, params, *rows)
    assert asked == ["cudnn"] * 2
    real = np.asarray(rows[1]) > 0
    np.testing.assert_allclose(found[real], scores[real], rtol=1e-4, atol=1e-4)


def gradient(options, params, rows):
    def total(params):
        return jnp.sum(jnp.sin(gpt.logits(options, params, *rows)))

    return jax.jit(jax.grad(total))(params)


def test_how_it_is_computed_changes_no_gradient(params, rows):
    expected = gradient(TINY, params, rows)
    for changes in ({"remat": "full", "unroll": 2}, {"remat": "dots"}):
        found = gradient(dataclasses.replace(TINY, **changes), params, rows)
        jax.tree.map(
            # Sums in another order.
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-3),
            found,
            expected,
        )


def test_bfloat16_is_near_float32(params, rows, scores):
    options = dataclasses.replace(TINY, dtype="bfloat16")
    # As at the start: 2^-8 of each product, through four layers.
    small = jax.tree.map(lambda x: 0.3 * x, params)
    near, exact = (
        jax.jit(functools.partial(gpt.logits, o))(small, *rows) for o in (options, TINY)
    )
    assert near.dtype == jnp.float32
    difference = float(jnp.max(jnp.abs(near - exact)) / jnp.max(jnp.abs(exact)))
    assert 1e-5 < difference < 3e-2


def test_padding_and_longer_rows_change_nothing(params, rows, scores):
    tokens, segment, position = (
        jnp.pad(x, ((0, 0), (0, 4)), constant_values=fill)
        for x, fill in zip(rows, (7, 0, 0), strict=True)
    )
    tokens = jnp.where(segment == 0, 3, tokens)
    score = jax.jit(functools.partial(gpt.logits, TINY))
    longer = score(params, tokens, segment, position)[:, :LENGTH]
    real = np.asarray(rows[1]) > 0
    np.testing.assert_allclose(longer[real], scores[real], rtol=1e-4, atol=1e-4)


def test_the_tied_head_favours_the_same_token_at_the_start():
    """So text that repeats itself starts below log V, as ChemGPT does."""
    options = gpt.GptOptions(vocabulary=200, width=128, depth=2, heads=2)
    params = gpt.init(options, jax.random.key(0))["params"]
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, 200, (4, 32)))
    places = (jnp.ones_like(tokens), jnp.broadcast_to(jnp.arange(32), tokens.shape))
    scores = jax.jit(functools.partial(gpt.logits, options))(params, tokens, *places)
    nll = -jax.nn.log_softmax(scores)
    repeated = float(jnp.mean(jnp.take_along_axis(nll, tokens[..., None], axis=2)))
    assert 3.5 < repeated < np.log(200) - 0.3
    assert float(jnp.mean(nll)) == pytest.approx(np.log(200), abs=0.1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depth": 3}, "depth is 3; layers come in pairs"),
        ({"heads": 3}, "width 16 is not a multiple"),
        ({"window": 0}, "window is 0, must be >= 1"),
        ({"dtype": "float16"}, "dtype is 'float16'"),
        ({"attention": "flash"}, "attention is 'flash'"),
    ],
)
def test_options_out_of_range_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        gpt.init(dataclasses.replace(TINY, **changes), jax.random.key(0))


def test_cudnn_is_chosen_where_it_can_be_used(monkeypatch):
    assert attention.choose("auto", 64, "bfloat16") == "xla"
    with pytest.raises(UserError, match=r"needs a GPU.*found cpu, float32 and 4"):
        attention.choose("cudnn", 4, "float32")
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert attention.choose("auto", 64, "bfloat16") == "cudnn"
    assert attention.choose("auto", 4, "bfloat16") == "xla"
    assert attention.choose("auto", 64, "float32") == "xla"
    assert attention.choose("xla", 64, "bfloat16") == "xla"
