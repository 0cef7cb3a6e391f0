"""The report of a pretraining: losses beside their baselines."""

import numpy as np

from chemscale_jax.analysis.reports import denoising_report

STEPS = np.array([10, 20, 30])
VALID = {
    "loss": [3.0, 1.0, 2.0],
    "token": [1.5, 0.5, 0.75],
    "token_entropy": [1.0, 1.0, 1.0],
    "token_accuracy": [0.2, 0.9, 0.8],
    "coord": [0.5, 0.3, 0.4],
    "coord_zero": [0.4, 0.4, 0.4],
    "coord_3d": [0.5, 0.35, 0.4],
    "coord_2d": [0.5, 0.15, 0.4],
    "dist": [0.3, 0.2, 0.25],
    "dist_noised": [0.25, 0.25, 0.25],
}
CURVES = {
    "valid": {name: (STEPS, np.array(values)) for name, values in VALID.items()},
    "train": {
        "token": (np.arange(30), np.linspace(2, 0.5, 30)),
        "lr": (np.arange(30), np.linspace(1e-3, 0, 30)),
    },
}


def test_the_best_validation_stands_beside_its_baselines():
    table = denoising_report.results(CURVES, {"validation_set": {"molecules": 1234}})
    rows = [line for line in table.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert cells[2:] == [
        ["masked elements", "nats", "0.5000", "0.7500", "1.0000", "50.0%"],
        ["coordinates", "Å", "0.3000", "0.4000", "0.4000", "25.0%"],
        ["distances", "Å", "0.2000", "0.2500", "0.2500", "20.0%"],
    ]
    assert "at step 20; last is" in table
    assert "1,234 molecules" in table
    assert "0.350 Å in conformers and by 0.150 Å in drawings" in table


def test_each_baseline_is_a_horizontal_line():
    figure = denoising_report.loss_curves(CURVES)
    *panels, rate = figure.axes
    for axes, level in zip(panels, (1.0, 0.4, 0.25), strict=True):
        lines = [np.asarray(line.get_xydata()) for line in axes.get_lines()]
        levels = [xy[0, 1] for xy in lines if len(xy) == 2 and np.ptp(xy[:, 1]) == 0]
        assert levels == [level]
        assert (legend := axes.get_legend())
        assert f"{level:.3f}" in legend.get_texts()[-1].get_text()
    assert len(rate.get_lines()) == 1
