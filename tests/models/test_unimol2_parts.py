"""The parts of Uni-Mol2 against their definitions, written out."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chemscale_jax.core.errors import UserError
from chemscale_jax.models import unimol2, unimol2_blocks
from tests.models.unimol2_rows import TINY, batch, molecule, rough

LENGTHS = (6, 2)  # places of two molecules in rows of 7
C, Q = TINY.pair_hidden, TINY.pair_width


@pytest.fixture(scope="module")
def params():
    return rough(TINY, size=0.3)


@pytest.fixture(scope="module")
def block(params):
    """Of one layer, in float64 on the host too."""
    return jax.tree.map(lambda x: x[1], params["layers"])


@pytest.fixture(scope="module")
def rows():
    return batch([molecule(5), molecule(1)], 6)


@pytest.fixture(scope="module")
def tracks():
    rng = np.random.default_rng(0)
    return (
        jnp.asarray(rng.normal(size=(2, 7, TINY.width)), jnp.float32),
        jnp.asarray(rng.normal(size=(2, 7, 7, Q)), jnp.float32),
    )


def wide(tree):
    return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)


def layer_norm(params, x):
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return scaled * params["scale"] + params["bias"]


def linear(params, x):
    return x @ params["kernel"] + params["bias"]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def assert_near(found, expected):
    # float32, sums of some hundred products of order 1.
    largest = np.max(np.abs(expected))
    np.testing.assert_allclose(found, expected, rtol=0, atol=3e-6 * largest)


def test_outer_products(block, rows, tracks):
    """All products of channels are formed, then mapped, as published."""
    places = unimol2.make_places(TINY, rows)
    found = jax.jit(functools.partial(unimol2_blocks.outer_product, TINY))(
        block["outer"], tracks[0], places
    )
    outer = wide(block["outer"])
    for row, T in enumerate(LENGTHS):
        x_TD = np.asarray(tracks[0], np.float64)[row, :T]
        ab = linear(outer["expand"], layer_norm(outer["norm"], x_TD)) / math.sqrt(T)
        products = np.einsum("ic,jd->ijcd", ab[:, :C], ab[:, C:]).reshape(T, T, C * C)
        kernel = outer["shrink"]["kernel"].reshape(C * C, Q)
        expected = (products @ kernel + outer["shrink"]["bias"]) / (1e-3 + 1 / T)
        assert_near(found[row, :T, :T], expected)


def test_triangles(block, rows, tracks):
    places = unimol2.make_places(TINY, rows)
    found = jax.jit(functools.partial(unimol2_blocks.triangle, TINY))(
        block["triangle"], tracks[1], places
    )
    triangle = wide(block["triangle"])
    for row, T in enumerate(LENGTHS):
        pair = np.asarray(tracks[1], np.float64)[row, :T, :T]
        y = linear(triangle["expand"], layer_norm(triangle["norm"], pair))
        value, gate, out = np.split(y, [2 * C, 4 * C], axis=-1)
        ab = value * sigmoid(gate) / math.sqrt(T)
        t = np.zeros((T, T, C))
        for i in range(T):
            for j in range(T):
                for k in range(T):
                    t[i, j] += ab[i, k, :C] * ab[j, k, C:]
                    t[i, j] += ab[k, i, :C] * ab[k, j, C:]
        z = linear(triangle["shrink"], layer_norm(triangle["middle_norm"], t))
        assert_near(found[row, :T, :T], out * z)


def test_attention(block, rows, tracks):
    places = unimol2.make_places(TINY, rows)
    found = jax.jit(functools.partial(unimol2_blocks.attention, TINY))(
        block["attention"], *tracks, places.real_BT
    )
    attention = wide(block["attention"])
    K = TINY.width // TINY.heads
    for row, T in enumerate(LENGTHS):
        x_TD, pair = (np.asarray(x, np.float64)[row, :T] for x in tracks)
        y = layer_norm(attention["norm"], x_TD)
        q, k, v = (y @ attention["qkv"]["kernel"][:, n] for n in range(3))
        bias = linear(attention["bias"], pair[:, :T])
        out = []
        for head in range(TINY.heads):
            part = slice(head * K, (head + 1) * K)
            score = q[:, part] @ k[:, part].T / math.sqrt(K) + bias[..., head]
            weight = np.exp(score - score.max(1, keepdims=True))
            out.append(weight / weight.sum(1, keepdims=True) @ v[:, part])
        expected = linear(attention["merge"], np.concatenate(out, axis=1))
        assert_near(found[row, :T], expected)


def test_feed_forward_has_the_exact_gelu(block, tracks):
    found = jax.jit(functools.partial(unimol2_blocks.feed_forward, TINY))(
        block["feed_forward"], tracks[0]
    )
    layers = wide(block["feed_forward"])
    x = np.asarray(tracks[0], np.float64)
    y = linear(layers["expand"], layer_norm(layers["norm"], x))
    erf = np.vectorize(math.erf)(y / math.sqrt(2))
    assert_near(found, linear(layers["shrink"], y * (1 + erf) / 2))


@pytest.mark.parametrize("pair_type", ["element", "chirality"])
def test_pairs_at_the_start(params, pair_type):
    options = dataclasses.replace(TINY, pair_type=pair_type)
    one = molecule(5)
    embed = jax.jit(functools.partial(unimol2.embed_pairs, options))
    found = embed(params, batch([one], 6))[0]
    p = wide(params)
    for other in (0, 3, 5):
        np.testing.assert_allclose(
            found[0, other], p["virtual_pair"]["embedding"], rtol=1e-6
        )
        np.testing.assert_array_equal(found[other, 0], found[0, other])
    kernel, (i, j) = p["kernel"], (1, 3)
    if pair_type == "element":
        types = int(one.species_BN[i]), 128 + int(one.species_BN[j])
    else:
        types = 1 + int(one.atom_BN8[i, 0]), 129 + int(one.atom_BN8[j, 0])
    scale, shift = (kernel[name]["embedding"] for name in ("scale", "shift"))
    apart = np.linalg.norm(one.positions_BN3[i] - one.positions_BN3[j])
    apart = sum(abs(scale[t]) for t in types) * apart + sum(shift[t] for t in types)
    centres = np.linspace(0, 9, 128)
    sigma = 9 / 127
    phi = np.exp(-(((apart - centres) / sigma) ** 2) / 2) / (
        sigma * math.sqrt(2 * 3.14159)
    )
    y = linear(kernel["expand"], phi)
    erf = np.vectorize(math.erf)(y / math.sqrt(2))
    expected = linear(kernel["shrink"], y * (1 + erf) / 2)
    expected = expected + p["paths"]["embedding"][one.path_BNN[i, j]]
    expected = expected + p["bonds"]["embedding"][one.bond_BNN3[i, j]].mean(0)
    # The Gaussians are narrow: float32 distances and centres.
    np.testing.assert_allclose(found[i + 1, j + 1], expected, rtol=0, atol=1e-3)


def test_centres_are_those_of_torch():
    """Which differ from float64 ones in the last digit, and matter at 1e-9."""
    centres, deviation = unimol2.kernel_centres(TINY)
    assert centres.dtype == np.float32
    assert (centres[0], centres[-1]) == (0.0, 9.0)
    assert deviation == np.float32(9) / np.float32(127)
    np.testing.assert_allclose(centres, np.linspace(0, 9, 128), rtol=0, atol=5e-7)


def test_distances_have_gradients_at_zero():
    positions = jnp.asarray([[[0.0, 0, 0], [0, 0, 0], [3, 4, 0]]])
    found = unimol2.distances(positions)[0]
    np.testing.assert_allclose(found, [[0, 0, 5], [0, 0, 5], [5, 5, 0]])
    grads = jax.jit(jax.grad(lambda x: jnp.sum(unimol2.distances(x))))(positions)
    np.testing.assert_allclose(grads[0, 2], [2.4, 3.2, 0], rtol=1e-6)


def test_dropout_of_triangles_is_shared_by_rows():
    x = jnp.ones((40, 5, 6, 12))
    key = jax.random.key(0, impl="unsafe_rbg")
    found = np.asarray(unimol2_blocks.dropout(x, 0.25, key, shared_axis=1))
    np.testing.assert_array_equal(found, np.broadcast_to(found[:, :1], x.shape))
    assert set(np.unique(found).tolist()) == {0.0, np.float32(4 / 3)}
    assert np.mean(found == 0) == pytest.approx(0.25, abs=0.03)
    assert unimol2_blocks.dropout(x, 0.25, None) is x
    assert unimol2_blocks.dropout(x, 0.0, key) is x


def test_padding_of_a_movement_stays(params, rows, tracks):
    encoded = unimol2_blocks.Encoded(*tracks)
    far = jnp.where(unimol2.atom_mask(rows)[..., None], rows.positions_BN3, 100.0)
    move = jax.jit(functools.partial(unimol2.move, TINY))
    moved = move(params, encoded, rows._replace(positions_BN3=far))
    assert np.all(np.asarray(moved)[np.asarray(rows.species_BN) == 0] == 100.0)


@pytest.mark.parametrize("form", ["tanh", "linear"])
def test_heads_of_properties(tracks, form):
    key = jax.random.key(1, impl="unsafe_rbg")
    head = unimol2.init_head(TINY, key, 3, form)
    pooled = jax.jit(unimol2.pooled, static_argnames="rate")
    found = pooled(head, tracks[0])
    x_BD = np.asarray(tracks[0], np.float64)[:, 0]
    layers = wide(head)
    if form == "tanh":
        x_BD = np.tanh(linear(layers["dense"], x_BD))
    np.testing.assert_allclose(found, linear(layers["out"], x_BD), rtol=1e-5, atol=1e-5)
    dropped = pooled(head, tracks[0], rate=0.5, key=key)
    assert np.any(np.abs(np.asarray(dropped - found)) > 1e-3)


def test_cudnn_is_asked_for_the_same(monkeypatch, block, rows, tracks):
    """Its own kernel needs a GPU; here the call is answered by XLA."""
    plain, asked = jax.nn.dot_product_attention, []

    def answer(*args, implementation, **kwargs):
        asked.append(implementation)
        return plain(*args, implementation="xla", **kwargs)

    places = unimol2.make_places(TINY, rows)
    args = (block["attention"], *tracks, places.real_BT)
    expected = jax.jit(functools.partial(unimol2_blocks.attention, TINY))(*args)
    monkeypatch.setattr(jax.nn, "dot_product_attention", answer)
    monkeypatch.setattr(unimol2_blocks, "choose_attention", lambda *_: "cudnn")
    found = jax.jit(lambda *args: unimol2_blocks.attention(TINY, *args))(*args)
    assert asked == ["cudnn"]
    for row, T in enumerate(LENGTHS):
        assert_near(found[row, :T], expected[row, :T])


def test_cudnn_is_chosen_where_it_can_be_used(monkeypatch):
    fits = dataclasses.replace(TINY, dtype="bfloat16", attention="auto")
    asked = dataclasses.replace(fits, attention="cudnn")
    choose = unimol2_blocks.choose_attention
    assert choose(fits, 128, False) == "xla"
    with pytest.raises(UserError, match="needs a GPU, found cpu; use 'auto'"):
        choose(asked, 128, False)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert choose(fits, 128, False) == "cudnn"
    assert choose(asked, 16, False) == "cudnn"
    assert choose(fits, 16, False) == "xla"
    assert choose(fits, 127, False) == "xla"
    assert choose(fits, 128, True) == "xla"
    with pytest.raises(UserError, match="an even number of places"):
        choose(asked, 127, False)
    with pytest.raises(UserError, match="attention_dropout 0"):
        choose(asked, 128, True)
    with pytest.raises(UserError, match="bfloat16, found float32"):
        choose(dataclasses.replace(asked, dtype="float32"), 128, False)
    assert choose(dataclasses.replace(fits, attention="xla"), 128, False) == "xla"
