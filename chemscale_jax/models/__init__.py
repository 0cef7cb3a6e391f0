"""Networks as pure functions. Energy models are listed in ``ENERGY_MODELS``."""

from collections.abc import Callable

from chemscale_jax.models import allegro, painn, schnet, spookynet
from chemscale_jax.models.energy import EnergyModel

# {name: hyperparameters -> EnergyModel}
ENERGY_MODELS: dict[str, Callable[..., EnergyModel]] = {
    "allegro": allegro.make_model,
    "painn": painn.make_model,
    "schnet": schnet.make_model,
    "spookynet": spookynet.make_model,
}
