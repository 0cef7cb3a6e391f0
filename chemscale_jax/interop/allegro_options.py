"""The options of both forms of mir-group's Allegro, as ours."""

from collections.abc import Mapping, Sequence
from typing import Any

from chemscale_jax.chem.elements import atomic_number
from chemscale_jax.core.errors import UserError
from chemscale_jax.models.allegro_parts import AllegroConfig

_REQUIRED = {"type_names", "r_max", "l_max", "parity", "num_layers"}
_REQUIRED |= {"avg_num_neighbors"}
_MLPS_2022 = ("two_body_latent", "env_embed", "latent", "edge_eng")
_MLP_OPTIONS = ("latent_dimensions", "nonlinearity", "initialization", "dropout_p")
# What our model does; any other value has no counterpart.
_FIXED_2022 = {
    "latent_resnet": (True,),
    "embed_initial_edge": (True,),
    "env_embed_mlp_latent_dimensions": ([], ()),
    "two_body_latent_mlp_nonlinearity": ("silu",),
    "latent_mlp_nonlinearity": ("silu",),
    "normalize_basis": (True,),
    "linear_after_env_embed": (False,),
}
_FIXED_2025 = {
    "tp_path_channel_coupling": (True,),
    "weight_individual_irreps": (True,),
    "forward_normalize": (True,),
    "scalar_embed_mlp_nonlinearity": ("silu",),
    "allegro_mlp_nonlinearity": ("silu",),
    "per_edge_type_cutoff": (None,),
    "pair_potential": (None,),
}
_KNOWN_2022 = {
    *_REQUIRED,
    *_FIXED_2022,
    *(f"{mlp}_mlp_{option}" for mlp in _MLPS_2022 for option in _MLP_OPTIONS),
    "env_embed_multiplicity",
    "num_basis",
    "num_types",
    "BesselBasis_trainable",
    "PolynomialCutoff_p",
    "latent_resnet_update_ratios_learnable",
}
_MLPS_2025 = ("scalar_embed", "allegro", "readout")
_MLP_SIZES = ("hidden_layers_depth", "hidden_layers_width", "nonlinearity")
_KNOWN_2025 = {
    *_REQUIRED,
    *_FIXED_2025,
    *(f"{mlp}_mlp_{size}" for mlp in _MLPS_2025 for size in _MLP_SIZES),
    "num_scalar_features",
    "num_tensor_features",
    "radial_chemical_embed",
    "radial_chemical_embed_dim",
    # Kept by the weights, or without effect on energies.
    "per_type_energy_scales",
    "per_type_energy_shifts",
    "per_type_energy_scales_trainable",
    "per_type_energy_shifts_trainable",
    "do_derivatives",
    "model_dtype",
    "seed",
}
_EMBEDDING = "TwoBodyBesselScalarEmbed"


def config_2022(config: Mapping[str, Any]) -> AllegroConfig:
    """Our hyperparameters for those of the code of 2022.

    Raises:
        UserError: for an option that is unknown or has no counterpart here.
    """
    _check_options(config, _KNOWN_2022, _FIXED_2022)
    _need(config, {"env_embed_multiplicity", "num_basis"})
    _need(config, {f"{mlp}_mlp_latent_dimensions" for mlp in _MLPS_2022})
    readout = config.get("edge_eng_mlp_nonlinearity", "silu")
    return AllegroConfig(
        form="2022",
        depth=config["num_layers"],
        cutoff_ang=float(config["r_max"]),
        elements=_elements(config),
        avg_num_neighbors=float(config["avg_num_neighbors"]),
        energy_scale=1.0,
        l_max=config["l_max"],
        parity=config["parity"],
        n_bessel=config["num_basis"],
        learnable_bessel=config.get("BesselBasis_trainable", True),
        envelope_power=config.get("PolynomialCutoff_p", 6),
        readout=tuple(config["edge_eng_mlp_latent_dimensions"]),
        readout_activation=_activation("edge_eng_mlp_nonlinearity", readout),
        learnable_mixing=config.get("latent_resnet_update_ratios_learnable", False),
        channels=config["env_embed_multiplicity"],
        two_body=tuple(config["two_body_latent_mlp_latent_dimensions"]),
        latent=tuple(config["latent_mlp_latent_dimensions"]),
    )


def config_2025(config: Mapping[str, Any]) -> AllegroConfig:
    """Our hyperparameters for those of ``AllegroModel`` of nequip-allegro 0.8.

    Raises:
        UserError: for an option that is unknown or has no counterpart here.
    """
    _check_options(config, _KNOWN_2025, _FIXED_2025)
    _need(config, {"radial_chemical_embed"})
    radial = dict(config["radial_chemical_embed"])
    if not str(target := radial.pop("_target_", "")).endswith(f".{_EMBEDDING}"):
        raise UserError(
            f"config option radial_chemical_embed is {target!r}, "
            f"supported: {_EMBEDDING}"
        )
    scalars = config.get("num_scalar_features", 64)

    def hidden(mlp: str, width: int) -> tuple[int, ...]:
        depth = config.get(f"{mlp}_mlp_hidden_layers_depth", 1)
        return (config.get(f"{mlp}_mlp_hidden_layers_width", width),) * depth

    readout = config.get("readout_mlp_nonlinearity", "silu")
    return AllegroConfig(
        form="2025",
        depth=config["num_layers"],
        cutoff_ang=float(config["r_max"]),
        elements=_elements(config),
        avg_num_neighbors=float(config["avg_num_neighbors"]),
        energy_scale=1.0,
        l_max=config["l_max"],
        parity="o3_full" if config["parity"] else "o3_restricted",
        n_bessel=radial.pop("num_bessels", 8),
        learnable_bessel=radial.pop("bessel_trainable", False),
        envelope_power=radial.pop("polynomial_cutoff_p", 6),
        readout=hidden("readout", 32),
        readout_activation=_activation("readout_mlp_nonlinearity", readout),
        channels=config.get("num_tensor_features", 16),
        two_body=(*hidden("scalar_embed", 64), scalars),
        latent=(*hidden("allegro", 64), scalars),
        embedding=config.get("radial_chemical_embed_dim") or scalars,
    )


def _elements(config: Mapping[str, Any]) -> tuple[int, ...]:
    """The atomic numbers of the types, whose names must be symbols of elements."""
    try:
        return tuple(atomic_number(name) for name in config["type_names"])
    except ValueError as error:
        raise UserError(f"config option type_names: {error}") from error


def _activation(option: str, value: str | None) -> str:
    if value not in ("silu", "None", "null", None):
        raise UserError(f"config option {option} is {value!r}, supported: silu, null")
    return "silu" if value == "silu" else "none"


def _need(config: Mapping[str, Any], names: set[str]) -> None:
    if missing := sorted(names - set(config)):
        raise UserError(f"config lacks {missing}")


def _check_options(
    config: Mapping[str, Any], known: set[str], fixed: Mapping[str, Sequence[Any]]
) -> None:
    _need(config, _REQUIRED)
    if unknown := sorted(set(config) - known):
        raise UserError(
            f"config options {unknown} are not known; known: {sorted(known)}"
        )
    if not isinstance(number := config["avg_num_neighbors"], int | float):
        raise UserError(
            f"config option avg_num_neighbors is {number!r}, supported: one number"
        )
    for option, allowed in fixed.items():
        if option in config and config[option] not in allowed:
            raise UserError(
                f"config option {option} is {config[option]!r}, "
                f"supported: {allowed[0]!r}"
            )
