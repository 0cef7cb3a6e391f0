"""The command that fits a study, on csv files with planted laws."""

import csv
import json

import numpy as np
import pytest

from chemscale_jax import commands
from chemscale_jax.analysis.scaling import plots as scaling_plots
from chemscale_jax.analysis.scaling.allocation import allocate, cost_of, next_runs
from chemscale_jax.analysis.scaling.data import Columns, groups_of
from chemscale_jax.analysis.scaling.estimates import estimate
from chemscale_jax.analysis.scaling.fit import fit_form
from chemscale_jax.analysis.scaling.forms import FORMS, make_inputs
from chemscale_jax.analysis.scaling.report import Settings, study_of
from chemscale_jax.analysis.scaling.selection import choose, inputs_of, try_forms
from chemscale_jax.analysis.scaling.size_variables import contests, rank_correlations
from chemscale_jax.core.errors import UserError
from tests.analysis.scaling_studies import IDENTIFIABLE, UNIDENTIFIABLE, cells_of

WIDTHS = (8, 16, 32)
FRAMES = (100, 316, 1000, 3162)


def rows_of(group="painn", beta=0.26, seeds=3, widths=WIDTHS, **changes):
    """Rows as a study leaves them; the loss follows a planted law of size and data."""
    rng = np.random.default_rng(0)
    rows = []
    for width in widths:
        for frames in FRAMES:
            for seed in range(seeds):
                size = 50 * width**2
                loss = 8 + 60 * (size / 1e4) ** -0.6 + 400 * (frames / 100) ** -beta
                loss *= np.exp(0.01 * rng.normal())
                steps = 4000
                rows.append(
                    {
                        "cell": f"{group}-{width}-{frames}",
                        "model": group,
                        "seed": seed,
                        "width": width,
                        "depth": 4,
                        "capacity": 4 * width,
                        "parameters": size,
                        "data": frames,
                        "epochs": 10,
                        "epochs_planned": 10,
                        "steps": steps,
                        "flops": 20.0 * size * frames,
                        "wall_s": width,
                        "train_loss": loss * (0.5 if frames < 400 else 0.97),
                        "valid_loss": loss,
                        "loss_unit": "meV/A",
                        "best_step": 2000,
                        "stop_reason": "validation loss did not improve for 5 epochs",
                        "state": "finished",
                        **changes,
                    }
                )
    return [{k: str(v) for k, v in row.items()} for row in rows]


def write(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def fit(*arguments):
    return commands.load("fit").main([*arguments, "--replicates=50"])


def test_a_study_of_two_models(tmp_path, capsys, monkeypatch):
    # Drawn, but not written, which takes most of the time.
    monkeypatch.setattr(scaling_plots, "SUFFIXES", ())
    rows = [*rows_of("schnet", 0.17), *rows_of("painn", 0.26)]
    rows[0] = {**rows[0], "state": "diverged", "valid_loss": ""}
    path = write(tmp_path / "results.csv", rows)
    out = tmp_path / "out"
    assert fit(path, f"--out={out}") == 0
    printed = capsys.readouterr().out
    assert (out / "report.md").read_text() in printed
    assert "schnet-8-100 is diverged" in printed
    assert "(meV/A)" in printed
    numbers = json.loads((out / "fit.json").read_text())
    assert [group["group"] for group in numbers["groups"]] == ["schnet", "painn"]
    for group in numbers["groups"]:
        assert len(group["limits"]) == 12
        assert len(group["power_by_data"]) == 3
        # Few frames are learnt by heart; of the widest, more data help.
        assert group["limits"][:2] == ["data", "data"]
    (one,) = numbers["differences"]
    assert (one["first"], one["second"]) == ("schnet", "painn")
    with (out / "cells.csv").open(newline="") as file:
        cells = list(csv.DictReader(file))
    assert len(cells) == 24
    assert float(cells[0]["law"]) == pytest.approx(float(cells[0]["loss"]), rel=0.1)


@pytest.mark.slow
def test_plots_are_written_twice_over(tmp_path):
    rows = [*rows_of("schnet", 0.17), *rows_of("painn", 0.26)]
    path = write(tmp_path / "results.csv", rows)
    assert fit(path, f"--out={tmp_path}") == 0
    names = {path.name for path in (tmp_path / "plots").iterdir()}
    stems = ("power_law_by_data", "power_law_by_size", "law_by_data", "law_by_size")
    for stem in (*stems, "groups_by_data", "loss_by_compute", "residuals"):
        assert {f"{stem}.png", f"{stem}.svg"} <= names


def test_other_columns_and_one_group(tmp_path, monkeypatch):
    monkeypatch.setattr(scaling_plots, "SUFFIXES", ())
    rows = [
        {"params": str(n), "val": str(3 * n**-0.2)} for n in np.geomspace(1e3, 1e6, 6)
    ]
    path = write(tmp_path / "runs.csv", rows)
    assert (
        fit(path, f"--out={tmp_path}", "--loss=val", "--size=params", "--group=") == 0
    )
    (group,) = json.loads((tmp_path / "fit.json").read_text())["groups"]
    # Both forms pass through the points; the one without a floor is simpler.
    assert group["law"]["form"] == "power"
    assert group["law"]["parameters"]["a"]["value"] == pytest.approx(0.2, rel=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--loss=nll"], "no column 'nll' for loss"),
        (["--form=cubic"], "no form 'cubic'"),
        (["--form=repeated", "--epochs=width", "--data="], "needs D"),
        (["--loss=model"], "column 'model' holds 'painn'"),
        (["--huber=-1"], "must be positive"),
        (["--loss="], "--loss is empty"),
    ],
)
def test_mistakes(tmp_path, arguments, message):
    path = write(tmp_path / "results.csv", rows_of(seeds=1))
    with pytest.raises(UserError, match=message):
        fit(path, f"--out={tmp_path}", *arguments)


def test_no_file(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        fit(str(tmp_path / "none.csv"), f"--out={tmp_path}")


def test_starved_cells_are_left_out_or_said():
    rows = rows_of(widths=(8, 16, 32, 64))
    for row in rows:
        if row["data"] == "3162" and row["width"] in ("32", "64"):
            row["stop_reason"], row["best_step"] = "4000 steps done", "4000"
            worse = int(row["width"]) / 16
            row["valid_loss"] = str(worse * float(row["valid_loss"]))
            row["train_loss"] = row["valid_loss"]
    (analysis,) = study_of(rows, settings=Settings(replicates=20)).analyses
    assert [cell.limit for cell in analysis.cells.cells].count("step") == 2
    assert analysis.law is not None
    assert "which are left out: 2" in analysis.law.left_out
    assert len(analysis.law.used) == 14
    rows = [{**row, "stop_reason": "done", "best_step": "4000"} for row in rows]
    for row in rows:
        # Neither size nor data help.
        row["train_loss"] = row["valid_loss"] = str(1e5 / float(row["valid_loss"]))
    (analysis,) = study_of(rows, settings=Settings(replicates=20)).analyses
    assert any("limited by their steps" in text for text in analysis.warnings)


def test_points_of_one_run_at_several_steps_are_points():
    rows = [
        {"parameters": str(m), "steps": str(s), "seed": "0", "valid_loss": "1.0"}
        for m in (42, 84)
        for s in (1000, 2000, 3000)
    ]
    (cells,) = groups_of(rows, Columns())
    assert len(cells) == 6
    # Seeds of one cell may stop at different steps.
    rows = [{**row, "seed": str(i)} for i, row in enumerate(rows)]
    (cells,) = groups_of(rows, Columns())
    assert len(cells) == 2


def test_the_form_that_was_planted_predicts_best():
    for name in ("chinchilla", "kaplan"):
        cells = cells_of(IDENTIFIABLE[name], size=0.002)
        trials = try_forms([FORMS["chinchilla"], FORMS["kaplan"]], cells)
        assert choose(trials).name == name
        assert all(trial.held_out == 3 for trial in trials)


def law_of(planted, size=0.005):
    cells = cells_of(planted, size=size)
    fitted = fit_form(planted.law, inputs_of(cells, planted.law), cells.losses)
    return *estimate(fitted), cells


def test_the_best_split_of_a_budget():
    planted = IDENTIFIABLE["chinchilla"]
    fitted, estimates, cells = law_of(planted)
    found = allocate(fitted, estimates, cells)
    assert (found.cost.p, found.cost.q) == pytest.approx((1.0, 1.0))
    # Closed form of Hoffmann et al. 2022, with the planted constants.
    law = planted.constants
    total = law["a"] + law["b"]
    ratio = (law["a"] * law["A"] / (law["b"] * law["B"])) ** (1 / total)
    for one in found.optima:
        best = ratio * (one.compute / 6) ** (law["b"] / total)
        assert one.size_interval.holds(best)
        assert one.data_interval.holds(one.compute / 6 / best)
        assert one.size * one.data == pytest.approx(one.compute / 6, rel=1e-6)
        total_loss = planted.constants["E"]
        total_loss += law["A"] / best ** law["a"]
        total_loss += law["B"] / (one.compute / 6 / best) ** law["b"]
        assert one.loss_interval.holds(total_loss)
    assert found.exponent_interval.holds(law["b"] / total)
    width = [np.diff(np.log(one.size_interval.ends))[0] for one in found.optima]
    assert width[2] > width[0]


def test_the_optimum_is_one():
    fitted, estimates, cells = law_of(IDENTIFIABLE["kaplan"])
    found = allocate(fitted, estimates, cells)
    cost = cost_of(cells)
    for one in found.optima:
        sizes = one.size * np.array([0.8, 1.0, 1.25])
        data = one.compute / 6 / sizes
        letters = {"N": sizes, "D": data}
        at = inputs_of(cells, fitted.form).centres
        losses = fitted.log_loss(make_inputs(letters, centres=at))
        assert losses[1] < min(losses[0], losses[2])
        assert cost.of(sizes, data) == pytest.approx(one.compute)


def test_no_allocation_without_exponents():
    planted, _ = UNIDENTIFIABLE["abundant data"]
    found = allocate(*law_of(planted))
    assert "b: the law fits as well without its term" in found.why_not


def test_the_next_run_narrows_most_where_the_law_is_least_known():
    fitted, _, cells = law_of(IDENTIFIABLE["chinchilla"])
    found = next_runs(fitted, cells)
    assert found == sorted(found, key=lambda run: run.narrower)
    assert 0 < found[0].narrower < 1
    # In the corners, not in the middle.
    assert found[0].beyond
    there = {(c.values["N"], c.values["D"]) for c in cells.cells}
    assert not there & {(run.size, run.data) for run in found}


# Of more capacity but fewer parameters: (8, 16) than (1, 64), (16, 16) than (2, 64).
SHAPES = ((1, 64), (2, 16), (2, 32), (2, 64), (4, 16), (4, 32), (8, 16), (16, 16))


def crossed_rows(by):
    """Force fields of depths and widths with crossings; the loss follows ``by``."""
    rows = []
    for depth, width in SHAPES:
        for frames in (100, 1000):
            row = {"depth": depth, "width": width, "data": frames, "epochs_planned": 9}
            row |= {"capacity": depth * width, "parameters": depth * width**2}
            row |= {"valid_loss": 300 * row[by] ** -0.3 * frames**-0.2}
            rows.append({name: str(value) for name, value in row.items()})
    return rows


@pytest.mark.parametrize("by", ["capacity", "parameters"])
def test_crossings_tell_capacity_from_parameters(by):
    (cells,) = groups_of(crossed_rows(by), Columns())
    (found,) = contests(cells, ("capacity", "parameters"))
    assert found.crossings > 0
    assert found.verdict == f"{by} explains the loss better"
    rho = {one.measure: one.rho for one in rank_correlations(cells)}
    assert rho[by] == pytest.approx(-1.0, abs=0.02)


def test_without_crossings_nothing_is_preferred():
    rows = [row for row in crossed_rows("capacity") if row["depth"] == "2"]
    (cells,) = groups_of(rows, Columns())
    (found,) = contests(cells, ("capacity", "parameters"))
    assert found.crossings == 0
    assert "cannot be told apart" in found.verdict
