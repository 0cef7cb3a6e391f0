"""Networks as pure functions. Energy models are listed in ``ENERGY_MODELS``."""

from collections.abc import Callable

from chemscale_jax.models import painn
from chemscale_jax.models.energy import EnergyModel

# {name: hyperparameters -> EnergyModel}
ENERGY_MODELS: dict[str, Callable[..., EnergyModel]] = {"painn": painn.make_model}
