"""Every family of other people's force fields that can be imported.

A family is a published code and a model of it: what its options are called, what its
arrays are called, and in which unit its energies are.
"""

import dataclasses
import pathlib
import zipfile
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from chemscale_jax.chem.units import unit_factor
from chemscale_jax.core.errors import UserError
from chemscale_jax.interop import allegro, allegro_options, nff, schnetpack, spookynet
from chemscale_jax.interop.torch_file import read_state_dict

Weights = Mapping[str, np.ndarray]


class Family(NamedTuple):
    """How the files of one family are read."""

    model: str  # an entry of ENERGY_MODELS
    # its options -> our hyperparameters, a dataclass
    config: Callable[[Mapping[str, Any]], Any]
    # state dict, our hyperparameters, its options -> {"params": ..., "constants": ...}
    load: Callable[[Weights, Any, Mapping[str, Any]], dict[str, Any]]
    energy_unit: str  # by convention


def _nff_painn(
    state: Weights, config: Any, options: Mapping[str, Any]
) -> dict[str, Any]:
    (key,) = nff.options_of(options).get("output_keys", ["energy"])
    return nff.import_painn(state, config, key)


def _nff_schnet(
    state: Weights, config: Any, options: Mapping[str, Any]
) -> dict[str, Any]:
    return nff.import_schnet(state, config, nff.schnet_output_key(options))


def _plain(load: Callable[[Weights, Any], dict[str, Any]]) -> Any:
    return lambda state, config, options: load(state, config)


FAMILIES: Mapping[str, Family] = {
    "nff_schnet": Family("schnet", nff.schnet_config, _nff_schnet, "kcal/mol"),
    "nff_painn": Family("painn", nff.painn_config, _nff_painn, "kcal/mol"),
    "schnetpack_schnet": Family(
        "schnet", schnetpack.schnet_config, _plain(schnetpack.import_schnet), "eV"
    ),
    "schnetpack_painn": Family(
        "painn", schnetpack.painn_config, _plain(schnetpack.import_painn), "eV"
    ),
    "allegro_2022": Family(
        "allegro", allegro_options.config_2022, _plain(allegro.import_allegro), "eV"
    ),
    "allegro": Family(
        "allegro", allegro_options.config_2025, _plain(allegro.import_allegro), "eV"
    ),
    "spookynet": Family(
        "spookynet",
        spookynet.spookynet_config,
        _plain(spookynet.import_spookynet),
        "eV",
    ),
}


class Imported(NamedTuple):
    """A force field that was read, with energies in eV."""

    model: str  # an entry of ENERGY_MODELS
    hyperparameters: dict[str, Any]
    variables: dict[str, Any]  # {"params": ..., "constants": ...}, float32


def read_weights(path: str | pathlib.Path, prefix: str = "") -> dict[str, np.ndarray]:
    """A state dict from a torch file, or from an ``.npz`` of its arrays.

    Args:
        path: the file.
        prefix: only names that begin with it are taken, without it.

    Raises:
        UserError: the file cannot be read, or no name begins so.
    """
    path = pathlib.Path(path)
    if path.suffix == ".npz":
        try:
            with np.load(path, allow_pickle=False) as file:
                names = [name for name in file.files if name.startswith(prefix)]
                state = {name: file[name] for name in names}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            detail = " ".join(str(error).split())
            raise UserError(f"{path} is no .npz of arrays ({detail})") from None
    else:
        state = read_state_dict(path)
    taken = {
        n.removeprefix(prefix): x for n, x in state.items() if n.startswith(prefix)
    }
    if not taken:
        raise UserError(f"{path} has no array whose name begins with {prefix!r}")
    return taken


def import_force_field(
    family: str,
    weights: Weights,
    options: Mapping[str, Any],
    energy_unit: str = "",
) -> Imported:
    """Our force field of a foreign state dict; no array is missing or left over.

    Args:
        family: an entry of ``FAMILIES``.
        weights: the state dict.
        options: the arguments that the foreign model was made with.
        energy_unit: of its energies; empty: that of the family.

    Raises:
        UserError: an option or an array has no counterpart here, or one is missing.
    """
    if family not in FAMILIES:
        raise UserError(f"family is {family!r}, expected one of {', '.join(FAMILIES)}")
    entry = FAMILIES[family]
    unit = energy_unit or entry.energy_unit
    try:
        factor = unit_factor("energy", unit)
    except ValueError as error:
        raise UserError(str(error)) from None
    config = entry.config(options)
    variables = entry.load(weights, config, options)
    config, constants = _in_ev(entry.model, config, variables["constants"], factor)
    return Imported(
        entry.model,
        dataclasses.asdict(config),
        _float32({"params": variables["params"], "constants": constants}),
    )


def _in_ev(
    model: str, config: Any, constants: dict[str, Any], factor: float
) -> tuple[Any, dict[str, Any]]:
    """Multiplies energies by a factor, exactly: after everything that is not linear."""
    names = {field.name for field in dataclasses.fields(config)}
    if factor == 1.0:
        return config, constants
    if "energy_scales" in constants:
        scaled = {n: constants[n] * factor for n in ("energy_scales", "energy_shifts")}
        return config, {**constants, **scaled}
    if {"energy_scale", "energy_shift"} <= names:
        return dataclasses.replace(
            config,
            energy_scale=config.energy_scale * factor,
            energy_shift=config.energy_shift * factor,
        ), constants
    raise UserError(
        f"{model} has constants of nature in eV and angstrom inside, so its energies "
        "are in eV; leave --energy-unit out"
    )


def _float32(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {name: _float32(branch) for name, branch in tree.items()}
    array = np.asarray(tree)
    return array.astype(np.float32) if array.dtype.kind == "f" else array
