"""Published errors beside ours."""

import pytest

from chemscale_jax.analysis.properties import published as published_properties
from chemscale_jax.analysis.properties.published import published_section


def rows(section):
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_gains_of_the_paper_follow_from_its_tables():
    """27 % on QM9 and 14 % on COMPAS: means over columns, over Uni-Mol."""

    def gain(table, best):
        pairs = zip(table.rows["Uni-Mol"], table.rows[best], strict=True)
        gains = [1 - new[0] / old[0] for old, new in pairs]
        return 100 * sum(gains) / len(gains)

    qm9 = gain(published_properties.QM9, "Uni-Mol2 1.1B")
    assert qm9 == pytest.approx(27, abs=0.5)
    compas = gain(published_properties.COMPAS, "Uni-Mol2 1.1B*")
    assert compas == pytest.approx(14, abs=0.6)
    for table in (
        published_properties.QM9,
        published_properties.QM9_FEW,
        published_properties.COMPAS,
        published_properties.BIOGEN,
    ):
        assert {len(row) for row in table.rows.values()} == {len(table.columns)}


def test_ours_stand_in_their_columns():
    ours = {
        "network": {"homo": (0.01, None), "lumo": (0.02, None), "gap": (0.03, None)}
    }
    section = published_section("qm9-cpu-frontier-dft-scratch", ours)
    assert "on another split" in section
    head, *_, last = rows(section)
    assert head[2] == "HOMO/LUMO/gap (Ha)"
    assert last == ["network", "this run", "0.02", "-", "-", "-", "-", "-"]
    alone = published_section("qm9-cpu-gap", {"network": {"gap": (0.03, 0.001)}})
    assert rows(alone)[-1][2] == "0.03 ± 0.001 (gap alone)"
    assert "0.0035 ± 1e-05" in alone


def test_fewer_training_molecules_have_a_table_of_their_own():
    ours = {"network": {"gap": (0.03, None)}}
    section = published_section("qm9-cpu-gap", ours, train=1900, test=950)
    last = rows(section)[-1]
    assert last[0] == "network (200 %)"
    assert last[2:4] == ["-", "-"]
    assert last[4] == "0.03 (gap alone)"


def test_tasks_of_biogen_are_told_by_the_config():
    ours = {"network": {"activity": (0.4, None)}}
    last = rows(published_section("biogen_adme-cpu-Sol-scratch", ours))[-1]
    assert last == ["network", "this run", "-", "-", "0.4"]
    # Not one of the three tasks.
    assert published_section("biogen_adme-cpu-hPPB-scratch", ours) == ""
    whole = {"network": {"LOG HLM_CLint (mL/min/kg)": (0.4, None)}}
    assert rows(published_section("biogen_adme-cpu", whole))[-1][2] == "0.4"


def test_other_data_have_no_published_figures():
    assert published_section("finetune-csv", {"network": {"gap": (1.0, None)}}) == ""
    assert published_section("qm9-cpu", {"network": {"logS": (1.0, None)}}) == ""
