"""SpookyNet: charge, spin and nonlocal effects beside local s, p and d interactions.

Unke et al., "SpookyNet: Learning force fields with electronic degrees of freedom and
nonlocal effects", Nature Communications 2021, in the form of the authors' code, which
Frey et al. 2023 used::

    x_i = z_i + charge_i(Q) + spin_i(S)                             (embeddings)
    x = pre(x)
    s_i = R_x(x)_i + sum_j (G_s rbf_ij) R_s(x)_j                    (local, l = 0)
    P_i = sum_j (G_p rbf_ij) r_ij R_p(x)_j, D_i alike with d functions
    l = R_l(s + <P_a, P_b> + <D_a, D_b>),  [P_a, P_b] = W_p P, ...
    n = attention(R_q(x), R_k(x), R_v(x))  over the molecule        (nonlocal)
    x = post(x + l + n);  f += R_out(x)
    [e_i, q_i] = W f_i + b_Z;  E = sum_i e_i + E_ZBL + E_Coulomb + E_D4

where each R is residual blocks, an activation and a linear layer.

How it is computed: the radial functions of the three local interactions come from one
product over the edges, and attention needs sums over molecules only (see favor.py).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import e3nn_jax as e3nn
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from chemscale_jax.core.batches import GraphPack
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.types import Array, Key, Params
from chemscale_jax.models import favor, layers, options, radial_bases
from chemscale_jax.models.dispersion import TABLES, Dispersion, read_tables
from chemscale_jax.models.electrostatics import electrostatic_energy, pair_distances
from chemscale_jax.models.energy import EnergyModel, smallest_pack
from chemscale_jax.models.spookynet_blocks import (
    ACTIVATIONS,
    BASES,
    FAITHFUL,
    N_SPECIES,
    PARTS,
    Activation,
    ElectronicEmbedding,
    Interaction,
    NuclearEmbedding,
    RadialBasis,
    SpookyNetConfig,
    orthogonal,
)
from chemscale_jax.models.zbl import Repulsion

__all__ = [
    "ACTIVATIONS",
    "FAITHFUL",
    "N_SPECIES",
    "PARTS",
    "Activation",
    "Outputs",
    "SpookyNetConfig",
    "initializer",
    "make_model",
    "make_model_from",
    "outputs",
]

ATTENTIONS = ("favor", "exact")


class Outputs(NamedTuple):
    """What the network finds for each atom; parts of the energy add up to it."""

    energy_N: Array  # eV, 0 for padding
    features_NF: Array
    charge_N: Array  # elementary charges, those of a molecule sum to its charge
    network_N: Array  # eV
    zbl_N: Array  # eV
    coulomb_N: Array  # eV
    dispersion_N: Array  # eV
    d4: dict[str, Array]  # atomic properties, see dispersion.Dispersion


class SpookyNet(nn.Module):
    """Energies, charges and features of atoms."""

    config: SpookyNetConfig
    tables: dict[str, np.ndarray] | None = None  # of D4

    @nn.compact
    def __call__(self, pack: GraphPack) -> Outputs:
        """See `Outputs`."""
        config = self.config
        disp_E3 = layers.displacements(pack, config.cutoff_ang)
        distance_E = layers.safe_norm(disp_E3)
        # Two atoms at one place have no direction; the divisor keeps it finite.
        divisor_E = jnp.where(distance_E > 0, distance_E, 1.0)
        unit_E3 = disp_E3 / divisor_E[:, None]
        envelope_E = radial_bases.smooth_cutoff(distance_E, config.cutoff_ang)
        rbf_EK = RadialBasis(config, name="radial")(distance_E, envelope_E)
        angular_E8 = jnp.concatenate([unit_E3, radial_bases.d_functions(unit_E3)], 1)

        z_NF = NuclearEmbedding(config, name="nuclear")(pack.species_N)
        total_M = pack.charge_M.astype(z_NF.dtype)
        signs_M2 = jnp.maximum(jnp.stack([total_M, -total_M], axis=1), 0.0)
        spin_M1 = jnp.abs(pack.spin_M.astype(z_NF.dtype))[:, None]
        charged_NF = ElectronicEmbedding(config, name="charge")(z_NF, signs_M2, pack)
        spinning_NF = ElectronicEmbedding(config, name="spin")(z_NF, spin_M1, pack)
        x_NF = z_NF + charged_NF + spinning_NF
        for name, value in (
            ("rbf", rbf_EK),
            ("z_embed", z_NF),
            ("q_embed", charged_NF),
            ("s_embed", spinning_NF),
        ):
            self.sow("intermediates", name, value)

        f_NF = jnp.zeros_like(x_NF)
        for layer in range(config.depth):
            interaction = Interaction(config, name=f"module_{layer}")
            x_NF, y_NF = interaction(x_NF, rbf_EK, angular_E8, pack)
            f_NF = f_NF + y_NF

        readout = layers.Dense(2, False, orthogonal, dtype=config.dtype, name="output")
        shape = (N_SPECIES, 2)
        bias_Z2 = self.param("element_bias", nn.initializers.zeros, shape)
        out_N2 = readout(f_NF) + layers.rows_of(bias_Z2, pack.species_N)
        real_N = pack.species_N > 0
        network_N = jnp.where(real_N, out_N2[:, 0], 0.0)
        charge_N = _conserved(jnp.where(real_N, out_N2[:, 1], 0.0), total_M, pack)

        none_N = jnp.zeros_like(network_N)
        zbl_N = coulomb_N = dispersion_N = none_N
        properties: dict[str, Array] = {}
        if config.zbl:
            zbl_N = Repulsion(name="zbl")(distance_E, envelope_E, pack)
        if config.electrostatics or config.d4:
            distance_P, real_P = pair_distances(pack)
            if config.electrostatics:
                coulomb_N = electrostatic_energy(
                    charge_N,
                    distance_P,
                    real_P,
                    pack,
                    config.cutoff_ang,
                    config.lr_cutoff_ang,
                )
            if config.d4:
                d4 = Dispersion(self.tables, config.lr_cutoff_ang, name="d4")
                dispersion_N, properties = d4(charge_N, distance_P, real_P, pack)
        energy_N = network_N + zbl_N + coulomb_N + dispersion_N
        energy_N = energy_N.astype(jnp.promote_types(energy_N.dtype, jnp.float32))
        return Outputs(
            jnp.where(real_N, energy_N, 0.0),
            f_NF,
            charge_N,
            network_N,
            zbl_N,
            coulomb_N,
            dispersion_N,
            properties,
        )


def _conserved(charge_N: Array, total_M: Array, pack: GraphPack) -> Array:
    """Spreads what charges lack of the molecule's charge evenly over its atoms."""
    real_N = (pack.species_N > 0).astype(charge_N.dtype)
    count_M = jnp.maximum(favor.molecule_sum(real_N, pack), 1.0)
    lacking_M = (total_M - favor.molecule_sum(charge_N, pack)) / count_M
    return charge_N + real_N * layers.rows_of(lacking_M, pack.molecule_N)


def outputs(
    config: SpookyNetConfig, params: Params, constants: Params, pack: GraphPack
) -> tuple[Outputs, dict[str, Any]]:
    """Everything the network finds, and features within it, to find differences."""
    found, state = SpookyNet(config).apply(
        {"params": params, "constants": constants}, pack, mutable=["intermediates"]
    )
    assert isinstance(found, Outputs)
    return found, dict(state["intermediates"])


def initializer(
    config: SpookyNetConfig, tables: dict[str, np.ndarray] | None = None
) -> Callable[[Key], dict[str, Params]]:
    """The start of all parameters and constants; without tables, those of D4 are 0."""

    def init(key: Key) -> dict[str, Params]:
        variables = dict(SpookyNet(config, tables).init(key, smallest_pack()))
        return {
            "params": variables["params"],
            "constants": variables.get("constants", {}),
        }

    return init


def make_model(**hyperparameters: Any) -> EnergyModel:
    """SpookyNet with the given fields of `SpookyNetConfig`.

    Raises:
        UserError: for a field that does not exist or a value out of range.
    """
    fields = options.from_fields(SpookyNetConfig, "spookynet", hyperparameters)
    return make_model_from(fields)


def make_model_from(config: SpookyNetConfig) -> EnergyModel:
    """SpookyNet of the given configuration.

    Its ``init`` raises a `UserError` if D4 is asked for without its tables; imported
    weights bring them among their constants.

    Raises:
        UserError: for a value out of range.
    """
    _check(config)
    network = SpookyNet(config)
    irreps = e3nn.Irreps(f"{config.width}x0e")
    all_pairs = config.electrostatics or config.d4
    pair_cutoff_ang = None
    if all_pairs or config.attention == "exact":
        bounded = config.lr_cutoff_ang is not None and config.attention != "exact"
        pair_cutoff_ang = config.lr_cutoff_ang if bounded else float("inf")

    def init(key: Key) -> dict[str, Params]:
        tables = read_tables(config.d4_tables) if config.d4 else None
        return initializer(config, tables)(key)

    def apply(params: Params, constants: Params, pack: GraphPack) -> Outputs:
        if pair_cutoff_ang is not None and pack.pair_senders_P is None:
            raise UserError(
                "spookynet with electrostatics, d4 or exact attention needs a second "
                f"pair list up to {pair_cutoff_ang} angstrom, found a pack without one"
            )
        found = network.apply({"params": params, "constants": constants}, pack)
        assert isinstance(found, Outputs)
        return found

    def features(
        params: Params, constants: Params, pack: GraphPack
    ) -> e3nn.IrrepsArray:
        return e3nn.IrrepsArray(irreps, apply(params, constants, pack).features_NF)

    return EnergyModel(
        name="spookynet",
        cutoff_ang=config.cutoff_ang,
        pair_cutoff_ang=pair_cutoff_ang,
        local=False,
        init=init,
        energy=lambda params, constants, pack: apply(params, constants, pack).energy_N,
        features=features,
        feature_irreps=irreps,
        param_axes=_param_axes(config),
    )


def _param_axes(
    config: SpookyNetConfig,
) -> tuple[tuple[str, tuple[str | None, ...]], ...]:
    parts = "params/module_[0-9]+/parts/"
    rules: list[tuple[str, tuple[str | None, ...]]] = [
        ("params/nuclear/(element|configuration)", (None, "embed")),
        ("params/(charge|spin)/(key|value)/kernel", (None, "embed")),
        ("params/output/kernel", ("embed", None)),
        ("params/element_bias", (None, None)),
        ("params/module_[0-9]+/local/radial_[spd]", (None, "embed")),
        # Several matrices in one array.
        (f"{parts}.*(out|dense1)/kernel", (None, "embed", "hidden")),
        (f"{parts}.*/(bias|alpha|beta)", (None, None)),
        ("params/.*(query|project_[pd]|out|dense1)/kernel", ("embed", "hidden")),
        ("params/.*/(bias|alpha|beta)", (None,)),
    ]
    if any(getattr(config, f"residual_{part}") for part in PARTS):
        rules.insert(0, (f"{parts}.*dense2/kernel", (None, "hidden", "embed")))
    alone = set(_residual_fields(config)) - {f"residual_{part}" for part in PARTS}
    if any(getattr(config, name) for name in alone):
        rules.append(("params/.*dense2/kernel", ("hidden", "embed")))
    if config.zbl:
        rules.append(("params/zbl/.*", (None,)))
    if config.d4:
        rules += [("params/d4/.*", (None,)), ("constants/d4/s6", (None,))]
        for name, shape in TABLES.items():
            rules.append((f"constants/d4/{name}", (None,) * len(shape)))
    if config.attention == "favor":
        rules.append(("constants/module_[0-9]+/nonlocal/omega", (None, None)))
    return tuple(rules)


def _check(config: SpookyNetConfig) -> None:
    options.check_choices(
        config,
        {
            "basis": BASES,
            "activation": ACTIVATIONS,
            "attention": ATTENTIONS,
            "attention_maximum": favor.MAXIMA,
            "dtype": options.DTYPES,
        },
    )
    options.check_least(
        config, {"width": 2, "depth": 1, "n_rbf": 2, "cutoff_ang": 1e-3}
    )
    options.check_least(config, dict.fromkeys(_residual_fields(config), 0))
    if config.lr_cutoff_ang is not None and config.lr_cutoff_ang < config.cutoff_ang:
        raise UserError(
            f"config.model.lr_cutoff_ang is {config.lr_cutoff_ang}, must be None or >= "
            f"config.model.cutoff_ang, {config.cutoff_ang}"
        )


def _residual_fields(config: SpookyNetConfig) -> list[str]:
    return [name for name in vars(config) if name.startswith("residual_")]
