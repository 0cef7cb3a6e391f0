"""PaiNN and SchNet of NeuralForceField (learningmatter-mit), used by Frey et al. 2023.

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
from chemscale_jax.models import painn, schnet

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
_PAINN_REQUIRED = {"activation", "cutoff", "feat_dim", "n_rbf", "num_conv"}
_PAINN_OPTIONAL = {
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
_SCHNET_REQUIRED = {
    "n_atom_basis",
    "n_filters",
    "n_gaussians",
    "n_convolutions",
    "cutoff",
}
_SCHNET_OPTIONAL = {
    "trainable_gauss",
    "readoutdict",
    # Inert: dropouts when predicting, the others for the values checked below.
    "dropout_rate",
    "excl_vol",
    "V_ex_power",
    "V_ex_sigma",
}


def options_of(config: Mapping[str, Any], model: str = "painn") -> dict[str, Any]:
    """The reference's ``modelparams``, given bare or in ``{"modelparams": ...}``."""
    options = dict(config)
    if options.pop("model", model) != model:
        raise UserError(
            f"config option model is {config['model']!r}, expected {model!r}"
        )
    options.update(options.pop("modelparams", {}))
    return options


def _check_names(
    options: Mapping[str, Any], required: set[str], optional: set[str]
) -> None:
    if missing := sorted(required - set(options)):
        raise UserError(f"config lacks {missing}")
    if unknown := sorted(set(options) - required - optional):
        raise UserError(
            f"config options {unknown} are not known; "
            f"known: {sorted(required | optional)}"
        )


def _activation(option: str, name: str) -> str:
    if name not in _ACTIVATIONS:
        raise UserError(
            f"config option {option} is {name!r}, supported: {sorted(_ACTIVATIONS)}"
        )
    return _ACTIVATIONS[name]


def painn_config(config: Mapping[str, Any]) -> painn.PaiNNConfig:
    """Our hyperparameters for the reference's ``modelparams``.

    Args:
        config: ``modelparams``, or ``{"model": "painn", "modelparams": ...}``.

    Raises:
        UserError: for an option that is unknown or has no counterpart here.
    """
    options = options_of(config)
    _check_names(options, _PAINN_REQUIRED, _PAINN_OPTIONAL)
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
        activation=_activation("activation", options["activation"]),
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
    tree = import_weights(state, _painn_entries(config, output_key))
    model = painn.make_model_from(config)
    check_shapes(tree, jax.eval_shape(model.init, jax.random.key(0)))
    return tree


def export_painn(
    variables: Mapping[str, Any],
    config: painn.PaiNNConfig,
    output_key: str = "energy",
) -> dict[str, np.ndarray]:
    """The reference's state dict from our ``{"params", "constants"}``."""
    return export_weights(variables, _painn_entries(config, output_key))


def _painn_entries(config: painn.PaiNNConfig, output_key: str) -> list[Entry]:
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


def schnet_config(config: Mapping[str, Any]) -> schnet.SchNetConfig:
    """Our hyperparameters for the reference's ``modelparams``.

    Args:
        config: ``modelparams``, or ``{"model": "schnet", "modelparams": ...}``.

    Raises:
        UserError: for an option that is unknown or has no counterpart here.
    """
    options = options_of(config, "schnet")
    _check_names(options, _SCHNET_REQUIRED, _SCHNET_OPTIONAL)
    if options.get("excl_vol"):
        raise UserError("config option excl_vol is on, which is not supported")
    width = options["n_atom_basis"]
    _, activation = _schnet_readout(options)
    return schnet.SchNetConfig(
        **{
            **schnet.FAITHFUL,
            "width": width,
            "depth": options["n_convolutions"],
            "n_filters": options["n_filters"],
            "n_rbf": options["n_gaussians"],
            "cutoff_ang": float(options["cutoff"]),
            "trainable_gauss": bool(options.get("trainable_gauss", False)),
            "readout_activation": activation,
        }
    )


def schnet_output_key(config: Mapping[str, Any]) -> str:
    """The name of the energy among the reference's outputs."""
    return _schnet_readout(options_of(config, "schnet"))[0]


def _schnet_readout(options: Mapping[str, Any]) -> tuple[str, str]:
    """The output key and our activation of a readout of two layers."""
    readouts = options.get("readoutdict")
    if readouts is None:
        return "energy", "shifted_softplus"
    half = options["n_atom_basis"] // 2
    if len(readouts) == 1:
        ((key, parts),) = readouts.items()
        names = [part["name"] for part in parts]
        if len(names) == 3 and names[0] == names[2] == "linear":
            if parts[0]["param"].get("out_features") == half:
                return key, _activation("readoutdict", names[1])
    raise UserError(
        f"config option readoutdict is {readouts}, supported: one output with "
        f"linear (to {half}), activation, linear"
    )


def import_schnet(
    state: Mapping[str, np.ndarray],
    config: schnet.SchNetConfig,
    output_key: str = "energy",
) -> dict[str, Any]:
    """Our ``{"params", "constants"}`` from the reference's state dict.

    Raises:
        UserError: unless every name is used exactly once and every shape fits.
    """
    tree = import_weights(state, _schnet_entries(config, output_key))
    model = schnet.make_model_from(config)
    check_shapes(tree, jax.eval_shape(model.init, jax.random.key(0)))
    if not config.trainable_gauss:
        # The reference keeps a copy in each layer, we keep one.
        for name, array in export_schnet(tree, config, output_key).items():
            if "message_edge_filter.0" in name and (array != state[name]).any():
                raise UserError(
                    f"weights have {name} = {state[name]}, another layer {array}; "
                    "with trainable_gauss off they must be equal"
                )
    return tree


def export_schnet(
    variables: Mapping[str, Any],
    config: schnet.SchNetConfig,
    output_key: str = "energy",
) -> dict[str, np.ndarray]:
    """The reference's state dict from our ``{"params", "constants"}``."""
    return export_weights(variables, _schnet_entries(config, output_key))


def _schnet_entries(config: schnet.SchNetConfig, output_key: str) -> list[Entry]:
    entries = [Entry("atom_embed.weight", ("params", "embedding", "embedding"))]
    for layer in range(config.depth):
        theirs = f"convolutions.{layer}.moduledict"
        radial = ("constants", "radial")
        if config.trainable_gauss:
            radial = ("params", f"radial_{layer}")
        net = f"{theirs}.message_edge_filter"
        entries.append(Entry(f"{net}.0.offsets", (*radial, "centres")))
        entries.append(Entry(f"{net}.0.width", (*radial, "widths")))
        ours = ("params", f"interaction_{layer}")
        entries += dense(f"{net}.1", *ours, "filter", "hidden")
        entries += dense(f"{net}.3", *ours, "filter", "out")
        entries += dense(f"{theirs}.message_node_filter", *ours, "sender")
        entries += dense(f"{theirs}.update_function.0", *ours, "hidden")
        entries += dense(f"{theirs}.update_function.2", *ours, "out")
    readout = f"atomwisereadout.readout.{output_key}"
    entries += dense(f"{readout}.linear0", "params", "readout", "hidden")
    entries += dense(f"{readout}.linear2", "params", "readout", "out")
    return entries
