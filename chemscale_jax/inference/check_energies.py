"""Energies and forces of a few molecules by one program, alone or side by side."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from chemscale_jax.chem import neighbors
from chemscale_jax.core.batches import GraphPack
from chemscale_jax.data.frames.source import Record
from chemscale_jax.data.packs import graphs
from chemscale_jax.data.packs.neighbor_table import Pairs
from chemscale_jax.data.packs.packing import PackBudget
from chemscale_jax.inference.force_field import ForceField
from chemscale_jax.inference.neighbor_list import System
from chemscale_jax.models.energy import energy_and_forces

# Pairs that are listed beyond the cut-off, so that moved atoms keep their lists.
_SKIN_ANG = 0.5

# A molecule alone or with others in a pack -> energies and forces of each.
Evaluate = Callable[[Sequence[System]], list[tuple[float, np.ndarray]]]


def make_evaluate(field: ForceField, systems: Sequence[System], dtype: str) -> Evaluate:
    """A program for one or two of these molecules; compiled once."""
    model = field.model
    largest = max(len(system.species_N) for system in systems)
    all_pairs = 2 * largest * (largest - 1)
    budget = PackBudget(
        nodes=2 * largest + 1,
        edges=all_pairs + 1,
        molecules=3,
        pairs=all_pairs + 1 if model.pair_cutoff_ang else 0,
    )

    def cast(leaf: Any) -> np.ndarray:
        array = np.asarray(leaf)
        return array.astype(dtype) if array.dtype.kind == "f" else array

    with jax.enable_x64(dtype == "float64"):
        variables = jax.device_put(jax.tree.map(cast, (field.params, field.constants)))
    program = jax.jit(functools.partial(energy_and_forces, model))

    def evaluate(given: Sequence[System]) -> list[tuple[float, np.ndarray]]:
        pack = _pack(given, budget, model.cutoff_ang, model.pair_cutoff_ang)
        with jax.enable_x64(dtype == "float64"):
            placed = jax.device_put(jax.tree.map(cast, pack))
            energy_M, forces_N3 = jax.device_get(program(*variables, placed))
        found, start = [], 0
        for m, system in enumerate(given):
            stop = start + len(system.species_N)
            forces = forces_N3[start:stop].astype(np.float64)
            found.append((float(energy_M[m]), forces))
            start = stop
        return found

    return evaluate


def _pack(
    systems: Sequence[System],
    budget: PackBudget,
    cutoff_ang: float,
    pair_cutoff_ang: float | None,
) -> GraphPack:
    """Molecules as one pack, whose positions are float64."""

    def pairs_of(system: System, reach_ang: float) -> Pairs:
        if math.isinf(reach_ang):
            receivers_E, senders_E = neighbors.all_pairs(len(system.species_N))
        else:
            _, receivers_E, senders_E = neighbors.radius_pairs(
                system.positions_N3[None], reach_ang + _SKIN_ANG
            )
        return Pairs(receivers_E, senders_E, None)

    records = [
        Record(
            species=system.species_N.astype(np.uint8),
            positions=system.positions_N3,
            energy=0.0,
            forces=np.zeros_like(system.positions_N3),
            energy_mask=False,
            forces_mask=False,
            charge=system.charge,
            spin=system.spin,
            cell=None,
            id="",
        )
        for system in systems
    ]
    batch = graphs.empty_pack(1, budget)
    # Finite differences need all digits.
    batch = batch._replace(positions_N3=batch.positions_N3.astype(np.float64))
    graphs.fill_row(
        batch,
        0,
        records,
        [pairs_of(system, cutoff_ang) for system in systems],
        [0.0] * len(systems),
        None
        if pair_cutoff_ang is None
        else [pairs_of(s, pair_cutoff_ang) for s in systems],
    )
    return jax.tree.map(lambda leaf: leaf[0], batch)
