"""Records and their neighbour lists, laid out as rows of a `GraphPack`."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import numpy.typing as npt

from chemscale_jax.core.batches import GraphPack
from chemscale_jax.data.frames.source import Record
from chemscale_jax.data.packs.neighbor_table import Pairs
from chemscale_jax.data.packs.packing import PackBudget


def empty_pack(rows: int, budget: PackBudget, periodic: bool = False) -> GraphPack:
    """Rows of nothing but padding, as writable NumPy arrays."""
    B, N, E, M, P = rows, budget.nodes, budget.edges, budget.molecules, budget.pairs

    def full(shape: tuple[int, ...], value: int, dtype: npt.DTypeLike) -> Any:
        return np.full((B, *shape), value, dtype)

    cell = full((M, 3, 3), 0, np.float32) if periodic else None
    return GraphPack(
        positions_N3=full((N, 3), 0, np.float32),
        species_N=full((N,), 0, np.int32),
        molecule_N=full((N,), M - 1, np.int32),
        senders_E=full((E,), N - 1, np.int32),
        receivers_E=full((E,), N - 1, np.int32),
        molecule_mask_M=full((M,), False, bool),
        charge_M=full((M,), 0, np.float32),
        spin_M=full((M,), 0, np.float32),
        energy_M=full((M,), 0, np.float32),
        energy_mask_M=full((M,), False, bool),
        forces_N3=full((N, 3), 0, np.float32),
        forces_mask_N=full((N,), False, bool),
        cell_M33=cell,
        shifts_E3=full((E, 3), 0, np.int32) if periodic else None,
        pair_senders_P=full((P,), N - 1, np.int32) if P else None,
        pair_receivers_P=full((P,), N - 1, np.int32) if P else None,
        pair_shifts_P3=full((P, 3), 0, np.int32) if P and periodic else None,
    )


def pack_spec(rows: int, budget: PackBudget, periodic: bool = False) -> GraphPack:
    """Shapes and types of a batch of packs, for compiling a step ahead."""
    example = empty_pack(1, budget, periodic)
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((rows, *leaf.shape[1:]), leaf.dtype), example
    )


def fill_row(
    batch: GraphPack,
    row: int,
    records: Sequence[Record],
    edges: Sequence[Pairs],
    reference_ev: Sequence[float] | np.ndarray,
    pairs: Sequence[Pairs] | None = None,
) -> None:
    """Writes molecules into a row of padding, one after another.

    Args:
        batch: from `empty_pack`; changed in place.
        row: which row of it.
        records: the molecules; they must fit the budget.
        edges: neighbours of each, sorted by receiver.
        reference_ev: energy of the elements of each, subtracted in float64.
        pairs: the second pair list of each, if the batch has one.
    """
    atom = 0
    edge = pair = 0
    for m, record in enumerate(records):
        atoms = slice(atom, atom + len(record.species))
        batch.positions_N3[row, atoms] = record.positions
        batch.species_N[row, atoms] = record.species
        batch.molecule_N[row, atoms] = m
        batch.molecule_mask_M[row, m] = True
        batch.charge_M[row, m] = record.charge
        batch.spin_M[row, m] = record.spin
        batch.energy_mask_M[row, m] = record.energy_mask
        if record.energy_mask:
            batch.energy_M[row, m] = record.energy - reference_ev[m]
        batch.forces_mask_N[row, atoms] = record.forces_mask
        if record.forces_mask:
            batch.forces_N3[row, atoms] = record.forces
        if batch.cell_M33 is not None and record.cell is not None:
            batch.cell_M33[row, m] = record.cell
        edge = _write_pairs(
            (batch.receivers_E, batch.senders_E, batch.shifts_E3),
            (row, edge, atom),
            edges[m],
        )
        if pairs is not None:
            pair = _write_pairs(
                (batch.pair_receivers_P, batch.pair_senders_P, batch.pair_shifts_P3),
                (row, pair, atom),
                pairs[m],
            )
        atom = atoms.stop


def _write_pairs(arrays, at: tuple[int, int, int], pairs: Pairs) -> int:
    """Writes one molecule's pairs and returns where the next one's begin."""
    receivers, senders, shifts = arrays
    row, start, atom = at
    stop = start + len(pairs.receivers_E)
    np.add(pairs.receivers_E, atom, out=receivers[row, start:stop], dtype=np.int32)
    np.add(pairs.senders_E, atom, out=senders[row, start:stop], dtype=np.int32)
    if shifts is not None and pairs.shifts_E3 is not None:
        shifts[row, start:stop] = pairs.shifts_E3
    return stop
