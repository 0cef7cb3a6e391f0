"""Untrained force fields, and folders as a training run would leave them."""

import functools
import pathlib

import jax
import numpy as np
from ml_collections import ConfigDict

from chemscale_jax.core import config_files
from chemscale_jax.core.workdir import Workdir
from chemscale_jax.inference.force_field import ForceField
from chemscale_jax.models import ENERGY_MODELS
from chemscale_jax.tasks import force_field as force_field_task
from chemscale_jax.training import checkpoint, setup
from chemscale_jax.training.optimizer import make_optimizer
from chemscale_jax.training.progress import EarlyStop, Plateau, Progress
from chemscale_jax.training.step import init_state
from tests.models.molecules import CUTOFF_ANG, TINY

ARTIFACTS = {
    "elements": ["H", "C", "O"],
    "reference_energies_ev": {"H": -13.5, "C": -1030.25, "O": -2041.125},
    "calibration_ev": {"H": 0.25},
    "statistics": {"energy_scale": 100.0},
    "cutoff_ang": CUTOFF_ANG,
}
# What an H, a C and an O atom bring by themselves.
REFERENCE = {1: -13.25, 6: -1030.25, 8: -2041.125}


@functools.cache
def force_field(seed: int = 0, name: str = "painn") -> ForceField:
    """A tiny force field, moved off its symmetric start."""
    hyperparameters = TINY[name]
    model = ENERGY_MODELS[name](**hyperparameters)
    variables = jax.device_get(model.init(jax.random.key(seed)))
    rng = np.random.default_rng(seed)
    params = jax.tree.map(
        lambda x: (x + rng.normal(0, 0.1, x.shape)).astype(x.dtype),
        variables["params"],
    )
    config = ConfigDict({"model": {"name": name, **hyperparameters}})
    return ForceField(model, params, variables["constants"], config, ARTIFACTS)


def write_workdir(path: pathlib.Path, seed: int = 0) -> Workdir:
    """The folder of a run of a tiny PaiNN that has not seen a single batch."""
    file = config_files.installed_folder() / "painn_ani1x.py"
    config = config_files.load_module(file).get_config("smoke")
    config.model.update(TINY["painn"])
    workdir = Workdir(path)
    path.mkdir(parents=True, exist_ok=True)
    setup.claim(workdir, config.to_dict())
    task = force_field_task.make_task(config, (), ARTIFACTS)
    state = init_state(task, make_optimizer(config.optimizer, 10, ()), seed)
    checkpoint.save_artifacts(workdir, ARTIFACTS)
    checkpoints = checkpoint.Checkpoints(workdir, ARTIFACTS)
    progress = Progress(plateau=Plateau(), early_stop=EarlyStop())
    checkpoints.save(state, progress, valid_loss=1.0)
    checkpoints.close()
    return workdir
