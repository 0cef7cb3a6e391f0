"""Parts of SpookyNet: hyperparameters, residual blocks, embeddings, interactions."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from chemscale_jax.core.batches import GraphPack
from chemscale_jax.core.types import Array, Key
from chemscale_jax.models import favor, layers, radial_bases
from chemscale_jax.models.electron_configuration import electron_table
from chemscale_jax.models.zbl import softplus_inverse

ACTIVATIONS = ("swish", "shifted_softplus")
BASES = (*radial_bases.EXPONENTIAL, *radial_bases.FIXED)
N_SPECIES = 87  # rows of species tables: 86 elements, and padding in row 0
START_ALPHA = 0.9448630629184640  # 1/angstrom, of exponential bases

# What the features of an atom are turned into, for local and nonlocal interactions.
PARTS = (
    *(f"local_{letter}" for letter in "xspd"),
    *(f"nonlocal_{letter}" for letter in "qkv"),
)

orthogonal = nn.initializers.orthogonal()


@dataclasses.dataclass(frozen=True)
class SpookyNetConfig:
    """Hyperparameters; `FAITHFUL` holds the fields that differ in the paper's code."""

    width: int = 64  # features per atom, F
    depth: int = 3  # interaction modules
    n_rbf: int = 16  # radial functions, K
    cutoff_ang: float = 5.0
    basis: str = "exp-bernstein"  # an entry of BASES
    exp_weighting: bool = True  # exponential bases times exp(-alpha d)
    activation: str = "swish"  # an entry of ACTIVATIONS, with learned factors
    attention: str = "favor"  # favor: linear in atoms; exact: over all pairs
    # Differs from the paper: see favor.py.
    attention_maximum: str = "molecule"  # molecule, or batch as in the paper's code
    # Differs from the paper: its code starts all embeddings at zero. Under a force-only
    # loss without D4 that is a saddle point: the network gets no gradient at all.
    zero_init: bool = False  # start the nuclear embedding at zero
    zbl: bool = True  # repulsion of nuclei within the cut-off
    electrostatics: bool = True  # of the learned charges, over all pairs
    # Differs from the paper: it has D4 on, which is not in the labels of ANI-1x.
    d4: bool = False  # dispersion, over all pairs
    d4_tables: str = ""  # an .npz with the reference tables of D4
    lr_cutoff_ang: float | None = None  # ends electrostatics and D4; None: nowhere
    # Residual blocks of each kind.
    residual_electron: int = 1
    residual_pre: int = 1
    residual_local_x: int = 1
    residual_local_s: int = 1
    residual_local_p: int = 1
    residual_local_d: int = 1
    residual_local: int = 1
    residual_nonlocal_q: int = 1
    residual_nonlocal_k: int = 1
    residual_nonlocal_v: int = 1
    residual_post: int = 1
    residual_output: int = 1
    dtype: str = "float32"  # of matrix products: float32, bfloat16


# The reference, but for D4, whose tables are not part of this package. Its default
# cut-off is 10 Bohr; Frey et al. use 5 angstrom.
FAITHFUL: dict[str, Any] = {"attention_maximum": "batch", "zero_init": True}


def _each(start: layers.Initializer, parts: int) -> layers.Initializer:
    """Initialises an array, or each of several that are kept as one."""
    if not parts:
        return start

    def init(key: Key, shape: tuple[int, ...]) -> Array:
        # One after another: many batched QR decompositions at once have been seen to
        # wait for each other forever on a CPU with two threads.
        keys = jax.random.split(key, parts)
        return jax.lax.map(lambda one: start(one, shape[1:]), keys)

    return init


class Activation(nn.Module):
    """``a x sigmoid(b x)``, or ``a (softplus(b x) - log 2) / b``; a, b per feature."""

    kind: str
    parts: int = 0  # of the first axis, each with its own a and b; 0: no such axis

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Applies it to the last axis of (N, F), or of (parts, N, F)."""
        shape = (self.parts, x.shape[-1]) if self.parts else x.shape[-1:]
        alpha = self.param("alpha", nn.initializers.constant(1.0), shape)
        beta = self.param("beta", nn.initializers.constant(1.702), shape)
        alpha, beta = alpha[..., None, :], beta[..., None, :]
        if self.kind == "swish":
            return alpha * x * jax.nn.sigmoid(beta * x)
        curved = beta != 0
        safe = jnp.where(curved, beta, 1.0)
        return alpha * jnp.where(
            curved, layers.shifted_softplus(safe * x) / safe, 0.5 * x
        )


class Linear(nn.Module):
    """``x @ kernel + bias``, for each of several parts if there are any."""

    features: int
    parts: int = 0
    use_bias: bool = True
    zero_parts: tuple[int, ...] = ()  # whose kernel starts at zero, else orthogonal
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Applies it to the last axis of (N, F), or of (parts, N, F)."""
        lead = (self.parts,) if self.parts else ()

        def start(key: Key, shape: tuple[int, ...]) -> Array:
            kernel = _each(orthogonal, self.parts)(key, shape)
            for part in self.zero_parts:
                kernel = kernel.at[part].set(0.0) if lead else jnp.zeros(shape)
            return kernel

        kernel = self.param("kernel", start, (*lead, x.shape[-1], self.features))
        y = layers.matmul(x, kernel, self.dtype)
        if not self.use_bias:
            return y
        bias = self.param("bias", nn.initializers.zeros, (*lead, self.features))
        return y + jnp.broadcast_to(bias[..., None, :], y.shape)


class ResidualStack(nn.Module):
    """Blocks ``x + W_2 a(W_1 a(x) + b_1) + b_2``, where W_2 starts at zero.

    Several stacks on the same features are computed as one, in a product with a batch
    axis: that is faster and compiles six times faster.
    """

    config: SpookyNetConfig
    blocks: tuple[int, ...] | int  # of each part; a number for one stack alone
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """As many features, (N, F), or (parts, N, F) from (N, F)."""
        counts = (self.blocks,) if isinstance(self.blocks, int) else self.blocks
        parts = 0 if isinstance(self.blocks, int) else len(counts)
        linear = functools.partial(
            Linear, x.shape[-1], parts, self.use_bias, dtype=self.config.dtype
        )
        activation = functools.partial(Activation, self.config.activation, parts)
        x = jnp.broadcast_to(x, (parts, *x.shape)) if parts else x
        for block in range(max(counts)):
            y = activation(name=f"block_{block}_act1")(x)
            y = linear(name=f"block_{block}_dense1")(y)
            y = activation(name=f"block_{block}_act2")(y)
            zero = tuple(range(parts)) or (0,)
            y = linear(zero_parts=zero, name=f"block_{block}_dense2")(y)
            if min(counts) <= block:
                # A part with fewer blocks passes on what it has.
                has = jnp.array([count > block for count in counts])
                y = jnp.where(has[:, None, None], y, 0.0)
            x = x + y
        return x


class ResidualMLP(nn.Module):
    """Residual blocks, an activation and a linear layer."""

    config: SpookyNetConfig
    blocks: tuple[int, ...] | int  # of each part; a number for one alone
    use_bias: bool = True
    zero_parts: tuple[int, ...] = ()  # whose last layer starts at zero; (0,) if alone

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """As many features, (N, F), or (parts, N, F) from (N, F)."""
        parts = 0 if isinstance(self.blocks, int) else len(self.blocks)
        x = ResidualStack(self.config, self.blocks, self.use_bias, name="stack")(x)
        x = Activation(self.config.activation, parts, name="act")(x)
        return Linear(
            x.shape[-1],
            parts,
            self.use_bias,
            self.zero_parts,
            self.config.dtype,
            name="out",
        )(x)


class NuclearEmbedding(nn.Module):
    """A free vector per element, and a linear map of its electron configuration."""

    config: SpookyNetConfig

    @nn.compact
    def __call__(self, species_N: Array) -> Array:
        """z_NF."""
        F, zeros = self.config.width, nn.initializers.zeros
        table = electron_table()

        def uniform(key: Key, shape: tuple[int, ...]) -> Array:
            # Of unit variance.
            return jax.random.uniform(key, shape, minval=-(3**0.5), maxval=3**0.5)

        start = (zeros, zeros) if self.config.zero_init else (uniform, orthogonal)
        element_ZF = self.param("element", start[0], (N_SPECIES, F))
        kernel = self.param("configuration", start[1], (table.shape[1], F))
        table_ZF = element_ZF + jnp.asarray(table, kernel.dtype) @ kernel
        return layers.rows_of(table_ZF, species_N)


class ElectronicEmbedding(nn.Module):
    """Spreads the charge or spin of a molecule over its atoms; exactly 0 for none."""

    config: SpookyNetConfig

    @nn.compact
    def __call__(self, z_NF: Array, electrons_MC: Array, pack: GraphPack) -> Array:
        """Features of each atom.

        Args:
            z_NF: nuclear embeddings, from which queries are made.
            electrons_MC: amounts of each molecule, not negative.
            pack: says which atoms make a molecule.
        """
        F = self.config.width
        dense = functools.partial(layers.Dense, F, kernel_init=orthogonal)
        q_NF = dense(name="query")(z_NF)
        unit_MC = electrons_MC / jnp.maximum(electrons_MC, 1.0)
        k_MF = dense(use_bias=False, name="key")(unit_MC)
        v_MF = dense(use_bias=False, name="value")(electrons_MC)
        k_NF = layers.rows_of(k_MF, pack.molecule_N)
        weight_N = jax.nn.softplus(jnp.sum(k_NF * q_NF, axis=1) / F**0.5)
        total_M = favor.molecule_sum(weight_N, pack) + favor.NORM_EPS
        share_N = weight_N / layers.rows_of(total_M, pack.molecule_N)
        v_NF = share_N[:, None] * layers.rows_of(v_MF, pack.molecule_N)
        blocks = self.config.residual_electron
        mlp = ResidualMLP(self.config, blocks, False, zero_parts=(0,), name="mlp")
        return mlp(v_NF)


class RadialBasis(nn.Module):
    """Radial functions times the cut-off function."""

    config: SpookyNetConfig

    @nn.compact
    def __call__(self, distance_E: Array, envelope_E: Array) -> Array:
        """rbf_EK."""
        config = self.config
        if config.basis in radial_bases.FIXED:
            fixed = radial_bases.FIXED[config.basis]
            return envelope_E[:, None] * fixed(
                distance_E, config.cutoff_ang, config.n_rbf
            )
        start = jnp.asarray(softplus_inverse((START_ALPHA,)), jnp.float32)
        alpha = jax.nn.softplus(self.param("alpha", lambda _: start))[0]
        basis = radial_bases.EXPONENTIAL[config.basis]
        if config.exp_weighting:
            envelope_E = envelope_E * jnp.exp(-alpha * distance_E)
        return envelope_E[:, None] * basis(distance_E, alpha, config.n_rbf)


class LocalInteraction(nn.Module):
    """Scalars from neighbours within the cut-off, through s, p and d functions."""

    config: SpookyNetConfig

    @nn.compact
    def __call__(
        self, parts_4NF: Array, rbf_EK: Array, angular_E8: Array, pack: GraphPack
    ) -> Array:
        """l_NF from the features R_x, R_s, R_p and R_d of each atom."""
        config, F = self.config, self.config.width
        K = rbf_EK.shape[1]
        kernels = [self.param(f"radial_{l}", orthogonal, (K, F)) for l in "spd"]
        gates = layers.matmul(rbf_EK, jnp.concatenate(kernels, 1), config.dtype)
        x_NF, *spd = parts_4NF
        sent = gates * layers.rows_of(jnp.concatenate(spd, 1), pack.senders_E)
        s_NF, p_N3F, d_N5F = _angular_sums(sent, angular_E8, pack)
        s_NF = x_NF + s_NF
        for name, part in (("p", p_N3F), ("d", d_N5F)):
            project = Linear(
                2 * F, use_bias=False, dtype=config.dtype, name=f"project_{name}"
            )
            both = project(part)
            s_NF = s_NF + jnp.sum(both[..., :F] * both[..., F:], axis=1)
        blocks = config.residual_local
        return ResidualMLP(config, blocks, zero_parts=(0,), name="mlp")(s_NF)


def _angular_sums(
    sent: Array, angular_E8: Array, pack: GraphPack
) -> tuple[Array, Array, Array]:
    """Sums of what each edge sends, (E, 3F), times 1, p and d functions."""
    s_EF, p_EF, d_EF = jnp.split(sent, 3, axis=1)
    p_E3F = p_EF[:, None] * angular_E8[:, :3, None]
    d_E5F = d_EF[:, None] * angular_E8[:, 3:, None]
    return (
        layers.sum_to_receivers(s_EF, pack),
        layers.sum_to_receivers(p_E3F, pack),
        layers.sum_to_receivers(d_E5F, pack),
    )


class NonlocalInteraction(nn.Module):
    """Attention of each atom to all atoms of its molecule."""

    config: SpookyNetConfig

    @nn.compact
    def __call__(self, parts_3NF: Array, pack: GraphPack) -> Array:
        """n_NF from queries, keys and values."""
        q_NF, k_NF, v_NF = parts_3NF
        F, maximum = self.config.width, self.config.attention_maximum
        if self.config.attention == "exact":
            return favor.exact_attention(q_NF, k_NF, v_NF, pack, maximum)
        omega_FR = self.variable(
            "constants",
            "omega",
            lambda: favor.random_features(self.make_rng("params"), F, F),
        ).value
        return favor.favor_attention(q_NF, k_NF, v_NF, omega_FR, pack, maximum)


class Interaction(nn.Module):
    """One module: new features, and what they add to the output."""

    config: SpookyNetConfig

    @nn.compact
    def __call__(
        self, x_NF: Array, rbf_EK: Array, angular_E8: Array, pack: GraphPack
    ) -> tuple[Array, Array]:
        """Returns x and y."""
        config = self.config
        x_NF = ResidualStack(config, config.residual_pre, name="pre")(x_NF)
        blocks = tuple(getattr(config, f"residual_{part}") for part in PARTS)
        attention = tuple(range(4, 7))
        parts_7NF = ResidualMLP(config, blocks, zero_parts=attention, name="parts")(
            x_NF
        )
        local = LocalInteraction(config, name="local")
        local_NF = local(parts_7NF[:4], rbf_EK, angular_E8, pack)
        nonlocal_NF = NonlocalInteraction(config, name="nonlocal")(parts_7NF[4:], pack)
        self.sow("intermediates", "l", local_NF)
        self.sow("intermediates", "n", nonlocal_NF)
        x_NF = ResidualStack(config, config.residual_post, name="post")(
            x_NF + local_NF + nonlocal_NF
        )
        y_NF = ResidualMLP(config, config.residual_output, name="out")(x_NF)
        self.sow("intermediates", "x", x_NF)
        self.sow("intermediates", "y", y_NF)
        return x_NF, y_NF
