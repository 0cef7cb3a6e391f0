"""Uni-Mol2 in the layout of its authors: checkpoints to read, and to write.

Theirs is ``checkpoint.pt``, whose "model" is one set of tensors per layer with kernels
as (out, in); ours are stacked over layers. What we write is a folder of
model.safetensors, under their names, and a config.json of our options.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import safetensors
import safetensors.numpy

from chemscale_jax.core.errors import UserError
from chemscale_jax.interop import hf_files
from chemscale_jax.interop.torch_file import read_state_dict
from chemscale_jax.interop.unimol2_tensors import (
    CENTRES,
    HEADS,
    State,
    export_head,
    import_heads,
    to_ours,
    to_theirs,
)
from chemscale_jax.models import options as checks
from chemscale_jax.models import unimol2
from chemscale_jax.models.unimol2_init import KERNELS
from chemscale_jax.models.unimol2_options import Unimol2Options

_KIND = "unimol2"
# Of the centres of Gaussians, in angstrom: torch rounds them as its machine does.
_CENTRE_TOLERANCE = 2e-6

__all__ = [
    "Checkpoint",
    "export_head",
    "export_weights",
    "import_heads",
    "import_weights",
    "load",
    "options_of",
    "save",
]


class Checkpoint(NamedTuple):
    """Weights that were read."""

    options: Unimol2Options
    variables: dict[str, Any]  # {"params": ..., "constants": {}}, float32 or wider
    heads: dict[str, Any]  # of properties, by name; for `unimol2.pooled`


def load(place: str | pathlib.Path, **changes: Any) -> Checkpoint:
    """Reads a ``checkpoint.pt``, a safetensors file, or a folder of either.

    Sizes follow from the arrays. A config.json that we wrote says the rest; without
    one the options are those of the published code for a molecule alone: pair types
    "chirality", length "own".

    Args:
        place: the file or folder, or ``hub:owner/name`` for a folder on the hub.
        changes: fields of the options to set otherwise, such as ``dtype``.

    Raises:
        UserError: something is missing, left over, damaged, or of another model.
    """
    path = pathlib.Path(place)
    if str(place).startswith(hf_files.HUB) or path.is_dir():
        path = hf_files.local_folder(place)
        given = _read_config(path)
        torch = path / "checkpoint.pt"
        alone = torch.exists() and not (path / "model.safetensors").exists()
        state = read_state_dict(torch) if alone else hf_files.read_weights(path)
    else:
        given = _read_config(path.parent) if path.suffix == ".safetensors" else {}
        state = _read_file(path)
    options = options_of(state, **{**given, **changes})
    return Checkpoint(options, import_weights(options, state), import_heads(state))


def save(
    folder: str | pathlib.Path,
    options: Unimol2Options,
    params: Any,
    heads: Mapping[str, Any] | None = None,
) -> None:
    """Writes a folder that `load` reads: model.safetensors and config.json."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_type": _KIND, **dataclasses.asdict(options)}
    text = json.dumps(config, indent=2)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")
    state = export_weights(options, jax.device_get(params))
    for name, head in (heads or {}).items():
        state |= export_head(name, jax.device_get(head))
    hf_files.write_safetensors(folder / "model.safetensors", state)


def options_of(state: State, **changes: Any) -> Unimol2Options:
    """The options that the shapes of a state dict imply, and further fields.

    Raises:
        UserError: tensors that say so are missing or of the wrong rank, or a change
            contradicts them.
    """
    first = "encoder.layers.0."

    def shape(name: str, rank: int) -> tuple[int, ...]:
        if name not in state:
            raise UserError(f"weights lack {name}; they are not of Uni-Mol2")
        if len(found := state[name].shape) != rank:
            raise UserError(
                f"weights have {name} of shape {found}, expected {rank} axes"
            )
        return found

    heads, pair_width = shape(first + "self_attn.linear_bias.weight", 2)
    hidden, width = shape(first + "ffn.linear_1.weight", 2)
    numbers = {
        name.split(".")[2] for name in state if name.startswith("encoder.layers.")
    }
    if shape(CENTRES, 1) != (KERNELS,):
        raise UserError(
            f"weights have {CENTRES} of shape {state[CENTRES].shape}, expected "
            f"({KERNELS},)"
        )
    implied = {
        "width": width,
        "depth": len(numbers),
        "heads": heads,
        "pair_width": pair_width,
        "pair_hidden": shape(first + "opm.linear_in.weight", 2)[0] // 2,
        "ffn_width": 0 if hidden == width else hidden,
        "kernel_start": float(state[CENTRES][0]),
        "kernel_stop": float(state[CENTRES][-1]),
    }
    for field, value in implied.items():
        given = changes.get(field, value)
        if field == "ffn_width":
            given = given or width
            value = hidden
        elif field.startswith("kernel_") and isinstance(given, float):
            given = float(np.float32(given))
        if given != value:
            raise UserError(
                f"config has {field} {given!r}, the weights have {value}; they "
                "belong to other models"
            )
    fields = {"pair_type": "chirality", "length": "own", **implied, **changes}
    options = checks.from_fields(Unimol2Options, _KIND, fields)
    unimol2.check(options)
    return options


def import_weights(options: Unimol2Options, state: State) -> dict[str, Any]:
    """Our ``{"params", "constants"}``, float32 or wider, of their state dict.

    Heads of properties are left to `import_heads`.

    Raises:
        UserError: unless every tensor has its place, its shape, and is there.
    """
    state = {name: x for name, x in state.items() if not name.startswith(HEADS)}
    _check(options, state)
    params = to_ours(state, options.depth, options.pair_hidden)
    return {"params": params, "constants": {}}


def export_weights(options: Unimol2Options, params: Any) -> dict[str, Any]:
    """Their state dict of our parameters, or of gradients by them."""
    state = to_theirs(params, options.depth)
    return {**state, CENTRES: unimol2.kernel_centres(options)[0]}


def _check(options: Unimol2Options, state: State) -> None:
    shapes = jax.eval_shape(lambda key: unimol2.init(options, key), jax.random.key(0))
    expected = jax.eval_shape(lambda p: export_weights(options, p), shapes["params"])
    for names, problem in (
        (set(expected) - set(state), "lack"),
        (set(state) - set(expected), "hold, without a place for them here,"),
    ):
        if names:
            shown = ", ".join(sorted(names)[:5])
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            raise UserError(f"weights {problem} {shown}{more}; nothing was imported")
    for name, wanted in expected.items():
        if (found := state[name].shape) != wanted.shape:
            raise UserError(
                f"weights have {name} of shape {found}, their other arrays ask for "
                f"{wanted.shape}"
            )
        if state[name].dtype.kind != "f":
            raise UserError(f"weights have {name} of type {state[name].dtype}")
    centres = unimol2.kernel_centres(options)[0]
    off = np.max(np.abs(np.asarray(state[CENTRES], np.float64) - centres))
    if not off <= _CENTRE_TOLERANCE:
        raise UserError(
            f"weights have {CENTRES} that is {off:.2g} angstrom off even steps from "
            f"{options.kernel_start} to {options.kernel_stop}; there are no others here"
        )


def _read_config(folder: pathlib.Path) -> dict[str, Any]:
    """The options that a config.json holds, {} if it is none of ours."""
    if not (path := folder / "config.json").exists():
        return {}
    config = hf_files.read_json(path)
    if (kind := config.pop("model_type", None)) != _KIND:
        raise UserError(f"{path} has model_type {kind!r}, expected {_KIND!r}")
    return config


def _read_file(path: pathlib.Path) -> dict[str, np.ndarray]:
    if path.suffix != ".safetensors":
        return read_state_dict(path)
    try:
        return safetensors.numpy.load_file(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error})") from None
    except (safetensors.SafetensorError, AttributeError, TypeError, KeyError) as error:
        raise UserError(
            f"{path} is no safetensors file of numbers ({error}); save it as float32"
        ) from None
