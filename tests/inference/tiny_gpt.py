"""A small network whose distributions are far from even."""

import jax

from chemscale_jax.models import gpt

OPTIONS = gpt.GptOptions(
    vocabulary=24, width=16, depth=2, heads=4, positions=96, window=8
)
END, PAD = 3, 1
# Weights that are drawn larger than training draws them.
SHARPER = 20.0


def make_params(options: gpt.GptOptions = OPTIONS, seed: int = 0):
    params = gpt.init(options, jax.random.key(seed))["params"]
    return jax.tree.map(lambda x: x * SHARPER if x.std() > 0 else x, params)
