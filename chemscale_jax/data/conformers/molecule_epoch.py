"""Batches of padded molecules, read from a store of conformers by a plan."""

import collections
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from chemscale_jax.chem.molecule_features import MoleculeFeatures, feature_ids
from chemscale_jax.chem.molecule_record import MoleculeRecord
from chemscale_jax.core.batches import DenoisingRows
from chemscale_jax.core.types import Batch
from chemscale_jax.data.conformers import molecule_rows
from chemscale_jax.data.conformers.molecule_rows import BatchShape, MoleculePlan
from chemscale_jax.data.feeding import Feeding

# Molecules whose features are kept in memory, with at most so many atoms: 25 kB each.
_KEPT, _KEPT_ATOMS = 10_000, 64


class Molecules(Protocol):
    """What epochs ask of a `ConformerStore`."""

    @property
    def atoms(self) -> np.ndarray:
        """Heavy atoms of each molecule."""
        ...

    @property
    def conformers(self) -> np.ndarray:
        """Number of geometries of each molecule."""
        ...

    @property
    def keys(self) -> np.ndarray:
        """Equal for equal molecules, uint64."""
        ...

    @property
    def scaffold(self) -> np.ndarray:
        """Number of the scaffold of each molecule."""
        ...

    @property
    def info(self) -> Mapping[str, Any]:
        """Where they are from; JSON-able."""
        ...

    def __len__(self) -> int:
        """How many there are."""
        ...

    def has_status(self, *names: str) -> np.ndarray:
        """Which molecules have one of these statuses."""
        ...

    def records(self, indices: Sequence[int] | np.ndarray) -> list[MoleculeRecord]:
        """Some of them."""
        ...


class KnownMolecule(NamedTuple):
    """What batches need of a molecule."""

    features: MoleculeFeatures
    positions_KN3: np.ndarray
    flat_N3: np.ndarray
    name: str


class Reader:
    """Molecules with their features, of which many are kept; safe to share."""

    def __init__(self, molecules: Molecules, drop: bool = False):
        """Reads on demand.

        Args:
            molecules: where they are.
            drop: withhold the features of atoms and bonds.
        """
        self._molecules = molecules
        self._drop = drop
        self._kept: collections.OrderedDict[int, KnownMolecule] = (
            collections.OrderedDict()
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles without what it keeps."""
        return Reader, (self._molecules, self._drop)

    def __call__(self, indices: np.ndarray) -> list[KnownMolecule]:
        """The molecules of the given numbers."""
        wanted = [int(i) for i in indices]
        found = {i: self._kept.get(i) for i in wanted}
        missing = [i for i, known in found.items() if known is None]
        for i, record in zip(missing, self._molecules.records(missing), strict=True):
            found[i] = known = KnownMolecule(
                feature_ids(record, self._drop),
                record.positions_KN3,
                record.flat_N3,
                " ".join(filter(None, (record.name, record.smiles))),
            )
            if len(record.species_N) <= _KEPT_ATOMS:
                self._kept[i] = known
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return [known for i in wanted if (known := found[i]) is not None]


class MakeBatch(Protocol):
    """Makes a batch of some molecules; picklable."""

    def __call__(
        self,
        known: Sequence[KnownMolecule],
        positions: Sequence[np.ndarray],
        indices: np.ndarray,
        numbers: np.ndarray,
        shape: BatchShape,
    ) -> Batch:
        """The batch.

        Args:
            known: the molecules.
            positions: (N, 3) of each one, the conformer to take.
            indices: numbers of the molecules.
            numbers: what the random numbers of each one depend on, uint32.
            shape: of the batch; rows that are left over are padding.
        """
        ...


def denoising_batch(
    known: Sequence[KnownMolecule],
    positions: Sequence[np.ndarray],
    indices: np.ndarray,
    numbers: np.ndarray,
    shape: BatchShape,
) -> DenoisingRows:
    """Molecules to pretrain on; see `MakeBatch`."""
    batch = molecule_rows.empty_denoising_rows(shape)
    for row, one in enumerate(known):
        batch.flat_BN3[row, : len(one.flat_N3)] = one.flat_N3
    batch.number_B[: len(numbers)] = numbers
    molecules = molecule_rows.molecule_rows(
        [one.features for one in known], positions, shape
    )
    return batch._replace(molecules=molecules)


class MoleculeEpoch:
    """Batches of padded molecules; safe to read from threads."""

    def __init__(
        self,
        read: Reader,
        order: np.ndarray,
        conformers: np.ndarray,
        numbers: np.ndarray,
        plan: MoleculePlan,
        shapes: Sequence[BatchShape],
        feeding: Feeding,
        make: MakeBatch = denoising_batch,
    ):
        """Batches of a plan.

        Args:
            read: gives molecules.
            order: numbers of the molecules, in the order of the epoch.
            conformers: which conformer of each one to take.
            numbers: what the random numbers of each one depend on, uint32.
            plan: which of them share a batch.
            shapes: of the batches of all processes together.
            feeding: share of this process.
            make: makes a batch of what was read.
        """
        self.order = order
        self.plan = plan
        self._read = read
        self._conformers = conformers
        self._numbers = numbers
        self._shapes = tuple(shapes)
        self._feeding = feeding
        self._make = make

    def __len__(self) -> int:
        return len(self.plan.batches)

    def _places(self, index: int) -> tuple[np.ndarray, BatchShape]:
        """Places, in the order of the epoch, of this process's molecules."""
        if not 0 <= index < len(self):
            raise IndexError(f"batch {index} of an epoch of {len(self)}")
        number, first, stop = self.plan.batches[index]
        shape = self._shapes[number]
        local = self._feeding.local(shape.rows)
        begin, end = min(first + local.start, stop), min(first + local.stop, stop)
        rows = local.stop - local.start
        return self.plan.places[begin:end], BatchShape(rows, shape.atoms)

    def __getitem__(self, index: int) -> Batch:
        places, shape = self._places(index)
        indices = self.order[places]
        known = self._read(indices)
        positions = [
            one.positions_KN3[conformer]
            for one, conformer in zip(known, self._conformers[places], strict=True)
        ]
        return self._make(known, positions, indices, self._numbers[places], shape)

    def record_indices(self, index: int) -> np.ndarray:
        """Numbers of the molecules in this process's rows, in order."""
        return self.order[self._places(index)[0]]

    def record_ids(self, index: int) -> list[str]:
        """Names of the same molecules, with their SMILES."""
        return [one.name for one in self._read(self.record_indices(index))]

    @property
    def fill(self) -> float:
        """Molecules for each row there is."""
        rows = sum(self._shapes[number].rows for number in self.plan.batches[:, 0])
        return len(self.order) / rows
