"""SchNet: atoms exchange features through filters of their distance.

Schuett et al., "SchNet: A continuous-filter convolutional neural network for modeling
quantum interactions", NeurIPS 2017, in the form of the code that Frey et al. 2023
used; the form of schnetpack 2 is reached by the fields of `SCHNETPACK`::

    g_k(d) = exp(-(d - mu_k)^2 / (2 w_k^2))
    W_ij = (W2 ssp(W1 g(d_ij) + b1) + b2) f_c(d_ij)
    m_i = sum_j (V x_j + c) * W_ij
    x_i += U2 ssp(U1 m_i + u1) + u2
    E = sum_i R2 ssp(R1 x_i + r1) + r2,    ssp(x) = log(1 + exp(x)) - log 2

The sum runs over all neighbours j of i, each once. The code of the paper lists each
pair once and adds its message both ways; with a list of both ways it counts twice.

The dropout of that code is left out: it is inert when predicting, and in training it
makes the force, a derivative of the energy, noisy.

How it is computed: a filter depends on the distance alone, so it is the same both
ways. It is computed for one edge of each pair, which halves the largest products.
"""

import dataclasses
from typing import Any

import e3nn_jax as e3nn
import jax
import jax.numpy as jnp
from flax import linen as nn

from chemscale_jax.core.batches import GraphPack
from chemscale_jax.core.types import Array, Key, Params
from chemscale_jax.models import layers, options
from chemscale_jax.models.energy import EnergyModel, smallest_pack

CUTOFFS = ("cosine", "none")
HIDDEN = ("gaussians", "filters")


@dataclasses.dataclass(frozen=True)
class SchNetConfig:
    """Hyperparameters; the defaults are the recommended ones."""

    width: int = 64  # features per atom, F
    depth: int = 3  # interactions
    n_filters: int = 0  # width of messages, G; 0: that of the features
    n_rbf: int = 32  # Gaussians, R
    cutoff_ang: float = 5.0
    # Differs from the paper: its code has no cut-off function, only the rule d <= r_c,
    # so energy and force jump where a neighbour crosses r_c, and MD does not conserve
    # energy. "none" is that code.
    cutoff_fn: str = "cosine"  # cosine, none
    trainable_gauss: bool = True  # trains mu and w, in each layer
    filter_hidden: str = "gaussians"  # whose number is the width of W1: or filters
    sender_bias: bool = True  # c
    activation: str = "shifted_softplus"  # an entry of ACTIVATIONS
    readout_activation: str = "shifted_softplus"  # an entry of ACTIVATIONS
    energy_scale: float = 1.0  # of the readout, eV
    energy_shift: float = 0.0  # of the readout, eV per atom
    n_species: int = 100  # rows of the embedding; row 0 is padding
    dtype: str = "float32"  # of matrix products: float32, bfloat16


@jax.custom_jvp
def shifted_softplus(x: Array) -> Array:
    """``log(1 + exp(x)) - log 2``, to rounding in absolute terms.

    It takes an eighth off a training step against ``log1p``, which keeps digits of a
    small softplus that the shift loses.
    """
    return jnp.maximum(x, 0.0) + jnp.log(0.5 + 0.5 * jnp.exp(-jnp.abs(x)))


@shifted_softplus.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), (dx,) = primals, tangents
    return shifted_softplus(x), jax.nn.sigmoid(x) * dx


ACTIVATIONS = {**layers.ACTIVATIONS, "shifted_softplus": shifted_softplus}

# The code of Frey et al. 2023.
FAITHFUL: dict[str, Any] = {
    "cutoff_fn": "none",
    "trainable_gauss": True,
    "filter_hidden": "gaussians",
    "sender_bias": True,
    "activation": "shifted_softplus",
    "readout_activation": "shifted_softplus",
}
# schnetpack 2 with an Atomwise readout.
SCHNETPACK: dict[str, Any] = {
    "cutoff_fn": "cosine",
    "trainable_gauss": False,
    "filter_hidden": "filters",
    "sender_bias": False,
    "activation": "shifted_softplus",
    "readout_activation": "silu",
}


def one_way(pack: GraphPack) -> GraphPack:
    """The pack with one edge of each pair, from the lower to the higher atom.

    Of an atom and its own image, one of the two opposite shifts is kept. There are
    half as many edges, still sorted by receiver; the rest is padding.
    """
    senders_E, receivers_E = pack.senders_E, pack.receivers_E
    kept_E = senders_E < receivers_E
    if pack.shifts_E3 is not None:
        shifts_E3 = pack.shifts_E3.astype(jnp.int32)
        # Opposite in sign for opposite shifts, and 0 for none only.
        side_E = (shifts_E3[:, 0] * 1024 + shifts_E3[:, 1]) * 1024 + shifts_E3[:, 2]
        kept_E |= (senders_E == receivers_E) & (side_E > 0)
    room = max(1, senders_E.shape[0] // 2)
    (index_P,) = jnp.nonzero(kept_E, size=room, fill_value=0)
    real_P = jnp.arange(room) < jnp.sum(kept_E)
    last = pack.species_N.shape[0] - 1
    half = pack._replace(
        senders_E=jnp.where(real_P, layers.rows_of(senders_E, index_P), last),
        receivers_E=jnp.where(real_P, layers.rows_of(receivers_E, index_P), last),
    )
    if pack.shifts_E3 is not None:
        half = half._replace(shifts_E3=layers.rows_of(pack.shifts_E3, index_P))
    return half


class RadialBasis(nn.Module):
    """Gaussians of the distance, at centres that are trained or constant."""

    config: SchNetConfig

    @nn.compact
    def __call__(self, distance_P: Array) -> Array:
        """R columns for each pair."""
        config = self.config
        grid_R = jnp.linspace(0.0, config.cutoff_ang, config.n_rbf)
        width_R = jnp.full_like(grid_R, config.cutoff_ang / (config.n_rbf - 1))
        if config.trainable_gauss:
            centre_R = self.param("centres", lambda _: grid_R)
            width_R = self.param("widths", lambda _: width_R)
        else:
            start_R = width_R
            centre_R = self.variable("constants", "centres", lambda: grid_R).value
            width_R = self.variable("constants", "widths", lambda: start_R).value
        return layers.gaussian_basis(distance_P, centre_R, width_R)


class Filter(nn.Module):
    """``W_ij`` of each pair, 0 beyond the cut-off."""

    config: SchNetConfig

    @nn.compact
    def __call__(self, basis_PR: Array, envelope_P: Array) -> Array:
        """filters_PG."""
        config = self.config
        G = config.n_filters or config.width
        hidden = config.n_rbf if config.filter_hidden == "gaussians" else G
        x = layers.Dense(hidden, dtype=config.dtype, name="hidden")(basis_PR)
        x = ACTIVATIONS[config.activation](x)
        filters_PG = layers.Dense(G, dtype=config.dtype, name="out")(x)
        return filters_PG * envelope_P[:, None]


class Interaction(nn.Module):
    """Changes of the features of each atom by its neighbours."""

    config: SchNetConfig

    @nn.compact
    def __call__(
        self, x_NF: Array, basis_PR: Array, envelope_P: Array, half: GraphPack
    ) -> Array:
        """The change of x_NF."""
        config = self.config
        F, G, dtype = config.width, config.n_filters or config.width, config.dtype
        filters_PG = Filter(config, name="filter")(basis_PR, envelope_P)
        self.sow("intermediates", "filters", filters_PG)
        sender = layers.Dense(G, config.sender_bias, dtype=dtype, name="sender")
        h_NG = sender(x_NF)
        up_PG = layers.rows_of(h_NG, half.senders_E) * filters_PG
        down_PG = layers.rows_of(h_NG, half.receivers_E) * filters_PG
        m_NG = layers.sum_to_receivers(up_PG, half) + jax.ops.segment_sum(
            down_PG, half.senders_E, x_NF.shape[0], mode="promise_in_bounds"
        )
        hidden_NF = layers.Dense(F, dtype=dtype, name="hidden")(m_NG)
        hidden_NF = ACTIVATIONS[config.activation](hidden_NF)
        return layers.Dense(F, dtype=dtype, name="out")(hidden_NF)


class Readout(nn.Module):
    """An energy per atom from its features."""

    config: SchNetConfig

    @nn.compact
    def __call__(self, x_NF: Array) -> Array:
        """energy_N, in eV."""
        config = self.config
        half = config.width // 2
        hidden = _torch_linear(config.width, half, config.dtype, "hidden")(x_NF)
        hidden = ACTIVATIONS[config.readout_activation](hidden)
        out_N1 = _torch_linear(half, 1, config.dtype, "out")(hidden)
        return out_N1[:, 0] * config.energy_scale + config.energy_shift


class SchNet(nn.Module):
    """Energies of atoms, and their final features."""

    config: SchNetConfig

    @nn.compact
    def __call__(self, pack: GraphPack) -> tuple[Array, Array]:
        """energy_N and x_NF."""
        config = self.config
        half = one_way(pack)
        distance_P = layers.safe_norm(layers.displacements(half, config.cutoff_ang))
        if config.cutoff_fn == "cosine":
            envelope_P = layers.cosine_cutoff(distance_P, config.cutoff_ang)
        else:
            # Padding is at 2 r_c, so it is masked as well.
            envelope_P = (distance_P <= config.cutoff_ang).astype(distance_P.dtype)
        x_NF = nn.Embed(
            config.n_species,
            config.width,
            embedding_init=_normal_but_padding,
            name="embedding",
        )(pack.species_N)
        self.sow("intermediates", "s_embed", x_NF)
        basis_PR = None
        if not config.trainable_gauss:
            basis_PR = RadialBasis(config, name="radial")(distance_P)
        for layer in range(config.depth):
            if config.trainable_gauss:
                basis_PR = RadialBasis(config, name=f"radial_{layer}")(distance_P)
            interaction = Interaction(config, name=f"interaction_{layer}")
            x_NF = x_NF + interaction(x_NF, basis_PR, envelope_P, half)
            self.sow("intermediates", f"after_interaction_{layer}", x_NF)
        energy_N = Readout(config, name="readout")(x_NF)
        energy_N = energy_N.astype(jnp.promote_types(energy_N.dtype, jnp.float32))
        return jnp.where(pack.species_N > 0, energy_N, 0.0), x_NF


def _torch_linear(fan_in: int, features: int, dtype: str, name: str) -> layers.Dense:
    """A dense layer with torch's default start: ``U(+-1/sqrt(fan_in))`` throughout."""
    bound = fan_in**-0.5

    def uniform(key: Key, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return layers.Dense(
        features, kernel_init=uniform, bias_init=uniform, dtype=dtype, name=name
    )


def _normal_but_padding(key: Key, shape: tuple[int, ...], dtype: Any) -> Array:
    """Standard normal embeddings, zero for padding."""
    return nn.initializers.normal(1.0)(key, shape, dtype).at[0].set(0.0)


def intermediates(
    config: SchNetConfig, params: Params, constants: Params, pack: GraphPack
) -> dict[str, Any]:
    """Features (N, F) after each layer, and its filters (P, G), to find differences.

    The filters are those of the edges of `one_way`.
    """
    _, state = SchNet(config).apply(
        {"params": params, "constants": constants}, pack, mutable=["intermediates"]
    )
    found = {}
    for name, value in state["intermediates"].items():
        if name.startswith("interaction_"):
            found[f"filters_{name.rpartition('_')[2]}"] = value["filters"][0]
        else:
            found[name] = value[0]
    return found


def make_model(**hyperparameters: Any) -> EnergyModel:
    """SchNet with the given fields of `SchNetConfig`.

    Raises:
        UserError: for a field that does not exist or a value out of range.
    """
    return make_model_from(options.from_fields(SchNetConfig, "schnet", hyperparameters))


def make_model_from(config: SchNetConfig) -> EnergyModel:
    """SchNet of the given configuration.

    Raises:
        UserError: for a value out of range.
    """
    _check(config)
    network = SchNet(config)
    irreps = e3nn.Irreps(f"{config.width}x0e")

    def init(key: Key) -> dict[str, Params]:
        variables: dict[str, Any] = dict(network.init(key, smallest_pack()))
        return {
            "params": variables["params"],
            "constants": variables.get("constants", {}),
        }

    def apply(params: Params, constants: Params, pack: GraphPack) -> Any:
        return network.apply({"params": params, "constants": constants}, pack)

    return EnergyModel(
        name="schnet",
        cutoff_ang=config.cutoff_ang,
        init=init,
        energy=lambda params, constants, pack: apply(params, constants, pack)[0],
        features=lambda params, constants, pack: e3nn.IrrepsArray(
            irreps, apply(params, constants, pack)[1]
        ),
        feature_irreps=irreps,
        param_axes=_param_axes(config),
    )


def _param_axes(
    config: SchNetConfig,
) -> tuple[tuple[str, tuple[str | None, ...]], ...]:
    # Features are on the axis "embed", messages and the hidden readout on "hidden".
    gaussians = "params/radial_[0-9]+" if config.trainable_gauss else "constants/radial"
    return (
        ("params/embedding/embedding", (None, "embed")),
        ("params/.*/filter/hidden/kernel", (None, None)),
        ("params/.*/filter/out/kernel", (None, "hidden")),
        ("params/.*/sender/kernel", ("embed", "hidden")),
        ("params/interaction_[0-9]+/hidden/kernel", ("hidden", "embed")),
        ("params/interaction_[0-9]+/out/kernel", ("embed", None)),
        ("params/readout/hidden/kernel", ("embed", "hidden")),
        ("params/readout/out/kernel", ("hidden", None)),
        ("params/.*/bias", (None,)),
        (f"{gaussians}/(centres|widths)", (None,)),
    )


def _check(config: SchNetConfig) -> None:
    activations = tuple(ACTIVATIONS)
    options.check_choices(
        config,
        {
            "cutoff_fn": CUTOFFS,
            "filter_hidden": HIDDEN,
            "activation": activations,
            "readout_activation": activations,
            "dtype": options.DTYPES,
        },
    )
    options.check_least(
        config,
        {"width": 2, "depth": 1, "n_filters": 0, "n_rbf": 2, "cutoff_ang": 1e-3},
    )
