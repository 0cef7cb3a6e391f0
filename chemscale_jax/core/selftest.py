"""A start-up check that the installed JAX computes what it is asked."""

import jax
import jax.numpy as jnp
import numpy as np

from chemscale_jax.core.errors import UserError

# From this many rows on JAX 0.10.2 goes wrong in float64; fewer pass.
_ROWS = 16_385


def check_arithmetic() -> None:
    """Compares a vmapped matrix-vector product and sum in float64 with NumPy.

    JAX 0.10.2 on CPU fuses them wrongly (JAX issue 39103): 268435456 becomes
    267911424. Takes a fraction of a second.

    Raises:
        UserError: where the two differ.
    """
    rows_N3 = np.zeros((_ROWS, 3))
    rows_N3[:, 0] = np.arange(_ROWS)

    def squared_length(row_3: jax.Array) -> jax.Array:
        return jnp.sum((jnp.eye(3, dtype=row_3.dtype) @ row_3) ** 2)

    with jax.enable_x64(True):
        found_N = np.asarray(jax.jit(jax.vmap(squared_length))(rows_N3))
    if not np.array_equal(found_N, rows_N3[:, 0] ** 2):
        raise UserError(
            f"jax {jax.__version__} computes a matrix-vector product wrongly on this "
            f"machine ({found_N[-1]:.0f} instead of {(_ROWS - 1) ** 2}); install jax "
            "0.10.1, or set XLA_FLAGS=--xla_cpu_experimental_ynn_fusion_type="
        )
