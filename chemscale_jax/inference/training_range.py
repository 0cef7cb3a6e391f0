"""In which ways a geometry is unlike everything that a force field was trained on."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np

from chemscale_jax.inference import neighbor_list
from chemscale_jax.inference.neighbor_list import NeighborList, System


class TrainingRangeWarning(UserWarning):
    """A geometry is unlike anything that the force field was trained on."""


def remarks(
    artifacts: Mapping[str, Any],
    listed: NeighborList,
    system: System,
    results: Mapping[str, Any],
    cutoff_ang: float,
    said: Collection[str],
) -> Iterator[tuple[str, str]]:
    """``(fact, sentence)`` for each fact of the training set that is exceeded.

    Args:
        artifacts: of the run; ``training_range`` may have ``closest_ang``,
            ``largest_force_ev_per_ang``, ``charges`` and ``spins``, and what is not
            there is not checked.
        listed: a neighbour list that holds for the system.
        system: the atoms.
        results: ``forces``, and ``forces_std`` of an ensemble.
        cutoff_ang: of the model.
        said: facts that need no check any more.
    """
    known = artifacts.get("training_range", {})
    facts = {f"training_range.{name}": value for name, value in known.items()}

    def fresh(fact: str) -> Any:
        return None if fact in said else facts.get(fact)

    # Neighbours come and go slowly, so this is asked once for each list.
    several = len(system.species_N) > 1
    if listed.system is system and several and "cutoff_ang" not in said:
        near_E = neighbor_list.distances(listed, system.positions_N3) <= cutoff_ang
        has_N = np.zeros(len(system.species_N), bool)
        has_N[listed.edges[0][near_E]] = True
        if not has_N.all():
            yield (
                "cutoff_ang",
                f"atoms {np.flatnonzero(~has_N)[:5].tolist()} have no neighbour "
                f"within {cutoff_ang} angstrom and feel none",
            )
    if bound := fresh(fact := "training_range.closest_ang"):
        closest_ang = neighbor_list.closest(listed, system.positions_N3)
        if closest_ang < bound:
            yield (
                fact,
                f"two atoms are {closest_ang:.3f} angstrom apart, in training never "
                f"less than {bound:.3f}",
            )
    if bound := fresh(fact := "training_range.largest_force_ev_per_ang"):
        largest = float(np.linalg.norm(results["forces"], axis=1).max())
        if largest > bound:
            yield (
                fact,
                f"a force is {largest:.1f} eV/angstrom, in training never more than "
                f"{bound:.1f}",
            )
    for name, value in (("charges", system.charge), ("spins", system.spin)):
        if (seen := fresh(fact := f"training_range.{name}")) and value not in seen:
            yield fact, f"{name[:-1]} {value:g} was never trained on, only {seen}"
    scale = artifacts.get("statistics", {}).get("energy_scale")
    if scale and "forces_std" in results:
        spread = float(results["forces_std"].max())
        if spread > scale:
            yield (
                "statistics.energy_scale",
                f"the ensemble disagrees by {spread:.2f} eV/angstrom on a force, whose "
                f"root mean square in training is {scale:.2f}",
            )
