import numpy as np
import pytest

from chemscale_jax.data.frames.source import ArraySource
from chemscale_jax.data.frames.training_facts import training_facts


def source_of(forces):
    return ArraySource(
        [[1, 1], [1, 8], [8]],
        [[[0, 0, 0], [0, 0, 0.8]], [[0, 0, 0], [0, 3.0, 4.0]], [[0, 0, 0]]],
        [1.0, 2.0, 3.0],
        forces,
        charges=[0, -1, 0],
        spins=[0, 0, 2],
    )


def test_facts_are_of_the_training_frames_only():
    forces = [
        [[3.0, 0, 4.0], [0, 0, 0]],
        [[0, 0, 0.6], [0, 0, 0]],
        [[0, 0, 0]],
    ]
    facts = training_facts(source_of(forces), np.array([1, 2]))
    assert facts.force_rms == pytest.approx(np.sqrt((0.36 / 6 + 0) / 2))
    assert facts.range == {
        "charges": [-1.0, 0.0],
        "spins": [0.0, 2.0],
        "closest_ang": pytest.approx(5.0),
        "largest_force_ev_per_ang": pytest.approx(0.6),
    }
    assert training_facts(source_of(forces), np.array([0])).range[
        "closest_ang"
    ] == pytest.approx(0.8)


def test_without_forces_nothing_is_said_of_them():
    facts = training_facts(source_of([None, None, None]), np.array([2]))
    assert facts.force_rms == 1.0
    assert facts.range == {"charges": [0.0], "spins": [2.0]}
    assert facts.labelled == {"energy": 1.0, "force": 0.0}
