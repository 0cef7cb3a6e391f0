import csv

import numpy as np
import pytest

from chemscale_jax.chem.count_fingerprints import count_fingerprints
from chemscale_jax.chem.drug_properties import drug_table
from chemscale_jax.commands import COMMANDS, probe
from chemscale_jax.core.embedding_table import EmbeddingTable
from chemscale_jax.core.errors import UserError
from chemscale_jax.data.inputs.open_input import open_input

MOLECULES = 80


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Small drugs with their logP, and projected fingerprints as embeddings."""
    folder = tmp_path_factory.mktemp("probe")
    lines = drug_table().splitlines()
    (folder / "mols.csv").write_text("\n".join(lines[: MOLECULES + 1]) + "\n")
    rows = list(open_input(folder / "mols.csv").rows())
    smiles = np.array([row.record.smiles for row in rows])
    counts = count_fingerprints(smiles.tolist(), progress=False).astype(np.float32)
    axes = np.random.default_rng(0).normal(size=(counts.shape[1], 12))
    EmbeddingTable(
        index=np.arange(len(rows)),
        where=np.array([row.where for row in rows]),
        smiles=smiles,
        status=np.full(len(rows), "3d"),
        reason=np.full(len(rows), ""),
        values=(counts @ axes).astype(np.float32),
        about={"model": "hand-made"},
    ).save(folder / "emb.npz")
    return folder


def test_one_command_compares_keeps_and_predicts(files, capsys):
    out = files / "out"
    given = [
        f"--embeddings={files / 'emb.npz'}",
        f"--input={files / 'mols.csv'}",
        "--targets=logP",
        "--models=linear",
        "--baseline=linear,forest",
        "--folds=2",
        "--inner-folds=2",
        "--trees=5",
        "--save",
        f"--out={out}",
    ]
    assert probe.main(given) == 0
    printed = capsys.readouterr().out
    assert "# Probes of mols: scaffold split, 2 folds x 1 seeds" in printed
    assert "emb and Morgan counts" in printed or "than Morgan counts" in printed
    names = {path.name for path in out.iterdir()}
    assert names == {
        *("report.md", "report.json", "leaderboard.csv", "rows.csv", "predictions.npz"),
        *("metrics.png", "differences.png", "probe.npz", "splits", "cells"),
    }
    text = (out / "report.md").read_text()
    assert text in printed
    # What is there is not made again, and comes out the same.
    assert probe.main(given) == 0
    assert (out / "report.md").read_text() == text
    capsys.readouterr()
    predict = [f"--predict={out / 'probe.npz'}", f"--embeddings={files / 'emb.npz'}"]
    assert probe.main([*predict, f"--out={files / 'pred.csv'}"]) == 0
    assert f"{MOLECULES} rows, {MOLECULES} predicted" in capsys.readouterr().out
    with (files / "pred.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    with (files / "mols.csv").open(newline="") as file:
        true = np.array([float(row["logP"]) for row in csv.DictReader(file)])
    found = np.array([float(row["pred_logP"]) for row in rows])
    assert np.corrcoef(found, true)[0, 1] > 0.5
    inside = [
        float(row["low90_logP"]) <= value <= float(row["high90_logP"])
        for row, value in zip(rows, true, strict=True)
    ]
    assert np.mean(inside) > 0.8


def test_mistakes_are_named(files):
    assert "probe" in COMMANDS
    own = [f"--embeddings={files / 'emb.npz'}", f"--out={files / 'other'}"]
    table = f"--input={files / 'mols.csv'}"
    for more, message in (
        ([table, "--targets=logS"], "no column 'logS'"),
        ([table, "--models=forests"], "--models=forests: give some of"),
        ([table, "--folds=1"], "--folds=1: give 2 or more"),
        ([table, "--data=tox21"], "which the input lacks"),
        (["--data=tox21"], "give --input too"),
        (["--input=CCO"], "CCO"),
        ([], "give it with --input"),
        ([f"--predict={files / 'absent.npz'}"], "--save writes probe.npz"),
        ([table, "--targets=logP", "--finetuned=runs"], "--split=file"),
        ([table, "--targets=logP", "--folds=90"], "cannot make 90 folds"),
    ):
        with pytest.raises(UserError, match=message):
            probe.main([*own, *more])
    with pytest.raises(UserError, match="names 'emb' twice"):
        probe.main(["--embeddings=a/emb.npz,b/emb.npz", own[1], table])
