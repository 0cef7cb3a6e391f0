"""A trained language model of molecules, opened from the folder it lies in."""

import pathlib
from typing import NamedTuple

import jax
from ml_collections import ConfigDict

import chemscale_jax
from chemscale_jax.chem.vocabulary import Vocabulary
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.types import Params
from chemscale_jax.core.workdir import Workdir
from chemscale_jax.interop import hf_gpt_neo
from chemscale_jax.models.gpt import GptOptions
from chemscale_jax.tasks import causal_lm
from chemscale_jax.training.checkpoint import load_variables

PACKAGED = pathlib.Path(chemscale_jax.__file__).parent / "data/embedded/language_model"
TASK = "causal_lm"


class LanguageModel(NamedTuple):
    """A network, its weights and the words it knows."""

    options: GptOptions
    params: Params
    vocabulary: Vocabulary
    source: str  # where it lies

    @property
    def notation(self) -> str:
        """Of the symbols: "selfies", "selfies-1" or "smiles"."""
        return self.vocabulary.notation


def default_model_folder() -> pathlib.Path:
    """The folder of the model that comes with the package.

    Raises:
        UserError: this installation has none.
    """
    if not (PACKAGED / "config.json").exists():
        raise UserError(
            f"the package has no language model at {PACKAGED}; name one with "
            "--workdir, such as the folder of a run of configs/chemgpt.py"
        )
    return PACKAGED


def open_language_model(
    path: str | pathlib.Path | None = None, step: int | None = None
) -> LanguageModel:
    """A language model from a workdir, or from a folder in Hugging Face's layout.

    Args:
        path: of the folder, "hub:owner/name" for one on the hub; the packaged model
            by default.
        step: of a checkpoint other than the best; only for a workdir.

    Raises:
        UserError: there is no such folder, it holds another kind of model, or a part
            of it is missing.
    """
    place = default_model_folder() if path is None else path
    if str(place).startswith("hub:"):
        return _open_published(place, step)
    folder = pathlib.Path(place)
    if not (folder / "config.json").exists():
        raise UserError(
            f"{folder} has no config.json; give the workdir of a run that has started, "
            "or a folder in the layout of Hugging Face"
        )
    if Workdir(folder).artifacts_json.exists():
        return _open_run(Workdir(folder), step)
    return _open_published(folder, step)


def _open_run(workdir: Workdir, step: int | None) -> LanguageModel:
    config = ConfigDict(workdir.config())
    if config.get("task") != TASK:
        raise UserError(
            f"workdir {workdir.path} holds a run of task {config.get('task')!r}, "
            f"expected {TASK!r}"
        )
    artifacts = workdir.artifacts()
    options = causal_lm.make_options(config, artifacts)
    variables = load_variables(workdir, step)
    return LanguageModel(
        options=options,
        params=jax.device_put(variables["params"]),
        vocabulary=Vocabulary.from_json(artifacts["vocabulary"]),
        source=str(workdir.path),
    )


def _open_published(place: str | pathlib.Path, step: int | None) -> LanguageModel:
    if step is not None:
        raise UserError(f"{place} has no checkpoints by step; leave step out")
    found = hf_gpt_neo.load_folder(place)
    return LanguageModel(
        options=found.options,
        params=jax.device_put(found.variables["params"]),
        vocabulary=found.vocabulary,
        source=str(place),
    )
