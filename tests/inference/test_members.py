import dataclasses
import json

import numpy as np
import pytest

from chemscale_jax.core.errors import UserError
from chemscale_jax.core.predictions import Predictions
from chemscale_jax.core.workdir import Workdir, write_json
from chemscale_jax.inference import members
from tests.analysis.conftest import many_frames


def shuffled(frames: Predictions, seed: int) -> Predictions:
    """The same frames in another order."""
    order = np.random.default_rng(seed).permutation(len(frames))
    starts = np.cumsum(frames.n_atoms) - frames.n_atoms
    atoms = np.concatenate(
        [int(starts[f]) + np.arange(int(frames.n_atoms[f])) for f in order]
    )
    changed = {
        field.name: getattr(frames, field.name)[
            atoms if field.name in members.PER_ATOM else order
        ]
        for field in dataclasses.fields(frames)
        if getattr(frames, field.name) is not None
    }
    changed["frame"] = np.repeat(np.arange(len(order)), frames.n_atoms[order])
    return Predictions(**changed)


@pytest.fixture(scope="module")
def three():
    """Members that differ by noise, over the same frames in different orders."""
    first = Predictions(**many_frames(0, 0.1))
    rng = np.random.default_rng(3)
    noisy = [
        dataclasses.replace(
            first,
            energy_pred=first.energy_pred + rng.normal(size=len(first)),
            forces_pred=first.forces_pred
            + rng.normal(size=first.forces_pred.shape).astype(np.float32),
        )
        for _ in range(3)
    ]
    return noisy, [shuffled(member, k) for k, member in enumerate(noisy)]


def test_mean_and_spread_over_members_in_any_order(three):
    plain, mixed = three
    found = members.combine(mixed)
    assert found.energy_std is not None
    assert found.forces_std is not None
    np.testing.assert_array_equal(found.index, plain[0].index)
    np.testing.assert_array_equal(found.frame, plain[0].frame)
    np.testing.assert_array_equal(found.forces_true, plain[0].forces_true)
    energy = np.stack([m.energy_pred for m in plain])
    forces = np.stack([m.forces_pred for m in plain]).astype(float)
    np.testing.assert_allclose(found.energy_pred, energy.mean(0))
    np.testing.assert_allclose(found.energy_std, energy.std(0, ddof=1))
    np.testing.assert_allclose(found.forces_pred, forces.mean(0), atol=1e-6)
    spread = np.sqrt(((forces - forces.mean(0)) ** 2).sum((0, 2)) / 2)
    np.testing.assert_allclose(found.forces_std, spread, rtol=1e-5)


def test_members_of_other_frames_are_refused(three):
    other = Predictions(**{**many_frames(0, 0.1), "index": np.arange(200) + 1})
    with pytest.raises(UserError, match="member 1 predicts 200 frames that are not"):
        members.combine([three[0][0], other])


def test_an_ensemble_has_predictions_log_and_artifacts_of_its_own(three, tmp_path):
    folders = []
    for k, member in enumerate(three[1][:2]):
        folder = Workdir(tmp_path / "lanes" / str(k))
        folder.path.mkdir(parents=True)
        member.save(folder.predictions / "valid.npz")
        facts = {"units": {}, "calibration_ev": {"H": k}, "calibration_step": 7}
        write_json(folder.artifacts_json, facts)
        lines = [
            {
                "step": 10 + k,
                "epoch": epoch,
                "split": "valid",
                "name": "loss",
                "value": 1.0 + 2 * k,
                "count": 3,
                "unit": "eV",
                "time": {},
            }
            for epoch in range(2 - k)
        ]
        folder.metrics_jsonl.write_text("".join(json.dumps(x) + "\n" for x in lines))
        folders.append(folder)
    workdir = Workdir(tmp_path)
    members.write_ensemble(workdir, folders)
    saved = Predictions.load(workdir.predictions / "valid.npz")
    assert saved.energy_std is not None
    assert saved.forces_std is not None
    assert workdir.artifacts() == {"units": {}}
    # Both members have the first epoch, one of them the second.
    assert sorted(workdir.series("valid", "loss")[1]) == [1.0, 2.0]
    assert [r["count"] for r in workdir.metrics() if r["value"] == 2.0] == [6]
