"""PaiNN: scalars and vectors on atoms, coupled by messages of first order.

Schuett, Unke and Gastegger, "Equivariant message passing for the prediction of
tensorial properties and molecular spectra", ICML 2021, in the form of the code that
Frey et al. 2023 used::

    W_ij = (rbf(d_ij) W + b) f_c(d_ij)
    [a, b, c] = split(phi(s_j) * W_ij)
    s_i += sum_j b;  v_i += sum_j (a v_j + c r_ij / d_ij)              (message)
    [a_vv, a_sv, a_ss] = split(a([s_i, |V v_i|]))
    s_i += <U v_i, V v_i> a_sv + a_ss;  v_i += a_vv U v_i              (update)

How it is computed: on a CPU the step is bound by memory, not by arithmetic, so arrays
with an edge axis are few. Envelope and bias are folded into the radial basis, the
product a v_j is half done on atoms, and the first layer, where v = 0, has no such term.
"""

import dataclasses
from typing import Any

import e3nn_jax as e3nn
import jax.numpy as jnp
from flax import linen as nn

from chemscale_jax.core.batches import GraphPack
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.types import Array, Key, Params
from chemscale_jax.models import layers, options
from chemscale_jax.models.energy import EnergyModel, smallest_pack

BASES = ("sinc", "gaussian")


@dataclasses.dataclass(frozen=True)
class PaiNNConfig:
    """Hyperparameters."""

    width: int = 64  # features per atom, F
    depth: int = 3  # pairs of message and update blocks
    n_rbf: int = 20  # radial functions, R
    cutoff_ang: float = 5.0
    basis: str = "sinc"  # sinc: sin(n pi d / r_c) / d; gaussian
    learnable_k: bool = False  # trains n of the sinc basis, in each layer
    skip_connection: bool = False  # one readout after each layer, summed
    activation: str = "silu"  # an entry of layers.ACTIVATIONS
    # Differs from the paper: its code adds 3e-15 under both roots, where the second
    # derivative of |V v| at v = 0 reaches 1e7; such v occur at every symmetric site.
    norm_eps: float = 1e-8  # added under the root of |V v|
    distance_eps: float = 0.0  # added under the root of distances, angstrom^2
    energy_scale: float = 1.0  # of every readout, eV
    energy_shift: float = 0.0  # of every readout, eV per atom
    n_species: int = 100  # rows of the embedding; row 0 is padding
    dtype: str = "float32"  # of matrix products: float32, bfloat16


class Filter(nn.Module):
    """``(basis @ kernel + bias) * envelope`` as one product.

    Takes the basis times the envelope, with the envelope as last column.
    """

    features: int
    first: int = 0  # filters before this one are not computed
    dtype: str = "float32"

    @nn.compact
    def __call__(self, enveloped_ER: Array) -> Array:
        """The filters of each edge."""
        shape = (enveloped_ER.shape[1] - 1, self.features)
        kernel = self.param("kernel", layers.xavier_uniform, shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        rows = jnp.concatenate([kernel, bias[None]])[:, self.first :]
        return layers.matmul(enveloped_ER, rows, self.dtype)


class RadialBasis(nn.Module):
    """Radial functions times the envelope, and the envelope as last column."""

    config: PaiNNConfig

    @nn.compact
    def __call__(self, distance_E: Array) -> Array:
        """R + 1 columns for each edge."""
        config = self.config
        if config.basis == "gaussian":
            grid = jnp.linspace(0.0, config.cutoff_ang, config.n_rbf)
            widths = jnp.full_like(grid, config.cutoff_ang / (config.n_rbf - 1))
            centre_R = self.variable("constants", "centres", lambda: grid).value
            width_R = self.variable("constants", "widths", lambda: widths).value
            basis_ER = layers.gaussian_basis(distance_E, centre_R, width_R)
        else:
            n_R = jnp.arange(1, config.n_rbf + 1, dtype=distance_E.dtype)
            if config.learnable_k:
                n_R = self.param("n", lambda _: n_R.astype(jnp.float32))
            basis_ER = layers.sinc_basis(distance_E, n_R, config.cutoff_ang)
        envelope_E1 = layers.cosine_cutoff(distance_E, config.cutoff_ang)[:, None]
        return jnp.concatenate([basis_ER * envelope_E1, envelope_E1], axis=1)


class Message(nn.Module):
    """Changes of scalars and vectors by the neighbours of each atom."""

    config: PaiNNConfig

    @nn.compact
    def __call__(
        self,
        s_NF: Array,
        v_N3F: Array | None,  # None stands for zeros
        enveloped_ER: Array,
        unit_E3: Array,
        pack: GraphPack,
    ) -> tuple[Array, Array]:
        """Returns the changes of s and v."""
        F, dtype = self.config.width, self.config.dtype
        first = F if v_N3F is None else 0
        hidden_NF = layers.Dense(F, dtype=dtype, name="hidden")(s_NF)
        hidden_NF = layers.ACTIVATIONS[self.config.activation](hidden_NF)
        phi = layers.Dense(3 * F, first=first, dtype=dtype, name="out")(hidden_NF)
        filters = Filter(3 * F, first=first, dtype=dtype, name="filter")(enveloped_ER)
        # Split, not sliced: the transpose of a slice pads and adds a whole array.
        phi_v, phi_su = jnp.split(phi, [F - first], axis=1)
        filters_v, filters_su = jnp.split(filters, [F - first], axis=1)
        gates = layers.rows_of(phi_su, pack.senders_E) * filters_su
        gates_s, gates_u = jnp.split(gates, 2, axis=1)
        ds_NF = layers.sum_to_receivers(gates_s, pack)
        dv_E3F = gates_u[:, None] * unit_E3[:, :, None]
        if v_N3F is not None:
            gated_N3F = phi_v[:, None] * v_N3F
            sent_E3F = layers.rows_of(gated_N3F, pack.senders_E)
            dv_E3F = dv_E3F + filters_v[:, None] * sent_E3F
        return ds_NF, layers.sum_to_receivers(dv_E3F, pack)


class Update(nn.Module):
    """Changes of scalars and vectors within each atom."""

    config: PaiNNConfig

    @nn.compact
    def __call__(self, s_NF: Array, v_N3F: Array) -> tuple[Array, Array]:
        """Returns the changes of s and v."""
        F, dtype = self.config.width, self.config.dtype
        Uv_N3F = layers.Dense(F, use_bias=False, dtype=dtype, name="U")(v_N3F)
        Vv_N3F = layers.Dense(F, use_bias=False, dtype=dtype, name="V")(v_N3F)
        norm_NF = layers.safe_norm(Vv_N3F, axis=1, eps=self.config.norm_eps)
        stacked = jnp.concatenate([s_NF, norm_NF], axis=-1)
        hidden_NF = layers.Dense(F, dtype=dtype, name="hidden")(stacked)
        hidden_NF = layers.ACTIVATIONS[self.config.activation](hidden_NF)
        out = layers.Dense(3 * F, dtype=dtype, name="out")(hidden_NF)
        a_vv, a_sv, a_ss = jnp.split(out, 3, axis=-1)
        ds_NF = jnp.sum(Uv_N3F * Vv_N3F, axis=1) * a_sv + a_ss
        return ds_NF, Uv_N3F * a_vv[:, None]


class Readout(nn.Module):
    """An energy per atom from its scalars."""

    config: PaiNNConfig

    @nn.compact
    def __call__(self, s_NF: Array) -> Array:
        """energy_N, in eV."""
        half, config = self.config.width // 2, self.config
        hidden = layers.Dense(half, dtype=config.dtype, name="hidden")(s_NF)
        hidden = layers.ACTIVATIONS[config.activation](hidden)
        out_N1 = layers.Dense(1, dtype=config.dtype, name="out")(hidden)
        return out_N1[:, 0] * config.energy_scale + config.energy_shift


class PaiNN(nn.Module):
    """Energies of atoms, and their final scalars and vectors."""

    config: PaiNNConfig

    @nn.compact
    def __call__(self, pack: GraphPack) -> tuple[Array, Array, Array]:
        """energy_N, s_NF and v_N3F."""
        config = self.config
        disp_E3 = layers.displacements(pack, config.cutoff_ang)
        distance_E = layers.safe_norm(disp_E3, eps=config.distance_eps)
        # Two atoms at one place have no direction; the divisor keeps it finite.
        divisor_E = jnp.where(distance_E > 0, distance_E, 1.0)
        unit_E3 = disp_E3 / divisor_E[:, None]

        s_NF = nn.Embed(
            config.n_species,
            config.width,
            embedding_init=_normal_but_padding,
            name="embedding",
        )(pack.species_N)
        self.sow("intermediates", "s_embed", s_NF)
        shared_ER = None
        if not config.learnable_k:
            shared_ER = RadialBasis(config, name="radial")(distance_E)
        v_N3F = None
        energy_N = jnp.zeros((), s_NF.dtype)
        for layer in range(config.depth):
            if shared_ER is None:
                radial = RadialBasis(config, name=f"radial_{layer}")
                enveloped_ER = radial(distance_E)
            else:
                enveloped_ER = shared_ER
            message = Message(config, name=f"message_{layer}")
            ds_NF, dv_N3F = message(s_NF, v_N3F, enveloped_ER, unit_E3, pack)
            s_NF = s_NF + ds_NF
            v_N3F = dv_N3F if v_N3F is None else v_N3F + dv_N3F
            self.sow("intermediates", f"after_message_{layer}", (s_NF, v_N3F))
            ds_NF, dv_N3F = Update(config, name=f"update_{layer}")(s_NF, v_N3F)
            s_NF, v_N3F = s_NF + ds_NF, v_N3F + dv_N3F
            self.sow("intermediates", f"after_update_{layer}", (s_NF, v_N3F))
            if config.skip_connection:
                energy_N += Readout(config, name=f"readout_{layer}")(s_NF)
        if not config.skip_connection:
            energy_N = Readout(config, name="readout_0")(s_NF)
        assert v_N3F is not None, "make_model allows no depth below 1"
        energy_N = energy_N.astype(jnp.promote_types(energy_N.dtype, jnp.float32))
        return jnp.where(pack.species_N > 0, energy_N, 0.0), s_NF, v_N3F


def _normal_but_padding(key: Key, shape: tuple[int, ...], dtype: Any) -> Array:
    """Standard normal embeddings, zero for padding."""
    return nn.initializers.normal(1.0)(key, shape, dtype).at[0].set(0.0)


def intermediates(
    config: PaiNNConfig, params: Params, constants: Params, pack: GraphPack
) -> dict[str, Any]:
    """Scalars (N, F) and vectors (N, 3, F) after each block, to find differences."""
    _, state = PaiNN(config).apply(
        {"params": params, "constants": constants}, pack, mutable=["intermediates"]
    )
    return {name: value[0] for name, value in state["intermediates"].items()}


def make_model(**hyperparameters: Any) -> EnergyModel:
    """PaiNN with the given fields of `PaiNNConfig`.

    Raises:
        UserError: for a field that does not exist or a value out of range.
    """
    return make_model_from(options.from_fields(PaiNNConfig, "painn", hyperparameters))


def make_model_from(config: PaiNNConfig) -> EnergyModel:
    """PaiNN of the given configuration.

    Raises:
        UserError: for a value out of range.
    """
    _check(config)
    network = PaiNN(config)
    F = config.width
    irreps = e3nn.Irreps(f"{F}x0e + {F}x1o")

    def init(key: Key) -> dict[str, Params]:
        variables: dict[str, Any] = dict(network.init(key, smallest_pack()))
        return {
            "params": variables["params"],
            "constants": variables.get("constants", {}),
        }

    def apply(params: Params, constants: Params, pack: GraphPack) -> Any:
        return network.apply({"params": params, "constants": constants}, pack)

    def features(
        params: Params, constants: Params, pack: GraphPack
    ) -> e3nn.IrrepsArray:
        _, s_NF, v_N3F = apply(params, constants, pack)
        v_NI = jnp.swapaxes(v_N3F, 1, 2).reshape(v_N3F.shape[0], 3 * F)
        return e3nn.IrrepsArray(irreps, jnp.concatenate([s_NF, v_NI], axis=1))

    return EnergyModel(
        name="painn",
        cutoff_ang=config.cutoff_ang,
        init=init,
        energy=lambda params, constants, pack: apply(params, constants, pack)[0],
        features=features,
        feature_irreps=irreps,
        param_axes=_param_axes(config),
    )


def _param_axes(config: PaiNNConfig) -> tuple[tuple[str, tuple[str | None, ...]], ...]:
    rules: list[tuple[str, tuple[str | None, ...]]] = [
        ("params/embedding/embedding", (None, "embed")),
        ("params/readout_[0-9]+/out/kernel", ("hidden", None)),
        ("params/.*/(hidden|U|V)/kernel", ("embed", "hidden")),
        ("params/.*/out/kernel", ("hidden", "embed")),
        ("params/.*/filter/kernel", (None, "embed")),
        ("params/.*/bias", (None,)),
    ]
    if config.learnable_k:
        rules.append(("params/radial_[0-9]+/n", (None,)))
    if config.basis == "gaussian":
        rules.append(("constants/radial/(centres|widths)", (None,)))
    return tuple(rules)


def _check(config: PaiNNConfig) -> None:
    options.check_choices(
        config,
        {
            "basis": BASES,
            "activation": tuple(layers.ACTIVATIONS),
            "dtype": options.DTYPES,
        },
    )
    options.check_least(
        config, {"width": 2, "depth": 1, "n_rbf": 2, "cutoff_ang": 1e-3}
    )
    if config.learnable_k and config.basis != "sinc":
        raise UserError("config.model.learnable_k needs config.model.basis = 'sinc'")
