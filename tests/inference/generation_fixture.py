"""A recorded ``transformers`` model with what it generated."""

import json
import os
import pathlib
from typing import Any, NamedTuple

import numpy as np

from chemscale_jax.interop import hf_gpt_neo
from chemscale_jax.models.gpt import GptOptions


class Recorded(NamedTuple):
    """Weights as ours, and the arrays of the file."""

    options: GptOptions
    params: Any
    arrays: dict[str, np.ndarray]
    specs: dict[str, dict[str, Any]]  # arguments of each recorded call

    def prompts(self, kind: str) -> list[np.ndarray]:
        if kind == "prompt":
            return list(self.arrays["in/prompt"])
        tokens, mask = self.arrays["in/lp_prompt"], self.arrays["in/lp_prompt_mask"]
        return [row[real == 1] for row, real in zip(tokens, mask, strict=True)]

    def continuations(self, case: str) -> np.ndarray:
        sequences = self.arrays[f"out/gen/{case}/sequences"]
        kind = self.specs[case]["input"]
        width = self.arrays["in/prompt" if kind == "prompt" else "in/lp_prompt"].shape[
            1
        ]
        return sequences[:, width:]


def read_recorded() -> Recorded:
    """The file that CHEMSCALE_SHARED has."""
    folder = pathlib.Path(os.environ["CHEMSCALE_SHARED"]) / "parity"
    with np.load(folder / "gptneo_s0.npz", allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    options = hf_gpt_neo.options_of(json.loads(str(arrays["config"])))
    state = {
        name.removeprefix("param/"): array
        for name, array in arrays.items()
        if name.startswith("param/")
    }
    params = hf_gpt_neo.import_weights(options, state)["params"]
    specs = json.loads(str(arrays["meta"]))["genspec"]
    return Recorded(options, params, arrays, specs)
