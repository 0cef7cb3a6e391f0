"""Settings of Allegro, and what its two forms share."""

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import e3nn_jax as e3nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from chemscale_jax.core.batches import GraphPack
from chemscale_jax.core.types import Array, Key
from chemscale_jax.models import layers
from chemscale_jax.models.tensor_products import (
    Kinds,
    kind_of_component,
)

FORMS = ("2022", "2025")
WIDTH_MAPS = ("quarter", "A", "B", "C")
# Of silu's output for normal input. e3nn's constant, an estimate from fixed random
# numbers: the exact value is 1.6765, but weights were trained with this one.
SILU_GAIN = 1.6791767923989418
GAINS = {"2022": SILU_GAIN, "2025": math.sqrt(2)}
ACTIVATIONS = ("silu", "none")


@dataclasses.dataclass(frozen=True)
class AllegroConfig:
    """Hyperparameters."""

    # Differs from the paper: the later form, which is leaner, with silu in every MLP.
    form: str = "2025"  # 2022, 2025
    width: int = 64  # w of c = d w, see `sizes`
    depth: int = 2  # layers, each with one tensor product
    width_map: str = "quarter"  # what the width stands for, see `sizes`
    cutoff_ang: float = 5.0
    # These three follow from the training set where they are left empty.
    elements: tuple[int, ...] = ()  # atomic numbers; any other gives NaN
    avg_num_neighbors: float = 0.0  # n above, mean over atoms
    energy_scale: float = 0.0  # of the energy of each atom, eV
    energy_shift: float = 0.0  # of the energy of each atom, eV
    l_max: int = 2
    parity: str = "o3_full"  # o3_full, o3_restricted (parities of Y), so3 (no mirror)
    n_bessel: int = 8  # radial functions, R
    learnable_bessel: bool = False
    envelope_power: int = 6  # p of the polynomial envelope
    readout: tuple[int, ...] = (32,)  # hidden widths
    readout_activation: str = "silu"  # silu, none
    learnable_mixing: bool = False  # trains c of each layer; form 2022
    # In place of those of width_map.
    channels: int = 0  # of tensors, U
    two_body: tuple[int, ...] = ()  # widths of the first MLP, the last is that of x
    latent: tuple[int, ...] = ()  # widths of the other MLPs, the last is that of x
    embedding: int = 0  # of pairs of elements; form 2025; 0: the width of x
    dtype: str = "float32"  # of matrix products: float32, bfloat16


class Sizes(NamedTuple):
    """Widths of the parts."""

    channels: int
    two_body: tuple[int, ...]
    latent: tuple[int, ...]


def sizes(config: AllegroConfig) -> Sizes:
    """What the width w stands for, which Frey et al. do not say of Allegro.

    A: channels w, the reference's large MLPs as they are. B: its 32 channels, MLPs of
    width w. C: both w. quarter: MLPs of width w with a hidden layer, channels w / 4.
    """
    w = config.width
    named = {
        "A": Sizes(w, (64, 128, 256, 512), (512,)),
        "B": Sizes(32, (w, w, w, w), (w,)),
        "C": Sizes(w, (w, w, w, w), (w,)),
        "quarter": Sizes(max(w // 4, 1), (w, w), (w, w)),
    }[config.width_map]
    return Sizes(
        config.channels or named.channels,
        config.two_body or named.two_body,
        config.latent or named.latent,
    )


class MLP(nn.Module):
    """Matrices of unit variance without biases, silu between them or nothing.

    ``x <- act(x) W gain / sqrt(fan in)``; the gain belongs to the layers after a silu.
    """

    config: AllegroConfig
    widths: tuple[int, ...]
    activation: str = "silu"

    @nn.compact
    def __call__(self, parts: Sequence[Array]) -> Array:
        """Takes the parts of its input, which are not joined: that would copy them."""
        config = self.config
        blocks = [part.shape[-1] for part in parts]
        fan_in, kernels = sum(blocks), []
        for place, width in enumerate(self.widths):
            gain = GAINS[config.form] if place and self.activation == "silu" else 1.0
            kernel = self.param(f"kernel_{place}", unit_uniform, (fan_in, width))
            kernels.append(kernel * (gain / math.sqrt(fan_in)))
            fan_in = width
        if self.activation == "none":
            # One matrix in the end; from the right they are narrow.
            while len(kernels) > 1:
                last = kernels.pop()
                kernels[-1] = kernels[-1] @ last
        ends = np.cumsum(blocks)[:-1]
        rows = zip(parts, jnp.split(kernels[0], ends), strict=True)
        x = sum(layers.matmul(part, row, config.dtype) for part, row in rows)
        for kernel in kernels[1:]:
            x = layers.matmul(jax.nn.silu(x), kernel, config.dtype)
        return jnp.asarray(x)


def unit_uniform(key: Key, shape: tuple[int, ...]) -> Array:
    """Uniform numbers of variance 1."""
    return jax.random.uniform(key, shape, jnp.float32, -math.sqrt(3), math.sqrt(3))


def polynomial_cutoff(distance_E: Array, cutoff_ang: float, power: int) -> Array:
    """``1 - (p+1)(p+2)/2 x^p + p(p+2) x^(p+1) - p(p+1)/2 x^(p+2)`` below x = 1, else 0.

    Its first two derivatives vanish at the cut-off.
    """
    p, inside_E = power, distance_E < cutoff_ang
    x = jnp.where(inside_E, distance_E / cutoff_ang, 0.0)
    inner = (p + 1) * (p + 2) / 2 - x * (p * (p + 2) - x * (p * (p + 1) / 2))
    return jnp.where(inside_E, 1.0 - x**p * inner, 0.0)


class Edges(NamedTuple):
    """What is known of each edge beforehand."""

    basis_ER: Array  # radial functions
    envelope_E1: Array
    Y: list[Array]  # components of spherical harmonics, each (E, 1)
    centre_ET: Array  # the element of the centre, one-hot
    neighbour_ET: Array


class Geometry(nn.Module):
    """Radial functions, spherical harmonics and elements of each edge."""

    config: AllegroConfig

    @nn.compact
    def __call__(self, pack: GraphPack) -> Edges:
        """Each edge on its own; the receiver is the centre."""
        config = self.config
        disp_E3 = layers.displacements(pack, config.cutoff_ang)
        distance_E = layers.safe_norm(disp_E3)
        # Two atoms at one place have no direction; the divisor keeps it finite.
        divisor_E1 = jnp.where(distance_E > 0, distance_E, 1.0)[:, None]
        irreps = e3nn.Irreps([(1, (l, (-1) ** l)) for l in range(config.l_max + 1)])
        Y_EI = e3nn.spherical_harmonics(
            irreps,
            e3nn.IrrepsArray("1o", disp_E3 / divisor_E1),
            normalize=False,
            normalization="component",
        ).array
        envelope_E = polynomial_cutoff(
            distance_E, config.cutoff_ang, config.envelope_power
        )
        table_T = jnp.asarray(config.elements, pack.species_N.dtype)
        one_hot_NT = (pack.species_N[:, None] == table_T[None]).astype(disp_E3.dtype)
        return Edges(
            self.basis(distance_E),
            envelope_E[:, None],
            [Y_EI[:, i : i + 1] for i in range(irreps.dim)],
            layers.rows_of(one_hot_NT, pack.receivers_E),
            layers.rows_of(one_hot_NT, pack.senders_E),
        )

    def basis(self, distance_E: Array) -> Array:
        """Bessel functions; in form 2022 ``2/r_c sin(b r/r_c)/r``, standardised."""
        config, old = self.config, self.config.form == "2022"
        # The reference keeps n pi in the one form, n in the other.
        unit = math.pi if old else 1.0
        roots_R = unit * jnp.arange(1, config.n_bessel + 1, dtype=jnp.float32)
        if config.learnable_bessel:
            roots_R = self.param("roots", lambda _: roots_R)
        else:
            roots_R = self.variable("constants", "roots", lambda: roots_R).value
        sinc_ER = layers.sinc_basis(distance_E, roots_R / unit, config.cutoff_ang)
        if not old:
            return sinc_ER * (config.cutoff_ang / math.pi)
        mean_R, inverse_R = (
            self.variable("constants", name, lambda v=value: jnp.asarray(v)).value
            for name, value in basis_statistics(config).items()
        )
        return (sinc_ER * (2.0 / config.cutoff_ang) - mean_R[None]) * inverse_R[None]


def basis_statistics(config: AllegroConfig) -> dict[str, np.ndarray]:
    """Mean and inverse deviation of each function at 4000 distances up to r_c."""
    r = np.linspace(0.0, config.cutoff_ang, 4001)[1:, None]
    k_1R = np.pi * np.arange(1, config.n_bessel + 1)[None] / config.cutoff_ang
    values = 2.0 / config.cutoff_ang * np.sin(k_1R * r) / r
    return {
        "mean": values.mean(0).astype(np.float32),
        "inverse_deviation": (1.0 / values.std(0, ddof=1)).astype(np.float32),
    }


def environment(
    weight_EW: Array, Y: list[Array], kinds: Kinds, norm: Array, pack: GraphPack
) -> tuple[Array, list[Array]]:
    """``Gamma_i = norm sum_k w_ik Y_ik`` on atoms, (N, U, I), and at their edges."""
    weighted = weigh(weight_EW, Y, kinds)
    U = weighted[0].shape[-1]
    sum_NW = layers.sum_to_receivers(jnp.concatenate(weighted, axis=1), pack) * norm
    at_edges = layers.rows_of(sum_NW, pack.receivers_E)
    on_atoms = jnp.swapaxes(sum_NW.reshape(-1, len(Y), U), 1, 2)
    return on_atoms, jnp.split(at_edges, len(Y), axis=1)


def weigh(weight_EW: Array, Y: list[Array], kinds: Kinds) -> list[Array]:
    """Components ``w Y``, with one weight for each irrep and channel."""
    weights = jnp.split(weight_EW, len(kinds), axis=1)
    return [weights[l] * y for l, y in zip(kind_of_component(kinds), Y, strict=True)]
