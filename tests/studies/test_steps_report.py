import numpy as np
import pytest

from chemscale_jax.studies import steps_report
from chemscale_jax.studies.steps_report import Points

MILLIONS, STEPS = (0.05, 0.2, 0.8), np.arange(100, 2401, 100)


def loss(m, s):
    return 0.02 * m**-0.4 + 4.0 * s**-0.5


def trajectory():
    m, s = (x.ravel() for x in np.meshgrid(MILLIONS, STEPS, indexing="ij"))
    return Points(m, s.astype(float), loss(m, s))


@pytest.mark.slow
def test_a_planted_law_predicts_the_size_that_was_left_out():
    tested = steps_report.test(trajectory(), trajectory=True)
    # Of 24 validations each, the five of the first quarter are left out.
    assert tested.points == 2 * 19
    assert tested.scored == 4
    assert tested.score.rmae < 0.05
    # The other law that the points allow is that of steps, which is.
    assert tested.fit.constants["b"] == pytest.approx(0.5, rel=0.05)


@pytest.mark.slow
def test_ends_of_annealed_runs_are_all_scored():
    points = trajectory()
    ends = points.where(np.isin(points.steps, (300, 600, 1200, 2400)))
    tested = steps_report.test(ends, trajectory=False)
    assert (tested.points, tested.scored) == (8, 4)


@pytest.mark.slow
def test_sections_have_the_four_measures_and_the_plots(tmp_path):
    rows, points = [], []
    for m in MILLIONS:
        for length in (600, 1200, 2400):
            cell = f"{m}-{length}"
            rows.append(
                {
                    "cell": cell,
                    "seed": "0",
                    "parameters": str(int(m * 1e6)),
                    "steps": str(length),
                    "best_step": str(length),
                    "state": "finished",
                }
            )
            points += [
                {"cell": cell, "seed": "0", "step": str(s), "valid_loss": str(value)}
                for s in range(100, length + 1, 100)
                for value in [loss(m, s)]
            ]
    text = "\n".join(steps_report.sections(rows, points, tmp_path))
    assert "| all terms | trajectory" in text
    assert "| all terms | annealed" in text
    assert "paper, 570M" in text
    assert "0.0169" in text
    for name in ("trajectory.png", "trajectory.svg", "annealed.png"):
        assert (tmp_path / "steps" / name).stat().st_size > 1000


def test_the_start_of_each_run_is_left_out():
    kept = steps_report._without_start(trajectory())
    for millions in MILLIONS:
        assert kept.steps[kept.millions == millions].min() == 600


def test_one_size_gives_no_law(tmp_path):
    rows = [
        {"cell": "a", "parameters": "10", "steps": "5", "state": "finished", "seed": ""}
    ]
    assert "One size alone" in steps_report.sections(rows, [], tmp_path)[0]
