"""What a run of Uni-Mol2 takes over from the weights that it starts from."""

import dataclasses
import pathlib

from ml_collections import ConfigDict

from chemscale_jax.core.errors import UserError
from chemscale_jax.core.types import Config
from chemscale_jax.core.workdir import Workdir
from chemscale_jax.interop import unimol2 as published
from chemscale_jax.models.unimol2_options import SIZES, Unimol2Options
from chemscale_jax.tasks.conformer_denoising import make_options
from chemscale_jax.training import checkpoint

# Tasks whose network is a Uni-Mol2.
TASKS = ("conformer_denoising", "property_regression")
# How a network is trained and computed, which the new run decides.
_OWN = (
    "dropout",
    "attention_dropout",
    "pair_dropout",
    "dtype",
    "remat",
    "attention",
    "unroll",
)


def take_network(config: Config) -> None:
    """Fills in ``config.model`` with the network of ``config.init_from``.

    Nothing is filled in for an ``.npz`` of parameters, which names no network.

    Args:
        config: the whole config; changed in place.

    Raises:
        UserError: there is no such source, or it holds another kind of model.
    """
    source = config.init_from
    if source.endswith(".npz"):
        return
    options = _options(source)
    fields = {k: v for k, v in dataclasses.asdict(options).items() if k not in _OWN}
    if config.task == "property_regression" and options.length == "batch":
        # Else what is predicted of a molecule would depend on its company.
        fields["length"] = "own"
    for size, known in SIZES.items():
        if {"pair_width": 512, "pair_hidden": 64, **known}.items() <= fields.items():
            fields["size"] = size
    with config.unlocked():
        config.model.update(fields)


def read_weights(source: str) -> checkpoint.Variables:
    """Parameters of a run or of published weights, their heads included."""
    if source.endswith(".npz"):
        return checkpoint.load_params_file(source)
    if _is_run(source):
        return checkpoint.load_variables(Workdir(pathlib.Path(source)))
    return published.load(source).variables


def _is_run(source: str) -> bool:
    return Workdir(pathlib.Path(source)).artifacts_json.exists()


def _options(source: str) -> Unimol2Options:
    if not source.startswith("hub:") and not pathlib.Path(source).exists():
        raise UserError(
            f"config.init_from={source} does not exist; give the workdir of a run of "
            "Uni-Mol2, a file of published weights, or '' to start from nothing"
        )
    if not _is_run(source):
        return published.load(source).options
    config = Workdir(pathlib.Path(source)).config()
    if config.get("task") not in TASKS:
        raise UserError(
            f"config.init_from={source} holds a run of task {config.get('task')!r}, "
            f"expected one of {TASKS}"
        )
    return make_options(ConfigDict({"model": dict(config["model"])}))
