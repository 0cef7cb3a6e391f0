"""What limits a run: one case for each line of the rule."""

import math

import pytest

from chemscale_jax.analysis.scaling.limits import Cell, label, limit_of

STALE = "validation loss did not improve for 50 epochs"
SPENT = "4000 steps done"


@pytest.mark.parametrize(
    ("expected", "case"),
    [
        # Learnt by heart, wherever it stopped.
        ("data", {"train_loss": 61, "valid_loss": 210, "stop_reason": SPENT}),
        ("data", {"train_loss": 61, "valid_loss": 210, "stop_reason": STALE}),
        # Converged without a gap.
        ("capacity", {"stop_reason": STALE, "larger_model": 80}),
        ("data", {"stop_reason": STALE, "more_data": 80}),
        ("data", {"stop_reason": STALE, "more_data": 80, "larger_model": 90}),
        ("capacity", {"stop_reason": STALE, "more_data": 90, "larger_model": 80}),
        ("none", {"stop_reason": STALE, "larger_model": 99.5}),
        ("none", {"stop_reason": STALE}),
        # The best weights are old: it converged, whatever ended it.
        ("capacity", {"best_share": 0.5, "larger_model": 80}),
        # The budget ended while it improved.
        ("step", {}),
        ("step", {"larger_model": 99.5}),
        ("step", {"larger_model": 120}),
        ("capacity", {"larger_model": 80}),
        ("data", {"larger_model": 90, "more_data": 80}),
        # As much as seeds differ is no improvement.
        ("step", {"larger_model": 95, "noise": 0.04}),
        ("capacity", {"larger_model": 95, "noise": 0.01}),
        # Without a training loss the gap says nothing.
        ("step", {"train_loss": math.nan}),
        ("step", {"best_share": math.nan}),
    ],
)
def test_the_rule(expected, case):
    common = {
        "train_loss": 98,
        "valid_loss": 100,
        "stop_reason": SPENT,
        "best_share": 1.0,
    }
    assert limit_of(**{**common, **case}) == expected


def test_a_grid_looks_at_its_neighbours():
    def cell(size, data, loss, train=None, steps=100):
        trained = loss if train is None else train
        return Cell(size, data, trained, loss, SPENT, 1.0, steps, 0.0)

    cells = [
        cell(16, 100, 200, train=50),
        cell(16, 1000, 120),
        cell(64, 100, 210, train=20),
        cell(64, 1000, 90),
    ]
    assert label(cells) == ["data", "capacity", "data", "step"]
    # A size that was not run on the same data is no neighbour.
    assert label(cells[:3]) == ["data", "step", "data"]
    # Nor is one that was trained for longer, unless this one had converged.
    cells[3] = cell(64, 1000, 90, steps=200)
    assert label(cells)[1] == "step"
    cells[1] = cells[1]._replace(stop_reason=STALE)
    assert label(cells)[1] == "capacity"
