"""A trained force field, opened from the folder of its run."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from chemscale_jax.chem.elements import symbol_of
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
    # Reference energies, units, splits: see `data.packs.stream.GraphStream`.
    artifacts: Mapping[str, Any]

    def reference_energy_ev(self, species: np.ndarray) -> float:
        """What to add to the model's energy of a molecule for its total energy, in eV.

        The reference energies that training left out, and the constants that were
        fitted after training on forces alone.

        Args:
            species: atomic numbers (N,); zeros are padding.

        Raises:
            UserError: an element that the run did not know.
        """
        known = self.artifacts["reference_energies_ev"]
        calibration = self.artifacts.get("calibration_ev", {})
        numbers, counts = np.unique(species[species > 0], return_counts=True)
        total = 0.0
        for number, count in zip(numbers, counts, strict=True):
            symbol = symbol_of(int(number))
            if symbol not in known:
                raise UserError(
                    f"the force field has no reference energy of {symbol}, only of "
                    f"{', '.join(known)}; use a model trained on {symbol}"
                )
            total += count * (known[symbol] + calibration.get(symbol, 0.0))
        return float(total)


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
    if step is not None and step != artifacts.get("calibration_step", step):
        # Constants fitted to the energies of other weights.
        artifacts = {k: v for k, v in artifacts.items() if k != "calibration_ev"}
    return ForceField(
        model=force_field.make_model(config, artifacts),
        params=variables["params"],
        constants=variables["constants"],
        config=config,
        artifacts=artifacts,
    )
