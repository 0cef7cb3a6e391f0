import csv

import numpy as np
import pytest
from matplotlib.figure import Figure

from chemscale_jax.analysis.maps.scaffold_plots import draw_structure, scaffold_figure
from chemscale_jax.analysis.maps.scaffold_report import (
    Overlap,
    overlaps,
    report_text,
    write_scaffold_report,
)
from chemscale_jax.chem.drawings import drawing_of
from chemscale_jax.core.errors import UserError
from chemscale_jax.data.conformers.scaffold_table import ScaffoldTable


def table(name, keys, counts, lines=0):
    return ScaffoldTable(
        name,
        lines or len(keys),
        1,
        np.array(sorted(keys), np.uint64),
        list(counts),
        np.array(list(counts.values()), np.int64),
    )


SMALL = table("small", range(10), {"c1ccccc1": 6, "": 3, "c1ccncc1": 1})
LARGE = table(
    "large", range(7, 27), {"C1CC1": 9, "c1ccccc1": 6, "O=c1cccc[nH]1": 3, "C1CCC1": 2}
)


def test_what_a_second_set_adds():
    found = overlaps(SMALL, LARGE)
    assert found == {"molecules": Overlap(10, 20, 3), "scaffolds": Overlap(3, 4, 1)}
    assert (found["molecules"].added, found["molecules"].together) == (17, 27)
    assert (found["scaffolds"].added, found["scaffolds"].together) == (3, 6)


def test_the_report_has_all_counts(tmp_path):
    text = write_scaffold_report([SMALL, LARGE], tmp_path / "new" / "folder")
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "| small | 10 | 1 | 10 | 3 | 3.33 |" in lines
    assert "| molecules | 10 | 20 | 3 | 17 | 27 |" in lines
    assert "| scaffolds | 3 | 4 | 1 | 3 | 6 |" in lines
    # 0.6, 0.3 and 0.1 of all: exp(0.3 / 0.005) leaves nothing to the others.
    spread = "60.00% | 100.00% | 100.00% | 1 | 33.3% | 30.00% | 100.000% |"
    assert f"| small | {spread}" in lines
    assert "| 2 | (acyclic) | 3 | 30.000% |" in lines
    assert "| 1 | `C1CC1` | 9 | 45.000% |" in lines
    with (tmp_path / "new" / "folder" / "scaffolds.csv").open() as stream:
        rows = list(csv.reader(stream))
    assert rows[0] == ["scaffold", "small", "large"]
    assert rows[1:4] == [["c1ccccc1", "6", "6"], ["", "3", "0"], ["c1ccncc1", "1", "0"]]
    assert sorted(rows[4:]) == [
        ["C1CC1", "0", "9"],
        ["C1CCC1", "0", "2"],
        ["O=c1cccc[nH]1", "0", "3"],
    ]
    png = (tmp_path / "new" / "folder" / "scaffolds.png").read_bytes()
    assert png.startswith(b"\x89PNG")
    assert "adds" not in report_text([SMALL])


def points(line):
    return np.asarray(line.get_xydata()).tolist()


def test_the_plot_shows_frequencies_and_structures():
    figure = scaffold_figure([SMALL, LARGE])
    top, *rows = figure.subfigs
    by_rank, cumulative = top.axes
    first, second = by_rank.lines
    assert points(first) == [[1, 6], [2, 3], [3, 1]]
    assert points(second) == [[1, 9], [2, 6], [3, 3], [4, 2]]
    np.testing.assert_allclose(
        points(cumulative.lines[0]), [[1, 0.6], [2, 0.9], [3, 1.0]]
    )
    titles = [[axes.get_title() for axes in row.axes] for row in rows]
    assert titles[0][:4] == ["6", "3", "1", ""]
    assert titles[1][:5] == ["9", "6", "3", "2", ""]
    assert [t.get_text() for t in rows[0].axes[1].texts] == ["acyclic"]


def test_many_scaffolds_are_thinned_out():
    counts = {f"s{i}": 1 for i in range(50_000)}
    many = table("many", range(50_000), counts)._replace(scaffolds=["C1CC1"] * 50_000)
    line = scaffold_figure([many]).subfigs[0].axes[0].lines[0]
    ranks = [rank for rank, _ in points(line)]
    assert len(ranks) <= 2000
    assert (ranks[0], ranks[-1]) == (1, 50_000)


def test_structures_are_drawn_bond_by_bond():
    axes = Figure().subplots()
    draw_structure(axes, drawing_of("C=CC#N"))
    # One double, one single, one triple bond; and the nitrogen.
    assert len(axes.lines) == 2 + 1 + 3
    assert [text.get_text() for text in axes.texts] == ["N"]
    axes = Figure().subplots()
    draw_structure(axes, drawing_of("c1ccccc1"))
    assert len(axes.lines) == 12
    dashed = [line for line in axes.lines if line.get_linestyle() == "--"]
    # The inner line of each bond is nearer to the middle.
    for outer, inner in zip(axes.lines[::2], axes.lines[1::2], strict=True):
        assert inner in dashed
        middle = [np.hypot(*np.mean(points(some), 0)) for some in (outer, inner)]
        assert middle[1] < middle[0]
    axes = Figure().subplots()
    draw_structure(axes, drawing_of("C"))
    assert [text.get_text() for text in axes.texts] == ["C"]


def test_sets_without_molecules_and_folders_that_cannot_be(tmp_path):
    empty = table("none", [], {}, lines=4)
    with pytest.raises(UserError, match="none holds no molecule in 4 lines"):
        write_scaffold_report([SMALL, empty], tmp_path / "x")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_scaffold_report([SMALL], tmp_path / "file")
