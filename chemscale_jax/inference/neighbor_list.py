"""The neighbour list of one moving system, with a skin and room to grow.

A list holds the pairs up to the cutoff plus a skin, so it stays complete until an atom
has moved by half the skin. Its arrays have more room than they need and grow by a
quarter when it is used up: a program compiled for their shapes runs from step to step.
Models recompute distances, and pairs in the skin have no effect on them.
"""

from typing import Any, NamedTuple

import numpy as np

from chemscale_jax.chem import neighbors
from chemscale_jax.core.batches import GraphPack

GROWTH = 1.25
# Room is a multiple of these.
_ATOM_STEP, _EDGE_STEP = 4, 32


class System(NamedTuple):
    """What a force field has to know of a molecule or a cell."""

    species_N: np.ndarray  # int, atomic numbers
    positions_N3: np.ndarray  # float64, angstrom
    charge: float = 0.0  # elementary charges
    spin: float = 0.0  # unpaired electrons
    cell_33: np.ndarray | None = None  # rows are vectors, angstrom; None: a molecule
    periodic_3: tuple[bool, bool, bool] = (False, False, False)


class Reach(NamedTuple):
    """How far pairs are listed, in angstrom."""

    cutoff_ang: float
    # Length of the second pair list, for models that ask for one; may be infinite.
    pair_cutoff_ang: float | None = None
    skin_ang: float = 0.5


class Capacity(NamedTuple):
    """The room of a pack, padding included."""

    atoms: int = 0
    edges: int = 0
    pairs: int = 0


class NeighborList(NamedTuple):
    """A pack whose indices are good for all positions near those it was made at."""

    system: System  # what it was made for
    capacity: Capacity
    origin_3: np.ndarray  # subtracted from positions in float64, which keeps digits
    pack: GraphPack  # NumPy arrays; the positions are padded ones relative to origin_3
    edges: tuple[np.ndarray, np.ndarray, np.ndarray]  # receivers, senders, shifts


def still_holds(listed: NeighborList, system: System, skin_ang: float) -> bool:
    """Whether the list has every pair of a system that has moved since."""
    before = listed.system
    if (system.charge, system.spin, system.periodic_3) != (
        before.charge,
        before.spin,
        before.periodic_3,
    ) or not np.array_equal(system.species_N, before.species_N):
        return False
    if system.cell_33 is not None and before.cell_33 is not None:
        if not np.array_equal(system.cell_33, before.cell_33):
            return False
    moved_N3 = system.positions_N3 - before.positions_N3
    return bool(np.einsum("ni,ni->n", moved_N3, moved_N3).max() <= skin_ang**2 / 4)


def make_list(
    system: System, reach: Reach, room: Capacity | None = None, dtype: str = "float32"
) -> NeighborList:
    """The neighbour list of a system.

    Args:
        system: at least one atom.
        reach: how far pairs are listed.
        room: what is there already; it grows where it does not suffice.
        dtype: of positions and of other real numbers.
    """
    n_atoms = len(system.species_N)
    room = room or Capacity()
    reach_ang = reach.cutoff_ang + reach.skin_ang
    edges = _pairs_within(system, reach_ang)
    # A molecule cannot have more pairs than this; a cell can.
    most = n_atoms * (n_atoms - 1) if system.cell_33 is None else None
    pairs = None
    if reach.pair_cutoff_ang is not None:
        pairs = _pairs_within(system, reach.pair_cutoff_ang + reach.skin_ang)
    capacity = Capacity(
        atoms=_grown(room.atoms, n_atoms + 1, _ATOM_STEP, n_atoms + 1),
        edges=_grown(room.edges, len(edges[0]), _EDGE_STEP, most),
        pairs=(
            0 if pairs is None else _grown(room.pairs, len(pairs[0]), _EDGE_STEP, most)
        ),
    )
    origin_3 = system.positions_N3.mean(axis=0)
    N, real = capacity.atoms, np.dtype(dtype)

    # NumPy arrays stand for device arrays until the pack is placed.
    def index(values_E: np.ndarray, size: int) -> Any:
        return _padded(values_E.astype(np.int32), size, N - 1)

    pack = GraphPack(
        positions_N3=_zeros((N, 3), real),
        species_N=_padded(system.species_N.astype(np.int32), N, 0),
        molecule_N=_padded(np.zeros(n_atoms, np.int32), N, 1),
        senders_E=index(edges[1], capacity.edges),
        receivers_E=index(edges[0], capacity.edges),
        molecule_mask_M=_padded(np.ones(1, bool), 2, False),
        charge_M=_padded(np.array([system.charge], real), 2, 0),
        spin_M=_padded(np.array([system.spin], real), 2, 0),
        energy_M=_zeros((2,), real),
        energy_mask_M=_zeros((2,), np.dtype(bool)),
        forces_N3=_zeros((N, 3), real),
        forces_mask_N=_zeros((N,), np.dtype(bool)),
    )
    if system.cell_33 is not None:
        pack = pack._replace(
            cell_M33=_padded(system.cell_33[None].astype(real), 2, 0),
            shifts_E3=_padded(edges[2].astype(np.int32), capacity.edges, 0),
        )
    if pairs is not None:
        pack = pack._replace(
            pair_senders_P=index(pairs[1], capacity.pairs),
            pair_receivers_P=index(pairs[0], capacity.pairs),
        )
    return NeighborList(system, capacity, origin_3, pack, edges)


def padded_positions(listed: NeighborList, positions_N3: np.ndarray) -> np.ndarray:
    """Positions for the pack of a list, relative to its origin."""
    rows_N3 = np.zeros((listed.capacity.atoms, 3), listed.pack.positions_N3.dtype)
    rows_N3[: len(positions_N3)] = positions_N3 - listed.origin_3
    return rows_N3


def distances(listed: NeighborList, positions_N3: np.ndarray) -> np.ndarray:
    """Lengths (E,) in angstrom of the pairs of a list, in float64."""
    receivers_E, senders_E, shifts_E3 = listed.edges
    disp_E3 = positions_N3[senders_E] - positions_N3[receivers_E]
    if listed.system.cell_33 is not None:
        disp_E3 = disp_E3 + shifts_E3 @ listed.system.cell_33
    return np.sqrt(np.einsum("ei,ei->e", disp_E3, disp_E3))


def closest(listed: NeighborList, positions_N3: np.ndarray) -> float:
    """The smallest distance of a listed pair in angstrom; infinite without pairs."""
    return float(distances(listed, positions_N3).min(initial=np.inf))


def _pairs_within(
    system: System, cutoff_ang: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Receivers, senders and shifts of pairs, sorted by receiver."""
    x_N3 = system.positions_N3
    if system.cell_33 is None:
        if np.isinf(cutoff_ang):
            receivers_E, senders_E = neighbors.all_pairs(len(x_N3))
        else:
            _, receivers_E, senders_E = neighbors.radius_pairs(x_N3[None], cutoff_ang)
        return receivers_E, senders_E, np.zeros((len(senders_E), 3), np.int64)
    receivers_E, senders_E, shifts_E3 = neighbors.periodic_pairs(
        x_N3, system.cell_33, cutoff_ang
    )
    # Along an axis that does not repeat, only the pairs without a shift are real.
    open_3 = ~np.array(system.periodic_3)
    kept_E = (shifts_E3[:, open_3] == 0).all(axis=1)
    return receivers_E[kept_E], senders_E[kept_E], shifts_E3[kept_E]


def _grown(present: int, needed: int, step: int, most: int | None) -> int:
    """Room for ``needed`` entries: what is there if it suffices, else a quarter more.

    The first system gets no more than it can ever need, ``most``, if that is known.
    """
    if needed <= present:
        return present
    wanted = -(-int(GROWTH * needed) // step) * step
    if not present and most is not None:
        wanted = min(wanted, most)
    return max(wanted, 1)


def _zeros(shape: tuple[int, ...], dtype: np.dtype) -> Any:
    return np.zeros(shape, dtype)


def _padded(values: np.ndarray, size: int, fill: int) -> Any:
    """The values, then ``fill`` up to ``size`` rows."""
    rows = np.full((size, *values.shape[1:]), fill, values.dtype)
    rows[: len(values)] = values
    return rows
