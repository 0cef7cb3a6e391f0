"""GPT-Neo in the layout of ``transformers``: folders to read, and to write.

A folder has config.json, model.safetensors or pytorch_model.bin (whole or in parts with
an index) and tokenizer.json. Theirs are one set of tensors per layer, with q, k and v
apart and kernels as (out, in); ours are stacked over pairs of layers.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from chemscale_jax.chem.hf_tokenizer import read_hf_tokenizer, write_hf_tokenizer
from chemscale_jax.chem.vocabulary import Vocabulary
from chemscale_jax.core.errors import UserError
from chemscale_jax.interop import hf_files
from chemscale_jax.models import gpt

State = Mapping[str, np.ndarray]

_PREFIX = "transformer."
_HEAD = "lm_head.weight"
# Masks that older checkpoints keep; they follow from the configuration.
_BUFFERS = (".attn.attention.bias", ".attn.attention.masked_bias")
_TANH_GELU = ("gelu_new", "gelu_pytorch_tanh")


class Checkpoint(NamedTuple):
    """A folder that was read."""

    options: gpt.GptOptions
    variables: dict[str, Any]  # {"params": ..., "constants": {}}, float32
    vocabulary: Vocabulary


def load_folder(place: str | pathlib.Path) -> Checkpoint:
    """Reads a folder, or ``hub:owner/name`` from the hub.

    Raises:
        UserError: something is missing, damaged, or has no counterpart here.
    """
    folder = hf_files.local_folder(place)
    options = options_of(hf_files.read_json(folder / "config.json"))
    try:
        vocabulary = read_hf_tokenizer(folder)
    except ValueError as error:
        raise UserError(" ".join(str(error).split())) from None
    if vocabulary.size != options.vocabulary:
        raise UserError(
            f"{folder} has a config.json with vocab_size {options.vocabulary} and a "
            f"tokenizer.json of {vocabulary.size} tokens; they belong to other models"
        )
    variables = import_weights(options, hf_files.read_weights(folder))
    return Checkpoint(options, variables, vocabulary)


def save_folder(
    folder: str | pathlib.Path,
    options: gpt.GptOptions,
    params: Any,
    vocabulary: Vocabulary,
) -> None:
    """Writes a folder that ``transformers`` reads: config, weights and tokenizer."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(config_of(options), indent=2)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")
    weights = export_weights(options, jax.device_get(params))
    hf_files.write_safetensors(folder / "model.safetensors", weights)
    write_hf_tokenizer(vocabulary, folder)


def options_of(config: Mapping[str, Any]) -> gpt.GptOptions:
    """Our options of a config.json. Its dropouts are those of their training.

    Raises:
        UserError: it is of another model, or of a form that has no counterpart here.
    """

    def field(name: str, default: Any = None) -> Any:
        value = config.get(name, default)
        if type(value) is not int or value < 1:
            raise UserError(f"config.json has {name} {value!r}, expected a number >= 1")
        return value

    if (kind := config.get("model_type", "gpt_neo")) != "gpt_neo":
        raise UserError(f"config.json has model_type {kind!r}, expected 'gpt_neo'")
    width, depth = field("hidden_size"), field("num_layers")
    expected = {
        "activation_function": (_TANH_GELU, "gelu_new"),
        "layer_norm_epsilon": ((gpt.LAYER_NORM_EPS,), gpt.LAYER_NORM_EPS),
        "intermediate_size": ((None, 4 * width), None),
    }
    for name, (allowed, default) in expected.items():
        if (value := config.get(name, default)) not in allowed:
            raise UserError(
                f"config.json has {name} {value!r}; supported: "
                f"{', '.join(map(str, allowed))}"
            )
    kinds = _layer_kinds(config, depth)
    if list(kinds) != [gpt.KINDS[layer % 2] for layer in range(depth)]:
        raise UserError(
            f"config.json has layers {' '.join(map(str, kinds[:4]))} ... ({len(kinds)} "
            f"of {depth}); supported: global and local in turn, an even number of them"
        )
    options = gpt.GptOptions(
        vocabulary=field("vocab_size"),
        width=width,
        depth=depth,
        heads=field("num_heads", 16),
        positions=field("max_position_embeddings", 2048),
        window=field("window_size", 256),
        tied=bool(config.get("tie_word_embeddings", True)),
    )
    gpt.check(options)
    return options


def _layer_kinds(config: Mapping[str, Any], depth: int) -> list[Any]:
    """Layer by layer, from either of the two fields that say it."""
    if (kinds := config.get("attention_layers")) is not None:
        return list(kinds)
    default = [[list(gpt.KINDS), depth // 2]]
    kinds = []
    try:
        for pattern, repeats in config.get("attention_types", default):
            kinds += list(pattern) * repeats
    except (TypeError, ValueError):
        raise UserError(
            f"config.json has attention_types {config['attention_types']!r}, expected "
            "a list like [[['global', 'local'], 12]]"
        ) from None
    return kinds


def config_of(options: gpt.GptOptions) -> dict[str, Any]:
    """The config.json of our options; molecules begin with [CLS] and end with [SEP]."""
    return {
        "architectures": ["GPTNeoForCausalLM"],
        "model_type": "gpt_neo",
        "activation_function": "gelu_new",
        "attention_dropout": 0.0,
        "attention_types": [[list(gpt.KINDS), options.depth // 2]],
        "bos_token_id": Vocabulary.begin,
        "embed_dropout": 0.0,
        "eos_token_id": Vocabulary.end,
        "hidden_size": options.width,
        "initializer_range": gpt.INIT_STD,
        "intermediate_size": None,
        "layer_norm_epsilon": gpt.LAYER_NORM_EPS,
        "max_position_embeddings": options.positions,
        "num_heads": options.heads,
        "num_layers": options.depth,
        "pad_token_id": Vocabulary.pad,
        "resid_dropout": 0.0,
        "tie_word_embeddings": options.tied,
        "torch_dtype": "float32",
        "use_cache": True,
        "vocab_size": options.vocabulary,
        "window_size": options.window,
    }


def export_weights(options: gpt.GptOptions, params: Any) -> dict[str, Any]:
    """Their state dict of our parameters, or of gradients by them."""
    state = {
        "wte.weight": params["tokens"]["embedding"],
        "wpe.weight": params["positions"]["embedding"],
        "ln_f.weight": params["norm"]["scale"],
        "ln_f.bias": params["norm"]["bias"],
    }
    for layer in range(options.depth):
        stacked = params["pairs"][gpt.KINDS[layer % 2]]
        block = jax.tree.map(lambda x, pair=layer // 2: x[pair], stacked)
        tensors = _block_to_theirs(block)
        state |= {f"h.{layer}.{name}": array for name, array in tensors.items()}
    state = {_PREFIX + name: array for name, array in state.items()}
    if not options.tied:
        state[_HEAD] = params["head"]["embedding"]
    return state


def import_weights(options: gpt.GptOptions, state: State) -> dict[str, Any]:
    """Our ``{"params", "constants"}``, float32 or wider, of their state dict.

    Raises:
        UserError: unless every tensor has its place, its shape, and is there.
    """
    state = _named_alike(state)
    if options.tied and (head := state.pop(_HEAD, None)) is not None:
        tokens = state.get(_PREFIX + "wte.weight")
        if tokens is None or not np.array_equal(head, tokens):
            raise UserError(
                f"weights have a {_HEAD} that differs from {_PREFIX}wte.weight, but "
                "config.json ties them; set its tie_word_embeddings to false"
            )
    shapes = jax.eval_shape(lambda key: gpt.init(options, key), jax.random.key(0))
    expected = jax.eval_shape(lambda p: export_weights(options, p), shapes["params"])
    _check(state, expected)
    given = {name.removeprefix(_PREFIX): _wide(array) for name, array in state.items()}
    params: dict[str, Any] = {
        "tokens": {"embedding": given["wte.weight"]},
        "positions": {"embedding": given["wpe.weight"]},
        "pairs": {},
        "norm": {"scale": given["ln_f.weight"], "bias": given["ln_f.bias"]},
    }
    for first, kind in enumerate(gpt.KINDS):
        blocks = [
            _block_to_ours(given, f"h.{layer}.")
            for layer in range(first, options.depth, 2)
        ]
        params["pairs"][kind] = jax.tree.map(lambda *x: np.stack(x), *blocks)
    if not options.tied:
        params["head"] = {"embedding": given[_HEAD]}
    return {"params": params, "constants": {}}


def _block_to_theirs(block: Any) -> dict[str, Any]:
    kernel_DNC = block["qkv"]["kernel"]
    return {
        "ln_1.weight": block["norm_1"]["scale"],
        "ln_1.bias": block["norm_1"]["bias"],
        "attn.attention.q_proj.weight": kernel_DNC[:, 0].T,
        "attn.attention.k_proj.weight": kernel_DNC[:, 1].T,
        "attn.attention.v_proj.weight": kernel_DNC[:, 2].T,
        "attn.attention.out_proj.weight": block["merge"]["kernel"].T,
        "attn.attention.out_proj.bias": block["merge"]["bias"],
        "ln_2.weight": block["norm_2"]["scale"],
        "ln_2.bias": block["norm_2"]["bias"],
        "mlp.c_fc.weight": block["expand"]["kernel"].T,
        "mlp.c_fc.bias": block["expand"]["bias"],
        "mlp.c_proj.weight": block["shrink"]["kernel"].T,
        "mlp.c_proj.bias": block["shrink"]["bias"],
    }


def _block_to_ours(given: State, prefix: str) -> dict[str, Any]:
    def dense(name: str) -> dict[str, np.ndarray]:
        weight, bias = given[f"{prefix}{name}.weight"], given[f"{prefix}{name}.bias"]
        return {"kernel": weight.T, "bias": bias}

    def norm(name: str) -> dict[str, np.ndarray]:
        return {
            "scale": given[f"{prefix}{name}.weight"],
            "bias": given[f"{prefix}{name}.bias"],
        }

    qkv = [given[f"{prefix}attn.attention.{name}_proj.weight"].T for name in "qkv"]
    return {
        "norm_1": norm("ln_1"),
        "qkv": {"kernel": np.stack(qkv, axis=1)},
        "merge": dense("attn.attention.out_proj"),
        "norm_2": norm("ln_2"),
        "expand": dense("mlp.c_fc"),
        "shrink": dense("mlp.c_proj"),
    }


def _named_alike(state: State) -> dict[str, np.ndarray]:
    """Without buffers; with the prefix that a model saved without its head lacks."""
    named = {}
    for name, array in state.items():
        if name.endswith(_BUFFERS):
            continue
        bare = name == _HEAD or name.startswith(_PREFIX)
        named[name if bare else _PREFIX + name] = np.asarray(array)
    return named


def _check(state: State, expected: Mapping[str, Any]) -> None:
    for names, problem in (
        (set(expected) - set(state), "lack {}, which config.json asks for"),
        (set(state) - set(expected), "hold {}, for which config.json has no place"),
    ):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise UserError("weights " + problem.format(min(names) + more))
    for name, wanted in expected.items():
        if (found := state[name].shape) != wanted.shape:
            raise UserError(
                f"weights have {name} of shape {found}, config.json asks for "
                f"{wanted.shape}"
            )
        if state[name].dtype.kind != "f":
            raise UserError(f"weights have {name} of type {state[name].dtype}")


def _wide(array: np.ndarray) -> np.ndarray:
    return array.astype(np.promote_types(array.dtype, np.float32), copy=False)
