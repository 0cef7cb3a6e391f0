"""The report of finetuning: one run, several seeds, folds; numbers and classes."""

import dataclasses
import json

import numpy as np
import pytest

from chemscale_jax.analysis.properties import report as property_report
from chemscale_jax.analysis.properties.runs import read_finetuned
from chemscale_jax.analysis.properties.tables import coverage_table, members_table
from chemscale_jax.analysis.reports import report
from chemscale_jax.core import conformal
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.property_predictions import PropertyPredictions
from chemscale_jax.core.workdir import SCHEMA_VERSION, Workdir, write_json

NAMES = ["logS", "logP"]
RUN = {
    "schema": SCHEMA_VERSION,
    "chemscale_jax": "9.9.9",
    "commit": "0123abcd",
    "devices": ["cpu"],
    "packages": {"jax": "0.10.1"},
    "state": "finished",
    "stop_reason": "2 epochs done",
}
CONFIG = {
    "name": "hand-made",
    "task": "property_regression",
    "seed": 0,
    "model": {"name": "unimol2"},
    "data": {"path": "mols.csv", "train_molecules": 0},
}


def predictions(seed, rows, kind="regression", error=0.1, baseline=True):
    """Labels that a row of the source has for good, predicted with some error."""
    index = np.asarray(rows, np.int64)
    rng = np.random.default_rng(seed)
    smiles = np.array(["C" * (1 + i % 9) for i in index])
    if kind == "regression":
        true = np.stack([np.sin(index), index / 10.0], axis=1)
        pred = true + error * rng.normal(size=true.shape)
        other = true + 3 * error * rng.normal(size=true.shape)
        true[::7, 1] = np.nan
    else:
        classes = 3 if kind == "multiclass" else 2
        chance = rng.dirichlet(np.ones(classes), len(index))
        label = (rng.random(len(index))[:, None] > chance.cumsum(1)).sum(1)
        true = label[:, None].astype(np.float64)
        pred = chance if kind == "multiclass" else chance[:, 1:]
        other = np.full_like(pred, 1 / classes)
    return PropertyPredictions(
        id=np.array([f"line {i}" for i in index]),
        smiles=smiles,
        index=index,
        true=true,
        pred=pred,
        conformer_std=np.zeros_like(pred),
        conformers=np.ones(len(index), np.int32),
        baseline=other if baseline else None,
    )


def write_run(path, splits, kind="regression", calibrated="valid", facts=True):
    path.mkdir(parents=True, exist_ok=True)
    workdir = Workdir(path)
    names = NAMES if kind == "regression" else ["active"]
    first = next(iter(splits.values()))
    write_json(workdir.config_json, CONFIG)
    write_json(workdir.run_json, RUN)
    targets = {
        "names": names,
        "units": ["log10(mol/L)", ""][: len(names)],
        "kind": kind,
        "classes": ["a", "b", "c"] if kind == "multiclass" else [],
    }
    write_json(workdir.artifacts_json, {"targets": targets})
    records = [
        {"step": step, "epoch": 0, "split": "valid", "name": name, "value": 1 / step}
        for step in (1, 2)
        for name in ("loss", "mae" if kind == "regression" else "accuracy")
    ]
    workdir.metrics_jsonl.write_text("".join(json.dumps(r) + "\n" for r in records))
    for split, found in splits.items():
        found.save(workdir.predictions / f"{split}.npz")
    if calibrated in splits:
        known = splits[calibrated]
        conformal.calibrate(
            kind,
            names,
            known.true,
            known.pred,
            source=calibrated.replace("_", "-"),
            std=known.member_std,
        ).save(Workdir(path).calibration_json)
    if facts:
        size = [[0.0, 0.0, 1.0]] * len(names) if kind == "regression" else []
        fact = {
            "targets": [{"name": n, "model": "random forest"} for n in names],
            "trivial": [0.5] * first.pred.shape[1],
            "size": size,
        }
        write_json(path / "baseline.json", fact)
    return workdir


def cells(table):
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.fixture
def run(tmp_path):
    splits = {
        "valid": predictions(0, range(100)),
        "heldout": predictions(1, range(100, 180)),
    }
    return write_run(tmp_path / "run", splits), splits


def test_a_run_stands_beside_simpler_models(run):
    workdir, splits = run
    table = report.write_report(workdir)
    head, _, *rows = cells(table)
    assert head[5:] == [
        "network",
        "fingerprint",
        "size",
        "trivial",
        "network - fingerprint",
    ]
    row = next(r for r in rows if r[:3] == ["heldout", "logP", "MAE"])
    p = splits["heldout"]
    error = np.nanmean(np.abs(p.pred - p.true), axis=0)[1]
    assert float(row[5].split()[0]) == pytest.approx(error, rel=1e-3)
    assert row[4] == str(np.isfinite(p.true[:, 1]).sum())
    plain = np.nanmean(np.abs(0.5 - p.true), axis=0)[1]
    assert float(row[8].split()[0]) == pytest.approx(plain, rel=1e-3)
    by_size = np.nanmean(np.abs(1.0 - p.true), axis=0)[1]
    assert float(row[7].split()[0]) == pytest.approx(by_size, rel=1e-3)
    assert float(row[9].split()[0]) < 0
    unit = next(r for r in rows if r[:3] == ["heldout", "logS", "RMSE"])[3]
    assert unit == "log10(mol/L)"
    card = workdir.card.read_text()
    assert table in card
    assert "not clearly better" not in card
    for name in ("learning_curves", "parity", "coverage"):
        assert (workdir.plots / f"{name}.png").stat().st_size > 5000
        assert f"plots/{name}.png" in card


def test_coverage_is_measured_where_it_was_not_calibrated(run):
    workdir, splits = run
    rows = cells(coverage_table(read_finetuned(workdir)))[2:]
    assert {r[0] for r in rows} == {"heldout"}
    made = conformal.Calibration.load(workdir.calibration_json)
    p = splits["heldout"]
    share = made.coverage(0.9, p.true, p.pred)[0].share
    row = next(r for r in rows if r[1:3] == ["logS", "90%"])
    assert row[3].startswith(f"{share:.1%} [")
    assert row[4:6] == ["80", "100"]
    width = 2 * float(made.half_width(0.9, "logS"))
    assert float(row[6].split()[0]) == pytest.approx(width, rel=1e-3)


def test_a_network_that_is_no_better_is_told_so(tmp_path):
    p = predictions(0, range(100))
    assert p.baseline is not None
    worse = dataclasses.replace(p, pred=p.baseline, baseline=p.pred)
    workdir = write_run(tmp_path, {"valid": p, "heldout": worse})
    card = property_report.property_report(workdir).card
    assert "not clearly better than a fingerprint model for: logS, logP" in card


@pytest.mark.parametrize("kind", ["binary", "multiclass"])
def test_classes_have_their_own_metrics_and_plots(tmp_path, kind):
    splits = {
        "valid": predictions(0, range(200), kind),
        "heldout": predictions(1, range(200, 400), kind),
    }
    made = property_report.property_report(write_run(tmp_path, splits, kind))
    assert set(made.figures) == {"learning_curves", "reliability", "coverage"}
    titles = {row[2] for row in cells(made.table)}
    assert ("ROC-AUC" if kind == "binary" else "macro F1") in titles
    assert "mean classes" in made.table


def test_seeds_have_a_mean_and_a_deviation(tmp_path):
    members, errors = [], []
    for seed in range(3):
        own = {
            "valid": predictions(seed, range(50)),
            "heldout": predictions(10 + seed, range(50, 90)),
        }
        write_run(tmp_path / f"folds/0-{seed}", own, facts=seed == 0)
        members.append({"folder": f"folds/0-{seed}", "fold": 0, "seed": seed})
        p = own["heldout"]
        errors.append(np.abs(p.pred - p.true)[:, 0].mean())
    whole = write_whole(tmp_path, members, 0)
    found = read_finetuned(whole)
    row = next(
        r for r in cells(members_table(found)) if r[:3] == ["heldout", "logS", "MAE"]
    )
    mean, _, deviation, count = row[5].split()
    assert float(mean) == pytest.approx(np.mean(errors), rel=1e-3)
    assert float(deviation) == pytest.approx(np.std(errors, ddof=1), rel=0.05)
    assert count == "(3)"
    made = property_report.property_report(whole)
    assert "Widths follow the spread over the runs" in made.table
    assert "trivial" in cells(made.table)[0]


def write_whole(path, members, folds):
    """The folder around members, with the means of their predictions."""

    def load(member, split):
        name = path / member["folder"] / f"predictions/{split}.npz"
        return PropertyPredictions.load(name)

    if folds:
        parts = [load(m, "heldout") for m in members]
        fields = {
            f.name: np.concatenate([getattr(p, f.name) for p in parts])
            for f in dataclasses.fields(PropertyPredictions)
            if f.name != "member_std"
        }
        splits = {"out_of_fold": PropertyPredictions(**fields)}
    else:
        splits = {}
        for split in ("valid", "heldout"):
            own = [load(m, split) for m in members]
            pred = np.stack([p.pred for p in own])
            splits[split] = dataclasses.replace(
                own[0], pred=pred.mean(0), member_std=pred.std(0, ddof=1)
            )
    calibrated = "out_of_fold" if folds else "valid"
    workdir = write_run(path, splits, calibrated=calibrated, facts=False)
    workdir.metrics_jsonl.unlink()
    write_json(path / "finetune.json", {"folds": folds, "runs": members})
    return workdir


def test_folds_are_judged_out_of_fold(tmp_path):
    members = []
    for fold in range(3):
        rows = range(40 * fold, 40 * fold + 40)
        own = {
            "valid": predictions(fold, range(200, 240)),
            "heldout": predictions(5, rows),
        }
        member = write_run(tmp_path / f"folds/{fold}-0", own)
        fact = json.loads((member.path / "baseline.json").read_text())
        # Each fold has a mean of its own.
        write_json(member.path / "baseline.json", fact | {"trivial": [fold, fold]})
        members.append({"folder": f"folds/{fold}-0", "fold": fold, "seed": 0})
    whole = write_whole(tmp_path, members, 3)
    found = read_finetuned(whole)
    assert found.tested == "out_of_fold"
    trivial = found.splits["out_of_fold"].rivals["trivial"]
    assert trivial[:, 0].tolist() == [0.0] * 40 + [1.0] * 40 + [2.0] * 40
    made = property_report.property_report(whole)
    assert "over folds" in made.table
    assert "their coverage is not measured" in made.table
    assert set(made.figures) == {"learning_curves", "parity"}
    assert "No molecules were held out" not in made.card


def test_a_run_without_predictions_is_refused(tmp_path):
    workdir = write_run(tmp_path, {"valid": predictions(0, range(5))})
    (workdir.predictions / "valid.npz").unlink()
    with pytest.raises(UserError, match="no predictions yet"):
        property_report.property_report(workdir)


def test_a_small_run_without_test_set_or_baseline_is_reported(tmp_path):
    only = predictions(0, range(5), baseline=False)
    workdir = write_run(tmp_path, {"valid": only}, facts=False)
    made = property_report.property_report(workdir)
    assert "network" in made.table
    assert "fingerprint:" not in made.table
    assert "No molecules were held out" in made.card
    assert "need 9 molecules" in made.table
    assert set(made.figures) == {"learning_curves", "parity"}
