"""The terms of force-field losses, and weights of them that change with the step.

``L = 1/N sum_i [ alpha_E ||E_i - E^_i||^p + alpha_F ||F_i - F^_i||^p ]`` over the N
molecules of a batch, with p = 2 (Eq. 4) or p = 1 (Eq. 5 of Frey et al.), or with the
Huber function in place of the power.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from chemscale_jax.chem.elements import MAX_ATOMIC_NUMBER, atomic_number
from chemscale_jax.core.batches import GraphPack
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.task import Mean
from chemscale_jax.core.types import Array, Config

POWERS = ("l1", "l2", "huber")
FORMS = ("component", "equation")
ENERGY_PER = ("molecule", "atom")
SCHEDULES = ("constant", "linear", "step")
CHANGE_UNITS = ("fraction", "epoch")

_UNITS = {
    "energy_l1": "eV",
    "energy_l2": "eV^2",
    "energy_huber": "eV^2",
    "force_l1": "eV/A",
    "force_l2": "(eV/A)^2",
    "force_huber": "(eV/A)^2",
}


class Errors(NamedTuple):
    """Errors of one pack; 0 where there is no label."""

    energy_M: Array  # eV
    forces_N3: Array  # eV/angstrom
    atoms_M: Array  # float32, number of atoms, at least 1
    energies: Array  # how many energies are labelled
    components: Array  # how many force components are labelled
    molecules: Array  # how many molecules have labelled forces
    species_N: Array
    molecule_N: Array

    def per_molecule(self, x_N: Array) -> Array:
        """Sums over the atoms of each molecule."""
        return jax.ops.segment_sum(
            x_N, self.molecule_N, self.energy_M.shape[0], indices_are_sorted=True
        )


class Terms(NamedTuple):
    """The terms of ``config.loss``, apart from their weights."""

    power: str
    form: str
    energy_per: str
    delta_energy: float  # eV, or eV/atom
    delta_force: float  # eV/angstrom
    element_weights: tuple[tuple[int, float], ...]  # (atomic number, weight)

    @property
    def energy_name(self) -> str:
        """The metric that is the energy term."""
        return f"energy_{self.power}" + "_per_atom" * (self.energy_per == "atom")

    @property
    def force_name(self) -> str:
        """The metric that is the force term."""
        weighted = "_weighted" if self.element_weights else ""
        return f"force_{self.power}_{self.form}{weighted}"

    @property
    def units(self) -> dict[str, str]:
        """``{metric name: unit}`` of both terms."""
        energy = _UNITS[f"energy_{self.power}"]
        if self.energy_per == "atom":
            energy = energy.replace("eV", "(eV/atom)" if "^" in energy else "eV/atom")
        return {
            self.energy_name: energy,
            self.force_name: _UNITS[f"force_{self.power}"],
        }

    def energy(self, errors: Errors) -> Mean:
        """The energy term: a mean over the molecules whose energy is labelled."""
        error_M = errors.energy_M
        if self.energy_per == "atom":
            error_M = error_M / errors.atoms_M
        each_M = _penalty(error_M**2, jnp.abs(error_M), self.power, self.delta_energy)
        return Mean(jnp.sum(each_M), errors.energies)

    def force(self, errors: Errors) -> Mean:
        """The force term.

        ``component`` means over all real force components of the batch, as the
        paper's code does; ``equation`` takes the norm over all components of a
        molecule and means over molecules, as Eq. 4 and Eq. 5 are printed. The weight
        of an element multiplies the penalty of its components (their squares in a
        norm); the count stays the number of components or molecules.
        """
        weight_N1 = self._weight_of(errors.species_N)[:, None]
        error_N3 = errors.forces_N3
        if self.form == "component":
            each_N3 = _penalty(
                error_N3**2, jnp.abs(error_N3), self.power, self.delta_force
            )
            return Mean(jnp.sum(weight_N1 * each_N3), errors.components)
        square_M = errors.per_molecule(jnp.sum(weight_N1 * error_N3**2, axis=-1))
        each_M = _penalty(square_M, root(square_M), self.power, self.delta_force)
        return Mean(jnp.sum(each_M), errors.molecules)

    def _weight_of(self, species_N: Array) -> Array:
        table = jnp.ones(MAX_ATOMIC_NUMBER + 1, jnp.float32)
        for number, weight in self.element_weights:
            table = table.at[number].set(weight)
        return table[species_N]


def errors_of(pack: GraphPack, energy_M: Array, forces_N3: Array) -> Errors:
    """Differences from the labels of one pack."""
    # Make labels that may be missing harmless before they meet a prediction.
    labelled_N1 = pack.forces_mask_N[:, None]
    found = Errors(
        energy_M=jnp.where(pack.energy_mask_M, energy_M - pack.energy_M, 0.0),
        forces_N3=jnp.where(labelled_N1, forces_N3 - pack.forces_N3, 0.0),
        atoms_M=jnp.ones(()),
        energies=jnp.sum(pack.energy_mask_M, dtype=jnp.float32),
        components=3 * jnp.sum(pack.forces_mask_N, dtype=jnp.float32),
        molecules=jnp.ones(()),
        species_N=pack.species_N,
        molecule_N=pack.molecule_N,
    )
    real_N = (pack.species_N > 0).astype(jnp.float32)
    labelled_M = found.per_molecule(pack.forces_mask_N.astype(jnp.float32)) > 0
    return found._replace(
        atoms_M=jnp.maximum(found.per_molecule(real_N), 1.0),
        molecules=jnp.sum(labelled_M, dtype=jnp.float32),
    )


def make_terms(loss: Config) -> Terms:
    """The terms of ``config.loss``.

    Raises:
        UserError: for an unknown choice, or a number that makes no sense.
    """
    for field, known in (
        ("power", POWERS),
        ("form", FORMS),
        ("energy_per", ENERGY_PER),
        ("schedule", SCHEDULES),
        ("change_unit", CHANGE_UNITS),
    ):
        if loss[field] not in known:
            raise UserError(f"config.loss.{field} is {loss[field]!r}, expected {known}")
    if loss.power == "huber" and min(loss.delta_energy, loss.delta_force) <= 0:
        raise UserError(
            f"config.loss has delta_energy={loss.delta_energy}, delta_force="
            f"{loss.delta_force}; the Huber function needs positive ones"
        )
    return Terms(
        power=loss.power,
        form=loss.form,
        energy_per=loss.energy_per,
        delta_energy=loss.delta_energy,
        delta_force=loss.delta_force,
        element_weights=_element_weights(loss.element_weights),
    )


def trains_energy(loss: Config) -> bool:
    """Whether energies are ever part of the training loss."""
    changes = loss.schedule != "constant"
    return bool(loss.alpha_energy or (changes and loss.final_alpha_energy))


def make_weights(
    loss: Config, terms: Terms, artifacts: Mapping[str, Any]
) -> tuple[dict[str, float], Callable[[Array], Mapping[str, Array]] | None]:
    """The weights of validation, and those of training where they change.

    A weight that is 0 from beginning to end takes its term out, so that forces alone
    need no energies. Validation uses the weights that the schedule ends with.

    Args:
        loss: ``config.loss``.
        terms: names the metrics.
        artifacts: ``planned`` has the ``steps`` of the run and ``steps_per_epoch``;
            needed only where weights change.
    """
    names = {terms.energy_name: "alpha_energy", terms.force_name: "alpha_force"}
    first = {name: float(loss[field]) for name, field in names.items()}
    last = first
    if loss.schedule != "constant":
        last = {name: float(loss[f"final_{field}"]) for name, field in names.items()}
    used = [name for name in names if first[name] or last[name]]
    if min(*first.values(), *last.values()) < 0 or not used:
        raise UserError(
            f"config.loss has alpha_energy={loss.alpha_energy}, alpha_force="
            f"{loss.alpha_force}; both must be >= 0 and one positive, as those that "
            "a schedule ends with"
        )
    final = {name: last[name] for name in used}
    if loss.schedule == "constant":
        return final, None
    if not any(final.values()):
        raise UserError(
            "config.loss.final_alpha_energy and final_alpha_force are both 0, so "
            "nothing could be validated; set one of them"
        )
    if "planned" not in artifacts:
        raise UserError(
            f"config.loss.schedule={loss.schedule!r} needs to know how many steps are "
            "planned; use config.loss.schedule=constant outside of training"
        )
    planned = artifacts["planned"]
    epochs = loss.change_unit == "epoch"
    unit = planned["steps_per_epoch"] if epochs else planned["steps"]
    begin, end = round(loss.change_at * unit), round(loss.change_until * unit)
    if loss.schedule == "linear" and end <= begin:
        raise UserError(
            f"config.loss.change_at={loss.change_at} and change_until="
            f"{loss.change_until} are steps {begin} and {end}; a linear change needs "
            "time between them"
        )

    def weights_at(step: Array) -> Mapping[str, Array]:
        if loss.schedule == "step":
            done = (step >= begin).astype(jnp.float32)
        else:
            done = jnp.clip((step - begin) / (end - begin), 0.0, 1.0)
        return {n: first[n] + done * (last[n] - first[n]) for n in used}

    return final, weights_at


def root(square_M: Array) -> Array:
    """Square roots whose gradient at zero is zero."""
    positive_M = square_M > 0
    return jnp.where(positive_M, jnp.sqrt(jnp.where(positive_M, square_M, 1.0)), 0.0)


def _penalty(square: Array, absolute: Array, power: str, delta: float) -> Array:
    """The function of an error whose square and absolute value are given."""
    if power == "l1":
        return absolute
    if power == "l2":
        return square
    inner = absolute <= delta
    return jnp.where(inner, 0.5 * square, delta * (absolute - 0.5 * delta))


def _element_weights(pairs: Sequence[Any]) -> tuple[tuple[int, float], ...]:
    found = []
    for pair in pairs:
        try:
            symbol, weight = pair
            found.append((atomic_number(symbol), float(weight)))
        except (TypeError, ValueError) as error:
            raise UserError(
                f"config.loss.element_weights has {pair!r} ({error}); give pairs of "
                "a symbol and a weight, like (('H', 0.5), ('O', 2.0))"
            ) from None
        if found[-1][1] < 0:
            raise UserError(
                f"config.loss.element_weights has {pair!r}; weights must be >= 0"
            )
    return tuple(found)
