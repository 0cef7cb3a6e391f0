import numpy as np
import pytest

from chemscale_jax.chem.molecule_record import (
    STATUSES,
    failed_record,
    record_of_smiles,
)
from chemscale_jax.data.conformers import codec
from chemscale_jax.data.conformers.codec import decode_record, encode_record


def same(one, other):
    return all(
        np.array_equal(a, b) and getattr(a, "dtype", None) == getattr(b, "dtype", None)
        for a, b in zip(one, other, strict=True)
    )


def random_record(seed=0, K=3, size=8.0):
    rng = np.random.default_rng(seed)
    record = record_of_smiles("C[C@H](N)C(=O)Oc1ccccc1", "line 7, \u00b5")
    shape = (K, len(record.species_N), 3)
    positions = rng.normal(scale=size, size=shape).astype(np.float32)
    return record._replace(positions_KN3=positions, status="unconverged", reason="why")


def test_float32_gives_the_record_back():
    for K in (1, 3):
        record = random_record(K=K)
        again = decode_record(encode_record(record, float32=True))
        assert same(record, again)
        # Nothing of it belongs to the bytes.
        again.positions_KN3[0, 0] = again.species_N[0] = again.atoms_N8[0] = 1


def test_sixteen_bits_move_coordinates_by_a_bounded_amount():
    largest = 0.0
    for seed in range(20):
        record = random_record(seed)
        data = encode_record(record)
        again = decode_record(data)
        moved = np.abs(
            again.positions_KN3.astype(np.float64) - record.positions_KN3
        ).max()
        flat_moved = np.abs(again.flat_N3.astype(np.float64) - record.flat_N3).max()
        assert max(moved, flat_moved) <= codec.ERROR_ANG
        largest = max(largest, float(moved))
        # Stored again, it stays where it is.
        assert encode_record(again) == data
        assert same(
            again._replace(positions_KN3=0, flat_N3=0),
            record._replace(positions_KN3=0, flat_N3=0),
        )
    assert largest > 0.9 * codec.ERROR_ANG, "the bound says more than it must"
    coordinates = record.positions_KN3.size + 2 * len(record.species_N)
    assert len(encode_record(record, float32=True)) == len(data) + 2 * coordinates


def test_what_does_not_fit_is_stored_exactly():
    record = random_record()
    record.positions_KN3[1, 2, 0] = 32.7671
    again = decode_record(encode_record(record))
    assert np.array_equal(again.positions_KN3, record.positions_KN3)
    record.positions_KN3[1, 2, 0] = -32.7669
    again = decode_record(encode_record(record))
    assert not np.array_equal(again.positions_KN3, record.positions_KN3)
    assert abs(float(again.positions_KN3[1, 2, 0]) + 32.7669) <= codec.ERROR_ANG
    record.positions_KN3[1, 2, 0] = np.nan
    again = decode_record(encode_record(record))
    assert np.array_equal(again.positions_KN3, record.positions_KN3, equal_nan=True)


def test_a_drawing_is_stored_once():
    record = record_of_smiles("CC(C)Cc1ccccc1", "x")
    N = len(record.species_N)
    data = encode_record(record)
    again = decode_record(data)
    assert np.array_equal(again.positions_KN3, again.flat_N3[None])
    assert again.status == "2d"
    moved = record._replace(positions_KN3=record.positions_KN3 + np.float32(0.5))
    assert len(encode_record(moved)) == len(data) + 6 * N


def test_the_layout_is_what_the_module_says():
    record = record_of_smiles("CO", "ab")._replace(status="3d", reason="")
    record = record._replace(
        positions_KN3=np.array([[[1.5, -0.001, 0], [0.25, 0, 32.767]]], np.float32)
    )
    data = encode_record(record)
    assert data[:16] == bytes([1, 0, 0, 0, 2, 0, 1, 0, 1, 0, 2, 0, 2, 0, 0, 0])
    assert data[16:20] == b"abCO"
    assert data[20:22] == bytes([6, 8])
    assert data[22:38] == bytes([0, 0, 4, 2, 5, 5, 3, 1, 0, 0, 2, 2, 0, 0, 0, 0])
    assert data[38:43] == bytes([0, 1, 0, 0, 0])
    flat = np.frombuffer(data, "<i2", 4, 43)
    assert np.array_equal(flat, np.rint(record.flat_N3[:, :2].T.ravel() * 1e3))
    stored = np.frombuffer(data, "<i2", 6, 51)
    assert stored.tolist() == [1500, 250, -1, 0, 0, 32767]
    assert len(data) == 63


def test_every_status_and_shape():
    assert set(codec.STATUS_CODES) == set(STATUSES)
    for status in codec.STATUS_CODES:
        record = random_record()._replace(status=status)
        assert decode_record(encode_record(record)).status == status
    failed = failed_record("n", "no SMILES", "C")
    assert same(decode_record(encode_record(failed)), failed)
    no_bonds = record_of_smiles("O")
    assert same(decode_record(encode_record(no_bonds, float32=True)), no_bonds)
    long = record_of_smiles("C" * 300, max_atoms=300)
    again = decode_record(encode_record(long))
    assert np.array_equal(again.bonds_E2, long.bonds_E2)


def test_damaged_bytes_and_records_that_do_not_fit():
    data = encode_record(random_record())
    for end in (0, 3, 10, 30, 60, 150, len(data) - 1):
        with pytest.raises(ValueError, match="damaged|cut short"):
            decode_record(data[:end])
    with pytest.raises(ValueError, match="1 bytes too many"):
        decode_record(data + b"x")
    with pytest.raises(ValueError, match="version 2 of the format; this is 1"):
        decode_record(b"\x02" + data[1:])
    with pytest.raises(ValueError, match="damaged"):
        decode_record(data[:2] + b"\x09" + data[3:])
    with pytest.raises(ValueError, match="at most 65535 of each"):
        encode_record(random_record()._replace(reason="x" * 70_000))
    record = random_record()
    record.flat_N3[0, 2] = 1
    with pytest.raises(ValueError, match="z other than 0"):
        encode_record(record)
    with pytest.raises(ValueError, match="atomic numbers are int64, not uint8"):
        encode_record(random_record()._replace(species_N=np.zeros(3, np.int64)))
