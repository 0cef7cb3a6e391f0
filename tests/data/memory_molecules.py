"""Molecules with made-up conformers in memory, as a conformer store gives them."""

import functools

import numpy as np

from chemscale_jax.chem.molecule_record import record_of_smiles

STATUS = ("3d", "3d", "3d", "unconverged", "2d")


@functools.cache
def record(number: int):
    """A chain, its length, elements and conformers being functions of the number."""
    rng = np.random.default_rng(number)
    letters = rng.choice(list("CCCNO"), 2 + number % 13)
    made = record_of_smiles("C" + "".join(letters), f"line {number + 1}")
    N, K = len(made.species_N), 1 + number % 3
    xyz = rng.normal(0, 2, (K, N, 3)).astype(np.float32)
    status = STATUS[number % len(STATUS)]
    return made._replace(positions_KN3=xyz, status=status, reason="")


class MemoryMolecules:
    """The part of a conformer store that streams use."""

    def __init__(self, size: int, keys=None):
        numbers = range(size)
        self.atoms = np.array([len(record(i).species_N) for i in numbers], np.uint16)
        self.conformers = np.array([1 + i % 3 for i in numbers], np.uint16)
        self.keys = np.arange(size).astype(np.uint64) if keys is None else keys
        # Of very unequal sizes.
        self.scaffold = (np.sqrt(np.arange(size)) / 1.5).astype(np.int32)
        self.info = {"made": "for tests"}

    def __len__(self):
        return len(self.atoms)

    def has_status(self, *names):
        return np.array([record(i).status in names for i in range(len(self))])

    def records(self, indices):
        return [record(int(i)) for i in indices]
