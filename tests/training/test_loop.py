import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping

import jax
import numpy as np
import pytest

from chemscale_jax.core import partition
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.stream import Epoch, Stream
from chemscale_jax.core.workdir import Workdir
from chemscale_jax.training import checkpoint, loop
from chemscale_jax.training.optimizer import make_optimizer
from tests import toy


def train(
    path,
    stream: Stream | None = None,
    devices=1,
    pause_after=None,
    offload=False,
    **rules,
):
    path.mkdir(exist_ok=True)
    config = toy.make_config(**rules)
    config.optimizer.offload = offload
    optimizer = make_optimizer(config.optimizer, 14, ())
    mesh = partition.make_mesh(data=devices)
    workdir = Workdir(path)
    outcome = loop.train(
        toy.make_task(),
        stream or toy.ToyStream(),
        optimizer,
        config,
        workdir,
        mesh,
        pause_after=pause_after,
    )
    return outcome, workdir


def timeless(workdir):
    return [{k: v for k, v in r.items() if k != "time"} for r in workdir.metrics()]


class Interrupted(toy.ToyStream):
    """Fails, or asks for a stop, before the batch at (epoch, index)."""

    def __init__(self, at, act):
        super().__init__()
        self.at, self.act = at, act

    def iterate(self, epoch, start):
        for index in range(start, len(epoch)):
            if (epoch.epoch, index) == self.at:
                self.act()
            yield epoch[index]


@pytest.mark.parametrize(
    ("kind", "at"),
    [("crash", (0, 1)), ("crash", (1, 3)), ("signal", (1, 3)), ("signal", (3, 0))],
)
def test_a_resumed_run_equals_an_unbroken_one(tmp_path, kind, at):
    whole, whole_dir = train(tmp_path / "whole", checkpoint_every_steps=2)

    def crash():
        raise ConnectionError("cut off")

    def ask():
        os.kill(os.getpid(), signal.SIGTERM)

    if kind == "crash":
        with pytest.raises(ConnectionError):
            train(tmp_path / "cut", Interrupted(at, crash), checkpoint_every_steps=2)
    else:
        outcome, _ = train(
            tmp_path / "cut", Interrupted(at, ask), checkpoint_every_steps=2
        )
        assert outcome.state == "interrupted"
        assert outcome.reason == "got SIGTERM"
    resumed, resumed_dir = train(tmp_path / "cut", checkpoint_every_steps=2)
    assert resumed.progress == whole.progress
    assert timeless(resumed_dir) == timeless(whole_dir)
    left, right = map(checkpoint.load_variables, (resumed_dir, whole_dir))
    assert jax.tree.all(jax.tree.map(np.array_equal, left, right))


def test_a_paused_run_goes_on_as_if_it_had_not_paused(tmp_path):
    whole, whole_dir = train(tmp_path / "whole", checkpoint_every_steps=2)
    for pause_after in (1, 1, 3):
        waits, paused = train(
            tmp_path / "run", pause_after=pause_after, checkpoint_every_steps=2
        )
        assert waits.state == "paused"
        assert waits.reason == f"{pause_after} epochs done; goes on when asked to"
        assert waits.progress.epoch == pause_after
        # Validated, and saved with its rank.
        assert len(paused.series("valid", "loss")[0]) == pause_after
        assert checkpoint.best_step(paused) == waits.progress.best_step
    resumed, resumed_dir = train(
        tmp_path / "run", pause_after=4, checkpoint_every_steps=2
    )
    assert resumed.state == "finished"  # the last epoch is no pause
    assert resumed.progress == whole.progress
    assert timeless(resumed_dir) == timeless(whole_dir)
    left, right = map(checkpoint.load_variables, (resumed_dir, whole_dir))
    assert jax.tree.all(jax.tree.map(np.array_equal, left, right))


def test_epoch_records_are_sums_over_the_log(tmp_path):
    _, workdir = train(tmp_path / "run")
    losses = {}
    for record in workdir.metrics():
        if (record["split"], record["name"]) == ("train", "loss"):
            losses.setdefault(record["epoch"], []).append(record["value"])
    assert [len(losses[epoch]) for epoch in range(4)] == [3, 4, 3, 4]
    means = [np.mean(losses[epoch]) for epoch in range(4)]
    np.testing.assert_allclose(workdir.series("epoch", "train_loss")[1], means, 1e-6)
    np.testing.assert_allclose(
        workdir.series("epoch", "tse")[1], np.cumsum(means), 1e-6
    )
    np.testing.assert_allclose(workdir.series("epoch", "tse_last")[1], means, 1e-6)


def test_a_loss_that_is_not_finite_stops_and_names_the_records(tmp_path):
    with pytest.raises(UserError, match=r"step 5.*point-1-1-0.*checkpoints/3"):
        train(tmp_path / "run", toy.ToyStream(poison_epoch=1))
    # What was saved before is whole, and skipping goes on from there.
    outcome, workdir = train(
        tmp_path / "run", toy.ToyStream(poison_epoch=1), on_nonfinite="skip"
    )
    assert outcome.progress.step == 14
    assert workdir.series("epoch", "skipped_steps")[1] == [0, 1, 1, 1]


def test_one_and_eight_devices_agree(tmp_path):
    _, one = train(tmp_path / "one")
    _, eight = train(tmp_path / "eight", devices=8)
    for split, name in (("train", "loss"), ("valid", "loss"), ("epoch", "tse")):
        np.testing.assert_allclose(
            one.series(split, name)[1], eight.series(split, name)[1], rtol=1e-5
        )


@pytest.mark.gpu
def test_moments_that_wait_on_the_host_change_nothing(tmp_path):
    runs = {
        offload: train(tmp_path / str(offload), offload=offload)[1]
        for offload in (False, True)
    }
    assert timeless(runs[True]) == timeless(runs[False])
    left, right = map(checkpoint.load_variables, runs.values())
    assert jax.tree.all(jax.tree.map(np.array_equal, left, right))


def test_plateau_lowers_the_rate_and_early_stop_ends_the_run(tmp_path):
    class Flat(toy.ToyStream):
        """Validation labels are all masked: the loss is zero from the start."""

        def __init__(self):
            super().__init__()

            class Masked(toy.ToyEpoch):
                def __getitem__(self, index):
                    batch = super().__getitem__(index)
                    return {**batch, "mask": np.zeros(8, bool)}

            self.evals: Mapping[str, Epoch] = {"valid": Masked(0, 1)}

    outcome, workdir = train(
        tmp_path / "run",
        Flat(),
        epochs=50,
        early_stop_epochs=5,
        plateau={"factor": 0.5, "patience": 2, "floor": 1e-7, "threshold": 1e-4},
    )
    assert outcome.reason == "validation loss did not improve for 5 epochs"
    assert outcome.progress.epoch == 6
    rates = workdir.series("train", "lr")[1]
    # Three bad epochs (4 to be read as best, bad, bad, bad) halve it once.
    np.testing.assert_allclose(rates[0], 1e-3, rtol=1e-6)
    np.testing.assert_allclose(rates[-1], 5e-4, rtol=1e-6)


def test_a_run_that_is_done_stays_done(tmp_path):
    first, workdir = train(tmp_path / "run")
    log = workdir.metrics_jsonl.read_text()
    again, _ = train(tmp_path / "run")
    assert again.progress == first.progress
    assert workdir.metrics_jsonl.read_text() == log


def test_a_torn_checkpoint_and_log_line_are_ignored(tmp_path, capsys):
    _, workdir = train(tmp_path / "run", epochs=3)
    torn = workdir.checkpoints / "14.orbax-checkpoint-tmp"
    torn.mkdir()
    (torn / "state").write_text("half")
    with workdir.metrics_jsonl.open("a") as file:
        file.write('{"step": 11, "epo')
    outcome, _ = train(tmp_path / "run", epochs=4)
    assert outcome.progress.step == 14
    assert "ignored unfinished checkpoints: 14.orbax-checkpoint-tmp" in (
        capsys.readouterr().out
    )
    lines = workdir.metrics_jsonl.read_text().splitlines()
    assert all(json.loads(line) for line in lines)


def test_every_record_has_the_fields_of_the_schema(tmp_path):
    _, workdir = train(tmp_path / "run", epochs=1)
    fields = ["step", "epoch", "split", "name", "value", "count", "unit", "time"]
    assert all(list(record) == fields for record in workdir.metrics())
    splits = {record["split"] for record in workdir.metrics()}
    assert splits == {"train", "epoch", "valid"}


READER = """
import pathlib, sys
import jax
from chemscale_jax.core.workdir import Workdir
from chemscale_jax.training.checkpoint import load_variables

assert len(jax.devices()) == 1
variables = load_variables(Workdir(pathlib.Path(sys.argv[1])))
print(variables["params"]["line"]["kernel"].sum())
"""


@pytest.mark.parametrize("devices", [1, 4])
def test_one_device_reads_what_several_wrote(tmp_path, devices):
    _, workdir = train(tmp_path / "run", devices=devices)
    env = {**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", READER, str(workdir.path)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    here = checkpoint.load_variables(workdir)["params"]["line"]["kernel"]
    assert isinstance(here, np.ndarray)
    np.testing.assert_allclose(float(done.stdout), here.sum(), rtol=1e-6)
