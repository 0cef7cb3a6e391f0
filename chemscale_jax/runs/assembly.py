"""Puts a run together from its config: data, task and initial weights."""

import pathlib

import jax

from chemscale_jax.core.types import Config
from chemscale_jax.core.workdir import Workdir
from chemscale_jax.data import STREAMS
from chemscale_jax.interop import hf_gpt_neo
from chemscale_jax.tasks import TASKS
from chemscale_jax.training import checkpoint, host, setup
from chemscale_jax.training.lane_programs import Lane


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
    return Lane(
        task=TASKS[config.task](config, stream.batch_specs, stream.artifacts),
        stream=stream,
        config=config,
        workdir=workdir,
        steps=steps,
        start_from=checkpoint.starter(
            config.init_from, tuple(config.init_fresh), workdir, read_weights
        ),
    )


def read_weights(source: str) -> checkpoint.Variables:
    """Parameters and constants of ``config.init_from``.

    Args:
        source: a workdir, a folder in the layout of Hugging Face, or an .npz.
    """
    folder = pathlib.Path(source)
    if not folder.is_dir():
        return checkpoint.load_params_file(source)
    if (folder / "config.json").exists() and not (folder / "artifacts.json").exists():
        return hf_gpt_neo.load_folder(folder).variables
    return checkpoint.load_variables(Workdir(folder))
