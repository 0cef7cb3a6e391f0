"""The three classes that users of Uni-Mol's tools know."""

import csv

import numpy as np
import pytest

from chemscale_jax.api import MolPredict, MolTrain, UniMolRepr
from chemscale_jax.core.errors import UserError
from chemscale_jax.data.inputs.input_files import as_files
from chemscale_jax.runs import property_scores
from tests.inference.tiny_unimol2 import TARGETS, make_workdir

XYZ = [[0.0, 0.0, 0.0], [1.51, 0.0, 0.0], [2.0, 1.34, 0.0]]


def test_training_is_told_by_the_names_people_know(tmp_path):
    train = MolTrain(
        task="regression",
        epochs=3,
        learning_rate=1e-3,
        batch_size=4,
        split="select",
        split_group_col="part",
        kfold=1,
        save_path=str(tmp_path),
        target_cols="a, b",
        target_normalize="robust",
        use_amp=True,
        metrics="mae,r2",
        pretrained_model_path="scratch",
        model_size="1M",
        optimizer__b2=0.9,
    )
    config = train.config
    assert config.workdir == str(tmp_path)
    assert (config.train.epochs, config.optimizer.lr, config.batch.rows) == (3, 1e-3, 4)
    assert (config.data.split, config.data.split_col) == ("column", "part")
    assert config.data.targets == ("a", "b")
    assert (config.data.kind, config.data.scaling) == ("regression", "robust")
    assert (config.model.size, config.model.dtype) == ("1M", "bfloat16")
    assert (config.init_from, config.optimizer.b2) == ("", 0.9)
    assert train.folds == 0
    assert train.metrics == ("mae", "r2")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"task": "magic"}, "task is 'magic'"),
        ({"model_name": "unimolv1"}, "model_name is 'unimolv1'"),
        ({"model_size": "84M"}, "of a network that starts from nothing"),
        ({"kfold": 0}, "kfold=0"),
        ({"task": "regression", "metrics": "auc"}, "unknown for regression"),
        ({"optimizer__wings": 2}, "no field 'optimizer.wings'"),
        ({"epochs": "many"}, "config.train.epochs"),
    ],
)
def test_mistakes_are_told(given, message):
    with pytest.raises(UserError, match=message):
        MolTrain(**given)


def test_embeddings(tmp_path):
    network = make_workdir(tmp_path)
    maker = UniMolRepr(pretrained_model_path=str(network), batch_size=1)
    found = maker.get_repr(["CCO", "bad(", "C"], return_atomic_reprs=True)
    assert found["cls_repr"].shape == (3, 16)
    assert found["status"] == ["3d", "failed", "3d"]
    assert [len(part) for part in found["atomic_reprs"]] == [3, 0, 1]
    assert found["atomic_coords"][0].shape == (3, 3)
    assert found["atomic_symbol"] == [["C", "C", "O"], [], ["C"]]
    given = maker.get_repr({"atoms": [["C", "C", "O"]], "coordinates": [XYZ]})
    assert given["status"] == ["given"]
    assert set(given) == {"cls_repr", "cls_std", "smiles", "status", "reason"}


def test_predictions(tmp_path):
    folder = make_workdir(tmp_path, targets=TARGETS, data={"geometry": "flat"})
    data = {
        "smiles": ["CCO", "bad(", "CCCN", "CO"],
        "logS": [1.0, 2.0, "", 3.0],
        "logD": [0.5, 1.0, 2.0, 1.5],
    }
    model = MolPredict(str(folder), batch_size=1)
    found = model.predict(data, str(tmp_path / "out"), metrics="mae")
    assert found.shape == (4, 2)
    assert np.isnan(found[1]).all()
    np.testing.assert_array_equal(model.columns["pred_logD"], found[:, 1])
    error = np.abs(found[[0, 3], 0] - [1.0, 3.0]).mean()
    assert model.metrics["logS"]["mae"] == pytest.approx(error)
    with (tmp_path / "out" / "predict.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["smiles"] for row in rows] == data["smiles"]
    with pytest.raises(UserError, match="need the column 'logS'"):
        model.predict(["CCO"], metrics="all")


def test_labels_are_numbers_of_the_networks_classes():
    targets = {"names": ["kind"], "kind": "multiclass", "classes": ["a", "b", "c"]}
    part = {"input/kind": np.array(["c", "", "d", "b"])}
    found = property_scores.labels(targets, part)
    np.testing.assert_array_equal(found, [[2], [np.nan], [np.nan], [1]])


def test_what_is_in_memory_becomes_files(tmp_path):
    water = [[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]]
    data = {
        "atoms": [["C", "C", "O"], [8, 1, 1]],
        "coordinates": [[XYZ, XYZ], water],
        "charges": [None, 0],
        "target": [1.5, None],
    }
    files = as_files(data, tmp_path)
    assert files.table.read_text() == 'target\n1.5\n""\n'
    assert files.geometries is not None
    lines = files.geometries.read_text().splitlines()
    assert lines[:3] == ["3", "", "C 0.000000 0.000000 0.000000"]
    assert lines[5:8] == ["3", "charge=0", "O 0.000000 0.000000 0.000000"]
    before = files.table.stat().st_mtime_ns
    assert as_files(data, tmp_path) == files
    assert files.table.stat().st_mtime_ns == before
    assert as_files("a.csv", tmp_path).geometries is None


@pytest.mark.slow
def test_training_and_predicting(tmp_path):
    """A few molecules of all sizes, their atoms counted."""
    smiles = ["C" * n + tail for n in range(1, 13) for tail in ("O", "N", "Cl")]
    data = {"smiles": smiles, "atoms_counted": [float(len(s)) for s in smiles]}
    train = MolTrain(
        task="regression",
        epochs=2,
        batch_size=8,
        split="random",
        kfold=2,
        save_path=str(tmp_path / "exp"),
        pretrained_model_path="scratch",
        target_cols="atoms_counted",
        metrics="mae",
        result__baseline=False,
    )
    found = train.fit(data)
    assert found["state"] == "finished"
    assert found["split"] == "out_of_fold"
    assert np.isfinite(found["metrics"]["atoms_counted"]["mae"])
    model = MolPredict(str(tmp_path / "exp"))
    assert model.predict(data).shape == (36, 1)
    assert "low90_atoms_counted" in model.columns
    assert "member_std_atoms_counted" in model.columns
