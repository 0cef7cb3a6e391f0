"""Whole runs through the command line, also cut short, resumed and spread."""

import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from chemscale_jax import main
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.predictions import Predictions
from chemscale_jax.core.run_flags import RunFlags
from chemscale_jax.core.workdir import Workdir
from chemscale_jax.training.checkpoint import load_variables
from tests.data.ani_files import FORMULAS, SELF_ENERGIES, write_ani1x
from tests.xla_flags import EIGHT_DEVICES, QUICK

ROOT = pathlib.Path(__file__).parent.parent
# Small enough for many runs; saves often, so that every kill has something to resume.
ARGUMENTS = [
    "--config=configs/painn_ani1x.py:smoke,width=4,depth=1",
    "--config.data.train_size=160",
    "--config.data.valid_size=32",
    "--config.data.heldout=none",
    "--config.train.epochs=3",
    "--config.train.checkpoint_every_steps=2",
    "--config.log.every_steps=1",
    "--config.mesh.data=1",
    # All rows of a batch, for which less is compiled than for slices of it.
    "--config.train.rows_at_once=8",
]


def start(workdir, *arguments, **environment):
    """The trainer in a process of its own, on one CPU device."""
    environ = {**os.environ, "XLA_FLAGS": QUICK}
    with open(f"{workdir}.log", "a") as log:
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                "chemscale_jax.main",
                *ARGUMENTS,
                f"--workdir={workdir}",
                *arguments,
            ],
            cwd=ROOT,
            env={**environ, **environment},
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def finish(process, workdir):
    assert process.wait(timeout=150) == 0, pathlib.Path(f"{workdir}.log").read_text()
    return Workdir(pathlib.Path(workdir))


def timeless(workdir):
    return [{k: v for k, v in r.items() if k != "time"} for r in workdir.metrics()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An unbroken run."""
    path = tmp_path_factory.mktemp("whole") / "run"
    return finish(start(path), path)


def test_a_run_leaves_everything_a_person_looks_for(whole):
    run = whole.run()
    assert run["state"] == "finished"
    assert run["stop_reason"] == "3 epochs done"
    assert run["first_step_s"] < 40
    assert {path.name for path in whole.plots.iterdir()} >= {
        "learning_curves.png",
        "force_parity.png",
        "energy_parity.png",
        "error_per_element.png",
    }
    assert "Model card" in whole.card.read_text()
    assert set(whole.artifacts()["reference_energies_ev"]) == {"H", "C", "N", "O"}
    log = pathlib.Path(f"{whole.path}.log").read_text()
    assert log.startswith("painn_ani1x-smoke, form smoke, on 1 x cpu")
    assert "meV/A" in log
    fill = whole.series("train", "edge_fill")[1]
    assert np.mean(fill) > 0.6  # 160 frames, so the last batch of five is not full


def test_the_pause_is_no_part_of_the_config():
    argv = ["x", "--config=painn_ani1x.py:smoke", "--pause_after_epochs=3"]
    own, rest = main.take_run_flags(argv)
    assert (own.pause_after, rest) == (3, argv[:2])
    assert main.take_run_flags(rest) == (RunFlags(), rest)
    main.parse(rest)
    for wrong in ("", "=", "=0", "=1.5", "=-1"):
        with pytest.raises(UserError, match="pause_after_epochs is"):
            main.take_run_flags([f"--pause_after_epochs{wrong}"])


def test_flags_of_several_processes_belong_together():
    argv = ["--coordinator=h:1", "--processes=2", "--process=1"]
    own, rest = main.take_run_flags([*argv, "--config=x"])
    assert (own.cluster, rest) == (("h:1", 2, 1), ["--config=x"])
    for fewer in (argv[:2], argv[1:], argv[::2]):
        with pytest.raises(UserError, match="missing: several processes"):
            main.take_run_flags(fewer)
    for wrong in ("--process=2", "--process=-1", "--processes=x", "--coordinator=h"):
        with pytest.raises(UserError, match=r"process(es)? "):
            main.take_run_flags([*argv, wrong])


def wait_for_step(workdir, step):
    log = Workdir(workdir).metrics_jsonl
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        if log.exists() and f'"step": {step},' in log.read_text():
            return
        time.sleep(0.01)
    raise TimeoutError(f"step {step} did not come")


def test_stopped_and_killed_at_random_moments_and_resumed_is_bitwise_equal(
    whole, tmp_path
):
    path = tmp_path / "run"
    process = start(path)
    wait_for_step(path, 2)
    process.send_signal(signal.SIGTERM)
    # It saves and exits cleanly.
    assert finish(process, path).run()["state"] == "interrupted"
    last = max(record["step"] for record in whole.metrics())
    moments = sorted(random.Random(3).sample(range(5, last), 2))
    for moment in moments:
        process = start(path)
        wait_for_step(path, moment)
        time.sleep(random.Random(moment).uniform(0, 0.2))
        process.send_signal(signal.SIGKILL)
        process.wait()
    resumed = finish(start(path), path)
    assert resumed.run()["state"] == "finished"
    assert timeless(resumed) == timeless(whole)
    left, right = load_variables(resumed), load_variables(whole)
    for name in ("params", "constants"):
        assert json.dumps(left[name], default=np.ndarray.tolist) == json.dumps(
            right[name], default=np.ndarray.tolist
        )


def losses(workdir, split="train"):
    return workdir.series(split, "loss")[1]


@pytest.mark.slow
def test_eight_devices_give_the_same_losses(whole, tmp_path):
    path = tmp_path / "run"
    flags = f"{QUICK} {EIGHT_DEVICES}"
    spread = ("--config.mesh.data=8", "--config.train.rows_at_once=1")
    eight = finish(start(path, *spread, XLA_FLAGS=flags), path)
    # Only the order of summation differs, and grows over the steps.
    np.testing.assert_allclose(losses(eight), losses(whole), rtol=1e-3)
    np.testing.assert_allclose(
        losses(eight, "valid"), losses(whole, "valid"), rtol=1e-3
    )


def together(workdir, count):
    """Processes that train one run, on one CPU device each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [
        start(
            workdir,
            f"--coordinator=127.0.0.1:{port}",
            f"--processes={count}",
            f"--process={index}",
            f"--config.mesh.data={count}",
            f"--config.train.rows_at_once={8 // count}",
            CHEMSCALE_HEARTBEAT_S="10",
        )
        for index in range(count)
    ]


def test_two_processes_give_the_same_losses(whole, tmp_path):
    path = tmp_path / "run"
    for process in together(path, 2):
        two = finish(process, path)
    assert two.run()["processes"] == 2
    # Only the order of summation differs.
    np.testing.assert_allclose(losses(two), losses(whole), rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("count", "left"), [(2, 1), (4, 2)])
def test_processes_stop_together_and_others_go_on(whole, tmp_path, count, left):
    path = tmp_path / "run"
    processes = together(path, count)
    wait_for_step(path, 2)
    # All of them save after the same step, whoever got the signal.
    processes[-1].send_signal(signal.SIGTERM)
    for process in processes:
        several = finish(process, path)
    assert several.run()["state"] == "interrupted"
    assert several.run()["processes"] == count
    stopped = max(record["step"] for record in several.metrics())

    processes = together(path, count)
    wait_for_step(path, stopped + 5)
    processes[-1].kill()
    processes[-1].wait()
    for process in processes[:-1]:
        assert process.wait(timeout=60) != 0
    said = pathlib.Path(f"{path}.log").read_text()
    # Ours where a collective operation failed, JAX's where a process waited for saving.
    ours, by_jax = "another one has ended before", "another task died"
    assert said.count(ours) + said.count(by_jax) >= count - 1

    for process in together(path, left):
        resumed = finish(process, path)
    assert resumed.run()["state"] == "finished"
    # Only the order of summation differs.
    np.testing.assert_allclose(losses(resumed), losses(whole), rtol=1e-4)
    np.testing.assert_allclose(
        losses(resumed, "valid"), losses(whole, "valid"), rtol=1e-4
    )


def test_training_can_start_from_another_run_on_other_data(whole, tmp_path):
    path, data = tmp_path / "run", tmp_path / "second.h5"
    formulas = {name: FORMULAS[name] for name in ("C1H4", "C2H6O1", "H2O1")}
    write_ani1x(data, formulas=formulas)
    workdir = finish(
        start(
            path,
            f"--config.init_from={whole.path}",
            "--config.init_freeze=('embedding',)",
            "--config.data.train_size=40",
            "--config.data.valid_size=8",
            f"--config.data.path={data}",
            "--config.train.max_steps=2",
        ),
        path,
    )
    log = pathlib.Path(f"{path}.log").read_text()
    assert "arrays taken, fresh: none" in log
    old, new = load_variables(whole)["params"], load_variables(workdir)["params"]
    assert np.array_equal(old["embedding"]["embedding"], new["embedding"]["embedding"])
    assert not np.array_equal(
        old["readout_0"]["out"]["kernel"], new["readout_0"]["out"]["kernel"]
    )
    # What the weights were made for stays; reference energies are those of the data.
    first, second = whole.artifacts(), workdir.artifacts()
    assert second["statistics"] == first["statistics"]
    assert second["reference_energies_ev"]["C"] == pytest.approx(
        27.2114 * SELF_ENERGIES[6], rel=1e-2
    )


FORCES_ALONE = ("--config.loss.alpha_energy=0.0", "--config.train.epochs=2")


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory):
    """Two seeds trained together."""
    path = tmp_path_factory.mktemp("ensemble") / "run"
    return finish(start(path, "--config.train.ensemble=2", *FORCES_ALONE), path)


def test_an_ensemble_trained_on_forces_alone(ensemble):
    assert ensemble.run()["state"] == "finished"
    lanes = [Workdir(ensemble.path / "lanes" / str(k)) for k in range(2)]
    assert [lane.config()["seed"] for lane in lanes] == [0, 1]
    assert lanes[0].series("valid", "loss") != lanes[1].series("valid", "loss")
    for lane in lanes:
        assert lane.run()["state"] == "finished"
        assert set(lane.artifacts()["calibration_ev"]) == {"H", "C", "N", "O"}
        assert "Model card" in lane.card.read_text()
    found = Predictions.load(ensemble.predictions / "valid.npz")
    assert found.energy_std is not None
    assert found.forces_std is not None
    assert (found.forces_std > 0).all()
    # Calibrated on training frames, energies have no constant left.
    error = found.energy_pred - found.energy_true
    assert abs(error.mean()) < 3 * error.std()
    text = pathlib.Path(f"{ensemble.path}.log").read_text()
    assert "lane 1 finished" in text
    assert "energy rho" in text


@pytest.mark.slow
def test_a_lane_equals_the_ordinary_run_of_its_seed(ensemble, tmp_path):
    path = tmp_path / "run"
    alone = finish(start(path, "--config.seed=1", *FORCES_ALONE), path)
    lane = Workdir(ensemble.path / "lanes" / "1")
    left, right = timeless(lane), timeless(alone)
    assert [{**r, "value": 0} for r in left] == [{**r, "value": 0} for r in right]
    # Only the order of summation differs, and grows over the steps.
    np.testing.assert_allclose(
        [r["value"] for r in left], [r["value"] for r in right], rtol=1e-3
    )
    # Given the folder of the lane, the ordinary command finds nothing to add.
    finish(start(lane.path, "--config.seed=1", *FORCES_ALONE), lane.path)
    assert timeless(lane) == left


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "facts"),
    [
        (
            "ani1x_sample_official_layout.h5",
            "method wb97x_dz, 8 rows read in hartree, hartree/angstrom, angstrom and "
            "converted to eV and angstrom; 0 rows with NaN and 0 bad ones left out; "
            "7 frames to train on, 1 to validate",
        ),
        ("qm7x_250_ani1x_layout.h5", "method pbe0_mbd, 2500 rows read in hartree"),
    ],
)
def test_files_in_the_official_layout_need_only_their_path(tmp_path, name, facts):
    folder = pathlib.Path(os.environ["CHEMSCALE_SHARED"]) / "data" / "ff" / "ani"
    path = tmp_path / "run"
    with open(f"{path}.log", "w") as log:
        subprocess.run(
            [
                sys.executable,
                "-m",
                "chemscale_jax.main",
                "--config=configs/painn_ani1x.py:smoke,width=4,depth=1",
                "--config.mesh.data=1",
                f"--config.data.path={folder / name}",
                f"--workdir={path}",
            ],
            cwd=ROOT,
            env={**os.environ, "XLA_FLAGS": QUICK},
            stdout=log,
            stderr=subprocess.STDOUT,
            check=True,
        )
    assert facts in pathlib.Path(f"{path}.log").read_text()
    assert Workdir(path).run()["state"] == "finished"
