import dataclasses

import numpy as np
import pytest

from chemscale_jax.analysis import force_errors
from chemscale_jax.core.predictions import Predictions

# Labels are float32.
EXACT = 1e-4


@pytest.fixture
def frames(frame_arrays) -> Predictions:
    return Predictions(**frame_arrays)


def test_rows_are_what_a_hand_computes(frames):
    rows = {row.frames: row for row in force_errors.rows_of("valid", frames)}
    every = rows["all"]
    assert every.number == 2
    # Components: (4.5 + 0.9) / 9 true, (0.6 + 0.3) / 9 wrong.
    assert every.mean_abs_force == pytest.approx(600.0, abs=EXACT)
    assert every.zero_mae == every.mean_abs_force
    assert every.force_mae == pytest.approx(100.0, abs=EXACT)
    assert every.force_rmse == pytest.approx(100.0, abs=EXACT)
    assert every.ratio == pytest.approx(1 / 6, abs=EXACT)
    # H: means of (1.0, 0.3), (0.5, -0.3), (0.75, 0.3), so 2 x (0.35 + 0.4 + 0.225)
    # are left of them; O is alone and fits itself.
    assert every.element_mae == pytest.approx(1e3 * 1.95 / 9, abs=EXACT)
    # 30 meV over 2 atoms and 10 meV over 1.
    assert every.energy_mae == pytest.approx((15.0 + 10.0) / 2, abs=EXACT)
    # 30 and 10 meV of whole molecules.
    assert every.energy_rmse == pytest.approx(np.sqrt((900 + 100) / 2), abs=EXACT)

    half_to_one = rows["0.5-1.0 eV/A"]
    assert half_to_one.number == 1
    assert half_to_one.mean_abs_force == pytest.approx(750.0, abs=EXACT)
    assert half_to_one.force_mae == pytest.approx(100.0, abs=EXACT)
    assert half_to_one.ratio == pytest.approx(100 / 750, abs=EXACT)
    # Fitted on this one frame, where each element occurs once.
    assert half_to_one.element_mae == pytest.approx(0.0, abs=EXACT)
    assert half_to_one.energy_mae == pytest.approx(15.0, abs=EXACT)
    assert rows["0.0-0.5 eV/A"].mean_abs_force == pytest.approx(300.0, abs=EXACT)


def test_an_empty_band_has_no_numbers(frames):
    row = force_errors.rows_of("valid", frames)[-1]
    assert row.frames == "2.0+ eV/A"
    assert row.number == 0
    assert row[3:] == (None,) * 8


def test_stretched_frames_count_among_all_but_in_no_band(frames):
    stretched = dataclasses.replace(frames, kind=np.array([2, 0], np.uint8))
    rows = {row.frames: row for row in force_errors.rows_of("valid", stretched)}
    assert rows["all"].number == 2
    assert rows["0.5-1.0 eV/A"].number == 0
    assert rows["0.0-0.5 eV/A"].number == 1
    table = force_errors.results_table({"valid": stretched}, force_only=False)
    assert "stretched bond: 1 in valid" in table


def test_without_kinds_no_frame_is_stretched(frames):
    unknown = dataclasses.replace(frames, kind=None)
    assert force_errors.rows_of("valid", unknown) == force_errors.rows_of(
        "valid", frames
    )


def test_labels_that_are_missing_count_nowhere(frames):
    missing = dataclasses.replace(
        frames,
        energy_true=np.array([1.0, np.nan]),
        energy_mask=np.array([True, False]),
        forces_true=np.where(np.array([[0], [0], [1]]), np.nan, frames.forces_true),
        forces_mask=np.array([True, True, False]),
    )
    rows = {row.frames: row for row in force_errors.rows_of("valid", missing)}
    assert rows["all"].number == 2
    assert rows["all"].mean_abs_force == pytest.approx(750.0, abs=EXACT)
    assert rows["all"].energy_mae == pytest.approx(15.0, abs=EXACT)
    # The frame without forces has no size, so no band has it.
    assert rows["0.0-0.5 eV/A"].number == 0


def test_predictions_that_are_not_finite_are_shown(frames):
    broken = dataclasses.replace(frames, forces_pred=frames.forces_pred * np.nan)
    assert "nan" in force_errors.results_table({"valid": broken}, force_only=False)


def test_band_edges_belong_to_the_upper_band(frames):
    exact = dataclasses.replace(
        frames, forces_true=np.full((3, 3), 0.5, np.float32), kind=None
    )
    rows = {row.frames: row for row in force_errors.rows_of("valid", exact)}
    assert rows["0.0-0.5 eV/A"].number == 0
    assert rows["0.5-1.0 eV/A"].number == 2


def test_table_text(frames):
    lines = force_errors.results_table({"valid": frames}, force_only=True).splitlines()
    cells = [cell.strip() for cell in lines[2].strip("|").split("|")]
    assert cells == [
        "valid",
        "all",
        "2",
        "600.0",
        "100.0",
        "100.0",
        "0.167",
        "600.0",
        "216.7",
        "12.5",
        "22.4",
    ]
    assert len({len(line) for line in lines[:7]}) == 1
    assert any("uncalibrated" in line for line in lines)
    calibrated = force_errors.results_table({"valid": frames}, force_only=False)
    assert "uncalibrated" not in calibrated


def test_force_error_of_each_element(frames):
    found = force_errors.force_mae_by_element(frames)
    assert {z: count for z, (_, count) in found.items()} == {1: 2, 8: 1}
    assert found[1][0] == pytest.approx(100.0, abs=EXACT)
    assert found[8][0] == pytest.approx(100.0, abs=EXACT)


def test_spread_of_an_ensemble_is_ranked_against_its_errors(frames):
    assert "rho" not in force_errors.results_table({"valid": frames}, force_only=False)
    # Energy errors are 15 and 10 meV per atom, force errors 173 meV/A everywhere.
    ensemble = dataclasses.replace(
        frames,
        energy_std=np.array([0.4, 0.1]),
        forces_std=np.array([0.1, 0.2, 0.3], np.float32),
    )
    cells = force_errors.uncertainty_cells("valid", ensemble)
    assert cells[:5] == ["valid", "all", "12.5", "150.0", "1.00"]
    assert cells[5:7] == ["173.2", "200.0"]
    table = force_errors.results_table({"valid": ensemble}, force_only=False)
    assert "energy rho" in table
    assert "means over an ensemble" in table
