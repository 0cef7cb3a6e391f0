"""Molecule records as bytes, and back.

Numbers are little-endian and stand one after another without gaps:

====================  ==============================================================
u8 version            `VERSION`
u8 flags              1: positions are float32; 2: the drawing is float32; 4: the one
                      conformer is the drawing, and not stored again; 8: ends of bonds
                      take two bytes
u8 status             place in `STATUS_CODES`
u8                    0
u16 x 6               atoms N, bonds E, conformers K; bytes of name, SMILES, reason
bytes                 name, SMILES, reason, each in UTF-8
u8 (N,)               atomic numbers
u8 (8, N)             atom features, one after another
u8 or u16 (2, E)      lower ends of all bonds, then upper ends
u8 (3, E)             bond features, one after another
i16 or f32 (2, N)     drawing, x and then y
i16 or f32 (K, 3, N)  conformers; with flag 4 there are none here
====================  ==============================================================

Coordinates in 16 bits are multiples of `STEP_ANG`, which moves them by `ERROR_ANG` at
most. Those that do not fit, beyond `REACH_ANG` of the origin, are stored as float32.
"""

import struct

import numpy as np

from chemscale_jax.chem.molecule_record import STATUSES, MoleculeRecord

VERSION = 1
STEP_ANG = 1e-3
REACH_ANG = 32_767 * STEP_ANG
# Half a step, and what float32 makes of a multiple of it.
ERROR_ANG = 0.5 * STEP_ANG + 2e-6
# The order must never change.
STATUS_CODES = ("3d", "unconverged", "2d", "given", "failed")

_HEADER = struct.Struct("<BBBxHHHHHH")
_FLOAT_POSITIONS, _FLOAT_FLAT, _IS_FLAT, _WIDE_BONDS = 1, 2, 4, 8
_MOST = 65_535


def encode_record(record: MoleculeRecord, *, float32: bool = False) -> bytes:
    """The bytes of a record.

    Args:
        record: any; ``flat_N3`` has z = 0.
        float32: store coordinates exactly, in twice the space.

    Raises:
        ValueError: a part is larger than the format allows, or values do not fit.
    """
    N, E, K = len(record.species_N), len(record.bonds_E2), len(record.positions_KN3)
    texts = [text.encode() for text in (record.name, record.smiles, record.reason)]
    sizes = (N, E, K, *map(len, texts))
    if max(sizes) > _MOST:
        raise ValueError(
            f"the record {record.name!r} has {N} atoms, {E} bonds, {K} conformers and "
            f"texts of {sizes[3:]} bytes; at most {_MOST} of each can be stored"
        )
    if record.flat_N3[:, 2].any():
        raise ValueError(f"the drawing of {record.name!r} has z other than 0")
    status = STATUS_CODES.index(record.status)
    flags = 0
    flat, is_float = _to_bytes(record.flat_N3[:, :2].T, float32)
    flags |= _FLOAT_FLAT * is_float
    positions = b""
    if np.array_equal(record.positions_KN3, record.flat_N3[None]):
        flags |= _IS_FLAT
    else:
        turned = record.positions_KN3.transpose(0, 2, 1)
        positions, is_float = _to_bytes(turned, float32)
        flags |= _FLOAT_POSITIONS * is_float
    wide = bool(record.bonds_E2.max(initial=0) > 255)
    flags |= _WIDE_BONDS * wide
    bonds = record.bonds_E2.T.astype("<u2" if wide else "u1")
    return b"".join(
        (
            _HEADER.pack(VERSION, flags, status, *sizes),
            *texts,
            _small(record.species_N, "atomic numbers"),
            _small(record.atoms_N8.T, "atom features"),
            bonds.tobytes(),
            _small(record.bond_features_E3.T, "bond features"),
            flat,
            positions,
        )
    )


def decode_record(data: bytes) -> MoleculeRecord:
    """The record of some bytes.

    Raises:
        ValueError: they are of another version, damaged, or cut short.
    """
    try:
        version, flags, status, *sizes = _HEADER.unpack_from(data)
        if version != VERSION:
            raise ValueError(f"version {version} of the format; this is {VERSION}")
        N, E, K, *text_bytes = sizes
        reader = _Reader(data)
        name, smiles, reason = (reader.text(size) for size in text_bytes)
        species = reader.array("u1", (N,))
        atoms = reader.array("u1", (8, N)).T
        ends = reader.array("<u2" if flags & _WIDE_BONDS else "u1", (2, E)).T
        bond_features = reader.array("u1", (3, E)).T
        flat = np.zeros((N, 3), np.float32)
        flat[:, :2] = reader.coordinates(flags & _FLOAT_FLAT, (2, N)).T
        if flags & _IS_FLAT:
            positions = flat[None].copy()
        else:
            stored = reader.coordinates(flags & _FLOAT_POSITIONS, (K, 3, N))
            positions = np.ascontiguousarray(stored.transpose(0, 2, 1))
        reader.end()
        return MoleculeRecord(
            name=name,
            smiles=smiles,
            species_N=species.copy(),
            atoms_N8=np.array(atoms, order="C"),
            bonds_E2=np.array(ends, np.uint16, order="C"),
            bond_features_E3=np.array(bond_features, order="C"),
            positions_KN3=positions,
            flat_N3=flat,
            status=STATUS_CODES[status],
            reason=reason,
        )
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise ValueError(f"the bytes of a molecule are damaged ({error})") from None


class _Reader:
    """Takes one part after the other."""

    def __init__(self, data: bytes):
        self._data, self._at = data, _HEADER.size

    def text(self, size: int) -> str:
        self._at += size
        if self._at > len(self._data):
            raise ValueError("the bytes of a molecule are cut short")
        return bytes(self._data[self._at - size : self._at]).decode()

    def array(self, kind: str, shape: tuple[int, ...]) -> np.ndarray:
        count = int(np.prod(shape))
        dtype = np.dtype(kind)
        start, self._at = self._at, self._at + count * dtype.itemsize
        if self._at > len(self._data):
            raise ValueError("the bytes of a molecule are cut short")
        return np.frombuffer(self._data, dtype, count, start).reshape(shape)

    def coordinates(self, is_float: int, shape: tuple[int, ...]) -> np.ndarray:
        if is_float:
            return self.array("<f4", shape).astype(np.float32)
        return (self.array("<i2", shape) * STEP_ANG).astype(np.float32)

    def end(self) -> None:
        if self._at != len(self._data):
            raise ValueError(
                f"a molecule has {len(self._data) - self._at} bytes too many"
            )


def _to_bytes(coordinates: np.ndarray, float32: bool) -> tuple[bytes, bool]:
    """Coordinates, and whether they are float32."""
    # Written so that NaN does not fit either.
    if not float32 and (np.abs(coordinates) <= REACH_ANG).all():
        steps = np.rint(coordinates.astype(np.float64) / STEP_ANG)
        return steps.astype("<i2").tobytes(), False
    return coordinates.astype("<f4").tobytes(), True


def _small(values: np.ndarray, what: str) -> bytes:
    if values.dtype != np.uint8:
        raise ValueError(f"{what} are {values.dtype}, not uint8")
    return values.tobytes()


if set(STATUS_CODES) != set(STATUSES):
    raise AssertionError("STATUS_CODES lacks a status of a record: add it at the end")
