"""PaiNN and SchNet of schnetpack 2, with an ``Atomwise`` energy readout."""

import math
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

_REQUIRED = {"cutoff", "n_atom_basis", "n_interactions", "n_rbf", "rbf"}
# Sharing only repeats weights, which the state dict then holds once or repeatedly.
_PAINN_OPTIONAL = {"model", "epsilon", "shared_filters", "shared_interactions"}
_SCHNET_OPTIONAL = {"model", "n_filters", "shared_interactions"}
_CUTOFF = "representation.cutoff_fn.cutoff"
_BASES = {"gaussian": "gaussian", "bessel": "sinc"}


def _check_names(config: Mapping[str, Any], model: str, optional: set[str]) -> None:
    if missing := sorted(_REQUIRED - set(config)):
        raise UserError(f"config lacks {missing}")
    if unknown := sorted(set(config) - _REQUIRED - optional):
        raise UserError(
            f"config options {unknown} are not known; "
            f"known: {sorted(_REQUIRED | optional)}"
        )
    if config.get("model", model) != model:
        raise UserError(
            f"config option model is {config['model']!r}, expected {model!r}"
        )


def painn_config(config: Mapping[str, Any]) -> painn.PaiNNConfig:
    """Our hyperparameters for the reference's arguments.

    Raises:
        UserError: for an option that is unknown or has no counterpart here.
    """
    _check_names(config, "painn", _PAINN_OPTIONAL)
    if config["rbf"] not in _BASES:
        raise UserError(
            f"config option rbf is {config['rbf']!r}, supported: {sorted(_BASES)}"
        )
    return painn.PaiNNConfig(
        width=config["n_atom_basis"],
        depth=config["n_interactions"],
        n_rbf=config["n_rbf"],
        cutoff_ang=float(config["cutoff"]),
        basis=_BASES[config["rbf"]],
        norm_eps=float(config.get("epsilon", 1e-8)),
    )


def import_painn(
    state: Mapping[str, np.ndarray], config: painn.PaiNNConfig
) -> dict[str, Any]:
    """Our ``{"params", "constants"}`` from the reference's state dict.

    Raises:
        UserError: unless every name is used exactly once and every shape fits.
    """
    state = dict(state)
    _check_buffer(state, _CUTOFF, np.array([config.cutoff_ang]))
    if config.basis == "sinc":
        multiples = np.arange(1, config.n_rbf + 1)
        _check_buffer(
            state,
            "representation.radial_basis.freqs",
            multiples * math.pi / config.cutoff_ang,
        )
    layers = range(config.depth)
    for part in ("weight", "bias"):
        name = f"representation.filter_net.{part}"
        shared = len(state.get(name, ())) == 3 * config.width
        names = [f"representation.filter_net.{layer}.{part}" for layer in layers]
        _split(state, name, names, shared)
    for layer in layers:
        name = f"representation.mixing.{layer}.mu_channel_mix"
        _split(state, f"{name}.weight", [f"{name}.V.weight", f"{name}.W.weight"])
    tree = import_weights(state, _painn_entries(config))
    model = painn.make_model_from(config)
    check_shapes(tree, jax.eval_shape(model.init, jax.random.key(0)))
    return tree


def _check_buffer(
    state: dict[str, np.ndarray], name: str, expected: np.ndarray
) -> None:
    """Takes out a buffer that the config determines."""
    if name not in state:
        raise UserError(f"weights lack {name}; is the config the one they belong to?")
    found = np.asarray(state.pop(name))
    # It may have been rounded to float32 once.
    if found.shape != expected.shape or not np.allclose(found, expected, rtol=1e-6):
        raise UserError(f"weights have {name} = {found}, the config gives {expected}")


def _split(
    state: dict[str, np.ndarray], name: str, names: list[str], repeat: bool = False
) -> None:
    """Replaces an array by its equal parts, or by repeats of the whole."""
    if name not in state:
        raise UserError(f"weights lack {name}; is the config the one they belong to?")
    whole = np.asarray(state.pop(name))
    if not repeat and len(whole) % len(names):
        raise UserError(
            f"weights have {name} of {len(whole)} rows, not {len(names)} x n"
        )
    parts = [whole] * len(names) if repeat else np.split(whole, len(names))
    state.update(zip(names, parts, strict=True))


def _painn_entries(config: painn.PaiNNConfig) -> list[Entry]:
    inner = "representation"
    entries = [Entry(f"{inner}.embedding.weight", ("params", "embedding", "embedding"))]
    if config.basis == "gaussian":
        for theirs, ours in (("offsets", "centres"), ("widths", "widths")):
            entries.append(
                Entry(f"{inner}.radial_basis.{theirs}", ("constants", "radial", ours))
            )
    for layer in range(config.depth):
        # Theirs: scalars, unit vectors, vectors of the sender. Ours: the last first.
        order = (2, 0, 1)
        net = f"{inner}.interactions.{layer}.interatomic_context_net"
        ours = f"message_{layer}"
        entries += dense(f"{net}.0", "params", ours, "hidden")
        entries += dense(f"{net}.1", "params", ours, "out", blocks=order)
        entries += dense(
            f"{inner}.filter_net.{layer}", "params", ours, "filter", blocks=order
        )
        # Theirs: a_ss, a_vv, a_sv. Ours: a_vv, a_sv, a_ss.
        net = f"{inner}.mixing.{layer}.intraatomic_context_net"
        ours = f"update_{layer}"
        entries += dense(f"{net}.0", "params", ours, "hidden")
        entries += dense(f"{net}.1", "params", ours, "out", blocks=(1, 2, 0))
        mix = f"{inner}.mixing.{layer}.mu_channel_mix"
        entries += dense(f"{mix}.V", "params", ours, "V", bias=False)
        entries += dense(f"{mix}.W", "params", ours, "U", bias=False)
    entries += dense("output_modules.0.outnet.0", "params", "readout_0", "hidden")
    entries += dense("output_modules.0.outnet.1", "params", "readout_0", "out")
    return entries


def schnet_config(config: Mapping[str, Any]) -> schnet.SchNetConfig:
    """Our hyperparameters for the reference's arguments.

    Raises:
        UserError: for an option that is unknown or has no counterpart here.
    """
    _check_names(config, "schnet", _SCHNET_OPTIONAL)
    if config["rbf"] != "gaussian":
        raise UserError(f"config option rbf is {config['rbf']!r}, supported: gaussian")
    return schnet.SchNetConfig(
        **schnet.SCHNETPACK,
        width=config["n_atom_basis"],
        depth=config["n_interactions"],
        n_filters=config.get("n_filters") or 0,
        n_rbf=config["n_rbf"],
        cutoff_ang=float(config["cutoff"]),
    )


def import_schnet(
    state: Mapping[str, np.ndarray], config: schnet.SchNetConfig
) -> dict[str, Any]:
    """Our ``{"params", "constants"}`` from the reference's state dict.

    Raises:
        UserError: unless every name is used exactly once and every shape fits.
    """
    state = dict(state)
    _check_buffer(state, _CUTOFF, np.array([config.cutoff_ang]))
    tree = import_weights(state, _schnet_entries(config))
    model = schnet.make_model_from(config)
    check_shapes(tree, jax.eval_shape(model.init, jax.random.key(0)))
    return tree


def export_schnet(
    variables: Mapping[str, Any], config: schnet.SchNetConfig
) -> dict[str, np.ndarray]:
    """The reference's state dict from our ``{"params", "constants"}``."""
    state = export_weights(variables, _schnet_entries(config))
    return {**state, _CUTOFF: np.array([config.cutoff_ang], np.float32)}


def _schnet_entries(config: schnet.SchNetConfig) -> list[Entry]:
    inner = "representation"
    entries = [Entry(f"{inner}.embedding.weight", ("params", "embedding", "embedding"))]
    for theirs, ours in (("offsets", "centres"), ("widths", "widths")):
        entries.append(
            Entry(f"{inner}.radial_basis.{theirs}", ("constants", "radial", ours))
        )
    for layer in range(config.depth):
        theirs = f"{inner}.interactions.{layer}"
        ours = ("params", f"interaction_{layer}")
        entries += dense(f"{theirs}.filter_network.0", *ours, "filter", "hidden")
        entries += dense(f"{theirs}.filter_network.1", *ours, "filter", "out")
        entries += dense(f"{theirs}.in2f", *ours, "sender", bias=False)
        entries += dense(f"{theirs}.f2out.0", *ours, "hidden")
        entries += dense(f"{theirs}.f2out.1", *ours, "out")
    entries += dense("output_modules.0.outnet.0", "params", "readout", "hidden")
    entries += dense("output_modules.0.outnet.1", "params", "readout", "out")
    return entries
