"""PaiNN of NeuralForceField (learningmatter-mit), the code of Frey et al. 2023.

Energies keep the unit the weights were trained in, kcal/mol by convention there.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from chemscale_jax.core.errors import UserError
from chemscale_jax.interop.weights import (
    Entry,
    check_shapes,
    dense,
    export_weights,
    import_weights,
)
from chemscale_jax.models import painn

_ACTIVATIONS = {
    "swish": "silu",
    "shifted_softplus": "shifted_softplus",
    "softplus": "softplus",
    "Tanh": "tanh",
    "sigmoid": "sigmoid",
    "ELU": "elu",
    "ReLU": "relu",
    "LeakyReLU": "leaky_relu",
}
_REQUIRED = {"activation", "cutoff", "feat_dim", "n_rbf", "num_conv"}
_OPTIONAL = {
    "output_keys",
    "grad_keys",
    "learnable_k",
    "skip_connection",
    "means",
    "stddevs",
    # Inert: dropouts when predicting, the others for the values checked below.
    "conv_dropout",
    "readout_dropout",
    "excl_vol",
    "V_ex_power",
    "V_ex_sigma",
    "pool_dic",
    "compute_delta",
}


def options_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The reference's ``modelparams``, given bare or in ``{"modelparams": ...}``."""
    options = dict(config)
    if options.pop("model", "painn") != "painn":
        raise UserError(f"config option model is {config['model']!r}, expected 'painn'")
    options.update(options.pop("modelparams", {}))
    return options


def painn_config(config: Mapping[str, Any]) -> painn.PaiNNConfig:
    """Our hyperparameters for the reference's ``modelparams``.

    Args:
        config: ``modelparams``, or ``{"model": "painn", "modelparams": ...}``.

    Raises:
        UserError: for an option that is unknown or has no counterpart here.
    """
    options = options_of(config)
    if missing := sorted(_REQUIRED - set(options)):
        raise UserError(f"config lacks {missing}")
    if unknown := sorted(set(options) - _REQUIRED - _OPTIONAL):
        raise UserError(
            f"config options {unknown} are not known; "
            f"known: {sorted(_REQUIRED | _OPTIONAL)}"
        )
    if options["activation"] not in _ACTIVATIONS:
        raise UserError(
            f"config option activation is {options['activation']!r}, "
            f"supported: {sorted(_ACTIVATIONS)}"
        )
    keys = options.get("output_keys", ["energy"])
    if len(keys) != 1:
        raise UserError(f"config option output_keys is {keys}, supported: one key")
    (key,) = keys
    if foreign := sorted(set(options.get("grad_keys") or []) - {f"{key}_grad"}):
        raise UserError(f"config option grad_keys has {foreign}, only forces are known")
    for option in ("excl_vol", "compute_delta"):
        if options.get(option):
            raise UserError(f"config option {option} is on, which is not supported")
    pools = options.get("pool_dic") or {}
    if any(pool["name"].lower() != "sum" for pool in pools.values()):
        raise UserError(f"config option pool_dic is {pools}, supported: sums")
    skip = options.get("skip_connection", False)
    return painn.PaiNNConfig(
        width=options["feat_dim"],
        depth=options["num_conv"],
        n_rbf=options["n_rbf"],
        cutoff_ang=float(options["cutoff"]),
        learnable_k=bool(options.get("learnable_k", False)),
        skip_connection=bool(skip.get(key) if isinstance(skip, Mapping) else skip),
        activation=_ACTIVATIONS[options["activation"]],
        # The reference adds 1e-15 to the square of each of three components.
        norm_eps=3e-15,
        distance_eps=3e-15,
        energy_scale=float((options.get("stddevs") or {}).get(key, 1.0)),
        energy_shift=float((options.get("means") or {}).get(key, 0.0)),
    )


def import_painn(
    state: Mapping[str, np.ndarray],
    config: painn.PaiNNConfig,
    output_key: str = "energy",
) -> dict[str, Any]:
    """Our ``{"params", "constants"}`` from the reference's state dict.

    Raises:
        UserError: unless every name is used exactly once and every shape fits.
    """
    tree = import_weights(state, _entries(config, output_key))
    model = painn.make_model_from(config)
    check_shapes(tree, jax.eval_shape(model.init, jax.random.key(0)))
    return tree


def export_painn(
    variables: Mapping[str, Any],
    config: painn.PaiNNConfig,
    output_key: str = "energy",
) -> dict[str, np.ndarray]:
    """The reference's state dict from our ``{"params", "constants"}``."""
    return export_weights(variables, _entries(config, output_key))


def _entries(config: painn.PaiNNConfig, output_key: str) -> list[Entry]:
    entries = [
        Entry(
            "embed_block.atom_embed.weight",
            ("params", "embedding", "embedding"),
        )
    ]
    for layer in range(config.depth):
        theirs = f"message_blocks.{layer}.inv_message"
        ours = f"message_{layer}"
        entries += dense(f"{theirs}.inv_dense.layers.0", "params", ours, "hidden")
        entries += dense(f"{theirs}.inv_dense.layers.1", "params", ours, "out")
        entries += dense(f"{theirs}.dist_embed.block.1", "params", ours, "filter")
        if config.learnable_k:
            n = Entry(
                f"{theirs}.dist_embed.block.0.n", ("params", f"radial_{layer}", "n")
            )
            entries.append(n)
        theirs, ours = f"update_blocks.{layer}", f"update_{layer}"
        entries += dense(f"{theirs}.u_mat", "params", ours, "U", bias=False)
        entries += dense(f"{theirs}.v_mat", "params", ours, "V", bias=False)
        entries += dense(f"{theirs}.s_dense.0", "params", ours, "hidden")
        entries += dense(f"{theirs}.s_dense.1", "params", ours, "out")
    for readout in range(config.depth if config.skip_connection else 1):
        theirs = f"readout_blocks.{readout}.readoutdict.{output_key}"
        ours = f"readout_{readout}"
        entries += dense(f"{theirs}.0", "params", ours, "hidden")
        entries += dense(f"{theirs}.1", "params", ours, "out")
    return entries
