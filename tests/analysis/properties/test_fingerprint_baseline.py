"""Simple models of molecules: what they learn, what they never see."""

import numpy as np
import pytest

from chemscale_jax.analysis.properties import fingerprint_baseline
from chemscale_jax.analysis.properties.fingerprint_baseline import (
    Labelled,
    fit_baseline,
)
from chemscale_jax.chem.count_fingerprints import count_fingerprints, sizes
from chemscale_jax.core.errors import UserError

NAMES = ["a", "b"]


def chain(carbons: int, oxygens: int) -> str:
    return "C" * carbons + "O" * oxygens


@pytest.fixture(scope="module")
def molecules():
    """Chains; target a counts oxygens, target b is 2 x heavy atoms + 1."""
    pairs = [(c, o) for c in range(1, 21) for o in range(6)]
    np.random.default_rng(0).shuffle(pairs)
    smiles = [chain(c, o) for c, o in pairs]
    true = np.array([(o, 2 * (c + o) + 1) for c, o in pairs], np.float64)
    true[::5, 0] = np.nan
    return smiles, true


def parts(smiles, true):
    cut = {"train": slice(0, 80), "valid": slice(80, 100), "heldout": slice(100, 120)}
    found = {name: Labelled(smiles[s], true[s]) for name, s in cut.items()}
    return found.pop("train"), found


def test_counts_and_sizes_are_those_of_the_molecules():
    counts = count_fingerprints(["CCO", "OCC", "nonsense", "C" * 300])
    assert counts.shape == (4, 2048)
    assert (counts[0] == counts[1]).all()
    assert counts[0].sum() == 6  # three atoms, two circles of radius 1, one of 2
    assert not counts[2].any()
    assert counts[3].max() == 255
    assert sizes(["c1ccccc1C", "nonsense"]).tolist() == [[7, 1], [0, 0]]


def test_numbers_are_learned_from_substructures_and_sizes(molecules):
    train, others = parts(*molecules)
    lines = []
    found = fit_baseline(
        train, others, "regression", NAMES, trees=20, processes=1, say=lines.append
    )
    pred, true = found.predictions["heldout"], others["heldout"].true
    error = np.nanmean(np.abs(pred - true), axis=0)
    plain = np.nanmean(np.abs(found.facts["trivial"] - true), axis=0)
    assert (error < plain / 2).all()
    assert found.facts["trivial"] == pytest.approx(np.nanmean(train.true, axis=0))
    by_size = fingerprint_baseline.size_predictions(
        found.facts, others["heldout"].smiles
    )
    assert by_size[:, 1] == pytest.approx(true[:, 1], abs=1e-6)
    assert np.nanmean(np.abs(by_size[:, 0] - true[:, 0])) > error[0]
    first, second = found.facts["targets"]
    assert first["molecules"] == np.isfinite(train.true[:, 0]).sum() == 64
    assert second["molecules"] == 80
    for fact in (first, second):
        assert fact["valid"][fact["model"]] == min(fact["valid"].values())
    assert len(lines) == 2
    again = fit_baseline(train, others, "regression", NAMES, trees=20, processes=2)
    for split in others:
        assert (again.predictions[split] == found.predictions[split]).all()


def test_labels_of_other_molecules_do_not_matter(molecules):
    smiles, true = molecules
    train, others = parts(smiles, true)
    asked = {"heldout": others["heldout"]}
    before = fit_baseline(train, asked, "regression", NAMES, trees=5)
    asked["heldout"] = Labelled(asked["heldout"].smiles, asked["heldout"].true + 9)
    after = fit_baseline(train, asked, "regression", NAMES, trees=5)
    assert (before.predictions["heldout"] == after.predictions["heldout"]).all()


@pytest.mark.parametrize("kind", ["binary", "multiclass"])
def test_classes_have_chances(molecules, kind):
    smiles, _ = molecules
    oxygens = np.array([[text.count("O")] for text in smiles])
    label = (oxygens > 2) if kind == "binary" else oxygens // 2
    train, others = parts(smiles, label.astype(np.float64))
    found = fit_baseline(
        train, others, kind, ["a"], classes=4, trees=20, processes=1
    ).predictions["heldout"]
    assert found.shape == (20, 1 if kind == "binary" else 4)
    assert (found < 1).all()
    chosen = found[:, 0] > 0.5 if kind == "binary" else found.argmax(1)
    right = (chosen == others["heldout"].true[:, 0]).mean()
    assert right >= 0.8
    if kind == "multiclass":
        assert found.sum(1) == pytest.approx(np.ones(20))
        assert (found[:, 3] == 0).all()  # a class without a training molecule


def test_odd_labels_are_survived(molecules):
    smiles, true = molecules
    true = true.copy()
    true[:, 0] = np.nan  # a target without labels
    true[:80, 1] = 7.0  # one that is the same in training
    train, others = parts(smiles, true)
    found = fit_baseline(train, others, "regression", NAMES, trees=3, processes=1)
    assert (found.predictions["valid"] == [0.0, 7.0]).all()
    alone = fit_baseline(
        train, {"heldout": others["heldout"]}, "regression", NAMES, trees=3
    )
    assert alone.facts["targets"][1]["model"] == "random forest"
    nothing = Labelled(smiles, np.full((120, 1), np.nan))
    with pytest.raises(UserError, match="no training molecule"):
        fit_baseline(nothing, {}, "regression", ["a"])


def test_large_sets_are_thinned(molecules):
    train, others = parts(*molecules)
    del others["valid"]
    found = fit_baseline(train, others, "regression", NAMES, trees=3, most_molecules=50)
    assert found.facts["targets"][1]["molecules"] == 50
