"""Similar molecules by fingerprints: RDKit's numbers equal counts of bits."""

import numpy as np

from chemscale_jax.analysis.search.similarity import tanimoto
from chemscale_jax.chem import fingerprint_search
from chemscale_jax.chem.drugs import drugs
from chemscale_jax.chem.fingerprint_search import (
    BYTES,
    most_similar,
    packed_fingerprints,
)

SMILES = [drug.smiles for drug in drugs()][:120]


def test_similarities_and_their_order_equal_counts_of_bits(monkeypatch):
    monkeypatch.setattr(fingerprint_search, "_BLOCK", 50)
    known = packed_fingerprints(SMILES)
    # Equals too: each of the first ten occurs twice.
    known = np.concatenate([known, known[:10]])
    ids, found = most_similar(known, known[:30], 12)
    expected = tanimoto(known[:30], known)
    order = np.argsort(-expected, axis=1, kind="stable")[:, :12]
    assert np.array_equal(ids, order)
    true = np.take_along_axis(expected, order, axis=1)
    assert np.abs(found - true).max() < 1e-7  # float32 on one side
    assert ids[:10, :2].tolist() == [[i, 120 + i] for i in range(10)]


def test_what_cannot_be_read_has_no_bits_and_is_like_nothing():
    bits = packed_fingerprints(["CCO", "not a molecule", ""])
    assert bits.shape == (3, BYTES)
    assert bits[0].any()
    assert not bits[1:].any()
    ids, found = most_similar(bits, bits[:1], 5)
    assert ids.tolist() == [[0, 1, 2, -1, -1]]
    assert found[0, :3].tolist() == [1, 0, 0]
    assert np.isnan(found[0, 3:]).all()


def test_other_spellings_have_the_same_fingerprint():
    bits = packed_fingerprints(["OCC", "C(C)O"])
    assert np.array_equal(bits[0], bits[1])


def test_no_query_and_no_molecule():
    bits = packed_fingerprints(SMILES[:3])
    assert most_similar(bits, bits[:0], 2)[0].shape == (0, 2)
    ids, found = most_similar(bits[:0], bits, 2)
    assert (ids == -1).all()
    assert np.isnan(found).all()
