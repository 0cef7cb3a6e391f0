import json
import sys
import types

import pytest

from chemscale_jax.core.errors import UserError
from chemscale_jax.core.workdir import Workdir
from chemscale_jax.training import records


def test_a_log_opened_again_goes_on_after_the_lines_it_had(tmp_path):
    workdir = Workdir(tmp_path)
    log = records.MetricLog(workdir, 0)
    for step in (1, 2, 3):
        log.write(step, 0, "train", {"loss": (1.0 / step, 1, "eV")})
    log.close()
    again = records.MetricLog(workdir, 2)
    again.write(3, 0, "train", {"loss": (float("nan"), 1, "eV")})
    again.close()
    assert again.lines == 3
    assert workdir.series("train", "loss") == ([1, 2, 3], [1.0, 0.5, None])


def test_tensorboard_gets_what_the_log_gets(tmp_path, monkeypatch):
    written, folders = [], []

    class SummaryWriter:
        def __init__(self, folder):
            folders.append(folder)

        def add_scalar(self, *scalar):
            written.append(scalar)

        def close(self):
            written.append("closed")

    module = types.ModuleType("tensorboardX")
    monkeypatch.setattr(module, "SummaryWriter", SummaryWriter, raising=False)
    monkeypatch.setitem(sys.modules, "tensorboardX", module)
    workdir = Workdir(tmp_path)
    log = records.MetricLog(
        workdir, 0, records.make_writers(("tensorboard",), workdir, {})
    )
    log.write(7, 0, "valid", {"loss": (0.5, 1, "")})
    log.close()
    assert folders == [str(tmp_path / "tensorboard")]
    assert written == [("valid/loss", 0.5, 7), "closed"]


def test_a_writer_that_is_not_installed_names_its_extra(monkeypatch):
    monkeypatch.setattr(records.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"chemscale_jax\[tensorboard\]"):
        records.check_writers(("tensorboard",))
    with pytest.raises(UserError, match="'paper', expected some of"):
        records.check_writers(("paper",))


def test_each_line_is_json_without_infinities(tmp_path):
    workdir = Workdir(tmp_path)
    log = records.MetricLog(workdir, 0)
    log.write(1, 0, "train", {"loss": (float("inf"), 1, "")})
    log.close()
    line = workdir.metrics_jsonl.read_text()
    assert json.loads(line)["value"] is None
    assert "Infinity" not in line
