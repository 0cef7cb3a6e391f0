"""Rows, figures and plots of a prompting study, against hand-worked values."""

import math

import numpy as np
import pytest

from chemscale_jax.analysis.generation import prompting_plots, prompting_report
from chemscale_jax.analysis.generation.prompting_rows import (
    Row,
    append_rows,
    by_molecule,
    difference,
    read_rows,
    summarise,
)
from chemscale_jax.analysis.generation.set_metrics import Draws
from chemscale_jax.core.errors import UserError

DRAWS = Draws(seed=0, replicates=50)
PLAIN = Row(
    model="small",
    knob="top_k",
    value="10",
    length="5",
    molecule="aspirin",
    number=0,
    prompt_symbols=5,
    smiles="CCO",
    tokens=3,
    log_likelihood=-1.25,
    finished=True,
    kept=True,
    new=True,
    passes=True,
    reason="",
    weight_difference=10.0,
)
INVALID = PLAIN._replace(
    finished=False,
    smiles="",
    kept=None,
    new=False,
    passes=None,
    weight_difference=math.nan,
)
ASPIRIN = [
    PLAIN,
    PLAIN._replace(new=False),
    PLAIN._replace(
        smiles="C[O-]",
        kept=False,
        passes=False,
        reason="charge",
        weight_difference=-4.0,
    ),
    INVALID,
]
CAFFEINE = [
    row._replace(molecule="caffeine") for row in (PLAIN, INVALID, INVALID, INVALID)
]
SIZES = {"top_k 10": 8}
FACTS = {
    "seed": 0,
    "samples": 4,
    "max_tokens": 9,
    "left_out": ["CCBr: why"],
    "reference": {"source": "train.smi", "molecules": 50, "passes": 0.446},
    "molecules": [
        {"name": "aspirin", "smiles": "CC", "weight": 1.0, "passes": True},
        {"name": "caffeine", "smiles": "CN", "weight": 2.0, "passes": False},
    ],
    "models": {
        name: {
            "place": f"runs/{name}",
            "width": 16,
            "depth": 24,
            "parameters": 77_600,
            "vocabulary": 9,
            "notation": "selfies",
        }
        for name in ("small", "large")
    },
}


def test_figures_of_each_molecule():
    found = by_molecule([*ASPIRIN, *CAFFEINE])
    # Three valid of four, one of them again; the pass rate is over the two new ones.
    assert found["aspirin"] == {
        "finished": 3 / 4,
        "valid": 3 / 4,
        "unique": 2 / 3,
        "kept": 2 / 3,
        "passes": 1 / 2,
        "weight_difference": 3.0,
    }
    assert found["caffeine"]["valid"] == 1 / 4
    summary = summarise([*ASPIRIN, *CAFFEINE], DRAWS)
    assert summary.molecules == 8
    assert summary.figures["passes"].value == (1 / 2 + 1) / 2
    assert summary.figures["passes"].interval == (0.5, 1.0)
    assert summary.figures["weight_difference"].value == 6.5
    assert summary.figures["valid"].over == 2


def test_the_same_molecule_in_two_cells_is_no_repetition():
    found = by_molecule([PLAIN, PLAIN._replace(length="10")])
    assert found["aspirin"]["unique"] == 1.0


def test_molecules_without_a_figure_do_not_count():
    rows = [*ASPIRIN, *(row._replace(molecule="caffeine") for row in [INVALID] * 4)]
    summary = summarise(rows, DRAWS)
    assert summary.figures["passes"].over == 1
    assert summary.figures["passes"].value == 1 / 2
    assert summary.figures["valid"].value == (3 / 4 + 0) / 2
    none = summarise([INVALID], DRAWS).figures["passes"]
    assert math.isnan(none.value)


def test_models_are_compared_prompt_by_prompt():
    other = [row._replace(model="large") for row in [*CAFFEINE, PLAIN]]
    gap = difference([*ASPIRIN, *CAFFEINE], other, "passes", DRAWS)
    assert gap.value == (0 + 1 / 2) / 2
    assert gap.over == 2


def test_rows_survive_the_file_and_torn_cells_do_not(tmp_path):
    path = tmp_path / "molecules.csv"
    first = [*ASPIRIN, *CAFFEINE]
    second = [row._replace(length="l-3") for row in first]
    append_rows(path, first)
    once = path.read_bytes()
    append_rows(path, second)
    read = read_rows(path, SIZES)
    assert list(map(len, read.values())) == [8, 8]
    for row, again in zip(first, read[first[0].cell], strict=True):
        np.testing.assert_equal(list(row), list(again))
    whole = path.read_bytes()
    # After each of some bytes of the second cell, within its last line too.
    for end in (len(once), len(once) + 1, len(whole) - 40, len(whole) - 1):
        path.write_bytes(whole[:end])
        assert list(read_rows(path, SIZES)) == [first[0].cell]
        assert path.read_bytes() == once
    path.write_bytes(once[:-1])
    assert read_rows(path, SIZES) == {}
    assert not path.exists()
    assert read_rows(path, SIZES) == {}
    # Settings that are not asked for stay.
    path.write_bytes(once)
    assert list(read_rows(path, {})) == [first[0].cell]


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "molecules.csv"
    path.write_text("smiles,name\nCCO,ethanol\n")
    with pytest.raises(UserError, match="is not the file of a prompting study"):
        read_rows(path, SIZES)
    append_rows(tmp_path / "good.csv", ASPIRIN)
    path.write_text((tmp_path / "good.csv").read_text().replace("-1.25", "x"))
    with pytest.raises(UserError, match=r"molecules.csv, line 2 cannot be read"):
        read_rows(path, SIZES)


def test_report(tmp_path):
    rows = [*ASPIRIN, *CAFFEINE]
    cells = {}
    for model in ("small", "large"):
        for knob, value in (("top_k", "10"), ("temperature", "1")):
            some = [r._replace(model=model, knob=knob, value=value) for r in rows]
            cells[some[0].cell] = some
    report = prompting_report.make_report(cells, FACTS, DRAWS)
    assert "0.750 [0.500, 1.000]" in report.table
    assert "+6.5 [+3.0, +10.0]" in report.table
    assert "large - small" in report.table
    assert "Of the 2 prompt molecules themselves 1 pass" in report.table
    assert "Of 50 reference molecules (train.smi) 44.6% pass" in report.table
    assert "top_k 10 keeps all 9 tokens of small" in report.table
    assert "Left out: CCBr: why" in report.table
    prompting_report.write_report(report, cells, tmp_path / "study", DRAWS)
    assert len((tmp_path / "study/settings.csv").read_text().splitlines()) == 1 + 8
    alone = {cell: some for cell, some in cells.items() if cell.model == "large"}
    report = prompting_report.make_report(alone, FACTS, DRAWS)
    assert "large - small" not in report.table
    assert "runs/small" not in report.text
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="choose another --workdir"):
        prompting_report.write_report(report, cells, tmp_path / "file", DRAWS)


def test_a_setting_without_molecules_has_no_box():
    cells = {PLAIN.cell: [INVALID]}
    for figure in (
        prompting_plots.pass_rates(cells, ["small"]),
        prompting_plots.weight_differences(cells, ["small"]),
        prompting_plots.prompt_lengths(cells, ["small"], DRAWS),
    ):
        assert figure.axes
    (axes,) = prompting_plots.pass_rates({PLAIN.cell: [PLAIN]}, ["small"]).axes
    ends = [np.ravel(line.get_ydata()) for line in axes.lines]
    assert any(len(values) and np.all(values == 1.0) for values in ends)
