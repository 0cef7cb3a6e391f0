import json

import pytest

from chemscale_jax.core.errors import UserError
from chemscale_jax.core.workdir import Workdir, write_json
from chemscale_jax.training import setup

CONFIG = {"name": "toy", "workdir": "", "log": {"every_steps": 1}, "lr": 0.1, "x": (1,)}


def test_a_torn_last_line_is_left_out_and_a_bad_one_is_named(tmp_path):
    workdir = Workdir(tmp_path)
    good = json.dumps({"step": 1, "split": "a", "name": "b", "value": 2.0})
    workdir.metrics_jsonl.write_text(f'{good}\n{{"step": 2, "spl')
    assert workdir.series("a", "b") == ([1], [2.0])
    workdir.metrics_jsonl.write_text(f"{good}\nrubbish\n{good}\n")
    with pytest.raises(UserError, match="line 2 is not JSON"):
        list(workdir.metrics())
    with pytest.raises(UserError, match="is it a workdir"):
        list(Workdir(tmp_path / "absent").metrics())


def test_the_last_whole_record_is_found_in_a_long_log(tmp_path):
    workdir = Workdir(tmp_path)
    assert workdir.last_record() is None
    lines = [json.dumps({"step": step, "name": "x" * 50}) for step in range(500)]
    workdir.metrics_jsonl.write_text("\n".join(lines) + '\n{"step": 500, "na')
    assert (workdir.last_record() or {})["step"] == 499
    workdir.metrics_jsonl.write_text(lines[0])
    assert workdir.last_record() is None


def test_a_newer_schema_is_refused(tmp_path):
    workdir = Workdir(tmp_path)
    write_json(workdir.run_json, {"schema": 99})
    with pytest.raises(UserError, match="has schema 99"):
        workdir.run()


def test_the_same_config_finds_its_folder_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = setup.open_workdir(CONFIG, lead=True)
    again = setup.open_workdir({**CONFIG, "log": {"every_steps": 5}}, lead=True)
    other = setup.open_workdir({**CONFIG, "lr": 0.2}, lead=True)
    assert first == again
    assert other != first
    assert first.path.name.startswith("toy-")


def test_a_folder_of_another_config_is_refused(tmp_path):
    given = {**CONFIG, "workdir": str(tmp_path)}
    setup.claim(setup.open_workdir(given, lead=True), given)
    with pytest.raises(UserError, match=r"another config \(lr: 0.1 -> 0.2\)"):
        setup.open_workdir({**given, "lr": 0.2}, lead=True)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file/run cannot be written"):
        setup.open_workdir({**CONFIG, "workdir": f"{tmp_path}/file/run"}, lead=True)
