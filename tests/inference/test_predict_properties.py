"""Predicted properties: in units, with intervals, for every row."""

import csv
import json
import math

import numpy as np
import pytest

from chemscale_jax.__main__ import main
from chemscale_jax.core.conformal import calibrate
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.workdir import Workdir
from chemscale_jax.data.inputs.open_input import open_input
from chemscale_jax.inference import predict_properties
from chemscale_jax.inference.embed import EmbedSettings, embed
from chemscale_jax.inference.molecule_batches import Batching
from chemscale_jax.inference.molecule_model import open_molecule_model
from chemscale_jax.inference.predict_files import write_predictions
from chemscale_jax.inference.predict_properties import (
    PredictSettings,
    open_property_model,
    predict,
)
from tests.inference.tiny_unimol2 import TARGETS, make_workdir

SMALL = Batching(pairs=600)
SMILES = ["CCO", "", "OCC", "CCCN"]
LABEL = "logS [log mol/L]"
FLAT = {"geometry": "flat"}


def calibrated(folder, kind="regression", molecules=40, names=("logS", "logD")):
    """Errors of 0.1, 0.2, ... of each target, or chances of a class."""
    errors = np.linspace(0.1, 0.1 * molecules, molecules)[:, None]
    true = np.zeros((molecules, len(names)))
    pred = np.repeat(errors, len(names), 1)
    if kind == "binary":
        pred = np.full((molecules, len(names)), 0.999)
    if kind == "multiclass":
        true, pred = np.zeros((molecules, 1)), np.full((molecules, 3), 1 / 3)
    calibrate(kind, names, true, pred, source="valid").save(
        Workdir(folder).calibration_json
    )


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = make_workdir(tmp_path_factory.mktemp("one"), targets=TARGETS, data=FLAT)
    calibrated(folder)
    return folder


@pytest.fixture(scope="module")
def members(tmp_path_factory):
    folder = tmp_path_factory.mktemp("several")
    names = ["folds/0-0", "folds/0-1", "folds/1-0"]
    for seed, name in enumerate(names):
        scaling = {"method": "standard", "shift": [1.0 * seed, 0], "scale": [1, 2]}
        targets = {**TARGETS, "scaling": scaling}
        make_workdir(folder / name, targets=targets, seed=seed, data=FLAT)
    (folder / "finetune.json").write_text(json.dumps({"members": names}))
    return folder


def predicted(folder, source=SMILES, **settings):
    model = open_property_model(folder)
    found = PredictSettings(**settings)
    return predict(model, open_input(source), found, batching=SMALL, cache=None)


def test_values_are_those_of_the_head_in_units(workdir):
    model = open_molecule_model(workdir)
    assert model.head is not None
    settings = EmbedSettings(geometry="flat")
    x = embed(model, open_input(["CCO"]), settings, batching=SMALL).values
    head = {k: {n: np.asarray(y) for n, y in v.items()} for k, v in model.head.items()}
    x = np.tanh(x @ head["dense"]["kernel"] + head["dense"]["bias"])
    scaled = (x @ head["out"]["kernel"] + head["out"]["bias"])[0]
    found = predicted(workdir)
    np.testing.assert_allclose(
        found.pred[0], scaled * [0.5, 3] + [1, -2], rtol=1e-5, atol=1e-5
    )
    assert found.status.tolist() == ["2d", "failed", "2d", "2d"]
    assert np.isnan(found.pred[1]).all()
    np.testing.assert_array_equal(found.pred[0], found.pred[2])
    assert np.abs(found.pred[0] - found.pred[3]).max() > 1e-3
    assert found.member_std is None


def test_geometries_are_those_of_training_unless_others_are_asked_for(workdir):
    assert predicted(workdir, ["CCCN"], conformers=3).status.tolist() == ["2d"]
    found = predicted(workdir, ["CCCN", "C"], conformers=3, geometry="conformers")
    assert found.conformers.tolist() == [3, 1]
    assert found.conformer_std[0].min() > 0
    assert not found.conformer_std[1].any()


def test_members_are_averaged_each_in_its_units(members):
    alone = [
        predicted(members / name).pred
        for name in ("folds/0-0", "folds/0-1", "folds/1-0")
    ]
    found = predicted(members)
    np.testing.assert_allclose(found.pred, np.mean(alone, axis=0))
    assert found.member_std is not None
    np.testing.assert_allclose(found.member_std, np.std(alone, axis=0, ddof=1))
    assert open_property_model(members).calibration is None


def write(folder, source, out, **settings):
    model = open_property_model(folder)
    options = {"batching": SMALL, "cache": None, "progress": False, **settings}
    about = write_predictions(model, open_input(source), out, **options)
    with out.open(newline="") as file:
        return about, list(csv.DictReader(file))


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "mols.csv"
    lines = [f"m{i},{smiles}" for i, smiles in enumerate(SMILES)]
    path.write_text("\n".join(["id,smiles", *lines, ""]))
    return path


def test_a_table_of_numbers(workdir, source, tmp_path):
    about, rows = write(workdir, source, tmp_path / "a.csv")
    found = predicted(workdir)
    assert [row["id"] for row in rows] == ["m0", "m1", "m2", "m3"]
    assert [row["status"] for row in rows] == found.status.tolist()
    assert rows[1]["reason"]
    assert rows[1][f"pred_{LABEL}"] == rows[1][f"low90_{LABEL}"] == ""
    assert [float(rows[i][f"pred_{LABEL}"]) for i in (0, 2, 3)] == (
        found.pred[[0, 2, 3], 0].tolist()
    )
    low, high = (float(rows[0][f"{side}90_{LABEL}"]) for side in ("low", "high"))
    # The 37th of 40 errors: ceil(41 * 0.9).
    assert math.isclose(high - low, 2 * 3.7)
    assert math.isclose((high + low) / 2, found.pred[0, 0], abs_tol=1e-9)
    assert "pred_logD" in rows[0]
    assert "member_std_logD" not in rows[0]
    written = json.loads((tmp_path / "a.csv.json").read_text())
    assert written == about
    assert written["units"] == ["log mol/L", ""]
    assert written["rows"] == {"2d": 3, "failed": 1}
    assert written["notes"] == []


def test_too_few_to_calibrate_with_is_said(tmp_path, source):
    folder = make_workdir(tmp_path / "w", targets=TARGETS, data=FLAT)
    calibrated(folder, molecules=4)
    about, rows = write(folder, source, tmp_path / "a.csv")
    assert "logS has 4" in about["notes"][0]
    assert rows[0][f"high90_{LABEL}"] == "inf"
    Workdir(folder).calibration_json.unlink()
    about, rows = write(folder, source, tmp_path / "b.csv", level=0.5)
    assert "There are no intervals" in about["notes"][0]
    assert f"low50_{LABEL}" not in rows[0]


def test_a_table_of_yes_and_no(tmp_path, source):
    targets = {**TARGETS, "kind": "binary", "units": ["", ""]}
    folder = make_workdir(tmp_path / "w", targets=targets, data=FLAT)
    calibrated(folder, "binary")
    _, rows = write(folder, source, tmp_path / "a.csv", level=0.8)
    chance = float(rows[0]["prob_logS"])
    assert 0 < chance < 1
    assert rows[0]["class_logS"] == ("1" if chance >= 0.5 else "0")
    assert rows[0]["set80_logS"] == "0|1"
    assert rows[1]["class_logS"] == rows[1]["set80_logS"] == ""


def test_a_table_of_classes(tmp_path, source):
    targets = {
        **TARGETS,
        "names": ["kind"],
        "kind": "multiclass",
        "units": [""],
        "classes": ["a", "b", "c"],
    }
    folder = make_workdir(tmp_path / "w", targets=targets, data=FLAT)
    calibrated(folder, "multiclass", names=("kind",))
    _, rows = write(folder, source, tmp_path / "a.csv")
    chances = [float(rows[0][f"prob_kind={c}"]) for c in "abc"]
    assert math.isclose(sum(chances), 1, rel_tol=1e-6)
    assert rows[0]["class_kind"] == "abc"[int(np.argmax(chances))]
    # Of the classes with a chance of 1/3 or more.
    inside = [c for c, chance in zip("abc", chances, strict=True) if chance >= 1 / 3]
    assert rows[0]["set90_kind"] == "|".join(inside)


class KilledError(Exception):
    pass


def test_a_killed_run_goes_on(workdir, source, tmp_path, monkeypatch):
    monkeypatch.setattr(predict_properties, "_PART_ROWS", 1)
    write(workdir, source, tmp_path / "unbroken.csv")
    make = predict_properties.make_work

    def dying(*args):
        work = make(*args)

        def one(rows):
            if rows[0].index == 2:
                raise KilledError
            return work(rows)

        return one

    monkeypatch.setattr(predict_properties, "make_work", dying)
    with pytest.raises(KilledError):
        write(workdir, source, tmp_path / "a.csv")
    assert not (tmp_path / "a.csv").exists()
    monkeypatch.setattr(predict_properties, "make_work", make)
    write(workdir, source, tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "unbroken.csv").read_bytes()
    assert not (tmp_path / "a.csv.parts").exists()


def test_the_command(workdir, source, tmp_path, monkeypatch, capsys):
    out = tmp_path / "b.csv"
    given = [f"--workdir={workdir}", f"--input={source}", f"--out={out}"]
    monkeypatch.setattr(
        "sys.argv", ["chemscale", "predict", *given, "--batch-pairs=600"]
    )
    assert main() == 0
    printed = capsys.readouterr().out
    assert "4 rows: 3 2d, 1 failed" in printed
    assert f"predicted: {LABEL}, logD" in printed
    assert out.exists()


def test_what_is_refused(workdir, source, tmp_path):
    with pytest.raises(UserError, match="it was only pretrained"):
        open_property_model(make_workdir(tmp_path / "pretrained"))
    with pytest.raises(UserError, match="level is 2"):
        write(workdir, source, tmp_path / "a.csv", level=2)
    with pytest.raises(UserError, match="no row"):
        predicted(workdir, [])
