"""Pretraining of Uni-Mol2: masked elements and noised coordinates are restored."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from chemscale_jax.core.batches import DenoisingRows
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.task import Metrics, Task
from chemscale_jax.core.types import Array, Config, Key, Params
from chemscale_jax.models import options as checks
from chemscale_jax.models import unimol2
from chemscale_jax.tasks import denoising_losses as losses
from chemscale_jax.tasks.conformer_noise import Noise, Noised, add_noise

MODEL = "unimol2"
VARIANTS = {"clean": unimol2.clean, "faithful": unimol2.faithful}
TERMS = ("token", "coord", "dist")
# Noise of validation is the same in every epoch and run.
_EVAL_SEED = 2406_14969


def make_options(config: Config) -> unimol2.Unimol2Options:
    """The network of ``config.model``.

    Args:
        config: the whole config; ``model`` has name "unimol2", a size of Table 2 or one
            of ours, the variant ("clean" or "faithful"), and any fields of
            `unimol2.Unimol2Options` that differ from these.

    Raises:
        UserError: for an unknown model or hyperparameter, or a value out of range.
    """
    fields = config.model.to_dict()
    names = ("name", "variant", "distance_scale")  # the last one is of `make_task`
    found = {name: fields.pop(name, None) for name in names}
    if found["name"] != MODEL:
        raise UserError(f"config.model.name is {found['name']!r}, expected {MODEL!r}")
    if found["variant"] not in VARIANTS:
        raise UserError(
            f"config.model.variant is {found['variant']!r}, expected {(*VARIANTS,)}"
        )
    options = VARIANTS[found["variant"]](fields.pop("size", None), **fields)
    unimol2.check(options)
    return options


def make_task(
    config: Config, batch_specs: tuple[DenoisingRows, ...], artifacts: Mapping[str, Any]
) -> Task:
    """The task of ``config.model`` on rows of molecules.

    Args:
        config: the whole config; ``model`` as in `make_options`, ``noise`` with fields
            of `Noise`, ``loss`` with the weights of ``TERMS``.
        batch_specs: shapes and dtypes of the batches.
        artifacts: facts of the stream; ``elements`` has the atoms of each element in
            the training set.

    Raises:
        UserError: something in the config cannot be used.
    """
    options = make_options(config)
    noise = checks.from_fields(Noise, "noise", config.noise.to_dict())
    weights = _loss_weights(config.loss.to_dict())
    if "elements" not in artifacts:
        raise UserError(
            "the data count no elements, so they are no molecules with coordinates; "
            f"config.data.stream is {config.data.stream!r}, use 'molecules'"
        )
    log_prob_V = losses.element_log_probs(artifacts["elements"])

    def init(key: Key) -> dict[str, Params]:
        variables = unimol2.init(options, key)
        scale = config.model.distance_scale
        params = with_distance_scale(variables["params"], scale)
        return {**variables, "params": params}

    def restore(
        params: Params, batch: DenoisingRows, key: Key, training: bool
    ) -> tuple[Noised, Array, Array]:
        noise_key, dropout_key = jax.random.split(key)
        noised = add_noise(noise, batch, noise_key)
        dropout = (None, None)
        if training:  # masks of its own for every slice of a batch
            first = batch.number_B[0]
            dropout = jax.random.split(jax.random.fold_in(dropout_key, first))
        encoded = unimol2.encode(options, params, noised.rows, dropout[0])
        logits_BNV = unimol2.token_logits(options, params, encoded.x_BTD[:, 1:])
        moved_BN3 = unimol2.move(options, params, encoded, noised.rows, dropout[1])
        return noised, logits_BNV, moved_BN3

    def loss_fn(
        params: Params, constants: Params, batch: DenoisingRows, key: Key
    ) -> Metrics:
        del constants  # there are none
        return losses.denoising_metrics(*restore(params, batch, key, True))

    def eval_fn(params: Params, constants: Params, batch: DenoisingRows) -> Metrics:
        del constants
        found = restore(params, batch, jax.random.key(_EVAL_SEED), False)
        baselines = losses.baseline_metrics(found[0], log_prob_V)
        return {**losses.denoising_metrics(*found), **baselines}

    def predict(params: Params, constants: Params, batch: DenoisingRows) -> dict:
        del constants
        key = jax.random.key(_EVAL_SEED)
        noised, logits_BNV, moved_BN3 = restore(params, batch, key, False)
        return {
            "species_BN": noised.species_BN,
            "masked_BN": noised.masked_BN,
            "logits_BNV": logits_BNV,
            "clean_BN3": noised.clean_BN3,
            "noised_BN3": noised.rows.positions_BN3,
            "positions_BN3": moved_BN3,
        }

    return Task(
        name=f"conformer_denoising/{MODEL}",
        init=init,
        loss_fn=loss_fn,
        eval_fn=eval_fn,
        predict_fn=predict,
        loss_weights=weights,
        units=losses.UNITS,
        headline=(
            "token",
            "token_entropy",
            "coord",
            "coord_zero",
            "dist",
            "dist_noised",
        ),
        counter="molecules",
        batch_specs=batch_specs,
        param_axes=unimol2.param_axes(options),
    )


def with_distance_scale(params: Params, scale: float) -> Params:
    """Parameters whose kernel of distances d starts at ``2 scale d``; 0: as they are.

    Differs from the paper: its scales start near 0, as all other embeddings do. Then
    distances look nearly equal until the scales have grown, which they do in a long
    pretraining only.
    """
    if not scale:
        return params
    kernel = params["kernel"]
    starts = {
        name: {"embedding": jnp.full_like(kernel[name]["embedding"], value)}
        for name, value in (("scale", scale), ("shift", 0.0))
    }
    return {**params, "kernel": {**kernel, **starts}}


def _loss_weights(given: Mapping[str, float]) -> dict[str, float]:
    """Weights of the terms that count."""
    if unknown := sorted(set(given) - set(TERMS)):
        raise UserError(f"config.loss has no weight {unknown}, expected {TERMS}")
    if any(not weight >= 0 for weight in given.values()):
        raise UserError(f"config.loss is {dict(given)}: a weight must be 0 or more")
    weights = {name: weight for name, weight in given.items() if weight}
    if not weights:
        raise UserError(f"config.loss has no weight above 0: give one of {TERMS}")
    return weights
