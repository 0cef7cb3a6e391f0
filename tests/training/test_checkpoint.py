import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chemscale_jax.core import partition
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.workdir import Workdir
from chemscale_jax.training.checkpoint import (
    Checkpoints,
    load_params_file,
    starter,
    transplant,
)
from chemscale_jax.training.optimizer import make_optimizer
from chemscale_jax.training.progress import EarlyStop, Plateau, Progress
from chemscale_jax.training.step import init_state, make_init
from tests import toy

PARAMS = {"body": {"kernel": jnp.zeros((2, 3))}, "head": {"bias": jnp.zeros(3)}}


def test_transplant_reports_every_key_that_does_not_fit():
    given = {"body": {"kernel": np.ones((2, 4))}, "extra": np.ones(1)}
    with pytest.raises(UserError) as error:
        transplant(PARAMS, given, (), "other")
    message = str(error.value)
    assert "body/kernel: shape (2, 4), needs (2, 3)" in message
    assert "head/bias: missing" in message
    assert "extra: left over" in message


def test_fresh_paths_keep_their_initial_value():
    given = {"body": {"kernel": np.ones((2, 3))}, "head": {"bias": np.ones(7)}}
    placed, stayed = transplant(PARAMS, given, ("^head/",), "other")
    assert stayed == ["head/bias"]
    assert np.all(placed["body"]["kernel"] == 1)
    assert np.all(placed["head"]["bias"] == 0)


def test_params_file_keys_must_say_where_they_belong(tmp_path):
    good, bad = tmp_path / "good.npz", tmp_path / "bad.npz"
    np.savez(good, allow_pickle=False, **{"params/body/kernel": np.ones(2)})
    np.savez(bad, allow_pickle=False, **{"body.kernel": np.ones(2)})
    assert np.all(load_params_file(str(good))["params"]["body"]["kernel"] == 1)
    with pytest.raises(UserError, match="must start with params/"):
        load_params_file(str(bad))
    with pytest.raises(UserError, match="neither a workdir nor an"):
        load_params_file(str(tmp_path / "absent.npz"))


def test_constants_are_taken_over_too(tmp_path):
    source = tmp_path / "source.npz"
    arrays = {"params/w": np.ones(2), "constants/basis": np.full(3, 7.0)}
    np.savez(source, allow_pickle=False, **arrays)
    start = starter(str(source), (), Workdir(tmp_path / "run"), load_params_file)
    assert start is not None
    initial = {"params": {"w": jnp.zeros(2)}, "constants": {"basis": jnp.zeros(3)}}
    placed = start(initial)
    assert np.all(placed["params"]["w"] == 1)
    assert np.all(placed["constants"]["basis"] == 7)


def test_moments_are_restored_to_the_memory_they_wait_in(tmp_path):
    config, task = toy.make_config(), toy.make_task()
    optimizer = make_optimizer(config.optimizer, 10, ())._replace(offloaded=True)
    mesh = partition.make_mesh(data=2)
    state = init_state(task, optimizer, seed=3)
    _, shardings = make_init(task, optimizer, {"embed": None}, mesh)
    rules = config.train.plateau.to_dict()
    progress = Progress(Plateau(**rules), EarlyStop(patience=1))
    checkpoints = Checkpoints(Workdir(tmp_path), {})
    checkpoints.save(jax.device_put(state, shardings), progress, None)
    checkpoints.wait()
    found, _ = checkpoints.restore(state, shardings, 0)
    checkpoints.close()
    jax.tree.map(np.testing.assert_array_equal, found, state)
    for leaf, sharding in zip(*map(jax.tree.leaves, (found, shardings)), strict=True):
        assert leaf.sharding.memory_kind == sharding.memory_kind
