"""Molecules as text: each token is predicted from those before it."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from chemscale_jax.chem.vocabulary import Vocabulary
from chemscale_jax.core.batches import TokenRows
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.task import Mean, Metrics, Task
from chemscale_jax.core.types import Array, Config, Key, Params
from chemscale_jax.models import gpt, options

MODEL = "gpt_neo"


def make_options(config: Config, artifacts: Mapping[str, Any]) -> gpt.GptOptions:
    """The network of ``config.model``, whose vocabulary is that of the data.

    Args:
        config: the whole config; ``model`` has name "gpt_neo" and fields of
            `gpt.GptOptions`.
        artifacts: facts of the stream, or of the run's artifacts.json.

    Raises:
        UserError: for an unknown model or hyperparameter, or a value out of range.
    """
    hyperparameters = config.model.to_dict()
    name = hyperparameters.pop("name")
    if name != MODEL:
        raise UserError(f"config.model.name is {name!r}, expected {MODEL!r}")
    if "vocabulary" not in artifacts:
        raise UserError(
            "the data have no vocabulary, so they are no text; "
            f"config.data.stream is {config.data.stream!r}, use 'tokens'"
        )
    size = Vocabulary.from_json(artifacts["vocabulary"]).size
    given = hyperparameters.pop("vocabulary", size)
    if given != size:
        raise UserError(
            f"config.model.vocabulary is {given}, the data have {size} tokens; "
            "leave it out"
        )
    # Rows cut from one text are one segment, which needs no masks.
    several = artifacts.get("rows", {}).get("form") != "cut"
    if several and not hyperparameters.get("segments", True):
        raise UserError(
            "config.model.segments is False, but rows hold several molecules, which "
            "would see one another; leave it out, or use config.batch.form='cut'"
        )
    found = options.from_fields(
        gpt.GptOptions,
        name,
        {"segments": several, **hyperparameters, "vocabulary": size},
    )
    gpt.check(found)
    return found


def make_task(
    config: Config, batch_specs: tuple[TokenRows, ...], artifacts: Mapping[str, Any]
) -> Task:
    """The task of ``config.model`` on rows of text.

    Args:
        config: the whole config; see `make_options`.
        batch_specs: shapes and dtypes of the batches.
        artifacts: facts of the stream; ``vocabulary`` as `Vocabulary.to_json` makes it.

    Raises:
        UserError: something in the config cannot be used.
    """
    found = make_options(config, artifacts)
    longest = max((spec.tokens_BL.shape[1] for spec in batch_specs), default=0)
    if longest > found.positions:
        raise UserError(
            f"rows have {longest} tokens, config.model.positions is "
            f"{found.positions}; make it at least as many"
        )

    def log_probs(params: Params, batch: TokenRows) -> tuple[Array, Array]:
        return next_log_probs(gpt.logits(found, params, *batch), batch)

    def eval_fn(params: Params, constants: Params, batch: TokenRows) -> Metrics:
        del constants  # there are none
        return row_metrics(batch, *log_probs(params, batch))

    def loss_fn(
        params: Params, constants: Params, batch: TokenRows, key: Key
    ) -> Metrics:
        del key  # nothing is random here
        return eval_fn(params, constants, batch)

    def predict(params: Params, constants: Params, batch: TokenRows) -> dict:
        del constants
        log_prob_BL, mask_BL = log_probs(params, batch)
        return {"log_prob_BL": log_prob_BL, "mask_BL": mask_BL}

    return Task(
        name=f"causal_lm/{MODEL}",
        init=lambda key: gpt.init(found, key),
        loss_fn=loss_fn,
        eval_fn=eval_fn,
        predict_fn=predict,
        loss_weights={"nll": 1.0},
        units={
            "nll": "nats/token",
            "nll_symbols": "nats/symbol",
            "nll_molecule": "nats/molecule",
        },
        headline=("nll_molecule", "nll_symbols"),
        counter="tokens",
        batch_specs=batch_specs,
        param_axes=gpt.param_axes(found),
    )


def next_log_probs(logits_BLV: Array, batch: TokenRows) -> tuple[Array, Array]:
    """``log p(token i + 1)`` at each place i, and where there is such a token.

    Args:
        logits_BLV: of the network.
        batch: the rows it was given.

    Returns:
        log_prob_BL in nats, 0 where the next place is of another segment or padding;
        and the mask that says so, True for a prediction.
    """
    target_BL = jnp.roll(batch.tokens_BL, -1, axis=1)
    follows = batch.segment_BL[:, 1:] == batch.segment_BL[:, :-1]
    follows = follows & (batch.segment_BL[:, 1:] > 0)
    mask_BL = jnp.pad(follows, ((0, 0), (0, 1)))
    wide_BLV = logits_BLV.astype(jnp.promote_types(logits_BLV.dtype, jnp.float32))
    # A sum over the vocabulary, not a gather: its gradient is no scatter.
    token_V = jnp.arange(wide_BLV.shape[-1])
    chosen = token_V[None, None] == target_BL[:, :, None]
    score_BL = jnp.sum(jnp.where(chosen, wide_BLV, 0.0), axis=-1)
    log_prob_BL = score_BL - jax.nn.logsumexp(wide_BLV, axis=-1)
    return jnp.where(mask_BL, log_prob_BL, 0.0), mask_BL


def row_metrics(batch: TokenRows, log_prob_BL: Array, mask_BL: Array) -> Metrics:
    """The loss in three units, and what was counted.

    Of each target token; of those that are symbols (ends of molecules are nearly free
    to predict); and of a whole molecule, which compares across notations.
    """
    target_BL = jnp.roll(batch.tokens_BL, -1, axis=1)
    symbol_BL = mask_BL & (target_BL >= Vocabulary.specials)
    end_BL = mask_BL & (target_BL == Vocabulary.end)

    def count(mask_BL: Array) -> Array:
        return jnp.sum(mask_BL, dtype=jnp.float32)

    total = -jnp.sum(log_prob_BL)
    symbols = -jnp.sum(jnp.where(symbol_BL, log_prob_BL, 0.0))
    real = batch.segment_BL > 0
    one = jnp.ones((), jnp.float32)
    return {
        "nll": Mean(total, count(mask_BL)),
        "nll_symbols": Mean(symbols, count(symbol_BL)),
        "nll_molecule": Mean(total, count(end_BL)),
        "tokens": Mean(count(mask_BL), one),
        "molecules": Mean(count(end_BL), one),
        "token_fill": Mean(count(real), jnp.float32(real.size)),
    }
