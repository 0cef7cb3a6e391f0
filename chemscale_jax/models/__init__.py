"""Networks as pure functions. Energy models are listed in ``ENERGY_MODELS``."""

from collections.abc import Callable
from typing import Any

from chemscale_jax.models.energy import EnergyModel


def _allegro(**hyperparameters: Any) -> EnergyModel:
    # Imported when asked for: e3nn takes half of the time in which a program starts.
    from chemscale_jax.models import allegro

    return allegro.make_model(**hyperparameters)


def _painn(**hyperparameters: Any) -> EnergyModel:
    # Likewise.
    from chemscale_jax.models import painn

    return painn.make_model(**hyperparameters)


def _schnet(**hyperparameters: Any) -> EnergyModel:
    # Likewise.
    from chemscale_jax.models import schnet

    return schnet.make_model(**hyperparameters)


def _spookynet(**hyperparameters: Any) -> EnergyModel:
    # Likewise.
    from chemscale_jax.models import spookynet

    return spookynet.make_model(**hyperparameters)


# {name: hyperparameters -> EnergyModel}
ENERGY_MODELS: dict[str, Callable[..., EnergyModel]] = {
    "allegro": _allegro,
    "painn": _painn,
    "schnet": _schnet,
    "spookynet": _spookynet,
}
