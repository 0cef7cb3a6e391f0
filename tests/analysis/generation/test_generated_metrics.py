import sys
import types

import numpy as np
import pytest

from chemscale_jax.analysis.generation.generated_metrics import (
    evaluate_molecules,
    metrics_table,
)
from chemscale_jax.chem import chemnet
from chemscale_jax.chem.smiles import molecule_key
from chemscale_jax.core.errors import UserError

# Two phenyls on a link, written twice; an acid; a cation; and two that are nothing.
GENERATED = ["c1ccccc1COc1ccccc1", "O(c1ccccc1)Cc1ccccc1", "CCC(O)=O", "CC[NH3+]", "C("]
REFERENCE = ["c1ccccc1COc1ccccc1", "CCC(=O)O", "CCO", "CCCCC(C)O", "CCI"]
TRAIN = ["OC(=O)CC", "CCCCCC"]
FAST = {"replicates": 20, "processes": 1, "progress": False}


@pytest.fixture(scope="module")
def metrics():
    return evaluate_molecules(
        [*GENERATED, None], REFERENCE, TRAIN, ["CCC(=O)O"], unique_at=(2, 10), **FAST
    )


def test_figures_are_what_a_hand_computes(metrics):
    found = {name: e.value for name, e in metrics.columns["generated"].items()}
    assert found["valid"] == pytest.approx(4 / 6)
    # The first two are one molecule.
    assert (found["unique@2"], found["unique@10"]) == (0.5, 0.75)
    assert found["novelty"] == pytest.approx(2 / 3)
    assert found["filters"] == 0.75
    assert found["filters, neutralised"] == 1
    # Three of four are in the reference.
    assert 0.75 < found["SNN"] < 1
    # The only scaffold of two rings on either side.
    assert found["Scaf"] == pytest.approx(1)
    assert found["MW distance (g/mol)"] > 0
    assert metrics.failures["generated"]["charge"] == 0.25
    assert metrics.neutral_failures["generated"]["charge"] == 0


def test_reference_and_prompts_stand_beside(metrics):
    reference = metrics.columns["reference"]
    assert reference["valid"].value == 1
    # The iodide is outside the elements.
    assert reference["filters"].value == 0.8
    assert reference["SNN"].over == 2
    assert reference["filters"].over == 5
    prompts = metrics.columns["prompts"]
    assert prompts["SNN"].value == 1
    assert prompts["novelty"].value == 0


def test_the_table_shows_every_figure(metrics):
    table = metrics_table(metrics)
    for name in metrics.columns["generated"]:
        assert f"| {name} " in table
    for text in (
        "- charge",
        "neutralised",
        "Fewer than 10 are valid",
        "own rules",
        "a random half",
        "FCD is left out",
    ):
        assert text in table
    tables = [line for line in table.splitlines() if line.startswith("|")]
    assert all("nan" not in line for line in tables)


def test_json_holds_numbers_or_nothing(metrics):
    found = metrics.to_json()
    assert found["metrics"]["generated"]["valid"]["value"] == pytest.approx(4 / 6)
    assert found["metrics"]["prompts"]["Scaf"]["value"] is None
    assert found["settings"]["readable"] == {
        "generated": 4,
        "reference": 5,
        "prompts": 1,
    }


def test_alone_it_says_what_is_missing():
    found = evaluate_molecules(["CCO", "CCN"], **FAST)
    assert set(found.columns) == {"generated"}
    assert "SNN" not in found.columns["generated"]
    assert "novelty" not in found.columns["generated"]
    notes = " ".join(found.notes)
    assert "No reference" in notes
    assert "No training molecules" in notes
    assert "FCD" not in found.columns["generated"]


def test_nothing_readable_is_no_error():
    found = evaluate_molecules(["C(", None], REFERENCE, TRAIN, **FAST)
    assert found.columns["generated"]["valid"].value == 0
    table = metrics_table(found)
    assert "None of the generated molecules can be read" in table
    with pytest.raises(UserError, match="no generated molecules"):
        evaluate_molecules([], **FAST)
    with pytest.raises(UserError, match="no reference molecules"):
        evaluate_molecules(["C"], [], **FAST)


def test_keys_do_for_training_molecules():
    keys = np.array([molecule_key("CCO")], np.uint64)
    found = evaluate_molecules(["OCC", "CCN"], train=keys, **FAST)
    assert found.columns["generated"]["novelty"].value == 0.5


def test_large_references_are_thinned():
    reference = ["C" * (i + 1) for i in range(12)]
    found = evaluate_molecules(["CCO"], reference, max_reference=5, **FAST)
    assert len(found.profiles["reference"]) == 5
    assert "a random 5 of 12" in metrics_table(found)
    every = evaluate_molecules(["CCO"], reference, max_reference=0, **FAST)
    assert len(every.profiles["reference"]) == 12


def test_fcd_needs_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "fcd", None)
    monkeypatch.setattr(chemnet, "is_installed", lambda: False)
    with pytest.raises(UserError, match=r"pip install 'chemscale_jax\[fcd\]'"):
        evaluate_molecules(["CCO"], REFERENCE, fcd=True, **FAST)
    with pytest.raises(UserError, match=r"pip install 'chemscale_jax\[fcd\]'"):
        chemnet.activations(["CCO"])


def test_fcd_compares_activations(monkeypatch):
    """With a network of two neurons: atoms of carbon, and of oxygen."""
    network = types.ModuleType("fcd")

    def get_predictions(model, smiles, n_jobs, device):
        assert (model, n_jobs, device) == ("model", 0, "cpu")
        return np.array([[s.count("C"), s.count("O")] for s in smiles], np.float32)

    setattr(network, "load_ref_model", lambda: "model")  # noqa: B010
    setattr(network, "get_predictions", get_predictions)  # noqa: B010
    monkeypatch.setitem(sys.modules, "fcd", network)
    monkeypatch.setattr(chemnet, "is_installed", lambda: True)
    found = evaluate_molecules(
        ["C", "CCC", "CO", "CCCO"], ["CCCCC", "CCCCCCC", "CCCCCO"], fcd=True, **FAST
    )
    fcd = found.columns["generated"]["FCD"]
    mean, other = np.array([2, 0.5]), np.array([17 / 3, 1 / 3])
    assert fcd.value > ((mean - other) ** 2).sum()
    assert "FCD" in found.columns["reference"]
