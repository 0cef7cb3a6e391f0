"""Weights in folders of Hugging Face: safetensors or torch files, whole or in parts.

A folder is local, or on the hub as ``hub:owner/name`` or ``hub:owner/name@revision``.
Nothing of a folder is executed; see `torch_file` for what a torch file may hold.
"""

import importlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from chemscale_jax.core.errors import UserError
from chemscale_jax.interop.torch_file import read_state_dict

HUB = "hub:"
# All that is ever read of a folder.
WANTED = ("*.json", "*.safetensors", "pytorch_model*.bin")
_SINGLE = ("model.safetensors", "pytorch_model.bin")
_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "U8": "u1"}
_TYPES |= {"I64": "<i8", "I32": "<i4", "BOOL": "?"}


def local_folder(place: str | pathlib.Path) -> pathlib.Path:
    """The folder itself; one on the hub is fetched into the hub's own cache.

    Raises:
        UserError: there is no such folder, or it cannot be fetched.
    """
    if not str(place).startswith(HUB):
        folder = pathlib.Path(place)
        if not folder.is_dir():
            raise UserError(
                f"{folder} is not a folder; give one that has a config.json"
            )
        return folder
    name, _, revision = str(place).removeprefix(HUB).partition("@")
    if name.count("/") != 1:
        raise UserError(f"{place} names no repository; write it like hub:owner/name")
    try:
        hub = importlib.import_module("huggingface_hub")
    except ImportError:
        raise UserError(
            f"{place} needs the package huggingface_hub; install it with "
            "pip install chemscale_jax[hub], or give a local folder"
        ) from None
    try:
        found = hub.snapshot_download(
            name, revision=revision or None, allow_patterns=list(WANTED)
        )
    # What it raises is a family of its own and of the libraries below it.
    except Exception as error:
        raise UserError(
            f"{place} cannot be fetched ({_one_line(error)}); check the name and the "
            "network, or give a local folder"
        ) from None
    return pathlib.Path(found)


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """A JSON file that holds an object.

    Raises:
        UserError: it cannot be read, or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not a JSON file ({_one_line(error)})") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}, not an object")
    return content


def read_weights(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays of a folder by name; where there are both, safetensors are read.

    Raises:
        UserError: there are none, or a file is damaged or missing.
    """
    for name in _SINGLE:
        if (folder / name).exists():
            return _read_file(folder / name)
        if (index := folder / f"{name}.index.json").exists():
            return _read_parts(index)
    raise UserError(f"{folder} has no weights: neither {' nor '.join(_SINGLE)}")


def _read_parts(index: pathlib.Path) -> dict[str, np.ndarray]:
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(
        isinstance(name, str) and pathlib.PurePath(name).name == name
        for name in places.values()
    ):
        raise UserError(f"{index} has no weight_map of names and files beside it")
    state: dict[str, np.ndarray] = {}
    for name in sorted(set(places.values())):
        part = _read_file(index.parent / name)
        wanted = {tensor for tensor, file in places.items() if file == name}
        if wrong := sorted(wanted ^ set(part)):
            raise UserError(
                f"{index.parent / name} and {index.name} disagree about {wrong[0]}; "
                "fetch the folder again"
            )
        state |= part
    return state


def _read_file(path: pathlib.Path) -> dict[str, np.ndarray]:
    if path.suffix != ".safetensors":
        return read_state_dict(path)
    try:
        entries = safetensors.deserialize(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from None
    except safetensors.SafetensorError as error:
        raise UserError(
            f"{path} is no safetensors file ({_one_line(error)}); fetch it again"
        ) from None
    return {name: _array(path, name, entry) for name, entry in entries}


def _array(path: pathlib.Path, name: str, entry: Mapping[str, Any]) -> np.ndarray:
    if (kind := entry["dtype"]) not in _TYPES:
        raise UserError(f"{path} has {name} of type {kind}; save it as float32")
    array = np.frombuffer(entry["data"], _TYPES[kind])
    if kind == "BF16":  # the upper half of a float32
        array = (array.astype("<u4") << 16).view("<f4")
    return array.reshape(entry["shape"])


def write_safetensors(path: pathlib.Path, state: Mapping[str, np.ndarray]) -> None:
    """Writes arrays in the way that ``transformers`` reads them."""
    arrays = {name: np.ascontiguousarray(array) for name, array in state.items()}
    safetensors.numpy.save_file(arrays, path, metadata={"format": "pt"})


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
