import json
import pathlib

import numpy as np
import pytest

from chemscale_jax.core.workdir import SCHEMA_VERSION, Workdir, write_json

CONFIG = {
    "name": "hand-made",
    "task": "force_field",
    "seed": 0,
    "model": {"name": "painn", "width": 8, "cutoff_ang": 5.0},
    "loss": {"power": "l1", "alpha_energy": 0.02, "alpha_force": 1.0},
    "data": {"source": "embedded", "path": ""},
}
RUN = {
    "schema": SCHEMA_VERSION,
    "chemscale_jax": "9.9.9",
    "commit": "0123abcd",
    "devices": ["cpu", "cpu"],
    "packages": {"jax": "0.10.1"},
    "state": "finished",
    "stop_reason": "2 epochs done",
}


def two_frames() -> dict[str, np.ndarray]:
    """Two frames whose errors can be computed by hand.

    Frame 0, H and O: the mean absolute true component is 4.5 / 6 = 0.75 eV/A and the
    errors add up to 0.6 eV/A over 6 components. Frame 1, H alone: mean 0.3, errors
    0.3 over 3 components.
    """
    return {
        "id": np.array(["water/0", "hydrogen/0"]),
        "index": np.array([0, 1]),
        "n_atoms": np.array([2, 1], np.int32),
        "energy_true": np.array([1.0, -0.5]),
        "energy_pred": np.array([1.03, -0.51]),
        "energy_mask": np.array([True, True]),
        "frame": np.array([0, 0, 1], np.int32),
        "species": np.array([1, 8, 1], np.uint8),
        "forces_true": np.array(
            [[1.0, 0.5, 0.75], [-1.0, -0.5, -0.75], [0.3, -0.3, 0.3]], np.float32
        ),
        "forces_pred": np.array(
            [[1.1, 0.4, 0.85], [-1.1, -0.4, -0.65], [0.4, -0.2, 0.4]], np.float32
        ),
        "forces_mask": np.array([True, True, True]),
        "kind": np.array([0, 1], np.uint8),
    }


def many_frames(seed: int, error: float) -> dict[str, np.ndarray]:
    """Enough atoms for a density plot."""
    rng = np.random.default_rng(seed)
    n_atoms = rng.integers(3, 10, 200).astype(np.int32)
    frame = np.repeat(np.arange(200, dtype=np.int32), n_atoms)
    forces = rng.laplace(size=(len(frame), 3)).astype(np.float32)
    energy = rng.normal(size=200)
    return {
        "id": np.arange(200).astype(np.str_),
        "index": np.arange(200),
        "n_atoms": n_atoms,
        "energy_true": energy,
        "energy_pred": energy + error * rng.normal(size=200),
        "energy_mask": np.ones(200, bool),
        "frame": frame,
        "species": rng.choice([1, 6, 7, 8], len(frame)).astype(np.uint8),
        "forces_true": forces,
        "forces_pred": forces + error * rng.normal(size=forces.shape).astype("f4"),
        "forces_mask": np.ones(len(frame), bool),
        "kind": rng.integers(0, 3, 200).astype(np.uint8),
    }


def metric_lines() -> str:
    """A short log with a value that was not finite."""
    records = []
    for step in range(10, 101, 10):
        found = {"loss": 10.0 / step, "lr": 1e-3, "force_mae": 1e4 / step}
        records += [(step, "train", found)]
        if step % 50 == 0:
            records += [
                (step, "epoch", {"train_loss": 12.0 / step, "tse": 1.0}),
                (step, "valid", {"loss": 11.0 / step, "force_mae": 2e4 / step}),
                (step, "heldout", {"loss": None, "force_mae": 3e4 / step}),
            ]
    return "".join(
        json.dumps(
            {
                "step": step,
                "epoch": 0,
                "split": split,
                "name": name,
                "value": value,
                "count": 1,
                "unit": "",
            }
        )
        + "\n"
        for step, split, values in records
        for name, value in values.items()
    )


def hand_made_run(path: pathlib.Path) -> Workdir:
    """A finished run with predictions of two splits."""
    workdir = Workdir(path)
    workdir.predictions.mkdir(parents=True)
    write_json(workdir.config_json, CONFIG)
    write_json(workdir.run_json, RUN)
    write_json(
        workdir.artifacts_json,
        {"reference_energies": {"H": -10.5}, "ids": list(range(100))},
    )
    workdir.metrics_jsonl.write_text(metric_lines())
    np.savez(workdir.predictions / "valid.npz", allow_pickle=False, **two_frames())
    np.savez(
        workdir.predictions / "heldout.npz", allow_pickle=False, **many_frames(1, 0.2)
    )
    return workdir


@pytest.fixture
def workdir(tmp_path: pathlib.Path) -> Workdir:
    return hand_made_run(tmp_path / "run")


@pytest.fixture
def frame_arrays() -> dict[str, np.ndarray]:
    return two_frames()
