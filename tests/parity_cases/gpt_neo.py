"""GPT-Neo of ``transformers``: logits, hidden states, attention, losses, gradients."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chemscale_jax.core.batches import TokenRows
from chemscale_jax.interop import hf_gpt_neo
from chemscale_jax.models import gpt
from chemscale_jax.tasks.causal_lm import next_log_probs
from tests.parity_cases.fixture import Fixture, Outputs


def gpt_neo_outputs(fixture: Fixture, dtype: str) -> Outputs:
    """Everything but decoding. Padding is a segment of its own and not compared."""
    options = hf_gpt_neo.options_of(fixture.config)
    weights = hf_gpt_neo.import_weights(options, fixture.params)["params"]
    params = jax.tree.map(lambda x: jnp.asarray(x, dtype), weights)
    right = _rows(fixture, "", fixture.inputs["attention_mask"])
    left = _rows(fixture, "lp_", fixture.inputs["lp_attention_mask"])
    whole = _rows(fixture, "", np.ones_like(fixture.inputs["attention_mask"]))

    def loss(params: Any) -> tuple[Any, Any]:
        log_prob_BL, mask_BL = next_log_probs(
            gpt.logits(options, params, *right), right
        )
        return -jnp.sum(log_prob_BL) / jnp.sum(mask_BL), log_prob_BL

    @jax.jit
    def run(params: Any) -> Any:
        (value, log_prob_BL), grads = jax.value_and_grad(loss, has_aux=True)(params)
        states = [
            gpt.hidden(options, params, *right, layer=layer)
            for layer in range(options.depth + 1)
        ]
        found = {
            "logits": gpt.logits(options, params, *right),
            "lp_logits": gpt.logits(options, params, *left),
            "logits_nomask": gpt.logits(options, params, *whole),
            "loss": value,
            "loss_hf": value,
            "token_nll": -log_prob_BL[:, :-1],
            **{f"hidden_{layer}": x_BLD for layer, x_BLD in enumerate(states)},
        }
        for layer in (0, 1):
            found[f"attn_probs_layer{layer}"] = gpt.attention_weights(
                options, params, *right, layer=layer
            )
        return found, hf_gpt_neo.export_weights(options, grads)

    found, grads = jax.tree.map(np.asarray, run(params))
    found["loss_grad_norms"] = np.array(
        [np.linalg.norm(grads[name]) for name in sorted(grads)]
    )
    found["loss_grad_wte"] = grads["transformer.wte.weight"]
    for name, array in found.items():
        rows = left if name == "lp_logits" else right
        real_BL = np.asarray(rows.segment_BL) > 0
        if name.startswith("attn_probs"):
            found[name] = _where(real_BL[:, None], array, fixture.outputs[name])
        elif array.shape[:2] == real_BL.shape and name != "logits_nomask":
            found[name] = _where(real_BL, array, fixture.outputs[name])
    return found


def _where(mask: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Ours at real places; padding is theirs, that is, not compared."""
    mask = np.broadcast_to(mask, ours.shape[: mask.ndim])
    return np.where(
        mask.reshape(mask.shape + (1,) * (ours.ndim - mask.ndim)), ours, theirs
    )


def _rows(fixture: Fixture, prefix: str, mask: np.ndarray) -> TokenRows:
    positions = np.maximum(np.cumsum(mask, axis=1) - 1, 0)
    ids = fixture.inputs[f"{prefix}input_ids"]
    return TokenRows(*(jnp.asarray(x.astype(np.int32)) for x in (ids, mask, positions)))
