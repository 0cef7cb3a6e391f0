"""Properties of molecules, numbers or classes, from a Uni-Mol2 network with a head."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from chemscale_jax.core.batches import MoleculeRows, PropertyRows
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.task import Mean, Metrics, Task
from chemscale_jax.core.types import Array, Config, Key, Params
from chemscale_jax.models import unimol2
from chemscale_jax.tasks import property_losses as losses
from chemscale_jax.tasks.conformer_denoising import (
    MODEL,
    make_options,
    with_distance_scale,
)

FORMS = ("tanh", "linear")
# Of a network that was pretrained: nothing here asks for elements or coordinates.
PRETRAINING_HEADS = ("token_head", "move_head")


def make_task(
    config: Config, batch_specs: tuple[PropertyRows, ...], artifacts: Mapping[str, Any]
) -> Task:
    """The task of ``config.model`` and a head on rows of molecules with labels.

    Args:
        config: the whole config; ``model`` as in `conformer_denoising.make_options`,
            ``head`` with form ("tanh" or "linear", see `unimol2.pooled`) and dropout,
            ``loss`` with "regression" (the loss of numbers) and "balance".
        batch_specs: shapes and dtypes of the batches.
        artifacts: facts of the stream; ``targets`` says what is predicted.

    Raises:
        UserError: something in the config cannot be used.
    """
    options = make_options(config)
    form, rate = read_head(config)
    targets = losses.read_targets(artifacts, config.loss.balance)
    regression = config.loss.regression
    loss = losses.loss_name(targets, regression)

    def init(key: Key) -> dict[str, Params]:
        encoder_key, head_key = jax.random.split(key)
        variables = unimol2.init(options, encoder_key)
        scale = config.model.distance_scale
        params = dict(with_distance_scale(variables["params"], scale))
        for name in PRETRAINING_HEADS:
            del params[name]
        head = unimol2.init_head(options, head_key, targets.outputs, form)
        constants = {"targets": targets.constants} if targets.constants else {}
        return {"params": {**params, "head": head}, "constants": constants}

    def outputs(params: Params, rows: MoleculeRows, key: Key | None) -> Array:
        keys = (None, None) if key is None else jax.random.split(key)
        encoded = unimol2.encode(options, params, rows, keys[0])
        found_BP = unimol2.pooled(params["head"], encoded.x_BTD, rate, keys[1])
        return found_BP.astype(jnp.promote_types(found_BP.dtype, jnp.float32))

    def metrics(
        constants: Params, batch: PropertyRows, outputs_BP: Array
    ) -> dict[str, Mean]:
        real_BN = unimol2.atom_mask(batch.molecules)
        one = jnp.ones((), jnp.float32)
        return {
            **losses.property_metrics(
                targets,
                constants.get("targets", {}),
                regression,
                outputs_BP,
                batch.targets_BT,
                batch.target_mask_BT,
            ),
            "molecules": Mean(jnp.sum(real_BN[:, 0], dtype=jnp.float32), one),
            "atom_fill": Mean(
                jnp.sum(real_BN, dtype=jnp.float32), jnp.float32(real_BN.size)
            ),
        }

    def loss_fn(
        params: Params, constants: Params, batch: PropertyRows, key: Key
    ) -> Metrics:
        # Masks of dropout of its own for every slice of a batch.
        key = jax.random.fold_in(key, batch.number_B[0])
        return metrics(constants, batch, outputs(params, batch.molecules, key))

    def eval_fn(params: Params, constants: Params, batch: PropertyRows) -> Metrics:
        return metrics(constants, batch, outputs(params, batch.molecules, None))

    def predict(params: Params, constants: Params, batch: PropertyRows) -> dict:
        del constants  # they are of the loss
        return {"outputs_BP": outputs(params, batch.molecules, None)}

    units = {name: targets.units[t] for name, t in targets.shown.items()}
    several = targets.kind == "regression" and len(units) != 1
    headline = ("mae",) if several else tuple(units) or ("accuracy",)
    return Task(
        name=f"property_regression/{MODEL}",
        init=init,
        loss_fn=loss_fn,
        eval_fn=eval_fn,
        predict_fn=predict,
        loss_weights={loss: 1.0},
        units={"mae": "scaled", "accuracy": "", **units},
        headline=headline,
        counter="molecules",
        batch_specs=batch_specs,
        param_axes=(
            *param_axes(options, form),
            *[(f"constants/targets/{name}", (None,)) for name in targets.constants],
        ),
    )


def read_head(config: Config) -> tuple[str, float]:
    """Form and dropout of ``config.head``.

    Raises:
        UserError: for an unknown field or form, or a dropout out of range.
    """
    fields = config.head.to_dict()
    form, rate = fields.pop("form", None), fields.pop("dropout", None)
    if fields:
        raise UserError(f"config.head has no field {sorted(fields)}")
    if form not in FORMS:
        raise UserError(f"config.head.form is {form!r}, expected {FORMS}")
    if rate is None or not 0 <= rate < 1:
        raise UserError(f"config.head.dropout is {rate}, must be in [0, 1)")
    return form, float(rate)


def param_axes(options: unimol2.Unimol2Options, form: str) -> Any:
    """The logical axes of a network without its pretraining heads, and of a head."""
    encoder = [rule for rule in unimol2.param_axes(options) if "_head/" not in rule[0]]
    return (*encoder, *unimol2.head_axes(form))
