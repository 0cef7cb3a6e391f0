"""Averages over conformers, members and folds, on outputs that are given."""

import dataclasses
from typing import Any, cast

import numpy as np
import pytest

from chemscale_jax.core.batches import PropertyRows
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.task import Task
from chemscale_jax.inference import property_split
from tests.toy import make_task

SCALING = {"method": "standard", "shift": [10.0], "scale": [2.0]}
TARGETS = {"names": ["x"], "kind": "regression", "scaling": SCALING}


class Molecules:
    """Four molecules, two of them in the split, the later one first in the file."""

    targets_MT = np.array([[1.0], [2.0], [np.nan], [4.0]])
    where = ("row 9", "row 8", "row 7", "row 6")
    row = np.array([8, 7, 6, 5])

    def records(self, indices):
        class Record:
            def __init__(self, i):
                self.smiles = "C" * (int(i) + 1)

        return [Record(i) for i in indices]


class Epoch:
    """Batches of two rows, whose outputs are the numbers of their batch."""

    def __init__(self, *batches):
        self.batches = batches  # (molecules, outputs)

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        outputs = np.zeros((2, 1), np.float32)
        given = np.asarray(self.batches[index][1], np.float32)[:, None]
        outputs[: len(given)] = given
        rest: Any = None
        return PropertyRows(rest, cast(Any, outputs), rest, rest)

    def record_indices(self, index):
        return np.array(self.batches[index][0])

    def record_ids(self, index):
        return [str(i) for i in self.record_indices(index)]


@pytest.fixture
def task() -> Task:
    """What it predicts is in its batches."""
    return dataclasses.replace(
        make_task(), predict_fn=lambda p, c, batch: {"outputs_BP": batch.targets_BT}
    )


def predicted(task, *batches):
    variables = {"params": {}, "constants": {}}
    molecules: Any = Molecules()
    return property_split.predict_split(
        task, variables, Epoch(*batches), molecules, TARGETS
    )


def test_conformers_are_averaged_in_units_and_rows_are_in_order(task):
    found = predicted(task, ([2, 0], [1.0, 2.0]), ([1, 0], [0.5, 4.0]))
    np.testing.assert_array_equal(found.index, [6, 7, 8])
    np.testing.assert_array_equal(found.id, ["row 7", "row 8", "row 9"])
    np.testing.assert_array_equal(found.smiles, ["CCC", "CC", "C"])
    np.testing.assert_array_equal(found.true, [[np.nan], [2.0], [1.0]])
    np.testing.assert_allclose(found.pred, [[12.0], [11.0], [16.0]])
    np.testing.assert_allclose(found.conformer_std, [[0.0], [0.0], [2.0]])
    np.testing.assert_array_equal(found.conformers, [1, 1, 2])
    with pytest.raises(UserError, match="nothing to predict"):
        predicted(task)


def test_outputs_of_classes_are_probabilities():
    outputs = np.array([[0.0, 1000.0], [np.log(3.0), -1000.0]])
    binary = property_split.in_units(outputs, {"kind": "binary"})
    np.testing.assert_allclose(binary, [[0.5, 1.0], [0.75, 0.0]])
    several = property_split.in_units(outputs[1:] + 5, {"kind": "multiclass"})
    np.testing.assert_allclose(several, [[1.0, 0.0]])


def test_members_are_averaged_and_folds_joined(task):
    parts = [predicted(task, ([0, 2], [float(k), 1.0])) for k in range(3)]
    both = property_split.combine(parts)
    np.testing.assert_allclose(both.pred, [[12.0], [12.0]])
    assert both.member_std is not None
    np.testing.assert_allclose(both.member_std, [[0.0], [2.0]])
    assert property_split.combine(parts[:1]) is parts[0]
    other = predicted(task, ([1, 3], [0.0, 0.0]))
    with pytest.raises(UserError, match="predicts 2 molecules that are not the 2 of"):
        property_split.combine([parts[0], other])
    whole = property_split.join([both, other])
    np.testing.assert_array_equal(whole.index, [5, 6, 7, 8])
    np.testing.assert_allclose(whole.pred[:, 0], [10.0, 12.0, 10.0, 12.0])
    # The other part has no members.
    assert whole.member_std is None
