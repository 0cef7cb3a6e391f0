"""The properties that a model check measures, each as a line with a tolerance."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from chemscale_jax.inference.check_energies import Evaluate
from chemscale_jax.inference.neighbor_list import System

# Relative to the largest energy or force. Rounding of float64 is 1e-12; constants that
# were once rounded to float32 leave 1e-7; a broken symmetry shows at 1e-2.
SYMMETRY = 1e-6
# Central differences err by the third derivative times the squared step.
FINITE_DIFFERENCE = 1e-4
STEP_ANG = 1e-4
# On both sides of the cut-off; a smooth force changes by its slope times this.
CUTOFF_STEP_ANG = 1e-6
CUTOFF_ENERGY_EV = 1e-6
CUTOFF_FORCE_EV_PER_ANG = 1e-4
# Well below the errors of any force field.
FLOAT32_ENERGY_EV_PER_ATOM = 1e-3
FLOAT32_FORCE_EV_PER_ANG = 1e-3

# Energies and forces of each molecule by itself.
Alone = Sequence[tuple[float, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Line:
    """One property that was measured."""

    name: str
    value: float
    tolerance: float
    unit: str
    meaning: str

    @property
    def ok(self) -> bool:
        """Whether the value is within its tolerance; NaN is not."""
        return bool(abs(self.value) <= self.tolerance)


def _moved(system: System, positions_N3: np.ndarray) -> System:
    return system._replace(positions_N3=positions_N3)


def _difference(
    found: tuple[float, np.ndarray], expected: tuple[float, np.ndarray]
) -> float:
    """The largest change of energy or force, relative to the largest of each."""
    energy, forces = expected
    change = abs(found[0] - energy) / max(abs(energy), 1.0)
    turned = float(np.abs(found[1] - forces).max()) / _scale(forces)
    # Unlike max(), NumPy keeps a NaN.
    return float(np.maximum(change, turned))


def _scale(forces_N3: np.ndarray) -> float:
    return max(float(np.abs(forces_N3).max()), 1.0)


def symmetries(
    exact: Evaluate,
    systems: Sequence[System],
    alone: Alone,
) -> list[Line]:
    """Rotation, reflection, translation and permutation of each molecule."""
    rng = np.random.default_rng(0)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    turn *= np.sign(np.linalg.det(turn))
    mirror = turn @ np.diag([1.0, 1.0, -1.0])
    shift_3 = np.array([3.0, -20.0, 7.0])
    names = ("rotation", "reflection", "translation", "permutation")
    worst: dict[str, float] = {name: 0.0 for name in names}

    def note(name: str, change: float) -> None:
        worst[name] = float(np.maximum(worst[name], change))

    for system, (energy, forces) in zip(systems, alone, strict=True):
        x_N3 = system.positions_N3
        for name, matrix in (("rotation", turn), ("reflection", mirror)):
            found = exact([_moved(system, x_N3 @ matrix.T)])[0]
            note(name, _difference(found, (energy, forces @ matrix.T)))
        found = exact([_moved(system, x_N3 + shift_3)])[0]
        note("translation", _difference(found, (energy, forces)))
        order = rng.permutation(len(x_N3))
        shuffled = _moved(system, x_N3[order])._replace(
            species_N=system.species_N[order]
        )
        note("permutation", _difference(exact([shuffled])[0], (energy, forces[order])))
    return [
        Line(name, value, SYMMETRY, "relative", "energies follow, forces turn along")
        for name, value in worst.items()
    ]


def conservation(systems: Sequence[System], alone: Alone) -> list[Line]:
    """Sums of forces and of torques, which molecules in vacuum do not feel."""
    net, torque = [], []
    for system, (_, forces) in zip(systems, alone, strict=True):
        arms_N3 = system.positions_N3 - system.positions_N3.mean(axis=0)
        net.append(np.abs(forces.sum(axis=0)).max() / _scale(forces))
        turning = np.cross(arms_N3, forces).sum(axis=0)
        reach = max(float(np.abs(arms_N3).max()), 1.0)
        torque.append(np.abs(turning).max() / (_scale(forces) * reach))
    return [
        Line("net force", float(np.max(net)), SYMMETRY, "relative", "sum of forces"),
        Line("net torque", float(np.max(torque)), SYMMETRY, "relative", "sum of r x F"),
    ]


def finite_differences(
    exact: Evaluate,
    systems: Sequence[System],
    alone: Alone,
) -> Line:
    """Forces along random directions against differences of energies."""
    rng = np.random.default_rng(1)
    errors = []
    for system, (_, forces) in zip(systems, alone, strict=True):
        for _ in range(3):
            way_N3 = rng.normal(size=forces.shape)
            way_N3 /= np.linalg.norm(way_N3)
            ahead, behind = (
                exact([_moved(system, system.positions_N3 + step * way_N3)])[0][0]
                for step in (STEP_ANG, -STEP_ANG)
            )
            slope = (ahead - behind) / (2 * STEP_ANG)
            errors.append(abs(slope + (way_N3 * forces).sum()) / _scale(forces))
    return Line(
        "forces against differences",
        float(np.max(errors)),
        FINITE_DIFFERENCE,
        "relative",
        "forces are minus the gradient of the energy",
    )


def with_probe(system: System, cutoff_ang: float, beyond_ang: float) -> System:
    """The molecule and an atom that only its outermost atom can be a neighbour of.

    The atom is at the cut-off plus ``beyond_ang``.
    """
    x_N3 = system.positions_N3
    arms_N3 = x_N3 - x_N3.mean(axis=0)
    outer = int(np.argmax(np.linalg.norm(arms_N3, axis=1)))
    length = float(np.linalg.norm(arms_N3[outer]))
    way_3 = arms_N3[outer] / length if length > 0 else np.array([1.0, 0.0, 0.0])
    place_3 = x_N3[outer] + (cutoff_ang + beyond_ang) * way_3
    return system._replace(
        species_N=np.append(system.species_N, system.species_N[outer]),
        positions_N3=np.concatenate([x_N3, place_3[None]]),
    )


def cutoff_jump(exact: Evaluate, system: System, cutoff_ang: float) -> list[Line]:
    """What changes when an atom comes within the cut-off."""
    inside, outside = (
        exact([with_probe(system, cutoff_ang, beyond)])[0]
        for beyond in (-CUTOFF_STEP_ANG, CUTOFF_STEP_ANG)
    )
    # What a smooth energy changes by over the step is no jump.
    passing = 2 * CUTOFF_STEP_ANG * _scale(inside[1])
    return [
        Line(
            "energy jump at the cut-off",
            max(abs(inside[0] - outside[0]) - passing, 0.0)
            if math.isfinite(inside[0] - outside[0])
            else math.nan,
            CUTOFF_ENERGY_EV,
            "eV",
            "an atom comes within reach",
        ),
        Line(
            "force jump at the cut-off",
            float(np.abs(inside[1] - outside[1]).max()),
            CUTOFF_FORCE_EV_PER_ANG,
            "eV/A",
            "an atom comes within reach",
        ),
    ]


def companions(
    exact: Evaluate,
    systems: Sequence[System],
    alone: Alone,
) -> Line:
    """Each molecule with another one in its pack, in place of padding."""
    other = systems[-1]
    changes = [
        _difference(found, expected)
        for system, expected in zip(systems, alone, strict=True)
        for found in (exact([system, other])[0], exact([other, system])[1])
    ]
    return Line(
        "padding and batch",
        float(np.max(changes)),
        SYMMETRY,
        "relative",
        "padding or another molecule beside it changes nothing",
    )


def precision(
    rough: Evaluate,
    systems: Sequence[System],
    alone: Alone,
) -> list[Line]:
    """Energies and forces in float32 against those in float64."""
    energies, forces = [], []
    for system, expected in zip(systems, alone, strict=True):
        found = rough([system])[0]
        energies.append(abs(found[0] - expected[0]) / len(system.species_N))
        forces.append(np.abs(found[1] - expected[1]).max())
    return [
        Line(
            "float32 energy",
            float(np.max(energies)),
            FLOAT32_ENERGY_EV_PER_ATOM,
            "eV/atom",
            "against float64",
        ),
        Line(
            "float32 forces",
            float(np.max(forces)),
            FLOAT32_FORCE_EV_PER_ANG,
            "eV/A",
            "against float64",
        ),
    ]
