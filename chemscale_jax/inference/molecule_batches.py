"""Molecules to padded batches, through a network, and back in their order.

A molecule always goes through the same program: the room of its row depends on its
atoms alone, and the rows of a batch on that room. So what comes out does not depend on
the company it is in, but for the last bit that a sum may lose to another place in the
batch.
"""

import bisect
import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from chemscale_jax.chem.molecule_features import MoleculeFeatures, feature_ids
from chemscale_jax.chem.molecule_record import MoleculeRecord
from chemscale_jax.core.batches import MoleculeRows
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.partition import row_sharding
from chemscale_jax.core.types import Array
from chemscale_jax.data.conformers.molecule_rows import (
    BUCKETS,
    BatchShape,
    molecule_rows,
)

# Pairs of places in a batch. A CPU gains nothing from more, an accelerator does.
CPU_PAIRS, ACCELERATOR_PAIRS = 4096, 2**18
# What a program makes of a batch: arrays with its rows as first axis.
Program = Callable[[MoleculeRows], dict[str, Array]]


class Batching(NamedTuple):
    """How molecules are shown to a network.

    Attributes:
        pairs: of places in a batch, see `batch_shape`; 0: by the kind of device.
        drop_features: withhold features of atoms and bonds.
        mesh: devices over which rows are spread.
        places: of a batch of other models: tokens of a language model, atoms of a
            force field; 0: by the kind of device.
    """

    pairs: int = 0
    drop_features: bool = False
    mesh: Mesh | None = None
    places: int = 0


BY_DEVICE = Batching()


class Shown(NamedTuple):
    """What a program made of one geometry of one molecule."""

    place: int  # of the molecule among those given
    conformer: int
    arrays: dict[str, np.ndarray]  # of the one row, padding included


class _Geometry(NamedTuple):
    place: int
    conformer: int
    features: MoleculeFeatures
    positions_N3: np.ndarray


def batch_shape(atoms: int, batching: Batching = BY_DEVICE) -> BatchShape:
    """The shape of batches that hold molecules of so many heavy atoms.

    Raises:
        UserError: there is no room for so many.
    """
    if atoms > BUCKETS[-1]:
        raise UserError(
            f"a molecule has {atoms} heavy atoms, there is room for {BUCKETS[-1]}; "
            "leave it out with a smaller max_atoms"
        )
    room = BUCKETS[bisect.bisect_left(BUCKETS, atoms)]
    on_cpu = jax.default_backend() == "cpu"
    pairs = batching.pairs or (CPU_PAIRS if on_cpu else ACCELERATOR_PAIRS)
    count = 1 if batching.mesh is None else batching.mesh.size
    return BatchShape(count * max(1, pairs // (count * (room + 1) ** 2)), room)


def part_rows(rows: int) -> int:
    """How many rows to work on at a time, so that most batches are full.

    Args:
        rows: that are enough for a CPU.
    """
    return rows if jax.default_backend() == "cpu" else 8 * rows


def show(
    program: Program, records: Sequence[MoleculeRecord], batching: Batching = BY_DEVICE
) -> Iterator[Shown]:
    """What a program makes of every geometry of some molecules, room after room.

    The geometries of a molecule come one after another, in their order. Failed
    records are passed over.

    Args:
        program: jitted; compiled once for each room that occurs.
        records: molecules, with conformers.
        batching: how they are shown.

    Raises:
        UserError: there is no room for one of them.
    """
    rooms: dict[BatchShape, list[int]] = {}
    for place, record in enumerate(records):
        if len(record.positions_KN3):
            shape = batch_shape(len(record.species_N), batching)
            rooms.setdefault(shape, []).append(place)
    # The program runs while the batch before it is handed out.
    waiting: tuple[list[_Geometry], dict[str, Array]] | None = None
    for shape in sorted(rooms, key=lambda shape: shape.atoms):
        for batch in _batches(records, rooms[shape], shape.rows, batching):
            rows = molecule_rows(
                [one.features for one in batch],
                [one.positions_N3 for one in batch],
                shape,
            )
            started = batch, _started(program, rows, batching.mesh)
            if waiting is not None:
                yield from _handed_out(*waiting)
            waiting = started
    if waiting is not None:
        yield from _handed_out(*waiting)


def _batches(
    records: Sequence[MoleculeRecord],
    places: Sequence[int],
    rows: int,
    batching: Batching,
) -> Iterator[list[_Geometry]]:
    """Geometries of the molecules at some places, as many as there are rows."""
    batch: list[_Geometry] = []
    for place in places:
        features = feature_ids(records[place], batching.drop_features)
        for number, xyz in enumerate(records[place].positions_KN3):
            # Distances lose digits far from the origin.
            centred = xyz - xyz.mean(0, keepdims=True)
            batch.append(_Geometry(place, number, features, centred))
            if len(batch) == rows:
                yield batch
                batch = []
    if batch:
        yield batch


def _started(
    program: Program, rows: MoleculeRows, mesh: Mesh | None
) -> dict[str, Array]:
    placed = rows if mesh is None else jax.device_put(rows, row_sharding(mesh))
    with contextlib.nullcontext() if mesh is None else jax.set_mesh(mesh):
        # Else an accelerator rounds factors of products to fewer digits.
        with jax.default_matmul_precision("highest"):
            return program(placed)


def _handed_out(batch: Sequence[_Geometry], found: dict[str, Array]) -> Iterator[Shown]:
    arrays: dict[str, Any] = jax.device_get(found)
    for row, one in enumerate(batch):
        yield Shown(
            one.place, one.conformer, {name: x[row] for name, x in arrays.items()}
        )


class Averages:
    """Mean and standard deviation over the geometries of each molecule, in float64.

    By Welford's recurrence: no geometry but the one at hand is kept.
    """

    def __init__(self):
        self._count: dict[int, int] = {}
        self._mean: dict[int, np.ndarray] = {}
        self._squares: dict[int, np.ndarray] = {}

    def add(self, place: int, values: np.ndarray) -> None:
        """Takes in what one geometry of the molecule at a place gave."""
        values = values.astype(np.float64)
        count = self._count[place] = self._count.get(place, 0) + 1
        if count == 1:
            self._mean[place] = values
            return
        before = values - self._mean[place]
        # A new array: the first one may be the caller's.
        self._mean[place] = self._mean[place] + before / count
        squares = before * (values - self._mean[place])
        self._squares[place] = self._squares.get(place, 0.0) + squares

    def count(self, place: int) -> int:
        """How many geometries a molecule had."""
        return self._count.get(place, 0)

    def mean(self, place: int) -> np.ndarray:
        """Over the geometries of a molecule that had one."""
        return self._mean[place]

    def std(self, place: int) -> np.ndarray:
        """Of the population of its geometries; 0 for a single one."""
        if self._count[place] == 1:
            return np.zeros_like(self._mean[place])
        return np.sqrt(self._squares[place] / self._count[place])
