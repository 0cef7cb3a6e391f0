"""Every task gives the same losses on every mesh, and moves between them."""

import contextlib

import jax
import numpy as np
import pytest

from chemscale_jax.core import config_files, partition
from chemscale_jax.core.workdir import Workdir
from chemscale_jax.runs.assembly import make_lane, with_start
from chemscale_jax.training import loop
from chemscale_jax.training.optimizer import make_optimizer
from chemscale_jax.training.step import make_init
from tests.wide import wide_lane

STEPS = 20
MESHES = [(8, 1, 1), (4, 2, 1), (2, 2, 2)]
# Relative, of the loss of each step: sums are taken in another order.
SAME = {"float64": 1e-10, "float32": 1e-5}
# Arrays of so many numbers are spread where a mesh has fsdp.
LARGE = 100_000
RULES = {"embed": "fsdp", "hidden": "tensor", "heads": "tensor", "vocabulary": None}


def force_field():
    config = config_files.load("configs/painn_ani1x.py:smoke,width=8,depth=1")
    config.batch.molecules = 2
    config.data.train_size, config.data.valid_size = 120, 16
    return config


def causal_lm():
    config = config_files.load("configs/chemgpt.py:smoke")
    config.model.width, config.model.depth, config.model.positions = 16, 2, 64
    config.batch.form, config.batch.length = "packed", 64
    config.data.valid_molecules_max = 10
    config.sample.molecules = config.sample.scored = 0
    return config


def conformer_denoising():
    config = config_files.load("configs/unimol2_pretrain.py:smoke")
    config.batch.buckets = (31,)
    return config


def property_regression():
    config = with_start(config_files.load("configs/finetune.py:smoke"))
    config.init_from = ""
    return config


MOLECULES = {"width": 768, "depth": 12, "heads": 48, "pair_width": 512}
# Each task, and sizes at which a network is large.
TASKS = {
    force_field: {"width": 256, "depth": 4},
    causal_lm: {"width": 2048, "depth": 24, "heads": 16},
    conformer_denoising: MOLECULES,
    property_regression: MOLECULES,
}


def prepared(make, folder, dtype="float32", model=()):
    config = make()
    config.model.update(model)
    config.batch.rows, config.train.rows_at_once = 8, 0
    config.batch.prefetch = 0
    config.train.epochs, config.train.max_steps = 1000, STEPS
    config.train.checkpoint_every_steps = 0
    config.log.every_steps = 1
    config.mesh.rules.update(
        {axis: RULES[axis] for axis in RULES if axis in config.mesh.rules}
    )
    folder.mkdir(parents=True, exist_ok=True)
    lane = make_lane(config, Workdir(folder))
    return wide_lane(lane) if dtype == "float64" else lane


def optimizer_of(lane):
    config = lane.config.optimizer
    return make_optimizer(
        config, STEPS, (), lane.stream.artifacts["planned"]["steps_per_epoch"]
    )


def losses(lane, axes, steps=STEPS):
    """Of each step, trained on a mesh until so many steps are done."""
    lane.config.train.max_steps = steps
    mesh = partition.make_mesh(*axes)
    loop.train(
        *(lane.task, lane.stream, optimizer_of(lane)),
        *(lane.config, lane.workdir, mesh, lane.start_from),
    )
    return np.array(lane.workdir.series("train", "loss")[1])


@pytest.mark.slow
@pytest.mark.parametrize("dtype", SAME)
@pytest.mark.parametrize("make", TASKS, ids=lambda make: make.__name__)
def test_meshes_give_the_losses_of_one_device(make, dtype, tmp_path):
    with jax.enable_x64(True) if dtype == "float64" else contextlib.nullcontext():
        alone = losses(prepared(make, tmp_path / "alone", dtype), (1, 1, 1))
        assert len(alone) == STEPS
        assert np.isfinite(alone).all()
        assert alone[-5:].mean() != alone[:5].mean()
        for axes in MESHES:
            found = losses(prepared(make, tmp_path / str(axes), dtype), axes)
            np.testing.assert_allclose(found, alone, rtol=SAME[dtype], err_msg=axes)
        # One run that moves from mesh to mesh.
        lane = prepared(make, tmp_path / "moved", dtype)
        for i, axes in enumerate([*MESHES, (1, 1, 1)]):
            moved = losses(lane, axes, (i + 1) * STEPS // 4)
        np.testing.assert_allclose(moved, alone, rtol=SAME[dtype], err_msg="moved")


@pytest.mark.parametrize("make", TASKS, ids=lambda make: make.__name__)
def test_large_parameters_and_their_moments_are_spread(make, tmp_path):
    lane = prepared(make, tmp_path, model=TASKS[make])
    mesh = partition.make_mesh(2, 4, 1)
    rules = lane.config.mesh.rules.to_dict()
    init, shardings = make_init(lane.task, optimizer_of(lane), rules, mesh)
    shapes = jax.eval_shape(init, 0)
    whole = []
    for part in ("params", "opt_state"):
        found = jax.tree_util.tree_leaves_with_path(getattr(shapes, part))
        placed = jax.tree.leaves(getattr(shardings, part))
        for (path, leaf), sharding in zip(found, placed, strict=True):
            local = np.prod(sharding.shard_shape(leaf.shape))
            if leaf.size >= LARGE and local * 4 > leaf.size:
                whole.append((part, jax.tree_util.keystr(path), leaf.shape))
    assert not whole
