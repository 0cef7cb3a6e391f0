"""Parameters of Uni-Mol2: how they start, and their logical axes.

The published modules declare initialisations of their own (zero outputs, gates that
are open), but the model's constructor overrides all of them: kernels and embeddings
are normal with deviation 0.02, biases 0, and the rows of padding 0.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from chemscale_jax.core.types import Array, Key, Params
from chemscale_jax.models.unimol2_options import Unimol2Options, check

INIT_STD = 0.02
TOKENS = 128  # rows of the table of elements, [MASK] = 127 among them
ATOM_FEATURES, DEGREES, BOND_FEATURES, PATHS = 512, 128, 64, 512
KERNELS = 128  # Gaussians of distances
PAIR_TYPE_ROWS = 512

AxisRules = tuple[tuple[str, tuple[str | None, ...]], ...]


def init(options: Unimol2Options, key: Key) -> dict[str, Params]:
    """Parameters of the encoder and of both heads of pretraining.

    Layers are stacked on the first axis of each parameter of ``layers``.

    Raises:
        UserError: for options out of range.
    """
    check(options)
    D, Q, H, K = options.width, options.pair_width, options.heads, KERNELS
    kernel_key, *keys = jax.random.split(key, 64)
    remaining = iter(keys)

    def normal(*shape: int) -> Array:
        return INIT_STD * jax.random.normal(next(remaining), shape, jnp.float32)

    def table(rows: int, *shape: int) -> Array:
        return normal(rows, *shape).at[0].set(0.0)

    params = {
        "tokens": {"embedding": table(TOKENS, D)},
        "atoms": {"embedding": table(ATOM_FEATURES, D)},
        "degrees": {"embedding": table(DEGREES, D)},
        "virtual_atom": {"embedding": normal(D)},
        "bonds": {"embedding": table(BOND_FEATURES, Q)},
        "paths": {"embedding": table(PATHS, Q)},
        "virtual_pair": {"embedding": normal(Q)},
        "kernel": {
            "scale": {"embedding": table(PAIR_TYPE_ROWS)},
            "shift": {"embedding": table(PAIR_TYPE_ROWS)},
            "expand": _dense(normal, K, K),
            "shrink": _dense(normal, K, Q),
        },
        "norm": _norm(D),
        "pair_norm": _norm(Q),
        "layers": _layers(options, normal),
        "token_head": {
            "norm": _norm(D),
            "dense": _dense(normal, D, D),
            "out": {
                # The one matrix that the constructor does not reach.
                "kernel": uniform(kernel_key, D, (D, TOKENS)),
                "bias": jnp.zeros(TOKENS),
            },
        },
        "move_head": {
            "norm": _norm(D),
            "pair_norm": _norm(Q),
            "qkv": {"kernel": normal(D, 3, D)},
            "bias": _dense(normal, Q, H),
            "force": {"kernel": normal(D)},
        },
    }
    return {"params": params, "constants": {}}


def uniform(key: Key, fan_in: int, shape: tuple[int, ...]) -> Array:
    """Uniform within ``fan_in ** -0.5``, torch's own start of a linear layer."""
    bound = fan_in**-0.5
    return jax.random.uniform(key, shape, jnp.float32, -bound, bound)


def _layers(options: Unimol2Options, normal: Callable[..., Array]) -> dict[str, Any]:
    N, D, F = options.depth, options.width, options.hidden
    Q, C, H = options.pair_width, options.pair_hidden, options.heads

    def dense(*shape: int) -> dict[str, Array]:
        return _dense(normal, N, *shape)

    def norm(width: int) -> dict[str, Array]:
        return _norm(N, width)

    return {
        "attention": {
            "norm": norm(D),
            "qkv": {"kernel": normal(N, D, 3, D)},
            "bias": dense(Q, H),
            "merge": dense(D, D),
        },
        "feed_forward": {"norm": norm(D), "expand": dense(D, F), "shrink": dense(F, D)},
        "outer": {
            "norm": norm(D),
            "expand": dense(D, 2 * C),
            "shrink": dense(C, C, Q),
        },
        "triangle": {
            "norm": norm(Q),
            # Side by side: what is multiplied, its gate, the gate of the outcome.
            "expand": dense(Q, 4 * C + Q),
            "middle_norm": norm(C),
            "shrink": dense(C, Q),
        },
        "pair_feed_forward": {
            "norm": norm(Q),
            "expand": dense(Q, Q),
            "shrink": dense(Q, Q),
        },
    }


def _dense(normal: Callable[..., Array], *shape: int) -> dict[str, Array]:
    """A kernel, (layers and inputs, outputs), and its bias."""
    *before, outputs = shape
    leading = before[:1] if len(before) > 1 else []
    return {"kernel": normal(*shape), "bias": jnp.zeros((*leading, outputs))}


def _norm(*shape: int) -> dict[str, Array]:
    return {"scale": jnp.ones(shape), "bias": jnp.zeros(shape)}


def param_axes(options: Unimol2Options) -> AxisRules:
    """The logical axes of every parameter; the axis of layers is never spread."""
    del options  # all sizes have the same parameters
    layers = "params/layers"
    return (
        ("params/(tokens|atoms|degrees|bonds|paths)/embedding", (None, "embed")),
        ("params/virtual_(atom|pair)/embedding", (None,)),
        ("params/kernel/(scale|shift)/embedding", (None,)),
        ("params/kernel/expand/kernel", (None, None)),
        ("params/kernel/shrink/kernel", (None, "embed")),
        ("params/kernel/.*/bias", (None,)),
        ("params/(pair_)?norm/(scale|bias)", (None,)),
        (f"{layers}/.*norm/(scale|bias)", (None, None)),
        (f"{layers}/attention/qkv/kernel", (None, "embed", None, "heads")),
        (f"{layers}/attention/bias/kernel", (None, "embed", None)),
        (f"{layers}/attention/merge/kernel", (None, "heads", "embed")),
        (f"{layers}/outer/expand/kernel", (None, "embed", None)),
        (f"{layers}/outer/shrink/kernel", (None, None, None, "embed")),
        (f"{layers}/triangle/expand/kernel", (None, "embed", None)),
        (f"{layers}/triangle/shrink/kernel", (None, None, "embed")),
        (f"{layers}/(pair_)?feed_forward/expand/kernel", (None, "embed", "hidden")),
        (f"{layers}/(pair_)?feed_forward/expand/bias", (None, "hidden")),
        (f"{layers}/(pair_)?feed_forward/shrink/kernel", (None, "hidden", "embed")),
        (f"{layers}/.*/bias", (None, None)),
        ("params/(token|move)_head/(pair_)?norm/(scale|bias)", (None,)),
        ("params/token_head/dense/kernel", ("embed", "hidden")),
        ("params/token_head/out/kernel", ("embed", None)),
        ("params/token_head/(dense|out)/bias", (None,)),
        ("params/move_head/qkv/kernel", ("embed", None, "heads")),
        ("params/move_head/bias/kernel", ("embed", None)),
        ("params/move_head/bias/bias", (None,)),
        ("params/move_head/force/kernel", (None,)),
    )


def parameter_count(options: Unimol2Options) -> int:
    """How many parameters there are, found without memory for any."""
    shapes = jax.eval_shape(lambda key: init(options, key), jax.random.key(0))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))
