"""Uni-Mol2 runs that start from weights: their network, and what stays fresh."""

import dataclasses
import pathlib

import jax
import numpy as np
import pytest

from chemscale_jax.core.errors import UserError
from chemscale_jax.core.partition import tree_paths
from chemscale_jax.core.workdir import Workdir, write_json
from chemscale_jax.inference import molecule_model
from chemscale_jax.interop import unimol2 as published
from chemscale_jax.models import unimol2
from chemscale_jax.runs import assembly, molecule_start
from chemscale_jax.tasks.conformer_denoising import make_options
from chemscale_jax.training import checkpoint
from tests.models import unimol2_rows
from tests.tasks.test_property_regression import artifacts, make_config
from tests.tasks.test_property_regression import make_task as task_of

OPTIONS = unimol2.Unimol2Options(width=24, depth=2, heads=2, pair_width=6)
FRESH = ("^head/", "^token_head/", "^move_head/")


def property_config(source: pathlib.Path | str):
    config = make_config(dropout=0.05)
    config.init_from, config.init_fresh = str(source), FRESH
    return config


@pytest.fixture(scope="module")
def params():
    return jax.device_get(unimol2_rows.rough(OPTIONS))


@pytest.fixture(scope="module")
def run(tmp_path_factory, params):
    """A packed run of pretraining."""
    workdir = Workdir(tmp_path_factory.mktemp("start") / "run")
    workdir.path.mkdir()
    model = dataclasses.asdict(OPTIONS) | {"length": "batch"}
    config = make_config(**model, name="unimol2", size="1M", variant="faithful")
    config.task = "conformer_denoising"
    write_json(workdir.config_json, config.to_dict())
    write_json(workdir.artifacts_json, {})
    paths = tree_paths({"params": params})
    arrays = dict(zip(paths, jax.tree.leaves(params), strict=True))
    np.savez(workdir.weights_npz, allow_pickle=False, **arrays)
    return workdir.path


@pytest.fixture(scope="module")
def weights(tmp_path_factory, params):
    """A folder of published weights."""
    folder = tmp_path_factory.mktemp("start") / "published"
    published.save(folder, OPTIONS, params)
    return folder


@pytest.mark.parametrize("kind", ["run", "weights"])
def test_the_network_is_that_of_the_source(kind, request, params):
    config = assembly.with_start(property_config(request.getfixturevalue(kind)))
    found = make_options(config)
    # Results must not depend on the batch; how to train is the new run's own.
    own = {"dropout": 0.05, "length": "own" if kind == "run" else "exact"}
    assert found == dataclasses.replace(OPTIONS, **own)

    task = task_of(config, facts=artifacts())
    initial = task.init(jax.random.key(1))
    start = checkpoint.starter(
        config.init_from,
        (*config.init_fresh, *assembly.FRESH[config.task]),
        Workdir(pathlib.Path("absent")),
        molecule_start.read_weights,
    )
    assert start is not None
    started = jax.device_get(start(initial)["params"])
    head = started.pop("head")
    jax.tree.map(np.testing.assert_array_equal, head, initial["params"]["head"])
    assert set(started) == set(params) - {"token_head", "move_head"}
    jax.tree.map(
        np.testing.assert_array_equal, started, {name: params[name] for name in started}
    )


def test_pretraining_goes_on_with_the_batch_as_it_was(run):
    config = property_config(run)
    config.task, config.init_fresh = "conformer_denoising", ()
    assert make_options(assembly.with_start(config)).length == "batch"


def test_a_size_is_called_by_its_name(tmp_path, run):
    workdir = Workdir(tmp_path)
    config = make_config("tanh", **unimol2.SIZES["1M"])
    write_json(workdir.config_json, config.to_dict())
    write_json(workdir.artifacts_json, {})
    assert assembly.with_start(property_config(tmp_path)).model.size == "1M"
    config.task = "force_field"
    write_json(workdir.config_json, config.to_dict())
    with pytest.raises(UserError, match="holds a run of task 'force_field', expected"):
        assembly.with_start(property_config(tmp_path))
    with pytest.raises(UserError, match=r"init_from=nowhere does not exist; give the"):
        assembly.with_start(property_config("nowhere"))


def test_packaged_is_the_network_of_the_package(run, monkeypatch):
    monkeypatch.setattr(molecule_model, "PACKAGED", run)
    config = assembly.with_start(property_config("packaged"))
    assert config.init_from == str(run)
    assert config.model.width == OPTIONS.width
    monkeypatch.setattr(molecule_model, "PACKAGED", run / "absent")
    with pytest.raises(UserError, match="the package has no molecule model"):
        assembly.with_start(property_config("packaged"))
