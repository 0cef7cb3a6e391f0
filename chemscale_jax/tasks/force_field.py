"""Energies and forces of molecules: the losses of Eq. 4 and Eq. 5 (Frey et al.).

``L = 1/N sum_i [ alpha_E ||E_i - E^_i||^p + alpha_F ||F_i - F^_i||^p ]`` over the N
molecules of a batch, with p = 2 (Eq. 4) or p = 1 (Eq. 5).
"""

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

POWERS = ("l1", "l2")
FORMS = ("component", "equation")


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
        config: the whole config; ``loss`` has ``power``, ``form``, ``alpha_energy``
            and ``alpha_force``; see `make_model` for ``model``.
        batch_specs: shapes and dtypes of the batches.
        artifacts: facts of the stream.
    """
    loss = config.loss
    _check(loss)
    model = make_model(config, artifacts)

    def predict(params: Params, constants: Params, pack: GraphPack) -> dict:
        energy_M, forces_N3 = energy_and_forces(model, params, constants, pack)
        return {"energy_M": energy_M, "forces_N3": forces_N3}

    def eval_fn(params: Params, constants: Params, batch: GraphPack) -> Metrics:
        def of_row(pack: GraphPack) -> Metrics:
            found = predict(params, constants, pack)
            return row_metrics(pack, found["energy_M"], found["forces_N3"])

        rows = _over_rows(of_row, batch)
        return jax.tree.map(lambda x_B: jnp.sum(x_B, axis=0), rows)

    def loss_fn(
        params: Params, constants: Params, batch: GraphPack, key: Key
    ) -> Metrics:
        del key  # nothing is random here
        return eval_fn(params, constants, batch)

    def predict_rows(params: Params, constants: Params, batch: GraphPack) -> dict:
        return _over_rows(lambda pack: predict(params, constants, pack), batch)

    weights = {
        f"energy_{loss.power}": loss.alpha_energy,
        f"force_{loss.power}_{loss.form}": loss.alpha_force,
    }
    return Task(
        name=f"force_field/{model.name}",
        init=model.init,
        loss_fn=loss_fn,
        eval_fn=eval_fn,
        predict_fn=predict_rows,
        # A weight of zero takes the term out, so that forces alone need no energies.
        loss_weights={name: weight for name, weight in weights.items() if weight},
        units={
            "energy_l1": "eV",
            "energy_l2": "eV^2",
            "force_l1_component": "eV/A",
            "force_l2_component": "(eV/A)^2",
            "force_l1_equation": "eV/A",
            "force_l2_equation": "(eV/A)^2",
            "energy_mae": "meV/atom",
            "force_mae": "meV/A",
        },
        headline=("force_mae", "energy_mae"),
        counter="frames",
        batch_specs=batch_specs,
        param_axes=model.param_axes,
    )


def row_metrics(pack: GraphPack, energy_M: Array, forces_N3: Array) -> Metrics:
    """Every error of one pack, each as a mean over what is labelled.

    ``component`` means over all real force components of the batch, as the paper's
    code does; ``equation`` takes the norm over all components of a molecule and means
    over molecules, as Eq. 4 and Eq. 5 are printed.
    """
    # Make labels that may be missing harmless before they meet a prediction.
    energy_error_M = jnp.where(pack.energy_mask_M, energy_M - pack.energy_M, 0.0)
    labelled_N1 = pack.forces_mask_N[:, None]
    force_error_N3 = jnp.where(labelled_N1, forces_N3 - pack.forces_N3, 0.0)

    def per_molecule(x_N: Array) -> Array:
        return jax.ops.segment_sum(
            x_N, pack.molecule_N, pack.energy_M.shape[0], indices_are_sorted=True
        )

    real_N = (pack.species_N > 0).astype(jnp.float32)
    atoms_M = jnp.maximum(per_molecule(real_N), 1.0)
    square_M = per_molecule(jnp.sum(force_error_N3**2, axis=-1))
    energies = jnp.sum(pack.energy_mask_M, dtype=jnp.float32)
    components = 3 * jnp.sum(pack.forces_mask_N, dtype=jnp.float32)
    with_forces = jnp.sum(
        per_molecule(pack.forces_mask_N.astype(jnp.float32)) > 0, dtype=jnp.float32
    )
    frames = jnp.sum(pack.molecule_mask_M, dtype=jnp.float32)
    absolute = jnp.sum(jnp.abs(force_error_N3))
    return {
        "energy_l1": Mean(jnp.sum(jnp.abs(energy_error_M)), energies),
        "energy_l2": Mean(jnp.sum(energy_error_M**2), energies),
        "force_l1_component": Mean(absolute, components),
        "force_l2_component": Mean(jnp.sum(force_error_N3**2), components),
        "force_l1_equation": Mean(jnp.sum(_root(square_M)), with_forces),
        "force_l2_equation": Mean(jnp.sum(square_M), with_forces),
        "energy_mae": Mean(1e3 * jnp.sum(jnp.abs(energy_error_M) / atoms_M), energies),
        "force_mae": Mean(1e3 * absolute, components),
        "frames": Mean(frames, jnp.ones(())),
        "node_fill": _fill(pack.species_N > 0),
        "edge_fill": _fill(pack.receivers_E < pack.species_N.shape[0] - 1),
    }


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


def _root(square_M: Array) -> Array:
    """Square roots whose gradient at zero is zero."""
    positive_M = square_M > 0
    return jnp.where(positive_M, jnp.sqrt(jnp.where(positive_M, square_M, 1.0)), 0.0)


def _check(loss: Config) -> None:
    if loss.power not in POWERS:
        raise UserError(f"config.loss.power is {loss.power!r}, expected {POWERS}")
    if loss.form not in FORMS:
        raise UserError(f"config.loss.form is {loss.form!r}, expected {FORMS}")
    if min(loss.alpha_energy, loss.alpha_force) < 0 or not (
        loss.alpha_energy or loss.alpha_force
    ):
        raise UserError(
            f"config.loss has alpha_energy={loss.alpha_energy}, alpha_force="
            f"{loss.alpha_force}; both must be >= 0 and one positive"
        )
