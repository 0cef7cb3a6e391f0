import csv
import json

import numpy as np
import pytest

from chemscale_jax.analysis.maps import embedding_maps
from chemscale_jax.analysis.maps.embedding_maps import MapSettings
from chemscale_jax.analysis.maps.mapped_molecules import read_molecules
from chemscale_jax.analysis.maps.report import (
    plot_name,
    report_text,
    verdict,
    write_map_report,
)
from chemscale_jax.analysis.maps.study import StudySettings, study_maps
from chemscale_jax.core.errors import UserError
from tests.analysis.embedding_files import ring_smiles, ring_values, table

FEW = StudySettings(replicates=40, permutations=40)
PCA = MapSettings(method="pca")


@pytest.fixture(scope="module")
def molecules(tmp_path_factory):
    """Three spaces: clear, equal to it but for little noise, and without relation."""
    folder = tmp_path_factory.mktemp("spaces")
    smiles = [*ring_smiles(), "CCO", ""]
    rest = np.array([[0.0] * 8, [np.nan] * 8])
    clear = ring_values(3.0)
    values = {
        "clear": clear,
        "alike": clear + 0.01 * ring_values(0.0, seed=5),
        "noise": ring_values(0.0, seed=6),
    }
    columns = {
        "first": np.array([*(f"{x:.4f}" for x in clear[:, 0]), "1", ""]),
        "active": np.array([*("01" * 50), "1", ""]),
        "name": np.array([f"m{i}" for i in range(102)]),
    }
    for name, own in values.items():
        own = np.concatenate([own, rest])
        table(smiles, own, columns=columns).save(folder / f"{name}.npz")
    return read_molecules([folder / f"{name}.npz" for name in values])


@pytest.fixture(scope="module")
def study(molecules):
    labels = ["scaffold", "first", "active", "name"]
    colorings = [molecules.coloring(name) for name in labels]
    return study_maps(molecules, colorings, PCA, FEW, progress=False)


def test_the_text_says_who_wins(study):
    scaffold, first, active, name = (verdict(f) for f in study.findings)
    assert scaffold.startswith("**No single winner**")
    assert "clear is not told apart from alike" in scaffold
    assert "- clear is better than noise: difference +" in scaffold
    assert "noise does not know scaffold" in scaffold
    assert "- clear is better than noise: difference -" in first  # lower is better
    assert "lowest contrast" in first
    assert "clear does not know active" in active
    assert name == "Too few molecules have a label of name for numbers."
    # Two spaces, one of which wins.
    (finding, *_) = study.findings
    names = ("clear", "noise")
    two = finding._replace(
        spaces={n: finding.spaces[n] for n in names},
        gaps={names: finding.gaps[names]},
    )
    assert verdict(two).startswith("**clear wins**: clear has the highest balanced")
    reverse = finding._replace(
        spaces={n: finding.spaces[n] for n in names[::-1]},
        gaps={
            names[::-1]: finding.gaps[names]._replace(
                value=-finding.gaps[names].value,
                interval=tuple(-x for x in finding.gaps[names].interval[::-1]),
            )
        },
    )
    assert verdict(reverse).startswith("**clear wins**")
    assert "- noise is worse than clear" in verdict(reverse)


def test_the_text_accounts_for_all_rows(study):
    text = report_text(study)
    assert "# PCA maps of 101 molecules" in text
    rows = [" ".join(line.split()) for line in text.splitlines()]
    assert "| 101 | shown |" in rows
    assert "| 1 | no embedding in clear, such as row 101: no SMILES |" in rows
    assert "100 molecules in 4 groups" in text  # one more is acyclic


def test_all_files_are_written(study, tmp_path):
    folder = tmp_path / "new" / "maps"
    text = write_map_report(study, folder)
    assert (folder / "report.md").read_text() == text
    for label in ("scaffold", "first", "active", "name"):
        assert (folder / plot_name(label)).read_bytes().startswith(b"\x89PNG")
    with (folder / "map.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["row"] for row in rows] == [str(i) for i in range(102)]
    assert float(rows[3]["x_clear"]) == pytest.approx(
        study.maps["clear"][3, 0], abs=1e-4
    )
    assert rows[101]["state"] == "no embedding in clear: no SMILES"
    assert rows[101]["y_noise"] == ""
    facts = json.loads((folder / "report.json").read_text())
    assert facts["rows"] == 102
    _, gap, _ = facts["labels"][0]["differences"]
    assert (gap["first"], gap["second"]) == ("clear", "noise")
    assert gap["interval"][0] < gap["value"] < gap["interval"][1]
    purity = facts["labels"][0]["spaces"]["noise"]["balanced"]
    assert purity["chance"] == pytest.approx(0.25, abs=0.05)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_map_report(study, tmp_path / "file")


def test_names_of_plots_stay_in_the_folder():
    assert plot_name("a/b c") == "map_a_b_c.png"


def test_finished_layouts_are_kept(molecules, tmp_path, monkeypatch):
    first = study_maps(molecules, [], PCA, FEW, tmp_path, progress=False)

    def fail(*_):
        raise AssertionError("made anew")

    monkeypatch.setattr(embedding_maps, "map_coordinates", fail)
    again = study_maps(molecules, [], PCA, FEW, tmp_path, progress=False)
    for name in first.maps:
        np.testing.assert_array_equal(first.maps[name], again.maps[name])
    other = MapSettings(method="pca", seed=1)
    with pytest.raises(AssertionError, match="made anew"):
        study_maps(molecules, [], other, FEW, tmp_path, progress=False)
    for path in tmp_path.glob("*.npz"):
        path.write_bytes(b"torn")
    with pytest.raises(AssertionError, match="made anew"):
        study_maps(molecules, [], PCA, FEW, tmp_path, progress=False)
