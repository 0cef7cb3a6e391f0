"""Learning problems: each file has one public function, ``make_task(config)``."""

from collections.abc import Mapping
from typing import Any

from chemscale_jax.core.task import Task
from chemscale_jax.core.types import Config
from chemscale_jax.tasks import causal_lm, force_field


def _conformer_denoising(
    config: Config, batch_specs: tuple[Any, ...], artifacts: Mapping[str, Any]
) -> Task:
    # Imported when asked for: RDKit comes with the features of molecules.
    from chemscale_jax.tasks import conformer_denoising

    return conformer_denoising.make_task(config, batch_specs, artifacts)


def _property_regression(
    config: Config, batch_specs: tuple[Any, ...], artifacts: Mapping[str, Any]
) -> Task:
    # Likewise.
    from chemscale_jax.tasks import property_regression

    return property_regression.make_task(config, batch_specs, artifacts)


TASKS = {
    "causal_lm": causal_lm.make_task,
    "conformer_denoising": _conformer_denoising,
    "force_field": force_field.make_task,
    "property_regression": _property_regression,
}
