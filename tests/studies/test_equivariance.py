import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from chemscale_jax.analysis.scaling.data import Columns, groups_of
from chemscale_jax.analysis.scaling.power import difference, fit_window, lines_of
from chemscale_jax.studies import equivariance
from chemscale_jax.studies.study_rows import COLUMNS

SIZES = (100, 316, 1000, 3162)


def rows_of(exponents, noise=0.003, capacity=64):
    """Runs of power laws: {model: exponent}, three seeds each."""
    rng = np.random.default_rng(0)
    rows = []
    for model, beta in exponents.items():
        for frames in SIZES:
            for seed in range(3):
                loss = 2.0 * frames**-beta * np.exp(noise * rng.normal())
                row = dict.fromkeys(COLUMNS, "")
                row |= {
                    "cell": f"{model}-{frames}",
                    "model": model,
                    "seed": str(seed),
                    "width": str(capacity // 2),
                    "depth": "2",
                    "capacity": str(capacity),
                    "parameters": "1000",
                    "data": str(frames),
                    "steps": "100",
                    "epochs": "1.0",
                    "flops": "1e9",
                    "train_loss": str(0.5 * loss),
                    "valid_loss": str(loss),
                    "best_step": "100",
                    "stop_reason": "100 steps done",
                    "state": "finished",
                }
                rows.append(row)
    return rows


def lines_only(rows) -> Any:
    """What a study of these rows says of lines along the data, and nothing more."""
    analyses, laws = [], {}
    for cells in groups_of(rows, Columns(size="capacity")):
        (line,) = lines_of(cells, "D", "N")
        law = fit_window(line.cells.column("D"), line.cells.losses)
        one = SimpleNamespace(law=law, every=law, at=line.at[0][1])
        analyses.append(SimpleNamespace(cells=cells, by_data=[one]))
        laws[cells.group] = law
    pairs = itertools.combinations(laws, 2)
    differences = [difference(a, b, laws) for a, b in pairs]
    return SimpleNamespace(analyses=analyses, differences=differences)


def said(rows):
    study = lines_only(rows)
    text = equivariance.verdict(study, rows, "valid_loss", 64.0, "seen molecules")
    return text, equivariance.exponents(study, 64.0)


def test_a_higher_exponent_is_found_and_a_lower_one_too():
    text, table = said(rows_of({"schnet": 0.17, "painn": 0.26, "allegro": 0.10}))
    assert "Did equivariance raise the data exponent on seen molecules?" in text
    painn, allegro = text.split("allegro against")
    assert "painn against schnet at capacity 64: yes, higher over all" in painn
    assert "no, lower over all amounts" in allegro
    assert "0.17 +- 0.03" in table  # the paper's, beside ours
    assert "0.26" in table.splitlines()[3]


def test_equal_exponents_are_open_however_the_groups_are_ordered():
    text, _ = said(rows_of({"painn": 0.2, "schnet": 0.2}, noise=0.02))
    assert "it is open over all amounts" in text
    # Their training losses are half of the others.
    assert "All 8 cells that are compared are limited by their data" in text


def test_the_difference_has_the_sign_of_the_equivariant_network():
    rows = rows_of({"painn": 0.3, "schnet": 0.2})
    text, _ = said(rows)
    assert "differ by +0.1" in text
    first = equivariance.seed_slopes(rows, "schnet", 64.0, "valid_loss")
    second = equivariance.seed_slopes(rows, "painn", 64.0, "valid_loss")
    assert first is not None
    assert second is not None
    assert first.mean == pytest.approx(0.2, abs=0.01)
    assert equivariance.slopes_difference(first, second).holds(0.1)


def test_cells_that_data_do_not_limit_are_counted():
    rows = rows_of({"schnet": 0.2, "painn": 0.3})
    for row in rows:
        if row["data"] == "3162":
            row["train_loss"] = row["valid_loss"]
    assert "Of the 8 cells that are compared, 2 are limited by" in said(rows)[0]


def test_one_seed_says_nothing_and_a_seed_without_all_sizes_is_left_out():
    rows = rows_of({"schnet": 0.2, "painn": 0.3})
    alone = [row for row in rows if row["seed"] == "0"]
    one = equivariance.seed_slopes(alone, "schnet", 64.0, "valid_loss")
    assert one is not None
    assert one.interval == (None, None)
    broken = [r for r in rows if (r["seed"], r["data"]) != ("1", "1000")]
    two = equivariance.seed_slopes(broken, "schnet", 64.0, "valid_loss")
    assert two is not None
    assert len(two.slopes) == 2
    assert equivariance.seed_slopes(rows, "spookynet", 64.0, "valid_loss") is None


def test_without_the_invariant_network_nothing_is_compared():
    text, _ = said(rows_of({"painn": 0.2}))
    assert text == ""
