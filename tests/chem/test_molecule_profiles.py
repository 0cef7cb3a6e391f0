import numpy as np
import pytest

from chemscale_jax.chem.molecule_profiles import (
    canonical_keys,
    profile_all,
)
from chemscale_jax.chem.smiles import molecule_key
from chemscale_jax.chem.worker_map import ordered_map
from chemscale_jax.core.errors import UserError


def test_profiles_are_in_the_order_given():
    smiles = ["OCC", None, "c1ccccc1[O-]", "C(C", "", "OCC"]
    found = profile_all(smiles)
    assert len(found) == len(smiles)
    assert found.canonical == ["CCO", "", "[O-]c1ccccc1", "", "", "CCO"]
    assert found.valid.tolist() == [True, False, True, False, False, True]
    np.testing.assert_array_equal(found.bits[0], found.bits[5])
    assert not found.bits[1].any()
    assert np.isnan(found.properties[[1, 3, 4]]).all()
    assert np.isfinite(found.properties[[0, 2, 5]]).all()
    assert str(found.verdicts[2][0]) == "charge: O-1"
    assert found.neutral_verdicts[2] == ()
    assert found.take(np.array([2, 0])).canonical == ["[O-]c1ccccc1", "CCO"]


def test_keys_stand_for_canonical_smiles():
    expected = np.unique(np.array([molecule_key("CCO"), molecule_key("C")], np.uint64))
    found = canonical_keys(["OCC", "C", "C(C", None, "CCO"])
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.uint64


def lengths(texts):
    return [len(text) for text in texts]


def test_processes_keep_the_order():
    texts = ["x" * (i % 97) for i in range(1234)]
    expected = lengths(texts)
    for processes in (1, 2):
        found = ordered_map(
            lengths, texts, processes=processes, label="", progress=False
        )
        assert list(found) == expected
    with pytest.raises(UserError, match="at least 1"):
        list(ordered_map(lengths, texts, processes=0, label=""))
