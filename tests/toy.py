"""The smallest task and stream: a line through points, for tests of the trainer."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chemscale_jax.core import config_files
from chemscale_jax.core.stream import Epoch
from chemscale_jax.core.task import Mean, Task
from chemscale_jax.core.types import Config

WIDTH = 4
common = config_files.load_module(config_files.installed_folder() / "common.py")


SPECS = (
    {
        "x": jax.ShapeDtypeStruct((8, WIDTH), np.float32),
        "y": jax.ShapeDtypeStruct((8,), np.float32),
        "mask": jax.ShapeDtypeStruct((8,), np.bool_),
    },
)


def make_task(batch_specs=SPECS) -> Task:
    def init(key):
        kernel = jax.random.normal(key, (WIDTH,))
        return {"params": {"line": {"kernel": kernel}}, "constants": {}}

    def eval_fn(params, constants, batch):
        del constants
        error = jnp.where(
            batch["mask"], batch["x"] @ params["line"]["kernel"] - batch["y"], 0.0
        )
        count = jnp.sum(batch["mask"], dtype=jnp.float32)
        return {
            "square": Mean(jnp.sum(error**2), count),
            "frames": Mean(count, jnp.ones(())),
        }

    return Task(
        name="toy",
        init=init,
        loss_fn=lambda params, constants, batch, key: eval_fn(params, constants, batch),
        eval_fn=eval_fn,
        predict_fn=lambda params, constants, batch: {
            "y": batch["x"] @ params["line"]["kernel"]
        },
        loss_weights={"square": 1.0},
        units={"square": "m^2"},
        headline=("square",),
        counter="frames",
        batch_specs=batch_specs,
        param_axes=(("params/line/kernel", ("embed",)),),
    )


class ToyEpoch:
    """Batches of eight rows, the last of them partly padding."""

    def __init__(self, epoch: int, batches: int, poison: int | None = None):
        self.epoch, self.batches, self.poison = epoch, batches, poison

    def __len__(self):
        return self.batches

    def __getitem__(self, index):
        if index >= self.batches:
            raise IndexError(index)
        rng = np.random.default_rng([self.epoch, index])
        x = rng.normal(size=(8, WIDTH)).astype(np.float32)
        y = (x @ np.arange(WIDTH) + 0.1 * rng.normal(size=8)).astype(np.float32)
        mask = np.arange(8) < (5 if index == self.batches - 1 else 8)
        if self.poison == index:
            y[0] = np.nan
        return {"x": x, "y": y, "mask": mask}

    def record_ids(self, index):
        return [f"point-{self.epoch}-{index}-{row}" for row in range(8)]


class ToyStream:
    """Epochs of unequal length."""

    artifacts: Mapping[str, Any] = {"toy": 1.0}
    summary = "points on a line"
    batch_specs: tuple[Any, ...] = SPECS

    def __init__(self, poison_epoch: int | None = None):
        self.evals: Mapping[str, Epoch] = {"valid": ToyEpoch(1000, 2)}
        self.poison_epoch = poison_epoch

    def iterate(self, epoch, start):
        return (epoch[i] for i in range(start, len(epoch)))

    def train_epoch(self, epoch):
        poison = 1 if epoch == self.poison_epoch else None
        return ToyEpoch(epoch, 3 + epoch % 2, poison)


def make_config(**train) -> Config:
    config = common.base()
    config.name = "toy"
    config.batch = {"rows": 8}
    config.log.every_steps = 1
    config.train.checkpoint_every_steps = 0
    config.train.epochs = 4
    with config.unlocked():
        config.train.update(train)
    return config
