"""Names, arguments and folders of cells."""

import json

import pytest

from chemscale_jax.core.errors import UserError
from chemscale_jax.core.workdir import write_json
from chemscale_jax.studies.cells import cell_name, check_overrides, expand, make_cells
from tests.studies.fake_config import CONFIG


@pytest.fixture
def fake(tmp_path):
    (tmp_path / "fake.py").write_text(CONFIG)
    return f"{tmp_path}/fake.py"


def test_a_cell_for_each_choice_of_the_sweep(fake, tmp_path):
    cells = expand(fake, tmp_path / "sweep", ["--config.train.epochs=9"])
    assert [cell.name for cell in cells] == [
        "optimizer.lr=0.01",
        "optimizer.lr=0.001",
        "optimizer.lr=0.0001",
    ]
    assert [cell.chosen["optimizer.lr"] for cell in cells] == [1e-2, 1e-3, 1e-4]
    for cell in cells:
        assert cell.config["optimizer"]["lr"] == cell.chosen["optimizer.lr"]
        assert cell.config["train"]["epochs"] == 9
        assert cell.workdir.path == tmp_path / "sweep" / cell.name
        assert cell.state == "new"
        assert not cell.done
    assert not (tmp_path / "sweep").exists()


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ([], "no cell"),
        ([{"seed": 1}, {"seed": 1}], "'seed=1' twice"),
        ([{"sead": 1}], "no such field"),
    ],
)
def test_choices_that_make_no_cells(fake, tmp_path, choices, message):
    with pytest.raises(UserError, match=message):
        make_cells(fake, tmp_path, [], choices, "the list")


def test_refuses_the_folder_of_another_config(fake, tmp_path):
    cell, *_ = expand(fake, tmp_path / "sweep", [])
    cell.workdir.path.mkdir(parents=True)
    write_json(cell.workdir.config_json, cell.config)
    expand(fake, tmp_path / "sweep", [])
    with pytest.raises(UserError, match="train.epochs: 4 -> 9"):
        expand(fake, tmp_path / "sweep", ["--config.train.epochs=9"])


def test_a_run_that_starts_from_packaged_weights_is_found_again(fake, tmp_path):
    overrides = ["--config.task=force_field", "--config.init_from=packaged"]
    cell, *_ = expand(fake, tmp_path / "sweep", overrides)
    from chemscale_jax.inference.ensemble import default_workdir

    cell.workdir.path.mkdir(parents=True)
    # As the trainer saves it.
    saved = {**cell.config, "init_from": str(default_workdir())}
    write_json(cell.workdir.config_json, saved)
    expand(fake, tmp_path / "sweep", overrides)
    with pytest.raises(UserError, match="init_from"):
        expand(fake, tmp_path / "sweep", overrides[:1])


def test_overrides_look_like_fields():
    check_overrides(["--config.train.epochs=2"])
    for wrong in ("--epochs=2", "--config.train.epochs", "config.seed=1"):
        with pytest.raises(UserError, match=wrong):
            check_overrides([wrong])


def test_names_are_folder_names():
    assert cell_name({"optimizer.lr": 1e-3, "seed": 1}) == "optimizer.lr=0.001,seed=1"
    assert cell_name({":width": 64}) == "width=64"
    assert cell_name({}) == "default"
    odd = cell_name({"init_from": "a/b"})
    assert "/" not in odd
    assert odd != cell_name({"init_from": "a b"})
    assert len(cell_name({"name": "x" * 999})) < 200


def test_progress_counts_epochs_and_steps(fake, tmp_path):
    cell, *_ = expand(fake, tmp_path, [])
    assert cell.progress() == 0.0
    assert cell.best_loss() is None
    cell.workdir.path.mkdir()
    losses = (3.0, 0.5, None)
    cell.workdir.metrics_jsonl.write_text(
        "".join(
            json.dumps(
                {"step": e, "epoch": e, "split": "valid", "name": "loss", "value": x}
            )
            + "\n"
            for e, x in enumerate(losses)
        )
    )
    assert cell.progress() == 0.5  # epoch 2 of 4
    assert cell.best_loss() == 0.5
    cell.config["train"]["max_steps"] = 2
    assert cell.progress() == 1.0
