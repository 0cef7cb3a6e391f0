"""Lanes of real networks equal the same runs alone, to the precision of numbers."""

import contextlib
import math

import jax
import numpy as np
import pytest

from chemscale_jax.core import config_files, partition
from chemscale_jax.core.workdir import Workdir
from chemscale_jax.runs.assembly import make_lane
from chemscale_jax.training import checkpoint, lanes, loop
from chemscale_jax.training.optimizer import make_optimizer
from tests.wide import wide_lane

# Relative, of logged losses and of the length of each array of the weights: lanes and
# solo runs are compiled apart, so sums may be taken in another order, and each step of
# Adam makes more of it.
SAME = {"float64": 1e-9, "float32": 1e-4}
# The training speed is float32 in every run.
SPEED = 1e-6
# Learning rates, which are float32, after which no number is finite.
DIVERGING = {"float64": math.inf, "float32": 1e30}
EPOCH = 3  # batches, roughly


def chemgpt(depth, width):
    config = config_files.load("configs/chemgpt.py:smoke")
    config.model.width, config.model.depth = width, depth
    config.model.positions = 64
    config.batch.form, config.batch.rows, config.batch.length = "packed", 2, 64
    config.data.train_rows = 2 * EPOCH
    config.data.valid_molecules_max = 10
    return config


def painn(depth, width):
    config = config_files.load("configs/painn_ani1x.py:smoke")
    config.model.width, config.model.depth = width, depth
    config.batch.rows, config.batch.molecules = 1, 5
    config.data.train_size, config.data.valid_size = 5 * EPOCH, 10
    return config


def lane_configs(config, count, steps, dtype):
    """Lanes that differ in all that lanes may; early stops at steps of their own."""
    configs = []
    for k in range(count):
        own = config.copy_and_resolve_references()
        own.seed = k
        # Few settings, so that runs alone, which have them in their program, share it.
        own.optimizer.lr = (1e-3, 3e-3, 3e-4)[k % 3]
        own.optimizer.warmup_steps = 5 * (k % 3)
        own.optimizer.schedule = ("cosine", "constant", "linear")[k % 3]
        own.optimizer.decay_steps = steps
        if own.optimizer.name == "adamw":
            own.optimizer.weight_decay = 0.05 * (k % 3)
        own.train.epochs = 1000
        # Every other lane stops before the others do.
        own.train.max_steps = steps - (k % 2) * (steps * k) // (2 * count)
        own.batch.prefetch = 0
        own.train.checkpoint_every_steps = 0
        own.log.every_steps = 1
        configs.append(own)
    configs[1].optimizer.lr = DIVERGING[dtype]
    configs[1].optimizer.warmup_steps = 0
    # No validation loss is an improvement on the first one.
    configs[2].optimizer.lr = 0.0
    configs[2].train.early_stop_epochs = 1
    return configs


def made(folder, configs, dtype):
    found = []
    for k, config in enumerate(configs):
        (folder / str(k)).mkdir(parents=True)
        lane = make_lane(config, Workdir(folder / str(k)))
        found.append(wide_lane(lane) if dtype == "float64" else lane)
    return found


def assert_lanes_equal_solo_runs(folder, config, count, steps, dtype, devices=1):
    wide = jax.enable_x64(True) if dtype == "float64" else contextlib.nullcontext()
    with wide:
        configs = lane_configs(config, count, steps, dtype)
        mesh = partition.make_mesh(data=devices)
        together = made(folder / "lanes", configs, dtype)
        outcomes = lanes.train(together, mesh)
        assert outcomes[1].state == "failed", outcomes[1]
        assert "is not finite" in outcomes[1].reason
        reached = {o.progress.step for k, o in enumerate(outcomes) if k != 1}
        assert len(reached) > 1, reached
        assert max(reached) == steps
        for k, lane in enumerate(made(folder / "solo", configs, dtype)):
            if k == 1:
                continue
            assert outcomes[k].state == "finished"
            optimizer = make_optimizer(lane.config.optimizer, lane.steps, ())
            solo_mesh = partition.make_mesh(data=1)
            outcome = loop.train(
                lane.task,
                lane.stream,
                optimizer,
                lane.config,
                lane.workdir,
                solo_mesh,
            )
            assert outcome == outcomes[k]._replace(progress=outcome.progress)
            assert_same_run(together[k].workdir, lane.workdir, dtype)


def assert_same_run(left, right, dtype):
    a, b = (
        {(r["step"], r["split"], r["name"]): r["value"] for r in workdir.metrics()}
        for workdir in (left, right)
    )
    assert a.keys() == b.keys()
    assert len(a) > 20
    worst = 0.0
    for key, value in a.items():
        tolerance = max(SPEED, SAME[dtype]) if key[1] == "epoch" else SAME[dtype]
        assert value == pytest.approx(b[key], rel=tolerance), key
    for x, y in zip(
        *(jax.tree.leaves(checkpoint.load_variables(w)) for w in (left, right)),
        strict=True,
    ):
        assert x.dtype == (dtype if x.dtype.kind == "f" else x.dtype)
        error = np.linalg.norm(np.float64(x) - y)
        assert error <= SAME[dtype] * np.linalg.norm(y), (x.shape, error)
        worst = max(worst, error / max(np.linalg.norm(y), 1e-300))
    print(f"{dtype}: weights differ by {worst:.1e}")


@pytest.mark.slow
@pytest.mark.parametrize("network", [chemgpt, painn])
def test_lanes_of_small_networks_equal_solo_runs(tmp_path, network):
    config = network(depth=2, width=16)
    assert_lanes_equal_solo_runs(tmp_path, config, 3, 12, "float64", devices=2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "steps"), [("float64", 200), ("float32", 20)], ids=str
)
@pytest.mark.parametrize(
    ("network", "depth", "width"), [(chemgpt, 24, 64), (painn, 3, 16)]
)
def test_sixteen_lanes_equal_solo_runs(tmp_path, network, depth, width, dtype, steps):
    config = network(depth=depth, width=width)
    assert_lanes_equal_solo_runs(tmp_path, config, 16, steps, dtype, devices=2)
