"""Records of molecules with energies and forces, and what a source of them offers."""

import abc
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from chemscale_jax.chem import elements
from chemscale_jax.core.errors import UserError
from chemscale_jax.data.frames import checks

# Values of ``FrameSource.given_split``.
UNUSED, TRAIN, TEST = -1, 0, 1


class Record(NamedTuple):
    """One frame of one molecule, in the units of the package."""

    species: np.ndarray  # (N,) uint8, atomic numbers
    positions: np.ndarray  # (N, 3) float32, angstrom
    energy: float  # eV, total
    forces: np.ndarray  # (N, 3) float32, eV/angstrom
    energy_mask: bool  # whether the energy is labelled
    forces_mask: bool  # whether the forces are labelled
    charge: float  # elementary charges
    spin: float  # number of unpaired electrons
    cell: np.ndarray | None  # (3, 3) cell vectors as rows, angstrom
    id: str


class Stack(NamedTuple):
    """Consecutive records of one group, which have equal species."""

    start: int  # index of the first of them
    species: np.ndarray  # (N,)
    positions: np.ndarray  # (F, N, 3) float32, angstrom


class FrameSource(abc.ABC):
    """Records with random access; what is known of all of them is held in arrays.

    Records come in groups that share their species in order: one per formula in
    ANI-1x, one per molecule in the embedded set. Subclasses read single records.

    Attributes:
        group: (records,) int32, the group of each record.
        group_names: one name per group.
        group_species: the atomic numbers of each group.
        total_energy: (records,) float64, eV, NaN where not labelled.
        held_out: (records,) bool, records of molecules that the source itself sets
            apart; None when it sets none apart.
        given_split: (records,) int8, the part that the makers of the data put each
            record in: ``TRAIN`` (validation frames come out of it), ``TEST`` (only
            evaluated, never used to decide anything) or ``UNUSED``; None where no
            split is given.
        largest_train: how many training frames the makers of the data advise at most,
            0 for no advice, and why.
        kind: (records,) uint8, how each frame was made, an index into ``kind_names``;
            None when unknown.
        kind_names: names of the kinds.
        report: JSON-able facts on what was read and what was skipped.
        identity: JSON-able facts that change when the records do; None for a source
            that cannot be recognised in a later run.
        periodic: whether any record has a cell.
    """

    def __init__(
        self,
        *,
        group: np.ndarray,
        group_names: Sequence[str],
        group_species: Sequence[np.ndarray],
        total_energy: np.ndarray,
        report: Mapping[str, Any],
        identity: Mapping[str, Any] | None,
        held_out: np.ndarray | None = None,
        kind: np.ndarray | None = None,
        kind_names: Sequence[str] = (),
        periodic: bool = False,
        given_split: np.ndarray | None = None,
        largest_train: tuple[int, str] = (0, ""),
    ):
        self.group = np.asarray(group, np.int32)
        self.group_names = tuple(group_names)
        self.group_species = [np.asarray(z, np.uint8) for z in group_species]
        self.total_energy = np.asarray(total_energy, np.float64)
        self.report = dict(report)
        self.identity = identity
        self.held_out = held_out
        self.kind = kind
        self.kind_names = tuple(kind_names)
        self.periodic = periodic
        self.given_split = given_split
        self.largest_train = largest_train
        # The atomic numbers that occur, ascending; the columns of `composition`.
        used = [self.group_species[g] for g in np.unique(self.group)]
        self.elements = np.unique(np.concatenate(used))
        sizes = np.array([len(z) for z in self.group_species], np.int32)
        self.n_atoms = sizes[self.group]
        self._group_composition = np.array(
            [(z[:, None] == self.elements).sum(0) for z in self.group_species],
            np.float64,
        ).reshape(len(self.group_species), len(self.elements))

    def __len__(self) -> int:
        return len(self.group)

    @abc.abstractmethod
    def __getitem__(self, index: int) -> Record:
        """The record at ``index``."""

    @abc.abstractmethod
    def record_id(self, index: int) -> str:
        """The name of the record at ``index``."""

    @property
    def element_symbols(self) -> list[str]:
        """Symbols of the columns of `composition`."""
        return [elements.symbol_of(int(z)) for z in self.elements]

    def composition(self, indices: np.ndarray) -> np.ndarray:
        """How many atoms of each element the records have: (records, elements)."""
        return self._group_composition[self.group[indices]]

    def train_warning(self, n_train: int) -> str:
        """One sentence where ``n_train`` training frames are too many, else ""."""
        most, reason = self.largest_train
        if not most or n_train <= most:
            return ""
        return f"warning: {n_train:,} training frames, more than {most:,}: {reason}"

    def stacks(self, max_atoms: int = 1 << 18) -> Iterator[Stack]:
        """All positions in order, in stacks of at most ``max_atoms`` atoms."""
        start = 0
        while start < len(self):
            group = self.group[start]
            species = self.group_species[group]
            limit = min(len(self), start + max(1, max_atoms // max(1, len(species))))
            differs = np.flatnonzero(self.group[start:limit] != group)
            stop = start + int(differs[0]) if len(differs) else limit
            yield Stack(start, species, self._positions(start, stop))
            start = stop

    def _positions(self, start: int, stop: int) -> np.ndarray:
        """Positions of a run of records of one group: (records, N, 3)."""
        return np.stack([self[i].positions for i in range(start, stop)])


class ArraySource(FrameSource):
    """Records held in memory.

    Bad frames (see `chemscale_jax.data.frames.checks`) are left out and counted in the
    report. Give energies and forces in eV and eV/angstrom; an entry of None, or with
    NaN, is not labelled.

    Args:
        species: atomic numbers of each record.
        positions: (N, 3) of each record, angstrom.
        energies: eV.
        forces: (N, 3) of each record, eV/angstrom.
        names: the molecule of each record, "molecule" if not given; a group is one
            molecule with its atoms in one order.
        cells: (3, 3) or None for each record.
        charges: elementary charges; 0 if not given.
        spins: numbers of unpaired electrons; 0 if not given.
        identity: see `FrameSource`.

    Raises:
        UserError: no record is usable.
    """

    def __init__(
        self,
        species: Sequence[npt.ArrayLike],
        positions: Sequence[npt.ArrayLike],
        energies: Sequence[float | None],
        forces: Sequence[npt.ArrayLike | None],
        *,
        names: Sequence[str] | None = None,
        cells: Sequence[np.ndarray | None] | None = None,
        charges: Sequence[float] | None = None,
        spins: Sequence[float] | None = None,
        identity: Mapping[str, Any] | None = None,
    ):
        n_read = len(species)
        names = names or ["molecule"] * n_read
        cells = cells or [None] * n_read
        charges = [0.0] * n_read if charges is None else charges
        spins = [0.0] * n_read if spins is None else spins
        problems = checks.Problems()
        groups: dict[tuple[str, bytes], int] = {}
        seen_in_group: dict[int, int] = {}
        group, self._records = [], []
        for i in range(n_read):
            z = np.asarray(species[i], np.int64)
            x = np.asarray(positions[i], np.float32).reshape(-1, 3)
            key = (names[i], z.tobytes())
            g = groups.setdefault(key, len(groups))
            row = seen_in_group.get(g, 0)
            seen_in_group[g] = row + 1
            name = f"{names[i]}/{row}"
            energy, force = energies[i], forces[i]
            energy = np.nan if energy is None else float(energy)
            f = np.full_like(x, np.nan) if force is None else np.asarray(force)
            f = f.astype(np.float32).reshape(-1, 3)
            labelled = bool(np.isfinite(f).all())
            known = f if labelled else np.zeros_like(f)
            codes = checks.find(z, x[None], known[None])
            if problems.add(codes, lambda _, name=name: name):
                continue
            group.append(g)
            self._records.append(
                Record(
                    z.astype(np.uint8),
                    x,
                    energy if np.isfinite(energy) else 0.0,
                    known,
                    bool(np.isfinite(energy)),
                    labelled,
                    float(charges[i]),
                    float(spins[i]),
                    None if cells[i] is None else np.asarray(cells[i], np.float64),
                    name,
                )
            )
        if not self._records:
            raise UserError(
                f"none of the {n_read} records in memory is usable"
                f"{problems.sentence()}: check positions, species and units"
            )
        # Groups whose records were all left out keep their number and a harmless name.
        super().__init__(
            group=np.array(group),
            group_names=[name for name, _ in groups],
            group_species=[np.frombuffer(z, np.int64) % 256 for _, z in groups],
            total_energy=np.array(
                [r.energy if r.energy_mask else np.nan for r in self._records]
            ),
            report={"rows": n_read, "used": len(group), **problems.report()},
            identity=identity,
            periodic=any(r.cell is not None for r in self._records),
        )

    def __getitem__(self, index: int) -> Record:
        return self._records[index]

    def record_id(self, index: int) -> str:
        """The molecule and a count: ``ethanol/17``."""
        return self._records[index].id
