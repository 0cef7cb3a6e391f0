"""Puts a run together from its config: data, task and initial weights."""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax

from chemscale_jax.core.types import Config
from chemscale_jax.core.workdir import Workdir, read_json
from chemscale_jax.data import STREAMS
from chemscale_jax.inference.ensemble import default_workdir
from chemscale_jax.inference.language_model import default_model_folder
from chemscale_jax.interop import hf_gpt_neo
from chemscale_jax.models.gpt import GptOptions
from chemscale_jax.tasks import TASKS
from chemscale_jax.training import checkpoint, host, setup
from chemscale_jax.training.lane_programs import Lane


def _molecule_model() -> pathlib.Path:
    # Imported when asked for: other models need not wait for RDKit.
    from chemscale_jax.inference.molecule_model import default_molecule_model

    return default_molecule_model()


# By the config's task: what ``config.init_from="packaged"`` stands for.
PACKAGED = {
    "force_field": default_workdir,
    "causal_lm": default_model_folder,
    "conformer_denoising": _molecule_model,
    "property_regression": _molecule_model,
}
# Besides config.init_fresh: what belongs to the data.
FRESH = {"property_regression": ("^targets/",)}
# Tasks whose network is a Uni-Mol2, of the size of the weights to start from.
MOLECULES = ("conformer_denoising", "property_regression")


def with_start(config: Config) -> Config:
    """The config with what it takes from the weights to start from.

    That is the path of ``init_from="packaged"``, how many positions a language model
    has whose config says 0, and the network of molecules with coordinates; and the path
    of the table that the package makes by itself.

    Raises:
        UserError: this installation has no such model, or there is no such source.
    """
    config = config.copy_and_resolve_references()
    if config.init_from == "packaged":
        config.init_from = str(PACKAGED[config.task]())
    place = pathlib.Path(config.init_from, "config.json")
    if config.task == "causal_lm" and config.init_from and place.exists():
        if config.model.get("positions") == 0:
            config.model.positions = _positions(read_json(place))
    if config.task == "property_regression" and config.data.source == "embedded":
        from chemscale_jax.data.labels.embedded_properties import embedded_properties

        config.data.source, config.data.path = "file", str(embedded_properties())
    if config.task in MOLECULES and config.init_from:
        from chemscale_jax.runs import molecule_start

        molecule_start.take_network(config)
    return config


def _positions(source: Mapping[str, Any]) -> int:
    """Of a run's config, or of a model in the layout of Hugging Face."""
    if "max_position_embeddings" in source:
        return source["max_position_embeddings"]
    return source["model"].get("positions", GptOptions.positions)


def make_lane(config: Config, workdir: Workdir) -> Lane:
    """Everything a run needs besides devices: its data, task and initial weights."""
    stream = STREAMS[config.data.stream](
        config, jax.process_index(), jax.process_count()
    )
    length = len(stream.train_epoch(0))
    steps = host.planned_steps(config.train.epochs, config.train.max_steps, length)
    inherited = setup.inherit_statistics(stream.artifacts, config.init_from, workdir)
    planned = {"steps": steps, "steps_per_epoch": length}
    stream.artifacts = {**inherited, "planned": planned}
    fresh = (*config.init_fresh, *FRESH.get(config.task, ()))
    return Lane(
        task=TASKS[config.task](config, stream.batch_specs, stream.artifacts),
        stream=stream,
        config=config,
        workdir=workdir,
        steps=steps,
        start_from=checkpoint.starter(
            config.init_from, fresh, workdir, _reader(config.task)
        ),
    )


def _reader(task: str) -> Callable[[str], checkpoint.Variables]:
    if task not in MOLECULES:
        return read_weights
    from chemscale_jax.runs import molecule_start

    return molecule_start.read_weights


def read_weights(source: str) -> checkpoint.Variables:
    """Parameters and constants of ``config.init_from``, but for molecules.

    Args:
        source: a workdir, a folder in the layout of Hugging Face, or an .npz.
    """
    folder = pathlib.Path(source)
    if not folder.is_dir():
        return checkpoint.load_params_file(source)
    if (folder / "config.json").exists() and not (folder / "artifacts.json").exists():
        return hf_gpt_neo.load_folder(folder).variables
    return checkpoint.load_variables(Workdir(folder))
