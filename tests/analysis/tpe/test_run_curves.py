"""Learning curves read from the files that runs leave."""

import json
import math

import numpy as np
import pytest

from chemscale_jax.analysis.tpe.run_curves import (
    batch_size,
    epochs_at,
    label,
    read_curve,
    read_curves,
    varying,
)
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.workdir import Workdir
from tests.analysis.run_folders import leave_run


def curve_of(path, *args, **options):
    leave_run(path, *args, **options)
    return read_curve(Workdir(path))


def test_a_finished_run(tmp_path):
    curve = curve_of(tmp_path / "a", [3.0, 2.0, 1.5], [4.0, 2.5, 3.0], warmup=5)
    assert curve.train_loss.tolist() == [3.0, 2.0, 1.5]
    assert curve.epoch_step.tolist() == [10, 20, 30]
    assert (curve.epochs, curve.epochs_planned, curve.steps_planned) == (3, 3, 30)
    assert (curve.fraction, curve.final, curve.ended) == (1.0, 2.5, True)
    assert (curve.warmup_steps, curve.batch, curve.seconds) == (5, 8, 3.0)
    assert curve.settings["model.buckets"] == (16, 32)
    assert not curve.diverged


def test_a_prefix_knows_nothing_of_what_came_later(tmp_path):
    losses = [5.0, 4.0, 3.0, 2.0, 1.0]
    curve = curve_of(tmp_path / "a", losses, losses)
    early = curve.upto(0.4)
    assert early.train_loss.tolist() == [5.0, 4.0]
    assert (early.final, early.state, early.ended) == (4.0, "paused", False)
    assert (early.fraction, early.seconds, early.stop_reason) == (0.4, 2.0, "")
    assert curve.upto(0.01).epochs == 1
    assert curve.upto(1.0) is curve


def test_a_run_that_failed_was_sound_until_then(tmp_path):
    reason = "loss nan or gradient norm 1.0 is not finite at step 25"
    kept = {"epochs": 5, "state": "failed", "reason": reason}
    curve = curve_of(tmp_path / "a", [2.0, 1.0], [2.0, 1.0], **kept)
    assert (curve.diverged, curve.ended, curve.ended_within_epoch) == (True, True, True)
    assert curve.final == math.inf
    assert not curve.first(2).diverged
    assert curve.first(2).final == 1.0
    assert curve.first(3).diverged
    other = curve_of(tmp_path / "b", [2.0], [2.0], state="failed", reason="disk full")
    assert (other.diverged, other.ended) == (False, False)


def test_losses_that_are_not_finite(tmp_path):
    curve = curve_of(tmp_path / "a", [2.0, math.nan], [2.0, math.nan])
    assert curve.diverged
    assert not curve.ended_within_epoch
    assert not curve.first(1).diverged


def test_an_epoch_whose_steps_were_all_skipped_has_no_loss(tmp_path):
    # Its mean is logged as 0, which would be the best of all.
    curve = curve_of(tmp_path / "a", [2.0, 0.0], [2.0, 2.0], skipped=[3, 13])
    np.testing.assert_array_equal(curve.train_loss, [2.0, math.nan])
    assert curve.diverged


def test_seconds_are_summed_over_processes(tmp_path):
    curve = curve_of(tmp_path / "a", [1.0] * 4, [1.0] * 4, seconds=[5.0, 10, 3, 6])
    assert curve.epoch_seconds.tolist() == [5.0, 10.0, 13.0, 16.0]
    assert curve.seconds == 16.0


def test_a_limit_of_steps_plans_fewer_epochs(tmp_path):
    curve = curve_of(tmp_path / "a", [1.0, 1.0], [1.0, 1.0], epochs=50, max_steps=25)
    assert (curve.epochs_planned, curve.steps_planned) == (3, 25)


@pytest.mark.parametrize(
    ("unit", "length", "steps"), [("step", 7, 7), ("percent", 10, 4), ("epoch", 2, 20)]
)
def test_warmup_in_steps(tmp_path, unit, length, steps):
    losses = [1.0] * 4
    curve = curve_of(tmp_path / "a", losses, losses, warmup=length, unit=unit)
    assert curve.warmup_steps == steps


def test_a_folder_of_runs(tmp_path):
    leave_run(tmp_path / "b", [1.0], [1.0], lr=0.2)
    leave_run(tmp_path / "a", [2.0], [2.0], lr=0.1)
    leave_run(tmp_path / "seeds/lanes/0", [3.0], [3.0])
    (tmp_path / "plots").mkdir()
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun/run.json").write_text(json.dumps({"schema": 1}))
    curves = read_curves(tmp_path)
    assert [curve.name for curve in curves] == ["a", "b", "seeds/lanes/0"]
    assert varying(curves) == ("optimizer.lr",)
    assert label(curves[1], varying(curves)) == "lr 0.2"
    with pytest.raises(UserError, match="no run that was begun"):
        read_curves(tmp_path / "plots")


def test_a_run_of_an_older_version(tmp_path):
    leave_run(tmp_path / "a", [1.0], [1.0])
    (tmp_path / "a/artifacts.json").write_text("{}")
    with pytest.raises(UserError, match="does not say how many steps"):
        read_curves(tmp_path)


def test_epochs_at_a_fraction():
    found = [epochs_at(f, 10) for f in (0.01, 0.14, 0.15, 0.2, 0.25, 1.0)]
    assert found == [1, 1, 2, 2, 3, 10]
    with pytest.raises(UserError, match="expected 0 to 1"):
        epochs_at(0.0, 10)


def test_batch_sizes():
    packs = {"batch.rows": 4, "batch.molecules": 5, "batch.exact_molecules": 0}
    assert batch_size(packs) == 20
    assert batch_size(packs | {"batch.exact_molecules": 8}) == 8
    assert batch_size({"batch.rows": 8, "batch.tokens": 2048}) == 2048
    assert batch_size({"batch.rows": 8, "batch.tokens": 0}) == 8
