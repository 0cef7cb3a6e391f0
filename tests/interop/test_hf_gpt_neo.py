import dataclasses
import json
import os
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from chemscale_jax.chem.vocabulary import SPECIALS, Vocabulary
from chemscale_jax.core.errors import UserError
from chemscale_jax.interop import hf_files, hf_gpt_neo
from chemscale_jax.models import gpt
from tests.interop.torch_writer import Storage, tensor, write_zip

OPTIONS = gpt.GptOptions(
    vocabulary=12, width=8, depth=4, heads=2, positions=20, window=4
)
VOCABULARY = Vocabulary(
    (*SPECIALS, "[C]", "[=O]", "[N]", "[Ring1]", "[F]", "[O]", "[S]")
)


def random_params(options, seed=0):
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda key: gpt.init(options, key), jax.random.key(0))
    return jax.tree.map(
        lambda x: rng.normal(size=x.shape).astype(np.float32), shapes["params"]
    )


@pytest.fixture(scope="module")
def params():
    return random_params(OPTIONS)


@pytest.fixture
def folder(tmp_path, params):
    """As written by us."""
    hf_gpt_neo.save_folder(tmp_path, OPTIONS, params, VOCABULARY)
    return tmp_path


def weights_of(folder):
    return safetensors.numpy.load_file(folder / "model.safetensors")


def write_weights(folder, state, **metadata):
    safetensors.numpy.save_file(state, folder / "model.safetensors", metadata)


def change_config(folder, **fields):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **fields}))


def assert_same(found, params):
    assert jax.tree.structure(found) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, found, params)


@pytest.mark.parametrize("tied", [True, False])
def test_what_is_written_is_read(tmp_path, tied):
    options = dataclasses.replace(OPTIONS, tied=tied)
    params = random_params(options)
    hf_gpt_neo.save_folder(tmp_path, options, params, VOCABULARY)
    found = hf_gpt_neo.load_folder(tmp_path)
    assert found.options == options
    assert found.vocabulary == VOCABULARY
    assert_same(found.variables["params"], params)
    names = weights_of(tmp_path)
    assert len(names) == 4 + 13 * 4 + (not tied)
    assert names["transformer.h.3.mlp.c_fc.weight"].shape == (32, 8)
    # (out, in), of the second pair's local layer.
    np.testing.assert_array_equal(
        names["transformer.h.3.attn.attention.k_proj.weight"],
        params["pairs"]["local"]["qkv"]["kernel"][1, :, 1].T,
    )


def torch_file(path, state):
    storages, tensors = [], {}
    for key, (name, array) in enumerate(state.items()):
        storages.append(Storage(np.ascontiguousarray(array).reshape(-1), str(key)))
        strides = [int(np.prod(array.shape[n + 1 :])) for n in range(array.ndim)]
        tensors[name] = tensor(storages[-1], array.shape, tuple(strides))
    write_zip(path, tensors, storages)


def test_torch_files_with_the_buffers_of_older_versions(folder, params):
    """And with a tied head stored twice, and without the prefix of the head's model."""
    state = weights_of(folder)
    (folder / "model.safetensors").unlink()
    state = {n.removeprefix("transformer."): x for n, x in state.items()}
    state["lm_head.weight"] = state["wte.weight"]
    state["h.0.attn.attention.bias"] = np.ones((1, 1, 20, 20), np.uint8)
    state["h.0.attn.attention.masked_bias"] = np.array(-1e9, np.float32)
    torch_file(folder / "pytorch_model.bin", state)
    assert_same(hf_gpt_neo.load_folder(folder).variables["params"], params)


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_weights_in_parts(folder, params, kind):
    state = weights_of(folder)
    (folder / "model.safetensors").unlink()
    stem = "model" if kind == "safetensors" else "pytorch_model"
    names, places = sorted(state), {}
    for part, chosen in enumerate((names[::2], names[1::2]), 1):
        file = f"{stem}-{part:05d}-of-00002.{kind}"
        places |= dict.fromkeys(chosen, file)
        some = {name: state[name] for name in chosen}
        if kind == "bin":
            torch_file(folder / file, some)
        else:
            safetensors.numpy.save_file(some, folder / file)
    index = folder / f"{stem}.{kind}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    assert_same(hf_gpt_neo.load_folder(folder).variables["params"], params)
    name = min(places)
    index.write_text(json.dumps({"weight_map": {**places, "extra": places[name]}}))
    with pytest.raises(UserError, match="disagree about extra"):
        hf_gpt_neo.load_folder(folder)
    index.write_text(json.dumps({"weight_map": {**places, name: "../other.bin"}}))
    with pytest.raises(UserError, match="no weight_map of names and files beside it"):
        hf_gpt_neo.load_folder(folder)


def test_narrow_types_become_float32(folder, params):
    state = {name: x.astype(np.float16) for name, x in weights_of(folder).items()}
    write_weights(folder, state)
    found = hf_gpt_neo.load_folder(folder).variables["params"]
    assert found["norm"]["scale"].dtype == np.float32
    np.testing.assert_array_equal(
        found["norm"]["scale"], params["norm"]["scale"].astype(np.float16)
    )
    # bfloat16, by hand: safetensors has no NumPy type for it.
    header = json.dumps({"x": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}})
    data = np.array([0x3FC0, 0xC000], "<u2").tobytes()
    path = folder / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header.encode() + data)
    np.testing.assert_array_equal(hf_files.read_weights(folder)["x"], [1.5, -2.0])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model_type": "gpt2"}, "model_type 'gpt2', expected 'gpt_neo'"),
        (
            {"activation_function": "gelu"},
            "activation_function 'gelu'; supported: gelu_",
        ),
        ({"layer_norm_epsilon": 1e-6}, "layer_norm_epsilon 1e-06; supported: 1e-05"),
        ({"intermediate_size": 31}, "intermediate_size 31; supported: None, 32"),
        ({"num_layers": 6}, r"global local ... \(4 of 6\); supported"),
        ({"attention_layers": ["local"] * 4}, "local local local local ... "),
        ({"attention_types": "global"}, "expected a list like"),
        ({"hidden_size": None}, "hidden_size None, expected a number"),
        ({"num_heads": 3}, "width 8 is not a multiple"),
        ({"vocab_size": 13}, "vocab_size 13 and a tokenizer.json of 12 tokens"),
        (
            {"max_position_embeddings": 21},
            r"wpe.weight of shape \(20, 8\), .* \(21, 8\)",
        ),
        ({"tie_word_embeddings": False}, "lack lm_head.weight"),
    ],
)
def test_configs_that_are_not_ours_are_refused_in_one_line(folder, fields, message):
    change_config(folder, **fields)
    with pytest.raises(UserError, match=message) as found:
        hf_gpt_neo.load_folder(folder)
    assert "\n" not in str(found.value)


def test_both_spellings_of_the_layers_are_read(folder):
    config = json.loads((folder / "config.json").read_text())
    del config["attention_types"]
    config["attention_layers"] = ["global", "local"] * 2
    assert hf_gpt_neo.options_of(config) == OPTIONS
    del config["attention_layers"], config["window_size"]
    assert hf_gpt_neo.options_of(config).window == 256


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("transformer.ln_f.bias"), "lack transformer.ln_f.bias"),
        (
            lambda s: s.update({"x.y": np.zeros(2)}),
            r"hold transformer\.x\.y, for which",
        ),
        (
            lambda s: s.update({"transformer.wte.weight": np.zeros((8, 12))}),
            r"wte.weight of shape \(8, 12\), config.json asks for \(12, 8\)",
        ),
        (
            lambda s: s.update({"transformer.ln_f.bias": np.zeros(8, np.int32)}),
            "ln_f.bias of type int32",
        ),
        (
            lambda s: s.update({"lm_head.weight": np.zeros((12, 8))}),
            "lm_head.weight that differs",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused_in_one_line(folder, change, message):
    state = weights_of(folder)
    change(state)
    write_weights(folder, state)
    with pytest.raises(UserError, match=message) as found:
        hf_gpt_neo.load_folder(folder)
    assert "\n" not in str(found.value)


def test_damaged_folders_are_refused(folder, tmp_path):
    with pytest.raises(UserError, match="is not a folder"):
        hf_gpt_neo.load_folder(tmp_path / "absent")
    (folder / "model.safetensors").write_bytes(b"hello world, no weights")
    with pytest.raises(UserError, match="is no safetensors file"):
        hf_gpt_neo.load_folder(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="has no weights"):
        hf_gpt_neo.load_folder(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(UserError, match="there is no .*tokenizer.json"):
        hf_gpt_neo.load_folder(folder)
    (folder / "config.json").write_text("[1]")
    with pytest.raises(UserError, match="holds a list"):
        hf_gpt_neo.load_folder(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match="is not a JSON file"):
        hf_gpt_neo.load_folder(folder)
    (folder / "config.json").unlink()
    with pytest.raises(UserError, match="cannot be read"):
        hf_gpt_neo.load_folder(folder)


def test_folders_of_the_hub(monkeypatch, folder, params):
    asked = []

    def download(name, revision, allow_patterns):
        asked.append((name, revision))
        assert "*.py" not in allow_patterns
        if name == "no/such":
            raise OSError("404\nnot there")
        return str(folder)

    hub = types.ModuleType("huggingface_hub")
    monkeypatch.setattr(hub, "snapshot_download", download, raising=False)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    found = hf_gpt_neo.load_folder("hub:someone/gpt@v1")
    assert_same(found.variables["params"], params)
    assert asked == [("someone/gpt", "v1")]
    with pytest.raises(UserError, match=r"cannot be fetched \(404 not there\)"):
        hf_gpt_neo.load_folder("hub:no/such")
    with pytest.raises(UserError, match="write it like hub:owner/name"):
        hf_gpt_neo.load_folder("hub:gpt")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"pip install chemscale_jax\[hub\]"):
        hf_gpt_neo.load_folder("hub:someone/gpt")


PEER = """
import sys, numpy, torch, transformers
folder, tokens, out = sys.argv[1:]
model, info = transformers.AutoModelForCausalLM.from_pretrained(
    folder, output_loading_info=True, attn_implementation="eager"
)
assert not any(info.values()), info
assert type(model).__name__ == "GPTNeoForCausalLM"
tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
ids = tokenizer("[C][=O][C][Unheard]")["input_ids"]
with torch.no_grad():
    scores = model.eval()(torch.tensor(numpy.load(tokens)), labels=None).logits
numpy.savez(out, scores=scores.numpy(), ids=ids)
model.save_pretrained(folder + "/again")
torch.save(model.state_dict(), folder + "/again/pytorch_model.bin")
tokenizer.save_pretrained(folder + "/again")
"""


@pytest.mark.peers
def test_transformers_reads_ours_and_we_read_theirs(tmp_path):
    """Needs the environment named by CHEMSCALE_PEERS, or its packages in this one."""
    python = os.environ.get("CHEMSCALE_PEERS", sys.executable)
    params = jax.tree.map(lambda x: 0.3 * x, random_params(OPTIONS))
    hf_gpt_neo.save_folder(tmp_path, OPTIONS, params, VOCABULARY)
    tokens = np.random.default_rng(0).integers(0, 12, (3, 17)).astype(np.int64)
    np.save(tmp_path / "tokens.npy", tokens)
    paths = [tmp_path, tmp_path / "tokens.npy", tmp_path / "out.npz"]
    subprocess.run([python, "-c", PEER, *map(str, paths)], check=True)
    ids = jnp.asarray(tokens, jnp.int32)
    places = (jnp.ones_like(ids), jnp.broadcast_to(jnp.arange(17), ids.shape))
    ours = gpt.logits(OPTIONS, params, ids, *places)
    with np.load(tmp_path / "out.npz") as theirs:
        # float32 on both sides.
        np.testing.assert_allclose(ours, theirs["scores"], rtol=1e-4, atol=1e-4)
        expected = [2, *VOCABULARY.encode(["[C]", "[=O]", "[C]", "[Unheard]"]), 3]
        assert theirs["ids"].tolist() == expected
    again = tmp_path / "again"
    assert_same(hf_gpt_neo.load_folder(again).variables["params"], params)
    (again / "model.safetensors").unlink()
    assert_same(hf_gpt_neo.load_folder(again).variables["params"], params)
