"""Padding, the shapes of batches, and which molecules share one."""

import numpy as np
import pytest

from chemscale_jax.chem.molecule_features import feature_ids
from chemscale_jax.core.errors import UserError
from chemscale_jax.data.conformers.molecule_rows import (
    BUCKETS,
    BatchShape,
    batch_shapes,
    batch_spec,
    molecule_rows,
    plan_batches,
)
from tests.data.memory_molecules import record

ATOMS = np.array([3, 11, 12, 12, 13, 19, 30])


def test_rows_hold_the_ids_and_nothing_else():
    records = [record(i) for i in (4, 0)]
    features = [feature_ids(one) for one in records]
    shape = BatchShape(3, 9)
    rows = molecule_rows(features, [r.positions_KN3[-1] for r in records], shape)
    for row, (ids, one) in enumerate(zip(features, records, strict=True)):
        N = len(one.species_N)
        np.testing.assert_array_equal(rows.species_BN[row, :N], one.species_N)
        np.testing.assert_array_equal(rows.atom_BN8[row, :N], ids.atom_N8)
        np.testing.assert_array_equal(rows.bond_BNN3[row, :N, :N], ids.bond_NN3)
        np.testing.assert_array_equal(rows.path_BNN[row, :N, :N], ids.path_NN)
        np.testing.assert_array_equal(rows.degree_BN[row, :N], ids.degree_N)
        np.testing.assert_array_equal(
            rows.positions_BN3[row, :N], one.positions_KN3[-1]
        )
        for array in rows:
            assert not array[row, N:].any()
        assert not rows.bond_BNN3[row, :, N:].any()
        assert not rows.path_BNN[row, :, N:].any()
    assert not any(array[2].any() for array in rows)
    for array, spec in zip(rows, batch_spec(shape).molecules, strict=True):
        assert (array.shape, array.dtype) == (spec.shape, spec.dtype)


def test_rooms_occur_and_batches_cost_about_the_same():
    shapes = batch_shapes("budget", 4, 0, (), ATOMS)
    assert [shape.atoms for shape in shapes] == [11, 15, 19, 31]
    assert all(shape.rows % 4 == 0 for shape in shapes)
    assert shapes[-1].rows == 4
    cost = [shape.rows * (shape.atoms + 1) ** 2 for shape in shapes]
    assert max(cost) < 1.3 * min(cost)
    # With the virtual atom, places are multiples of 4.
    assert all((room + 1) % 4 == 0 for room in BUCKETS)
    larger = batch_shapes("budget", 4, 8 * 32**2, (15, 31), ATOMS)
    assert larger == ((32, 15), (8, 31))
    assert batch_shapes("equal", 6, 0, (), ATOMS)[0] == (6, 11)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("packed", 4, 0, ()), "form='packed' is unknown"),
        (("budget", 0, 0, ()), "rows=0, budget=0: give at least 1 row"),
        (("equal", 4, 0, (9, 9)), "give rising numbers of atoms"),
        (("equal", 4, 0, (9, 29)), "has 30 heavy atoms, but config.batch.buckets end"),
    ],
)
def test_shapes_that_make_no_sense_are_refused(arguments, message):
    form, rows, budget, buckets = arguments
    with pytest.raises(UserError, match=message):
        batch_shapes(form, rows, budget, buckets, ATOMS)


@pytest.mark.parametrize("seed", [0, None])
def test_a_plan_holds_each_molecule_once_in_full_batches(seed):
    rng = np.random.default_rng(3)
    atoms = rng.integers(1, 40, 500)
    shapes = [BatchShape(16, 11), BatchShape(8, 23), BatchShape(4, 39)]
    shuffle = None if seed is None else np.random.default_rng(seed)
    plan = plan_batches(atoms, shapes, shuffle)
    assert sorted(plan.places) == list(range(500))
    held = []
    for number, first, stop in plan.batches:
        assert atoms[plan.places[first:stop]].max() <= shapes[number].atoms
        held += range(first, stop)
    assert sorted(held) == list(range(500))
    spare = [shapes[n].rows - (stop - first) for n, first, stop in plan.batches]
    assert min(spare) >= 0
    assert sum(x > 0 for x in spare) <= 1
    assert (np.diff(plan.batches[:, 0]) >= 0).all() == (seed is None)
