import dataclasses
import json
import re

import jax
import numpy as np
import pytest
import safetensors.numpy

from chemscale_jax.core.errors import UserError
from chemscale_jax.interop import unimol2 as interop
from chemscale_jax.models import unimol2
from tests.interop.torch_writer import Storage, tensor, write_zip
from tests.models.unimol2_rows import TINY

PUBLISHED = dataclasses.replace(TINY, pair_type="chirality", length="own")


def random_params(options, seed=0):
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda key: unimol2.init(options, key), jax.random.key(0))
    return jax.tree.map(
        lambda x: rng.normal(size=x.shape).astype(np.float32), shapes["params"]
    )


@pytest.fixture(scope="module")
def params():
    return random_params(PUBLISHED)


@pytest.fixture
def state(params):
    """Theirs, as arrays."""
    found = interop.export_weights(PUBLISHED, params)
    return {name: np.ascontiguousarray(array) for name, array in found.items()}


def torch_file(path, state):
    storages, tensors = [], {}
    for key, (name, array) in enumerate(state.items()):
        storages.append(Storage(np.ascontiguousarray(array).reshape(-1), str(key)))
        strides = [int(np.prod(array.shape[n + 1 :])) for n in range(array.ndim)]
        tensors[name] = tensor(storages[-1], array.shape, tuple(strides))
    content = {"model": tensors, "loss": None, "extra_state": {"epoch": 3}}
    return write_zip(path, content, storages)


def assert_same(found, params):
    assert jax.tree.structure(found) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, found, params)


def official(depth, D, H, Q, C, F):
    """Names and shapes of the published checkpoints, written down from their code."""
    shapes = {
        "embed_tokens.weight": (128, D),
        "atom_feature.atom_encoder.weight": (512, D),
        "atom_feature.degree_encoder.weight": (128, D),
        "atom_feature.vnode_encoder.weight": (1, D),
        "edge_feature.edge_encoder.weight": (64, Q),
        "edge_feature.shorest_path_encoder.weight": (512, Q),
        "edge_feature.vnode_virtual_distance.weight": (1, Q),
        "se3_invariant_kernel.gaussian.mean": (128,),
        "se3_invariant_kernel.gaussian.mul.weight": (512, 1),
        "se3_invariant_kernel.gaussian.bias.weight": (512, 1),
        "lm_head.weight": (128, D),
        "lm_head.bias": (128,),
        "movement_pred_head.force_proj1.weight": (1, D),
    }

    def linear(name, inputs, outputs, bias=True):
        shapes[f"{name}.weight"] = (outputs, inputs)
        if bias:
            shapes[f"{name}.bias"] = (outputs,)

    def norm(name, width):
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (width,)

    linear("se3_invariant_kernel.out_proj.layer1", 128, 128)
    linear("se3_invariant_kernel.out_proj.layer2", 128, Q)
    norm("encoder.layer_norm", D)
    norm("encoder.pair_layer_norm", Q)
    linear("lm_head.dense", D, D)
    norm("lm_head.layer_norm", D)
    norm("movement_pred_head.layer_norm", D)
    norm("movement_pred_head.pair_layer_norm", Q)
    linear("movement_pred_head.linear_bias", Q, H)
    for name in "qkv":
        linear(f"movement_pred_head.{name}_proj", D, D, bias=False)
    for layer in range(depth):
        block = f"encoder.layers.{layer}"
        for name in "qkv":
            linear(f"{block}.self_attn.linear_{name}", D, D, bias=False)
        linear(f"{block}.self_attn.linear_o", D, D)
        linear(f"{block}.self_attn.linear_bias", Q, H)
        for name in ("self_attn_layer_norm", "final_layer_norm", "x_layer_norm_opm"):
            norm(f"{block}.{name}", D)
        linear(f"{block}.ffn.linear_1", D, F)
        linear(f"{block}.ffn.linear_2", F, D)
        linear(f"{block}.opm.linear_in", D, 2 * C)
        linear(f"{block}.opm.linear_out", C * C, Q)
        norm(f"{block}.pair_layer_norm_ffn", Q)
        linear(f"{block}.pair_ffn.linear_1", Q, Q)
        linear(f"{block}.pair_ffn.linear_2", Q, Q)
        norm(f"{block}.pair_layer_norm_trimul", Q)
        linear(f"{block}.pair_tri_mul.linear_ab_p", Q, 2 * C)
        linear(f"{block}.pair_tri_mul.linear_ab_g", Q, 2 * C)
        linear(f"{block}.pair_tri_mul.linear_g", Q, Q)
        linear(f"{block}.pair_tri_mul.linear_z", C, Q)
        norm(f"{block}.pair_tri_mul.layer_norm_out", C)
    return shapes


def test_the_published_84m_has_our_names_and_shapes_without_memory():
    options = unimol2.faithful("84M")
    shapes = jax.eval_shape(lambda key: unimol2.init(options, key), jax.random.key(0))
    ours = jax.eval_shape(
        lambda p: interop.export_weights(options, p), shapes["params"]
    )
    expected = official(12, 768, 48, 512, 64, 768)
    assert {name: x.shape for name, x in ours.items()} == expected
    assert len(expected) == 34 + 12 * 39
    count = sum(int(np.prod(shape)) for shape in expected.values())
    # Parameters, and one buffer.
    assert count == 84_116_080 + 128


@pytest.mark.slow
def test_an_84m_checkpoint_goes_to_safetensors_and_back(tmp_path):
    rng = np.random.default_rng(0)
    state = {
        name: rng.standard_normal(shape, np.float32)
        for name, shape in official(12, 768, 48, 512, 64, 768).items()
    }
    state["se3_invariant_kernel.gaussian.mean"] = np.linspace(0, 9, 128, dtype="f4")
    first = interop.load(torch_file(tmp_path / "checkpoint.pt", state))
    assert first.options == unimol2.faithful("84M", length="own")
    interop.save(tmp_path / "ours", first.options, first.variables["params"])
    second = interop.load(tmp_path / "ours")
    assert second.options == first.options
    assert_same(second.variables, first.variables)
    written = safetensors.numpy.load_file(tmp_path / "ours" / "model.safetensors")
    del state["se3_invariant_kernel.gaussian.mean"]
    for name, array in state.items():
        np.testing.assert_array_equal(written[name], array)


def test_a_checkpoint_goes_to_safetensors_and_back(tmp_path, params, state):
    first = interop.load(torch_file(tmp_path / "checkpoint.pt", state))
    assert first.options == PUBLISHED
    assert first.heads == {}
    assert_same(first.variables["params"], params)
    options = dataclasses.replace(first.options, pair_type="element", remat="full")
    head = jax.device_get(
        unimol2.init_head(TINY, jax.random.key(0, impl="unsafe_rbg"), 2)
    )
    interop.save(tmp_path / "ours", options, params, {"gap": head})
    second = interop.load(tmp_path / "ours")
    assert second.options == options
    assert_same(second.variables["params"], params)
    assert_same(second.heads, {"gap": head})
    alone = interop.load(tmp_path / "ours" / "model.safetensors", length="batch")
    assert alone.options == dataclasses.replace(options, length="batch")
    # A folder as it was fetched.
    assert interop.load(tmp_path).options == PUBLISHED


def test_tensors_keep_their_meaning(params, state):
    """(out, in); products of channels with the first atom's channel first."""
    layers = params["layers"]
    kernel = layers["outer"]["shrink"]["kernel"]
    C, Q = TINY.pair_hidden, TINY.pair_width
    theirs = state["encoder.layers.1.opm.linear_out.weight"]
    np.testing.assert_array_equal(theirs.reshape(Q, C, C)[:, 2, 3], kernel[1, 2, 3])
    theirs = state["encoder.layers.1.pair_tri_mul.linear_ab_g.weight"]
    expand = layers["triangle"]["expand"]["kernel"]
    np.testing.assert_array_equal(theirs, expand[1, :, 2 * C : 4 * C].T)
    theirs = state["encoder.layers.0.self_attn.linear_k.weight"]
    np.testing.assert_array_equal(
        theirs, layers["attention"]["qkv"]["kernel"][0, :, 1].T
    )
    theirs = state["movement_pred_head.v_proj.weight"]
    np.testing.assert_array_equal(theirs, params["move_head"]["qkv"]["kernel"][:, 2].T)


def test_narrow_weights_are_widened(state, params):
    narrow = {name: x.astype(np.float16) for name, x in state.items()}
    narrow["se3_invariant_kernel.gaussian.mean"] = state[
        "se3_invariant_kernel.gaussian.mean"
    ]
    found = interop.import_weights(PUBLISHED, narrow)["params"]
    assert all(x.dtype == np.float32 for x in jax.tree.leaves(found))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3),
        found,
        params,
    )


def without(name):
    return lambda state: state.pop(name)


def put(name, array):
    return lambda state: state.update({name: np.asarray(array, np.float32)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            without("lm_head.dense.bias"),
            "lack lm_head.dense.bias; nothing was imported",
        ),
        (
            without("encoder.layers.1.opm.linear_in.bias"),
            "lack encoder.layers.1.opm.linear_in.bias;",
        ),
        (put("ema.decay", [0.9]), "hold, without a place for them here, ema.decay;"),
        (
            put("encoder.layers.2.ffn.linear_1.bias", [0.0]),
            r"lack encoder.layers.2.ffn.linear_1.weight, .* and 33 more",
        ),
        (put("lm_head.bias", [0.0]), r"lm_head.bias of shape \(1,\), .*\(128,\)"),
        (without("encoder.layers.0.ffn.linear_1.weight"), "they are not of Uni-Mol2"),
        (put("encoder.layers.0.ffn.linear_1.weight", [1.0]), "expected 2 axes"),
        (
            put("se3_invariant_kernel.gaussian.mean", np.linspace(0, 9, 128) ** 2 / 9),
            r"mean that is 2\.\d+ angstrom off even steps from 0.0 to 9.0",
        ),
        (
            put("classification_heads.gap.dense.weight", [[1.0]]),
            r"head classification_heads.gap of \['dense.weight'\]",
        ),
    ],
)
def test_other_weights_are_refused(tmp_path, state, change, message):
    change(state)
    path = torch_file(tmp_path / "checkpoint.pt", state)
    with pytest.raises(UserError, match=message):
        interop.load(path)


def test_a_config_of_other_weights_is_refused(tmp_path, params):
    interop.save(tmp_path, PUBLISHED, params)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    for changes, message in (
        ({"width": 32}, "config has width 32, the weights have 16"),
        ({"kernel_stop": 10.0}, "config has kernel_stop 10.0, the weights have 9.0"),
        ({"gating": True}, r"unimol2 has no option \['gating'\]"),
        ({"model_type": "bert"}, "model_type 'bert', expected 'unimol2'"),
    ):
        path.write_text(json.dumps({**config, **changes}))
        with pytest.raises(UserError, match=message):
            interop.load(tmp_path)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"nothing of the kind")
    for place, message in (
        (path, "is no safetensors file"),
        (tmp_path / "absent.safetensors", "cannot be read"),
        (tmp_path / "absent.pt", "cannot be read"),
        (tmp_path, "has no weights"),
    ):
        with pytest.raises(UserError, match=re.escape(message)):
            interop.load(place)
