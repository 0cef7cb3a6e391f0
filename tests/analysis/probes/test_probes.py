"""Probes: what they learn, what they never see, how they are compared."""

import dataclasses
import json

import numpy as np
import pytest

from chemscale_jax.analysis.probes import cells as probe_cells
from chemscale_jax.analysis.probes import figures as probe_figures
from chemscale_jax.analysis.probes import folds as probe_folds
from chemscale_jax.analysis.probes import report as probe_report
from chemscale_jax.analysis.probes import tables as probe_tables
from chemscale_jax.analysis.probes.cells import BASELINE, ProbeSettings
from chemscale_jax.analysis.probes.networks import read_networks
from chemscale_jax.analysis.probes.predictor import fit_predictor, write_predictions
from chemscale_jax.analysis.probes.probes import Fitting, Labels, fit_probe
from chemscale_jax.analysis.probes.rows import ProbeRows
from chemscale_jax.analysis.properties import simple_models
from chemscale_jax.analysis.properties.metrics import METRICS
from chemscale_jax.chem.drugs import drugs
from chemscale_jax.core.embedding_table import EmbeddingTable
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.property_predictions import PropertyPredictions
from chemscale_jax.core.workdir import Workdir, write_json

LINEAR = ProbeSettings(
    split="random", folds=3, seeds=(0, 1), models=("linear",), baseline=()
)

N = 90


def table(smiles, values, **more):
    known = np.array([text != "" for text in smiles])
    return EmbeddingTable(
        index=np.arange(len(smiles)),
        where=np.array([f"mols.csv line {n + 2}" for n in range(len(smiles))]),
        smiles=np.array(smiles),
        status=np.where(known, "3d", "failed"),
        reason=np.where(known, "", "nothing to read"),
        values=np.where(known[:, None], values, np.nan).astype(np.float32),
        **more,
    )


def labelled(true, values, kind="regression", smiles=None, **more):
    """Rows that are all used."""
    true = np.asarray(true, np.float64)
    M, T = true.shape
    smiles = SMILES[:M] if smiles is None else smiles
    fields = {
        "data_set": "hand-made",
        "row": np.arange(M),
        "smiles": np.array(smiles),
        "values": values,
        "about": {name: {} for name in values},
        "targets": tuple("abcdef"[:T]),
        "units": ("",) * T,
        "kind": kind,
        "classes": (),
        "true": true,
        "where": np.array([f"line {n}" for n in range(M)]),
        "all_smiles": np.array(smiles),
        "status": np.full(M, "used"),
        "reason": np.full(M, ""),
    }
    return ProbeRows(**{**fields, **more})


SMILES = sorted({drug.smiles for drug in drugs()}, key=len)[40 : 40 + N]


@pytest.fixture(scope="module")
def features():
    """Two representations: one that the label follows from, and noise."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, 8)).astype(np.float32)
    return {"good": x, "noise": rng.normal(size=(N, 8)).astype(np.float32)}


@pytest.fixture(scope="module")
def rows(features):
    rng = np.random.default_rng(1)
    x = features["good"]
    true = np.stack([x[:, 0] - 2 * x[:, 1], 5 + x[:, 2]], 1)
    true += 0.3 * rng.normal(size=true.shape)
    true[::4, 1] = np.nan
    return labelled(true, features, units=("eV", "eV"))


@pytest.fixture(scope="module")
def results(rows, tmp_path_factory):
    return compared(rows, LINEAR, tmp_path_factory.mktemp("cells"))


def compared(rows, settings, folder, **networks):
    folds = probe_cells.fold_numbers(rows, settings)
    cells = probe_cells.run_cells(rows, settings, folder, progress=False)
    return probe_figures.gathered(rows, settings, folds, cells, networks)


def arm(results, name, model="chosen"):
    (found,) = (a for a in results.arms if (a.representation, a.model) == (name, model))
    return found


def test_missing_labels_of_one_target_do_not_touch_another(features, rows):
    inner = np.arange(N) % 3
    x = features["good"]
    both = fit_probe("linear", x, Labels(rows.true, "regression"), inner, Fitting())
    for t in range(2):
        own = Labels(rows.true[:, [t]], "regression")
        alone = fit_probe("linear", x, own, inner, Fitting())
        assert alone.predict(x)[:, 0] == pytest.approx(both.predict(x)[:, t], abs=1e-9)
        known = np.isfinite(rows.true[:, t])
        assert (np.isfinite(both.out_of_fold[:, t]) == known).all()


@pytest.mark.parametrize("model", ["linear", "boosted trees", "random forest"])
def test_out_of_fold_predictions_do_not_know_their_labels(features, model):
    noise = np.random.default_rng(5).normal(size=(N, 1))
    inner = np.arange(N) % 3
    probe = fit_probe(
        model, features["good"], Labels(noise, "regression"), inner, Fitting(trees=10)
    )
    right = np.corrcoef(probe.out_of_fold[:, 0], noise[:, 0])[0, 1]
    assert abs(right) < 0.3
    if model != "linear":  # which found that there is nothing to learn
        fitted = probe.predict(features["good"])[:, 0]
        assert np.corrcoef(fitted, noise[:, 0])[0, 1] > 0.6


def test_classes_weigh_alike_and_chances_are_those_of_the_data(features):
    x = features["good"]
    true = (x[:, :1] > 1.0).astype(float)
    inner = np.arange(N) % 3
    for model in ("linear", "random forest"):
        probe = fit_probe(model, x, Labels(true, "binary"), inner, Fitting(trees=20))
        found = probe.predict(x)
        assert ((0 < found) & (found < 1)).all()
        assert found.mean() == pytest.approx(true.mean(), abs=0.05)
    words = Labels(np.digitize(x[:, :1], [-1, 0.5]).astype(float), "multiclass", 4)
    for model in ("linear", "random forest"):
        probe = fit_probe(model, x, words, inner, Fitting(trees=20))
        found = probe.predict(x)
        assert found.shape == (N, 4)
        assert (found.argmax(1) == words.true[:, 0]).mean() > 0.8
    found = simple_models.at_frequencies(np.array([[0.5, 0.5]]), np.array([0.9, 0.1]))
    assert found == pytest.approx(np.array([[0.9, 0.1]]))


def test_folds_keep_together_what_belongs_together():
    smiles = [*SMILES, *SMILES[:10]]
    for split in probe_folds.SPLITS:
        blocks = probe_folds.blocks_of(smiles, split)
        folds = probe_folds.outer_folds(blocks, 3, 0)
        assert (folds[:10] == folds[N:]).all()
        assert sorted(np.unique(folds)) == [0, 1, 2]
        assert (folds != probe_folds.outer_folds(blocks, 3, 1)).any()
        assert (folds == probe_folds.outer_folds(blocks, 3, 0)).all()
        train = blocks[folds != 1]
        inner = probe_folds.inner_folds(train, 4, 0, 1)
        for own, of in ((folds, blocks), (inner, train)):
            pairs = np.unique(np.stack([of, own]), axis=1)
            assert len(np.unique(pairs[0])) == pairs.shape[1]
        if split != "random":
            names = probe_folds.scaffolds(smiles)
            assert not np.isin(names[folds == 0], names[folds != 0]).any()
    with pytest.raises(UserError, match="cannot make 5 folds"):
        probe_folds.outer_folds(np.zeros(9, int), 5, 0)


def test_the_better_representation_wins_with_an_interval(rows, results):
    weights = results.weights()
    best = probe_tables.measure_best(results, weights)
    assert [m.arm.name for m in best] == ["good", "noise", "trivial"]
    (one,) = probe_tables.comparisons(results, best)
    assert (one.first, one.second, one.verdict) == ("good", "noise", "better")
    assert one.verdicts == ("better", "better")
    assert one.mean is not None
    assert one.mean.interval is not None
    low, high = one.mean.interval
    assert low < one.mean.value < high < 0
    # The mean over folds and seeds of errors is that of all errors.
    good = arm(results, "good")
    labels = np.isfinite(rows.true[:, 1])
    error = np.abs(good.pred[:, labels, 1] - rows.true[labels, 1]).mean()
    assert best[0].figures[1]["mae"].value == pytest.approx(error)
    assert best[0].figures[1]["mae"].molecules == labels.sum() == 67
    text = probe_report.report_text(results, best, [one])
    assert "**good is better than noise**: mean of 2 targets, MAE 0." in text
    assert "of single targets better for 2, worse for 0, open for 0" in text


def test_seeds_do_not_count_as_more_molecules(rows, results):
    metric = METRICS["regression"][0]
    once = dataclasses.replace(
        results,
        settings=results.settings._replace(seeds=(0,)),
        folds=results.folds[:1],
    )
    ten = dataclasses.replace(
        results,
        settings=results.settings._replace(seeds=tuple(range(10))),
        folds=np.repeat(results.folds[:1], 10, 0),
    )
    good = arm(results, "good")
    weights = results.weights()
    ends = []
    for some, copies in ((once, 1), (ten, 10)):
        own = good._replace(pred=np.repeat(good.pred[:1], copies, 0))
        found = probe_figures.figure(some, own, metric, 0, weights)
        ends.append(found.interval)
    assert ends[0] == pytest.approx(ends[1])
    # As wide as the theory of means says.
    errors = np.abs(good.pred[0, :, 0] - rows.true[:, 0])
    wide = 2 * 1.96 * errors.std() / np.sqrt(N)
    assert ends[0][1] - ends[0][0] == pytest.approx(wide, rel=0.15)


def test_a_stopped_comparison_goes_on_to_the_same_end(
    rows, results, tmp_path, monkeypatch
):
    fit, calls = probe_cells._fit, []

    def stops(*args):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return fit(*args)

    monkeypatch.setattr(probe_cells, "_fit", stops)
    with pytest.raises(KeyboardInterrupt):
        compared(rows, LINEAR, tmp_path)
    found = compared(rows, LINEAR, tmp_path)
    assert len(calls) == 4 + 2 * 3 * 2 - 3
    for mine, other in zip(found.arms, results.arms, strict=True):
        assert (mine.pred == other.pred).all()
    compared(rows, LINEAR, tmp_path)
    assert len(calls) == 13
    with pytest.raises(UserError, match="begun from another file, or with other"):
        compared(rows, LINEAR._replace(folds=4), tmp_path)


def test_intervals_hold_what_they_promise(rows, results):
    good = arm(results, "good")
    for t in range(2):
        labels, share, width = probe_figures.coverage_of(good, 0.8, t)
        assert labels == 2 * np.isfinite(rows.true[:, t]).sum()
        assert share == pytest.approx(0.8, abs=0.12)
        assert 0.4 < width < 1.5  # of noise of 0.3


def test_fingerprints_stand_beside_and_the_better_model_is_chosen(rows, tmp_path):
    carbons = np.array([[float(text.count("C"))] for text in rows.smiles])
    own = labelled(carbons, {"noise": rows.values["noise"]})
    settings = ProbeSettings(
        split="scaffold",
        folds=2,
        models=("linear",),
        baseline=("linear", "random forest"),
        inner_folds=2,
        trees=10,
    )
    found = compared(own, settings, tmp_path)
    names = [(a.representation, a.model) for a in found.arms]
    assert names == [
        ("noise", "ridge"),
        ("noise", "chosen"),
        (BASELINE, "ridge"),
        (BASELINE, "random forest"),
        (BASELINE, "chosen"),
        ("trivial", "trivial"),
    ]
    chosen = arm(found, BASELINE)
    assert chosen.chosen is not None
    for fold in range(2):
        tested = found.folds[0] == fold
        winner = arm(found, BASELINE, chosen.chosen[0, fold, 0])
        assert (chosen.pred[0, tested] == winner.pred[0, tested]).all()
    losses = [np.asarray(a.inner_loss) for a in found.arms[2:4]]
    assert (chosen.inner_loss == np.minimum(*losses)).all()
    best = probe_tables.measure_best(found, found.weights())
    (one,) = probe_tables.comparisons(found, best)
    assert (one.first, one.second, one.verdict) == ("noise", BASELINE, "worse")


def test_binary_targets_are_reported_whole(features, tmp_path):
    rng = np.random.default_rng(3)
    x = features["good"]
    true = (x[:, :2] + 0.5 * rng.normal(size=(N, 2)) > 0.6).astype(float)
    true[::5, 0] = np.nan
    rows = labelled(true, features, "binary")
    found = compared(rows, LINEAR, tmp_path / "cells")
    probe_report.begin_report(tmp_path, rows, LINEAR, found.folds)
    text = probe_report.write_report(tmp_path, found)
    assert "ROC-AUC" in text
    assert "mean classes" in text
    content = json.loads((tmp_path / "report.json").read_text())
    assert content["comparisons"][0]["mean"]["first_is"] == "better"
    lines = (tmp_path / "leaderboard.csv").read_text().splitlines()
    assert lines[0] == (
        "data_set,task,split,fold,seed,representation,model,metric,value"
    )
    # Targets, seeds, folds, arms, metrics.
    assert len(lines) == 1 + 2 * 2 * 3 * 5 * 5
    assert (tmp_path / "metrics.png").stat().st_size > 5000
    assert (tmp_path / "differences.png").stat().st_size > 5000
    split = (tmp_path / "splits" / "1-2.csv").read_text().splitlines()
    assert len(split) == N + 1
    with np.load(tmp_path / "predictions.npz") as arrays:
        assert arrays["pred"].shape == (5, 2, N, 2)


def test_finetuned_networks_are_compared_on_the_same_molecules(rows, tmp_path):
    folds = probe_cells.fold_numbers(rows, LINEAR)

    def run(seed, fold, tested):
        own = Workdir(tmp_path / f"{seed}-{fold}")
        own.path.mkdir(exist_ok=True)
        targets = {"names": ["b", "a"], "kind": "regression", "classes": []}
        write_json(own.artifacts_json, {"targets": targets})
        some = np.flatnonzero(tested)
        PropertyPredictions(
            id=rows.where[some],
            smiles=rows.smiles[some],
            index=rows.row[some],
            true=rows.true[some][:, ::-1],
            pred=np.nan_to_num(rows.true[some][:, ::-1]) + 0.01,
            conformer_std=np.zeros((len(some), 2)),
            conformers=np.ones(len(some), np.int32),
        ).save(own.predictions / "heldout.npz")

    with pytest.raises(UserError, match="--split-file=splits/0-0.csv"):
        read_networks(tmp_path, rows, LINEAR, folds)
    for place, seed in enumerate(LINEAR.seeds):
        for fold in range(LINEAR.folds):
            tested = folds[place] == fold
            tested[7] = False  # which the network could not read
            run(seed, fold, tested)
    pred = read_networks(tmp_path, rows, LINEAR, folds)
    found = compared(rows, LINEAR, tmp_path / "cells", net=pred)
    assert found.measured.sum() == N - 1
    best = probe_tables.measure_best(found, found.weights())
    one = probe_tables.comparisons(found, best)[-1]
    assert (one.first, one.second, one.verdict) == ("good", "net, network", "worse")
    assert best[2].figures[0]["mae"].value == pytest.approx(0.01)
    run(0, 0, folds[0] == 1)
    with pytest.raises(UserError, match="should have been trained on"):
        read_networks(tmp_path, rows, LINEAR, folds)


def test_a_kept_probe_predicts_as_it_was_fitted(rows, tmp_path):
    rows = dataclasses.replace(rows, about={"good": {"model": "m", "layer": 3}})
    predictor = fit_predictor(rows, "good", LINEAR)
    predictor.save(tmp_path / "probe.npz")
    again = type(predictor).load(tmp_path / "probe.npz")
    smiles = [*SMILES[:5], ""]
    own = table(smiles, rows.values["good"][:6], about={"model": "m", "layer": 3})
    assert write_predictions(again, own, tmp_path / "out.csv") == 6
    lines = (tmp_path / "out.csv").read_text().splitlines()
    head = "row,where,canonical_smiles,status,reason"
    assert lines[0].startswith(f"{head},pred_a [eV],low90_a [eV],high90_a [eV],pred_b")
    *_, a, low, high, b, _, _ = lines[1].split(",")
    direct = predictor.predict(rows.values["good"][:1])[0]
    assert [float(a), float(b)] == pytest.approx(direct, rel=1e-5)
    assert direct[0] == pytest.approx(rows.true[0, 0], abs=1.0)
    assert 0.3 < float(high) - float(a) < 1.5
    assert float(a) - float(low) == pytest.approx(float(high) - float(a), rel=1e-3)
    assert lines[6] == "5,mols.csv line 7,,failed,nothing to read,,,,,,"
    other = table(smiles, rows.values["good"][:6], about={"model": "m", "layer": 2})
    with pytest.raises(UserError, match="layer 2 instead of 3"):
        write_predictions(again, other, tmp_path / "out.csv")
    with pytest.raises(UserError, match="have 7 numbers"):
        again.predict(np.zeros((2, 7)))
