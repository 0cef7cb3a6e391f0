"""Reports of many runs are those that each run alone has."""

import types
from typing import Any

import pytest

from chemscale_jax.analysis.reports import report
from chemscale_jax.core.errors import UserError
from chemscale_jax.runs import endings
from tests.analysis.conftest import hand_made_run


@pytest.fixture
def lanes(tmp_path, monkeypatch) -> list[Any]:
    """Four finished runs; an ending writes who was there."""
    monkeypatch.setattr(endings, "usable_processes", lambda: 1)
    monkeypatch.setattr(
        endings,
        "ENDINGS",
        {"t": lambda lane, lead: (lane.workdir.path / "ended").write_text(str(lead))},
    )
    config = types.SimpleNamespace(task="t")
    return [
        types.SimpleNamespace(config=config, workdir=hand_made_run(tmp_path / str(k)))
        for k in range(4)
    ]


def test_many_reports_are_drawn_elsewhere(lanes, tmp_path):
    texts = endings.end_runs(lanes, lead=True)
    alone = hand_made_run(tmp_path / "alone")
    assert texts == [report.write_report(alone)] * 4
    for lane in lanes:
        assert (lane.workdir.path / "ended").read_text() == "True"
        assert lane.workdir.card.read_text() == alone.card.read_text()
        names = {path.name for path in lane.workdir.plots.iterdir()}
        assert names == {path.name for path in alone.plots.iterdir()}


def test_a_mistake_in_one_of_them_is_told(lanes):
    for lane in lanes:
        lane.workdir.config_json.unlink()
    with pytest.raises(UserError, match=r"0/config\.json does not exist"):
        endings.end_runs(lanes, lead=True)


def test_processes_that_do_not_write_draw_nothing(lanes):
    assert endings.end_runs(lanes, lead=False) == []
    assert not any(lane.workdir.card.exists() for lane in lanes)
