"""A trained force field, opened from the folder of its run."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from chemscale_jax.core.errors import UserError
from chemscale_jax.core.types import Config, Params
from chemscale_jax.core.workdir import Workdir, read_json
from chemscale_jax.models.energy import EnergyModel
from chemscale_jax.tasks import force_field
from chemscale_jax.training.checkpoint import load_variables


class ForceField(NamedTuple):
    """A model, its weights, and what has to be known to use them."""

    model: EnergyModel
    params: Params
    constants: Params
    config: Config  # of the run
    # Reference energies, units, splits: see `chemscale_jax.data.stream.GraphStream`.
    artifacts: Mapping[str, Any]


def open_force_field(workdir: Workdir, step: int | None = None) -> ForceField:
    """The force field of a run, with the weights of its best checkpoint.

    Args:
        workdir: of a run of the task "force_field".
        step: of another checkpoint.

    Raises:
        UserError: the run is of another task, or has no complete checkpoint.
    """
    config = ConfigDict(workdir.config())
    if config.task != "force_field":
        raise UserError(
            f"workdir {workdir.path} holds a run of task {config.task!r}, "
            "expected 'force_field'"
        )
    variables = load_variables(workdir, step)
    artifacts = read_json(workdir.artifacts_json)
    return ForceField(
        model=force_field.make_model(config, artifacts),
        params=variables["params"],
        constants=variables["constants"],
        config=config,
        artifacts=artifacts,
    )
