"""Opening networks: of runs, of published weights, of several members."""

import json

import jax
import numpy as np
import pytest

from chemscale_jax.core.errors import UserError
from chemscale_jax.inference import molecule_model
from chemscale_jax.inference.molecule_model import (
    open_molecule_model,
    open_molecule_models,
)
from chemscale_jax.interop import unimol2 as published
from tests.inference.tiny_unimol2 import TARGETS, make_workdir


def test_a_pretrained_run(tmp_path):
    model = open_molecule_model(make_workdir(tmp_path), dtype="bfloat16")
    assert model.head is None
    assert model.options.width == 16
    assert model.options.dtype == "bfloat16"
    assert model.source == str(tmp_path)
    assert not model.drop_features


def test_a_finetuned_run(tmp_path):
    folder = make_workdir(tmp_path, targets=TARGETS, data={"features": "drop"})
    model = open_molecule_model(folder)
    assert model.head is not None
    assert "head" not in model.params
    assert model.drop_features
    assert model.artifacts["targets"] == TARGETS


def test_published_weights_are_the_same_network(tmp_path):
    run = open_molecule_model(make_workdir(tmp_path / "run"))
    published.save(tmp_path / "theirs", run.options, run.params)
    for place in (tmp_path / "theirs", tmp_path / "theirs" / "model.safetensors"):
        found = open_molecule_model(place)
        assert found.options == run.options
        assert found.head is None
        for one, other in zip(
            jax.tree.leaves(found.params), jax.tree.leaves(run.params), strict=True
        ):
            np.testing.assert_array_equal(one, other)
    with pytest.raises(UserError, match="no checkpoints by step"):
        open_molecule_model(tmp_path / "theirs", step=3)


def test_members_of_folds_and_lanes(tmp_path):
    members = ["folds/0-0", "folds/1-0"]
    for seed, member in enumerate(members):
        make_workdir(tmp_path / "k" / member, targets=TARGETS, seed=seed)
    (tmp_path / "k" / "finetune.json").write_text(json.dumps({"members": members}))
    found = open_molecule_models(tmp_path / "k")
    assert [model.source for model in found] == [
        str(tmp_path / "k" / member) for member in members
    ]
    with pytest.raises(UserError, match="holds several runs; give one of them"):
        open_molecule_model(tmp_path / "k")
    for lane in ("0", "10", "2"):
        make_workdir(tmp_path / "l" / "lanes" / lane, targets=TARGETS)
    lanes = open_molecule_models(tmp_path / "l")
    assert [model.source[-1] for model in lanes] == ["0", "2", "0"]
    assert len(open_molecule_models([tmp_path / "k", tmp_path / "l"])) == 5
    other = {**TARGETS, "units": ["", ""]}
    make_workdir(tmp_path / "other", targets=other)
    with pytest.raises(UserError, match="give members of one kind"):
        open_molecule_models([tmp_path / "k", tmp_path / "other"])


def test_what_is_refused(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="does not exist"):
        open_molecule_model(tmp_path / "nowhere")
    folder = make_workdir(tmp_path / "gpt")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "task": "causal_lm"}))
    with pytest.raises(UserError, match="a run of task 'causal_lm'"):
        open_molecule_model(folder)
    monkeypatch.setattr(molecule_model, "PACKAGED", tmp_path / "none")
    with pytest.raises(UserError, match="the package has no molecule model"):
        open_molecule_model()
    with pytest.raises(UserError, match="at least one workdir"):
        open_molecule_models([])
