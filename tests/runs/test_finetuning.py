"""Finetuning from the command line: a table to predictions, one run, folds, seeds."""

import csv
import json
import pathlib

import numpy as np
import pytest

from chemscale_jax.commands import finetune as command
from chemscale_jax.core.conformal import Calibration
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.property_predictions import PropertyPredictions
from chemscale_jax.core.workdir import Workdir, read_json, write_json
from chemscale_jax.runs import finetuning
from chemscale_jax.runs.assembly import with_start
from chemscale_jax.runs.finetuning import Member
from chemscale_jax.training import setup
from chemscale_jax.training.checkpoint import load_variables

SMILES = [
    *("CCO", "CCN", "CCCO", "CC(=O)O", "CCOC", "NCCO", "CCCN", "CC(C)O"),
    *("OCCO", "CCCCO", "CC#N", "C=CCO", "CNC", "CCCC", "CSC"),
]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """15 molecules with two targets, one label missing; one row is unreadable."""
    path = tmp_path_factory.mktemp("table") / "mols.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["smiles", "carbons", "share"])
        for number, smiles in enumerate(SMILES):
            carbons = smiles.count("C")
            share = "" if number == 3 else f"{carbons / len(smiles):.3f}"
            writer.writerow([smiles, 100 + carbons, share])
        writer.writerow(["C(C", 100, 0.5])
    return path


def finetune(table, workdir, *arguments):
    """The command with a tiny network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHEMSCALE_CACHE", str(table.parent / "cache"))
        assert (
            command.main(
                [
                    "--config=configs/finetune.py:smoke",
                    f"--data={table}",
                    "--targets=carbons,share",
                    "--units=atoms,",
                    f"--workdir={workdir}",
                    "--split=random",
                    "--valid-fraction=0.2",
                    "--test-fraction=0.2",
                    "--config.batch.buckets=(7,)",
                    "--config.data.max_rows=0",
                    "--config.mesh.data=1",
                    "--config.train.rows_at_once=8",
                    "--epochs=1",
                    *arguments,
                ]
            )
            == 0
        )
    return Workdir(workdir)


@pytest.fixture(scope="module")
def workdir(table, tmp_path_factory):
    return finetune(table, tmp_path_factory.mktemp("finetuning") / "run")


def test_a_run_leaves_predictions_in_units_and_their_intervals(workdir):
    with (workdir.path / "split.csv").open() as file:
        parts = {int(row["row"]): row["part"] for row in csv.DictReader(file)}
    assert sorted(parts) == list(range(15))
    for split, part in (("valid", "valid"), ("heldout", "test")):
        found = PropertyPredictions.load(workdir.predictions / f"{split}.npz")
        assert found.index.tolist() == [r for r in sorted(parts) if parts[r] == part]
        assert len(found) == 3
        for number, smiles in zip(found.index, found.smiles, strict=True):
            assert smiles == SMILES[number]
        # Carbons are counted from 100 in the table, far from what a network gives.
        np.testing.assert_allclose(found.pred[:, 0], 102, atol=4)
        assert found.baseline is not None
        assert (found.conformers == 2).all()
    calibration = Calibration.load(workdir.path / "calibration.json")
    assert calibration.source == "valid"
    assert calibration.half_width(0.5, "carbons") < 10
    assert "fingerprint" in workdir.card.read_text()
    assert workdir.artifacts()["left_out"] == 1


@pytest.mark.slow
def test_the_same_command_again_changes_nothing(workdir, table):
    names = ("metrics.jsonl", "calibration.json", "split.csv")
    before = [(workdir.path / name).read_text() for name in names]
    checkpoints = sorted(path.name for path in workdir.checkpoints.iterdir())
    finetune(table, workdir.path)
    assert [(workdir.path / name).read_text() for name in names] == before
    assert sorted(path.name for path in workdir.checkpoints.iterdir()) == checkpoints


@pytest.mark.slow
def test_a_run_starts_from_another_whose_network_stands_still(
    workdir, table, tmp_path, capsys
):
    first = load_variables(workdir)["params"]
    second = finetune(
        table,
        tmp_path / "run",
        f"--init={workdir.path}",
        "--freeze=encoder",
        "--config.result.baseline=False",
    )
    assert "fresh: head/dense/bias" in capsys.readouterr().out
    found = load_variables(second)["params"]
    kernels = [x["head"]["out"]["kernel"] for x in (first, found)]
    assert not np.array_equal(*kernels)
    for name in first.keys() - {"head"}:
        for left, right in zip(
            *(dict(x[name]).values() for x in (first, found)), strict=True
        ):
            np.testing.assert_equal(left, right)


@pytest.mark.slow
def test_folds_predict_every_molecule_once(table, tmp_path):
    whole = finetune(
        table, tmp_path / "run", "--folds=2", "--config.result.baseline=False"
    )
    assert whole.run()["state"] == "finished"
    found = PropertyPredictions.load(whole.predictions / "out_of_fold.npz")
    assert found.index.tolist() == list(range(15))
    assert np.isnan(found.true[3, 1])
    for fold in range(2):
        member = Workdir(whole.path / f"folds/{fold}-0")
        part = PropertyPredictions.load(member.predictions / "heldout.npz")
        rows = np.searchsorted(found.index, part.index)
        np.testing.assert_array_equal(found.pred[rows], part.pred)
    calibration = Calibration.load(whole.path / "calibration.json")
    assert calibration.source == "out-of-fold"
    assert calibration.counts == (15, 14)
    assert "out-of-fold" in whole.card.read_text()


def fake_run(path, seed, rows=(0, 1, 2, 3)):
    """A finished run whose predictions follow from its seed."""
    workdir = Workdir(pathlib.Path(path))
    workdir.path.mkdir(parents=True, exist_ok=True)
    targets = {"kind": "regression", "names": ["x"], "scaling": {"method": "none"}}
    write_json(workdir.artifacts_json, {"targets": targets})
    M = len(rows)
    text = np.array(["a"] * M, np.str_)
    for split in ("valid", "heldout"):
        PropertyPredictions(
            id=text,
            smiles=text,
            index=np.array(rows, np.int64),
            true=np.zeros((M, 1)),
            pred=np.array(rows)[:, None] * (1.0 + seed),
            conformer_std=np.full((M, 1), 1.0 + seed),
            conformers=np.ones(M, np.int32),
        ).save(workdir.predictions / f"{split}.npz")


def test_seeds_of_one_split_are_averaged(tmp_path):
    members = [Member(0, seed) for seed in (0, 2)]
    for member in members:
        fake_run(tmp_path / member.folder, member.seed)
    finetuning.write_members(Workdir(tmp_path), members, 0)
    found = PropertyPredictions.load(tmp_path / "predictions" / "heldout.npz")
    np.testing.assert_allclose(found.pred[:, 0], [0, 2, 4, 6])
    assert found.member_std is not None
    np.testing.assert_allclose(found.member_std[:, 0], np.arange(4) * 2**0.5)
    np.testing.assert_allclose(found.conformer_std, 5**0.5)
    calibration = Calibration.load(tmp_path / "calibration.json")
    # Intervals follow the spread over members.
    assert calibration.floors is not None
    content = json.loads((tmp_path / "finetune.json").read_text())
    assert content["seeds"] == [0, 2]
    assert content["runs"][1] == {"folder": "folds/0-2", "fold": 0, "seed": 2}


def test_several_runs_go_on_where_they_were(tmp_path, monkeypatch):
    arguments = [
        "--config=configs/finetune.py:smoke",
        f"--workdir={tmp_path}",
        "--folds=2",
        "--seeds=2",
    ]
    started, most = [], 3

    def fake(config):
        """Each fold has the molecules of its number and of 2 more."""
        if len(started) == most:
            return "interrupted"
        started.append((config.data.fold, config.seed, config.result.baseline))
        fold = config.data.fold
        fake_run(config.workdir, config.seed, (fold, fold + 2))
        workdir = Workdir(pathlib.Path(config.workdir))
        setup.claim(workdir, with_start(config).to_dict())
        setup.update_run(workdir, state="finished")
        workdir.card.write_text("done")
        return "finished"

    monkeypatch.setenv("CHEMSCALE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(finetuning, "run", fake)
    monkeypatch.setattr(finetuning.report, "write_report", lambda workdir: "")
    assert command.main(arguments) == 0
    whole = Workdir(tmp_path)
    assert whole.run()["state"] == "interrupted"
    # The baseline of a split is trained once.
    assert started == [(0, 0, True), (0, 1, False), (1, 0, True)]
    most = 9
    assert command.main(arguments) == 0
    assert started[3:] == [(1, 1, False)]
    assert whole.run()["state"] == "finished"
    listed = read_json(tmp_path / "finetune.json")["members"]
    assert listed == ["folds/0-0", "folds/0-1", "folds/1-0", "folds/1-1"]
    found = PropertyPredictions.load(whole.predictions / "out_of_fold.npz")
    assert found.index.tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(found.pred[:, 0], np.arange(4) * 1.5)
    calibration = Calibration.load(tmp_path / "calibration.json")
    assert (calibration.source, calibration.floors) == ("out-of-fold", None)
    # Other settings are another study.
    with pytest.raises(UserError, match=r"another config \(.*optimizer.lr: 0.001"):
        command.main([*arguments, "--lr=0.1"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workdir=x"], "give --data=FILE, a table"),
        (["--data=a", "--workdir=x", "--seed=3"], "cannot read argument '--seed=3'"),
        (["--data=a", "--workdir=x", "--size=1M"], "give --init=scratch too"),
        (
            ["--data=a", "--workdir=x", "--config=c", "--size=1M"],
            "--size goes without --config",
        ),
        (["--data=a", "--workdir=x", "--init=scratch", "--folds=1"], "folds=1 and"),
        (
            ["--data=a", "--workdir=x", "--config=painn_ani1x.py:smoke"],
            "finetuning is of 'property_regression'",
        ),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        command.main(arguments)
