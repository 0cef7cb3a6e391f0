"""Records in memory and behind other data sources."""

import numpy as np
import pytest

from chemscale_jax.core.errors import UserError
from chemscale_jax.data.frames.source import ArraySource
from chemscale_jax.data.frames.wrapped import WrappedSource
from tests.data.ani_files import FORMULAS, array_source


def _entries(source):
    """The records as dictionaries, the way a TFDS data source gives them."""
    return [
        {
            "species": r.species,
            "positions": r.positions,
            "energy": r.energy,
            "forces": r.forces,
            "molecule": r.id.split("/")[0].encode(),
            "id": r.id.encode(),
        }
        for r in (source[i] for i in range(len(source)))
    ]


def test_arrays_become_records():
    source = array_source(8)
    assert len(source) == 8
    assert source[4].id == "C1H4/1"
    assert source[4].energy_mask
    assert source[4].forces_mask
    assert source.n_atoms.tolist() == [5, 9, 11, 3] * 2
    assert source.group.tolist() == [0, 1, 2, 3] * 2
    assert source.group_names == tuple(FORMULAS)
    assert source.composition(np.array([1, 3])).tolist() == [[6, 2, 0, 1], [2, 0, 0, 1]]


def test_missing_labels_are_masked_and_bad_frames_left_out():
    x = np.array([[0, 0, 0], [0, 0, 1]])
    f = np.ones((2, 3))
    source = ArraySource(
        [[1, 1]] * 6,
        [x, x, x, x * np.nan, x * 0, x],
        [1.0, None, np.nan, 1.0, 1.0, 1.0],
        [None, f, f, f, f, f * np.nan],
    )
    masks = [(source[i].energy_mask, source[i].forces_mask) for i in range(len(source))]
    assert masks == [(True, False), (False, True), (False, True), (True, False)]
    assert np.isnan(source.total_energy).tolist() == [False, True, True, False]
    assert sum(source.report["skipped"].values()) == 2
    assert all(np.isfinite(source[i].forces).all() for i in range(len(source)))
    with pytest.raises(UserError, match=r"none of the 1 records.*two atoms within"):
        ArraySource([[1, 1]], [x * 0], [1.0], [f])


def test_a_wrapped_source_gives_the_same_records():
    source = array_source(12)
    entries = _entries(source)
    entries[5]["positions"] = entries[5]["positions"] * np.nan
    wrapped = WrappedSource(entries, "list", {"name": "list", "version": 1})
    kept = [i for i in range(12) if i != 5]
    assert len(wrapped) == 11
    assert wrapped.report["nan_rows"] == 1
    for new, old in enumerate(kept):
        for left, right in zip(wrapped[new], source[old], strict=True):
            np.testing.assert_array_equal(left, right)
    np.testing.assert_array_equal(wrapped.total_energy, source.total_energy[kept])
    assert wrapped.group_names == source.group_names
    # The index is found again, although the data would now be read otherwise.
    again = WrappedSource(entries[:6], "list", {"name": "list", "version": 1})
    assert len(again) == 11


def test_a_wrapped_source_names_what_is_missing():
    with pytest.raises(UserError, match=r"record 0 of list has energy.*positions"):
        WrappedSource([{"energy": 1.0}], "list")
