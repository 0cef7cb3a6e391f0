"""Comparisons of runs, on folders with the files that runs leave."""

import csv
import json

import numpy as np
import pytest

from chemscale_jax import commands
from chemscale_jax.analysis.reports.compare import compare, read_runs, steps
from chemscale_jax.analysis.reports.compare_report import tables
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.likelihoods import Likelihoods
from chemscale_jax.core.predictions import Predictions

RECORDS = 200
# Molecules differ far more from one another than models do.
HARD = np.random.default_rng(0).normal(30.0, 8.0, RECORDS)


def leave_run(folder, name, fields, losses, valid=(3.0, 2.0), train=1.0, line=None):
    """Writes the files of a finished run.

    Args:
        folder: of the sweep.
        name: of the run's folder.
        fields: width, molecules and seed.
        losses: nats of each record.
        valid: validation loss of each epoch.
        train: training loss of the last epoch.
        line: names of the records.
    """
    width, molecules, seed = fields
    path = folder / name
    path.mkdir(parents=True)
    config = {
        "name": name,
        "task": "causal_lm",
        "seed": seed,
        "optimizer": {"lr": 0.1 / width},
        "data": {"train_molecules": molecules},
        "model": {"width": width, "buckets": [16, 32]},
    }
    (path / "config.json").write_text(json.dumps(config))
    run = {"schema": 1, "state": "finished", "steps": 10, "total_s": 90.0}
    (path / "run.json").write_text(json.dumps(run))
    log = [("valid", "loss", value, e) for e, value in enumerate(valid)]
    log.append(("epoch", "train_loss", train, len(valid) - 1))
    lines = [
        {"step": 5 * e, "epoch": e, "split": s, "name": n, "value": v}
        for s, n, v, e in log
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    (path / "card.md").write_text("card")
    line = np.arange(RECORDS) if line is None else line
    Likelihoods(losses, np.full(RECORDS, 40), line).save(path / "predictions/valid.npz")


def noise(seed, size=0.3):
    return np.random.default_rng(seed + 1).normal(0.0, size, RECORDS)


def leave_grid(folder, change):
    """Widths 32 and 64, two seeds each; the wider is worse by ``change``."""
    for width, more in ((32, 0.0), (64, change)):
        for seed in (0, 1):
            losses = HARD + more + noise(10 * width + seed)
            leave_run(folder, f"w{width}s{seed}", (width, 1000, seed), losses)


def test_small_differences_are_found_under_large_ones_of_molecules(tmp_path):
    leave_grid(tmp_path, -0.5)
    comparison = compare(read_runs(tmp_path))
    # The learning rate follows from the width, and is no field of its own.
    assert comparison.by == ("model.width",)
    low, high = comparison.cells
    assert [len(cell.runs) for cell in comparison.cells] == [2, 2]
    assert low.loss == pytest.approx(HARD.mean(), abs=0.1)
    ends = low.interval
    half_width = 1.96 * HARD.std() / RECORDS**0.5
    assert ends[1] - ends[0] == pytest.approx(2 * half_width, rel=0.15)
    (step,) = steps(comparison)
    assert step.verdict == "falls"
    assert step.change == pytest.approx(high.loss - low.loss)
    assert -0.6 < step.interval[0] < step.interval[1] < -0.4


@pytest.mark.parametrize(
    ("runs", "verdict", "why"),
    [
        # (change of each seed, validation losses, training loss) of the wider model.
        (((0.01, -0.01), (3.0, 2.0), 1.0), "open", "holds 0"),
        (((-1.0, 0.4), (3.0, 2.0), 1.0), "open", "seeds differ"),
        (((1.0, 1.1), (3.0, 2.0, 2.5), 0.5), "rises", "best epoch is 2 of 3"),
        (((1.0, 1.1), (3.0, 2.0), 1.5), "rises", "training loss is higher"),
        (((1.0, 1.1), (3.0, 2.0), 0.5), "rises", "generalises worse"),
    ],
)
def test_verdicts_say_why(tmp_path, runs, verdict, why):
    changes, valid, train = runs
    for seed, change in enumerate(changes):
        leave_run(tmp_path, f"a{seed}", (32, 1000, seed), HARD + noise(seed))
        losses = HARD + change + noise(seed + 9)
        leave_run(tmp_path, f"b{seed}", (64, 1000, seed), losses, valid, train)
    (step,) = steps(compare(read_runs(tmp_path)))
    assert step.verdict == verdict
    assert why in step.why


def test_neighbours_differ_in_one_field(tmp_path):
    for width in (128, 32, 64):
        for molecules in (100, 1000):
            losses = HARD - np.log(width) - np.log(molecules) + noise(width + molecules)
            fields = width, molecules, 0
            leave_run(tmp_path, f"{width}-{molecules}", fields, losses)
    comparison = compare(read_runs(tmp_path))
    assert comparison.by == ("model.width", "data.train_molecules")
    pairs = [(s.low.settings, s.high.settings) for s in steps(comparison)]
    assert sorted(pairs) == [
        ((32, 100), (32, 1000)),
        ((32, 100), (64, 100)),
        ((32, 1000), (64, 1000)),
        ((64, 100), (64, 1000)),
        ((64, 100), (128, 100)),
        ((64, 1000), (128, 1000)),
        ((128, 100), (128, 1000)),
    ]
    text = tables(comparison)
    assert "The loss falls at all 7 steps." in text
    assert "model.width 64 to 128" in text


def test_models_with_fields_of_their_own_are_compared(tmp_path):
    for seed in (0, 1):
        leave_run(tmp_path, f"a{seed}", (32, 1000, seed), HARD + noise(seed))
        leave_run(tmp_path, f"b{seed}", (32, 1000, seed), HARD - 1.0 + noise(seed + 9))
        path = tmp_path / f"b{seed}" / "config.json"
        config = json.loads(path.read_text())
        config["model"] |= {"name": "other", "l_max": 2}
        path.write_text(json.dumps(config))
    comparison = compare(read_runs(tmp_path))
    assert [len(cell.runs) for cell in comparison.cells] == [2, 2]
    assert [step.verdict for step in steps(comparison)] in (["falls"], ["rises"])


def test_command_writes_tables_plot_and_runs(tmp_path, capsys):
    leave_grid(tmp_path, 0.5)
    assert commands.load("compare").main([f"--runs={tmp_path}"]) == 0
    assert "rises at 1" in capsys.readouterr().out
    assert (tmp_path / "compare.png").read_bytes().startswith(b"\x89PNG")
    with (tmp_path / "compare.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["model.width"], row["seed"]) for row in rows] == [
        ("32", "0"),
        ("32", "1"),
        ("64", "0"),
        ("64", "1"),
    ]
    assert float(rows[0]["loss"]) == pytest.approx(HARD.mean(), abs=0.1)


def test_losses_of_force_fields_are_force_errors(tmp_path):
    leave_run(tmp_path, "a", (32, 1000, 0), HARD)
    config = json.loads((tmp_path / "a/config.json").read_text())
    (tmp_path / "a/config.json").write_text(
        json.dumps(config | {"task": "force_field"})
    )
    error = np.zeros((3, 3), np.float32)
    error[0], error[1] = 0.3, -0.6  # eV/A; of a frame of one atom, and of one of two
    Predictions(
        id=np.array(["x", "y"]),
        index=np.arange(2),
        n_atoms=np.array([1, 2], np.int32),
        energy_true=np.zeros(2),
        energy_pred=np.zeros(2),
        energy_mask=np.ones(2, bool),
        frame=np.array([0, 1, 1], np.int32),
        species=np.ones(3, np.uint8),
        forces_true=np.zeros((3, 3), np.float32),
        forces_pred=error,
        forces_mask=np.array([True, True, False]),
    ).save(tmp_path / "a/predictions/valid.npz")
    (run,) = read_runs(tmp_path)
    assert run.loss == pytest.approx(450.0)
    assert run.losses.unit == "force MAE, meV/A"


def test_what_cannot_be_compared_is_refused(tmp_path):
    with pytest.raises(UserError, match="no finished run"):
        read_runs(tmp_path)
    leave_run(tmp_path, "a", (32, 1000, 0), HARD)
    leave_run(tmp_path, "b", (32, 1000, 0), HARD)
    with pytest.raises(UserError, match="a, b have the same config and the same seed"):
        compare(read_runs(tmp_path))
    with pytest.raises(UserError, match="no field 'model.depth'"):
        compare(read_runs(tmp_path), ["model.depth"])
    leave_run(tmp_path, "c", (64, 1000, 0), HARD, line=np.arange(RECORDS) + 1)
    with pytest.raises(UserError, match="c was scored on other records than a"):
        compare(read_runs(tmp_path))
    (tmp_path / "c/predictions/valid.npz").unlink()
    with pytest.raises(UserError, match="c has no predictions/valid.npz"):
        read_runs(tmp_path)
