"""Allegro: strictly local equivariant features on pairs of atoms.

Musaelian et al., "Learning local equivariant representations for large-scale atomistic
dynamics", Nat. Commun. 14, 579 (2023). Each ordered pair (centre i, neighbour j) has
scalars x and tensors V, which meet the environment of the centre in each layer::

    V_ij = w(x_ij) Y(r_ij)
    Gamma_i = 1/sqrt(n) sum_k w'(x_ik) Y(r_ik);  T_ij = V_ij (x) Gamma_i
    x_ij <- mix(x_ij, MLP([x_ij, scalars of T_ij]));  V_ij <- linear(T_ij)
    E_i = 1/sqrt(n) sum_j MLP(x_ij)

Two forms of the reference code differ in how x and V are mixed:

    2022: x <- (x + c u(r) MLP) / sqrt(1 + c^2), and V from all paths and channels (the
        code of the paper and of Frey et al. 2023, nequip 0.5).
    2025: x of all layers side by side, and V as a sum of paths, each channel with its
        own weights (nequip-allegro 0.8).

Features are lists of components, see tensor_products.py. So computed, the tensors cost
little and a step takes about as long as the matrix products of its MLPs.
"""

import math
from typing import Any

import e3nn_jax as e3nn
import jax
import jax.numpy as jnp
from flax import linen as nn

from chemscale_jax.core.batches import GraphPack
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.types import Array, Key, Params
from chemscale_jax.models import layers, options
from chemscale_jax.models.allegro_parts import (
    ACTIVATIONS,
    FORMS,
    MLP,
    WIDTH_MAPS,
    AllegroConfig,
    Edges,
    Geometry,
    environment,
    sizes,
    unit_uniform,
    weigh,
)
from chemscale_jax.models.energy import EnergyModel, smallest_pack
from chemscale_jax.models.tensor_products import (
    PARITIES,
    layer_kinds,
    paths,
    product,
    spherical_kinds,
)

# The settings of the reference's example, which Frey et al. changed in width, depth and
# cut-off only.
FAITHFUL: dict[str, Any] = {
    "form": "2022",
    "width_map": "A",
    "l_max": 2,
    "parity": "o3_full",
    "n_bessel": 8,
    "learnable_bessel": True,
    "learnable_mixing": False,
    "envelope_power": 6,
    "readout": (128,),
    "readout_activation": "none",
}


class Allegro(nn.Module):
    """Energies of atoms, and the scalars of each edge summed to its centre."""

    config: AllegroConfig

    @nn.compact
    def __call__(self, pack: GraphPack) -> tuple[Array, Array]:
        """energy_N in eV, and x_NF."""
        config = self.config
        old = config.form == "2022"
        edges = Geometry(config, name="radial")(pack)
        self._note("Y", jnp.concatenate(edges.Y, axis=1))
        # A constant, so that imported weights keep theirs.
        n = self.variable(
            "constants",
            "avg_num_neighbors",
            lambda: jnp.float32(config.avg_num_neighbors),
        ).value
        norm = jax.lax.rsqrt(n)
        x_parts = (self._run_2022 if old else self._run_2025)(edges, norm, pack)
        self._note("x", jnp.concatenate(x_parts, axis=1))
        readout = MLP(
            config, (*config.readout, 1), config.readout_activation, name="readout"
        )
        energy_E1 = readout(x_parts)
        self._note("edge_energy", energy_E1)
        energy_N = layers.sum_to_receivers(energy_E1, pack)[:, 0] * norm
        x_NF = layers.sum_to_receivers(jnp.concatenate(x_parts, axis=1), pack) * norm
        if not old:
            energy_N = energy_N / math.sqrt(2)
        self._note("unscaled", energy_N[:, None])
        return self._scaled(energy_N, pack), x_NF

    def _scaled(self, energy_N: Array, pack: GraphPack) -> Array:
        """Scales and shifts by element; NaN for an element that is not listed."""
        config = self.config
        T = len(config.elements)
        scale_T, shift_T = (
            self.variable(
                "constants", f"{name}s", jnp.full, (T,), getattr(config, name)
            ).value
            for name in ("energy_scale", "energy_shift")
        )
        same_NT = pack.species_N[:, None] == jnp.asarray(config.elements)[None]
        real_N = pack.species_N > 0
        known_N = jnp.any(same_NT, axis=1) | ~real_N
        # The scale turns NaN, so that energies and forces do.
        scale_N = jnp.sum(jnp.where(same_NT, scale_T[None], 0.0), axis=1)
        scale_N = jnp.where(known_N, scale_N, jnp.nan)
        shift_N = jnp.sum(jnp.where(same_NT, shift_T[None], 0.0), axis=1)
        energy_N = energy_N.astype(jnp.promote_types(energy_N.dtype, jnp.float32))
        return jnp.where(real_N, energy_N * scale_N + shift_N, 0.0)

    def _run_2022(self, edges: Edges, norm: Array, pack: GraphPack) -> list[Array]:
        config, size = self.config, sizes(self.config)
        kinds, sphere = _kinds(config)
        weights = len(sphere) * size.channels
        u_E1 = edges.envelope_E1
        basis_ER = edges.basis_ER * u_E1
        self._note("basis", basis_ER)
        new_EF = MLP(config, size.two_body, name="two_body")(
            [edges.centre_ET, edges.neighbour_ET, basis_ER]
        )
        self._note("new_0", new_EF)
        x_EF = u_E1 * new_EF
        mixing_L = jnp.zeros(config.depth)
        if config.learnable_mixing:
            mixing_L = self.param("mixing", lambda _: mixing_L)
        else:
            mixing_L = self.variable("constants", "mixing", lambda: mixing_L).value
        V: list[Array] = []
        for layer in range(config.depth):
            count = weights if layer else 2 * weights
            weight_EW = MLP(config, (count,), name=f"weights_{layer}")([x_EF])
            self._note(f"weights_{layer}", weight_EW)
            if not layer:
                V = weigh(weight_EW[:, :weights], edges.Y, sphere)
            Gamma_N, Gamma = environment(
                weight_EW[:, -weights:], edges.Y, sphere, norm, pack
            )
            self._note(f"Gamma_{layer}", Gamma_N)
            found = [
                (path.out, product(path, V, Gamma))
                for path in paths(kinds[layer], sphere, kinds[layer + 1])
            ]
            self._note(f"T_{layer}", [t for _, T in found for t in T])
            # After the last product nothing needs V, as in the reference, which
            # has these weights too.
            V = []
            for place, ir in enumerate(kinds[layer + 1]):
                inputs = [T for out, T in found if out == place]
                V += Mix(config, name=f"mix_{layer}_{ir}")(inputs)
            self._note(f"V_{layer}", V)
            scalars = [T[0] for out, T in found if out == 0]
            new_EF = MLP(config, size.latent, name=f"latent_{layer}")([x_EF, *scalars])
            self._note(f"new_{layer + 1}", new_EF)
            c = jax.nn.sigmoid(mixing_L[layer])
            x_EF = (x_EF + (c * u_E1) * new_EF) * jax.lax.rsqrt(1.0 + c * c)
        return [x_EF]

    def _run_2025(self, edges: Edges, norm: Array, pack: GraphPack) -> list[Array]:
        config, size = self.config, sizes(self.config)
        kinds, sphere = _kinds(config)
        width, channels = size.two_body[-1], size.channels
        weights = len(sphere) * channels
        half = (config.embedding or width) // 2
        basis_ER = edges.basis_ER * edges.envelope_E1
        self._note("basis", basis_ER)
        self._note("envelope", edges.envelope_E1)
        pair_ED = MLP(config, (2 * half,), name="pair_radial")([basis_ER])
        shape = (len(config.elements), half)
        normal = nn.initializers.normal(1.0)
        centre_ED = edges.centre_ET @ self.param("centre", normal, shape)
        neighbour_ED = edges.neighbour_ET @ self.param("neighbour", normal, shape)
        pair = [pair_ED[:, :half] * centre_ED, pair_ED[:, half:] * neighbour_ED]
        self._note("pair", jnp.concatenate(pair, axis=1))
        x_EF = MLP(config, size.two_body, name="two_body")(pair)
        self._note("two_body", x_EF)
        V = weigh(MLP(config, (weights,), name="weights")([x_EF]), edges.Y, sphere)
        self._note("V", V)
        x_EF = MLP(config, (width + weights,), name="first")([x_EF])
        self._note("first", x_EF)
        x_parts = [x_EF[:, :width]]
        for layer in range(config.depth):
            Gamma_N, Gamma = environment(x_EF[:, width:], edges.Y, sphere, norm, pack)
            self._note(f"Gamma_{layer}", Gamma_N)
            ways = paths(kinds[layer], sphere, kinds[layer + 1])
            weight_PU = self.param(
                f"product_{layer}", unit_uniform, (len(ways), channels)
            )
            V_of: dict[int, list[Array]] = {}
            for way, weight_U in zip(ways, weight_PU, strict=True):
                T = [weight_U[None] * t for t in product(way, V, Gamma)]
                before = V_of.get(way.out)
                V_of[way.out] = (
                    [a + b for a, b in zip(before, T, strict=True)] if before else T
                )
            V = [component for out in sorted(V_of) for component in V_of[out]]
            self._note(f"V_{layer}", V)
            more = weights if layer < config.depth - 1 else 0
            x_EF = MLP(
                config, (*size.latent[:-1], width + more), name=f"latent_{layer}"
            )([*x_parts, V[0]])
            self._note(f"latent_{layer}", x_EF)
            x_parts.append(x_EF[:, :width])
        return x_parts

    def _note(self, name: str, value: Array | list[Array]) -> None:
        """Keeps an intermediate value, components as last axis, if one asks for it."""
        if self.is_mutable_collection("intermediates"):
            stacked = jnp.stack(value, -1) if isinstance(value, list) else value
            # Names of values and of modules must differ.
            self.sow("intermediates", f"at_{name}", stacked)


class Mix(nn.Module):
    """A linear map of paths and channels, the same for each component."""

    config: AllegroConfig

    @nn.compact
    def __call__(self, paths_of: list[list[Array]]) -> list[Array]:
        """Takes the components of each path; the fan-in is paths times channels."""
        U, P = paths_of[0][0].shape[-1], len(paths_of)
        kernel = self.param("kernel", nn.initializers.normal(1.0), (P * U, U))
        kernel = kernel / math.sqrt(P * U)
        return [
            layers.matmul(jnp.concatenate(parts, axis=1), kernel, self.config.dtype)
            for parts in zip(*paths_of, strict=True)
        ]


def _kinds(config: AllegroConfig) -> Any:
    sphere = spherical_kinds(config.l_max, config.parity)
    return layer_kinds(config.l_max, config.parity, config.depth), sphere


def intermediates(
    config: AllegroConfig, params: Params, constants: Params, pack: GraphPack
) -> dict[str, Any]:
    """Values on the way, to find differences; components of features come last."""
    _, state = Allegro(config).apply(
        {"params": params, "constants": constants}, pack, mutable=["intermediates"]
    )
    found = state["intermediates"].items()
    return {name.removeprefix("at_"): value[0] for name, value in found}


def make_model(**hyperparameters: Any) -> EnergyModel:
    """Allegro with the given fields of `AllegroConfig`.

    Raises:
        UserError: for a field that does not exist or a value out of range.
    """
    for name in ("elements", "two_body", "latent", "readout"):
        if name in hyperparameters:
            hyperparameters[name] = tuple(int(n) for n in hyperparameters[name])
    return make_model_from(
        options.from_fields(AllegroConfig, "allegro", hyperparameters)
    )


def make_model_from(config: AllegroConfig) -> EnergyModel:
    """Allegro of the given configuration.

    Raises:
        UserError: for a value out of range.
    """
    _check(config)
    network = Allegro(config)
    size = sizes(config)
    F = size.two_body[-1] * (1 if config.form == "2022" else config.depth + 1)
    irreps = e3nn.Irreps(f"{F}x0e")

    def init(key: Key) -> dict[str, Params]:
        variables: dict[str, Any] = dict(network.init(key, smallest_pack()))
        return {"params": variables["params"], "constants": variables["constants"]}

    def apply(params: Params, constants: Params, pack: GraphPack) -> Any:
        return network.apply({"params": params, "constants": constants}, pack)

    return EnergyModel(
        name="allegro",
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
    config: AllegroConfig,
) -> tuple[tuple[str, tuple[str | None, ...]], ...]:
    # Inputs of many sizes: parts of an MLP's input are joined in its first matrix.
    rules: list[tuple[str, tuple[str | None, ...]]] = [
        ("params/readout/kernel_[0-9]+", (None, None)),
        ("params/.*/kernel_[0-9]+", (None, "hidden")),
        ("constants/(energy_scales|energy_shifts)", (None,)),
        ("constants/avg_num_neighbors", ()),
    ]
    if config.form == "2022":
        rules += [
            ("params/mix_.*/kernel", ("embed", "hidden")),
            ("constants/radial/(mean|inverse_deviation)", (None,)),
            (f"{'params' if config.learnable_mixing else 'constants'}/mixing", (None,)),
        ]
    else:
        rules += [
            ("params/(centre|neighbour)", (None, "embed")),
            ("params/product_[0-9]+", (None, "embed")),
        ]
    kind = "params" if config.learnable_bessel else "constants"
    rules.append((f"{kind}/radial/roots", (None,)))
    return tuple(rules)


def _check(config: AllegroConfig) -> None:
    options.check_choices(
        config,
        {
            "form": FORMS,
            "width_map": WIDTH_MAPS,
            "parity": PARITIES,
            "readout_activation": ACTIVATIONS,
            "dtype": options.DTYPES,
        },
    )
    options.check_least(
        config,
        {
            "width": 1,
            "depth": 1,
            "n_bessel": 2,
            "cutoff_ang": 1e-3,
            "l_max": 0,
            "envelope_power": 3,
            "channels": 0,
        },
    )
    for field in ("elements", "avg_num_neighbors", "energy_scale"):
        if not getattr(config, field):
            raise UserError(
                f"config.model.{field} is {getattr(config, field)!r}; a stream fills "
                "it in from the training set, otherwise set it"
            )
    options.check_least(config, {"avg_num_neighbors": 1e-3, "energy_scale": 1e-9})
    size = sizes(config)
    if size.two_body[-1] != size.latent[-1]:
        raise UserError(
            f"config.model.two_body ends with {size.two_body[-1]}, config.model.latent "
            f"with {size.latent[-1]}; both are the width of the scalars"
        )
    if config.form == "2025" and (config.embedding or size.two_body[-1]) % 2:
        raise UserError(
            "config.model.embedding (or the width of the scalars) must be even, found "
            f"{config.embedding or size.two_body[-1]}"
        )
