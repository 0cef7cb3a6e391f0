"""Energies and forces of molecules as a learning problem."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from chemscale_jax.core.batches import GraphPack
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.task import Mean, Metrics, Task
from chemscale_jax.core.types import Array, Config, Key, Params
from chemscale_jax.models import ENERGY_MODELS
from chemscale_jax.models.energy import EnergyModel, energy_and_forces
from chemscale_jax.tasks import force_losses


def make_model(config: Config, artifacts: Mapping[str, Any]) -> EnergyModel:
    """The network of ``config.model``.

    A hyperparameter that is named in ``artifacts["statistics"]`` and left at 0 or
    empty is taken from there: it follows from the training set.

    Args:
        config: the whole config; ``model`` names an entry of ``ENERGY_MODELS`` and
            its hyperparameters.
        artifacts: facts of the stream, or of the run's artifacts.json.

    Raises:
        UserError: for an unknown model or hyperparameter, or a pair list that is
            shorter than the model needs.
    """
    hyperparameters = config.model.to_dict()
    name = hyperparameters.pop("name")
    if name not in ENERGY_MODELS:
        raise UserError(
            f"config.model.name is {name!r}, expected one of {sorted(ENERGY_MODELS)}"
        )
    for field, value in artifacts.get("statistics", {}).items():
        if field in hyperparameters and not hyperparameters[field]:
            hyperparameters[field] = value
    model = ENERGY_MODELS[name](**hyperparameters)
    if (model.pair_cutoff_ang or 0.0) > config.data.long_range_ang:
        raise UserError(
            f"{name} with these options needs all pairs up to {model.pair_cutoff_ang} "
            f"angstrom, config.data.long_range_ang is {config.data.long_range_ang}; "
            f"set it to {model.pair_cutoff_ang}"
        )
    return model


def make_task(
    config: Config, batch_specs: tuple[GraphPack, ...], artifacts: Mapping[str, Any]
) -> Task:
    """The task of ``config.model`` under ``config.loss``.

    Args:
        config: the whole config; see `force_losses` for ``loss`` and `make_model` for
            ``model``.
        batch_specs: shapes and dtypes of the batches.
        artifacts: facts of the stream; ``planned`` where loss weights change.

    Raises:
        UserError: something in the config cannot be used, or nothing that the loss
            trains on is labelled.
    """
    terms = force_losses.make_terms(config.loss)
    loss_weights, weights_at = force_losses.make_weights(config.loss, terms, artifacts)
    model = make_model(config, artifacts)
    names = {"energy": terms.energy_name, "force": terms.force_name}
    wanted = [label for label, name in names.items() if name in loss_weights]
    if not any(artifacts.get("labelled", {}).get(label, 1.0) for label in wanted):
        raise UserError(
            f"the training set has no {' and no '.join(wanted)} labels, the only ones "
            "that config.loss trains on; see alpha_energy, alpha_force, data.labels"
        )

    def predict(params: Params, constants: Params, pack: GraphPack) -> dict:
        energy_M, forces_N3 = energy_and_forces(model, params, constants, pack)
        return {"energy_M": energy_M, "forces_N3": forces_N3}

    def eval_fn(params: Params, constants: Params, batch: GraphPack) -> Metrics:
        def of_row(pack: GraphPack) -> Metrics:
            found = predict(params, constants, pack)
            return row_metrics(pack, found["energy_M"], found["forces_N3"], terms)

        rows = _over_rows(of_row, batch)
        return jax.tree.map(lambda x_B: jnp.sum(x_B, axis=0), rows)

    def loss_fn(
        params: Params, constants: Params, batch: GraphPack, key: Key
    ) -> Metrics:
        del key  # nothing is random here
        return eval_fn(params, constants, batch)

    def predict_rows(params: Params, constants: Params, batch: GraphPack) -> dict:
        return _over_rows(lambda pack: predict(params, constants, pack), batch)

    return Task(
        name=f"force_field/{model.name}",
        init=model.init,
        loss_fn=loss_fn,
        eval_fn=eval_fn,
        predict_fn=predict_rows,
        loss_weights=loss_weights,
        weights_at=weights_at,
        units={
            "energy_l1": "eV",
            "energy_l2": "eV^2",
            "force_l1_component": "eV/A",
            "force_l2_component": "(eV/A)^2",
            "force_l1_equation": "eV/A",
            "force_l2_equation": "(eV/A)^2",
            "energy_mae": "meV/atom",
            "force_mae": "meV/A",
            **terms.units,
        },
        headline=("force_mae", "energy_mae"),
        counter="frames",
        batch_specs=batch_specs,
        param_axes=model.param_axes,
    )


def row_metrics(
    pack: GraphPack,
    energy_M: Array,
    forces_N3: Array,
    terms: force_losses.Terms | None = None,
) -> Metrics:
    """Every error of one pack, each as a mean over what is labelled.

    Args:
        pack: has the labels.
        energy_M: predicted energies, eV.
        forces_N3: predicted forces, eV/angstrom.
        terms: of the loss; those that are not among the usual errors are added.
    """
    errors = force_losses.errors_of(pack, energy_M, forces_N3)
    square_M = errors.per_molecule(jnp.sum(errors.forces_N3**2, axis=-1))
    energies, components = errors.energies, errors.components
    absolute_M = jnp.abs(errors.energy_M)
    absolute = jnp.sum(jnp.abs(errors.forces_N3))
    metrics = {
        "energy_l1": Mean(jnp.sum(absolute_M), energies),
        "energy_l2": Mean(jnp.sum(errors.energy_M**2), energies),
        "force_l1_component": Mean(absolute, components),
        "force_l2_component": Mean(jnp.sum(errors.forces_N3**2), components),
        "force_l1_equation": Mean(
            jnp.sum(force_losses.root(square_M)), errors.molecules
        ),
        "force_l2_equation": Mean(jnp.sum(square_M), errors.molecules),
        "energy_mae": Mean(1e3 * jnp.sum(absolute_M / errors.atoms_M), energies),
        "force_mae": Mean(1e3 * absolute, components),
        "frames": Mean(jnp.sum(pack.molecule_mask_M, dtype=jnp.float32), jnp.ones(())),
        "node_fill": _fill(pack.species_N > 0),
        "edge_fill": _fill(pack.receivers_E < pack.species_N.shape[0] - 1),
    }
    if terms is not None and terms.energy_name not in metrics:
        metrics[terms.energy_name] = terms.energy(errors)
    if terms is not None and terms.force_name not in metrics:
        metrics[terms.force_name] = terms.force(errors)
    return metrics


def _over_rows(function: Callable[[GraphPack], Any], batch: GraphPack) -> Any:
    """Maps a function of a pack over the rows of a batch.

    One row alone is not batched: a CPU takes that up to 1.6 times faster.
    """
    if batch.species_N.shape[0] > 1:
        return jax.vmap(function)(batch)
    alone = function(jax.tree.map(lambda x: x[0], batch))
    return jax.tree.map(lambda x: x[None], alone)


def _fill(mask: Array) -> Mean:
    """The share of a pack's places that is taken."""
    return Mean(jnp.sum(mask, dtype=jnp.float32), jnp.float32(mask.size))
