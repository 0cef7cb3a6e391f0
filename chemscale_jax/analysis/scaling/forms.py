"""Forms of neural scaling laws, with analytic derivatives of the log loss.

A form gives ``log L`` as a function of sizes and its parameters. All parameters are
positive and held as logarithms, and coefficients are held as the loss that their term
has at the centre of the data (the geometric mean of each variable), so that numbers of
order one describe laws over any range. `Form.constants` gives the published notation.

========== ================================================== ========================
name       equation                                           source
========== ================================================== ========================
power      A / x^a                                            Frey et al. 2023
floor      E + A / x^a                                        Henighan et al. 2020
kaplan     ((Nc / N)^(aN / aD) + Dc / D)^aD                   Kaplan et al. 2020
chinchilla E + A / N^a + B / D^b                              Hoffmann et al. 2022
repeated   E + A / N^a + B / D'^b,                            Muennighoff et al. 2023
           D' = U + U R* (1 - exp(-R / R*))
unimol2    A / M^a + B / S^b + G / (M S)^c                    Ji et al. 2024
========== ================================================== ========================

N: parameters or another size, D: records of data, U: different ones among them, R:
passes over them beyond the first, M: size, S: steps.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

# Ranges that are searched.
EXPONENTS = (0.003, 6.0)
_REPEATS = (0.02, 1e4)  # R*, in passes
_COEFFICIENT_LOGS = (-16.0, 8.0)  # around the mean log loss
_GRID = {0: 1, 1: 33, 2: 13, 3: 9}  # values of each exponent in the grid of starts
_REPEAT_GRID = (0.5, 2.0, 8.0, 32.0)


@dataclasses.dataclass(frozen=True, eq=False)
class Inputs:
    """Where losses are given: centred logarithms of the variables."""

    logs: Mapping[str, np.ndarray]  # (n,) each, less the centre
    centres: Mapping[str, float]  # mean logarithms over the fitted points
    repeats: np.ndarray  # (n,) passes over the data beyond the first

    def __len__(self) -> int:
        """The number of points."""
        return len(self.repeats)

    def take(self, chosen: np.ndarray) -> "Inputs":
        """Some of the points, around the same centres."""
        logs = {name: values[chosen] for name, values in self.logs.items()}
        return Inputs(logs, self.centres, self.repeats[chosen])


def make_inputs(
    variables: Mapping[str, np.ndarray],
    repeats: np.ndarray | None = None,
    centres: Mapping[str, float] | None = None,
) -> Inputs:
    """Logarithms of variables around their centres.

    Args:
        variables: by letter ("N", "D", "S", ...), (n,) each, positive.
        repeats: (n,) passes over the data beyond the first, at least 0; none if None.
        centres: of other points, to evaluate a law there.
    """
    logs = {k: np.log(np.asarray(v, np.float64)) for k, v in variables.items()}
    if "M" in logs and "S" in logs:
        logs["MS"] = logs["M"] + logs["S"]
    centres = centres or {name: float(values.mean()) for name, values in logs.items()}
    n = len(next(iter(logs.values())))
    return Inputs(
        {name: values - centres[name] for name, values in logs.items()},
        centres,
        np.zeros(n) if repeats is None else np.asarray(repeats, np.float64),
    )


class Term(NamedTuple):
    """``coefficient / variable^exponent``."""

    variable: str
    coefficient: str
    exponent: str


class Design(NamedTuple):
    """For fixed exponents, what is linear in the rest: ``phi @ c`` should be ones.

    The residual is that of the loss, divided by the loss, over ``scale``.
    """

    exponents: np.ndarray  # (g, k) logarithms
    phi: np.ndarray  # (g, n, m)
    scale: np.ndarray  # (g,)


@dataclasses.dataclass(frozen=True)
class Form:
    """A law; its parameters are (..., p) arrays of logarithms, see ``names``."""

    name: str
    equation: str
    source: str
    terms: tuple[Term, ...]
    floor: str = ""  # name of the irreducible loss
    repeats: str = ""  # name of R*, of the term of D

    @property
    def names(self) -> tuple[str, ...]:
        """Of the parameters: coefficients, the floor, exponents, R*."""
        names = [*self._linear, *(term.exponent for term in self.terms)]
        return (*names, *([self.repeats] if self.repeats else []))

    @property
    def _linear(self) -> tuple[str, ...]:
        floor = (self.floor,) if self.floor else ()
        return (*(term.coefficient for term in self.terms), *floor)

    @property
    def exponents(self) -> tuple[str, ...]:
        """Names of the exponents."""
        return tuple(term.exponent for term in self.terms)

    @property
    def variables(self) -> tuple[str, ...]:
        """Letters of the variables, ``MS`` being a product of two."""
        return tuple(term.variable for term in self.terms)

    def bounds(self, y: np.ndarray) -> np.ndarray:
        """(p, 2) of the logarithms, around the log losses ``y``."""
        linear = np.mean(y) + np.array(_COEFFICIENT_LOGS)
        rows = [linear for _ in self._linear]
        rows += [np.log(EXPONENTS) for _ in self.terms]
        return np.array(rows + [np.log(_REPEATS)] * bool(self.repeats))

    def log_loss(
        self, theta: np.ndarray, inputs: Inputs
    ) -> tuple[np.ndarray, np.ndarray]:
        """The law and its derivatives.

        Args:
            theta: (b, p).
            inputs: of n points.

        Returns:
            log L, (b, n), and its derivatives, (b, n, p).
        """
        K, m = len(self.terms), len(self._linear)
        exponents = np.exp(theta[:, m : m + K])
        logs = np.empty((len(theta), len(inputs), m))
        slopes = np.empty((len(theta), len(inputs), K))
        repeat_slope = None
        for k, term in enumerate(self.terms):
            z = inputs.logs[term.variable][None, :]
            if self.repeats and term.variable == "D":
                gain, repeat_slope = _repeat_gain(theta[:, -1:], inputs.repeats)
                z = z + gain
            logs[:, :, k] = theta[:, k, None] - exponents[:, k, None] * z
            slopes[:, :, k] = -exponents[:, k, None] * z
        if self.floor:
            logs[:, :, K] = theta[:, K, None]
        most = logs.max(axis=2, keepdims=True)
        parts = np.exp(logs - most)
        total = parts.sum(axis=2, keepdims=True)
        shares = parts / total
        value = (most + np.log(total))[:, :, 0]
        jacobian = [shares, shares[:, :, :K] * slopes]
        if repeat_slope is not None:
            k = self.variables.index("D")
            by_repeats = -shares[:, :, k] * exponents[:, k, None] * repeat_slope
            jacobian.append(by_repeats[:, :, None])
        return value, np.concatenate(jacobian, axis=2)

    def design(self, inputs: Inputs, y: np.ndarray) -> Design:
        """A grid of exponents, and what is linear for each."""
        K = len(self.terms)
        axis = np.linspace(np.log(0.02), np.log(3.0), _GRID[K])
        axes = [axis] * K + [np.log(_REPEAT_GRID)] * bool(self.repeats)
        grid = np.array(list(itertools.product(*axes)))
        linear = np.zeros((len(grid), len(self._linear)))
        value = np.empty((len(grid), len(inputs), len(self._linear)))
        for k, term in enumerate(self.terms):
            z = inputs.logs[term.variable][None, :]
            if self.repeats and term.variable == "D":
                z = z + _repeat_gain(grid[:, -1:], inputs.repeats)[0]
            value[:, :, k] = _power(-np.exp(grid[:, k, None]) * z - y)
        if self.floor:
            value[:, :, K] = np.exp(-y)
        return Design(grid, value, np.ones(len(linear)))

    def from_design(self, exponents: np.ndarray, linear: np.ndarray) -> np.ndarray:
        """(b, p) parameters of exponents (b, k) and linear parts (b, m)."""
        return np.concatenate([np.log(linear), exponents], axis=1)

    def constants(
        self, theta: np.ndarray, centres: Mapping[str, float]
    ) -> dict[str, np.ndarray]:
        """The parameters in published notation: (...,) each.

        Args:
            theta: (..., p).
            centres: of the inputs that it was fitted to.
        """
        found = {name: np.exp(theta[..., i]) for i, name in enumerate(self.names)}
        for term in self.terms:
            # A / x^a = A' / (x / x0)^a with A = A' x0^a.
            shift = np.exp(found[term.exponent] * centres[term.variable])
            found[term.coefficient] = found[term.coefficient] * shift
        return found

    def theta_of(
        self, constants: Mapping[str, float], centres: Mapping[str, float]
    ) -> np.ndarray:
        """(p,): the inverse of `constants`."""
        logs = {name: np.log(constants[name]) for name in self.names}
        for term in self.terms:
            shift = constants[term.exponent] * centres[term.variable]
            logs[term.coefficient] = logs[term.coefficient] - shift
        return np.array([logs[name] for name in self.names])

    def without(self, name: str) -> "Form | None":
        """The form without the term of an exponent, or without its floor.

        None where nothing remains to be compared.
        """
        if name == self.floor:
            return dataclasses.replace(self, name=f"{self.name}-{name}", floor="")
        if name == self.repeats:
            return dataclasses.replace(self, name=f"{self.name}-{name}", repeats="")
        left = tuple(term for term in self.terms if term.exponent != name)
        if not left and not self.floor:
            return None
        drops_data = all(term.variable != "D" for term in left)
        return dataclasses.replace(
            self,
            name=f"{self.name}-{name}",
            terms=left,
            repeats="" if drops_data else self.repeats,
        )


@dataclasses.dataclass(frozen=True)
class Kaplan(Form):
    """Eq. 1.5 of Kaplan et al. 2020: a power law in N where data abounds, and so on.

    Coefficients are the losses of the two limits at the centre.
    """

    def log_loss(
        self, theta: np.ndarray, inputs: Inputs
    ) -> tuple[np.ndarray, np.ndarray]:
        """See `Form.log_loss`."""
        v_n, v_d = theta[:, 0, None], theta[:, 1, None]
        a_n, a_d = np.exp(theta[:, 2, None]), np.exp(theta[:, 3, None])
        z_n, z_d = inputs.logs["N"][None, :], inputs.logs["D"][None, :]
        by_n, by_d = (v_n - a_n * z_n) / a_d, v_d / a_d - z_d
        both = np.logaddexp(by_n, by_d)
        share = np.exp(by_n - both)
        inner = both - share * by_n - (1 - share) * (by_d + z_d)
        jacobian = [share, 1 - share, -share * a_n * z_n, inner * a_d]
        return a_d * both, np.stack(jacobian, axis=2)

    def design(self, inputs: Inputs, y: np.ndarray) -> Design:
        """See `Form.design`: ``L^(1 / aD)`` is linear in two numbers."""
        axis = np.linspace(np.log(0.02), np.log(3.0), 17)
        grid = np.array(list(itertools.product(axis, axis)))
        a_n, a_d = np.exp(grid[:, 0, None]), np.exp(grid[:, 1, None])
        by_n = _power(-(a_n * inputs.logs["N"] + y) / a_d)
        by_d = _power(-inputs.logs["D"] - y / a_d)
        return Design(grid, np.stack([by_n, by_d], axis=2), a_d[:, 0])

    def from_design(self, exponents: np.ndarray, linear: np.ndarray) -> np.ndarray:
        """See `Form.from_design`."""
        return np.concatenate(
            [np.exp(exponents[:, 1, None]) * np.log(linear), exponents], axis=1
        )

    def constants(
        self, theta: np.ndarray, centres: Mapping[str, float]
    ) -> dict[str, np.ndarray]:
        """See `Form.constants`."""
        a_n, a_d = np.exp(theta[..., 2]), np.exp(theta[..., 3])
        return {
            "Nc": _power(theta[..., 0] / a_n + centres["N"]),
            "Dc": _power(theta[..., 1] / a_d + centres["D"]),
            "aN": a_n,
            "aD": a_d,
        }

    def theta_of(
        self, constants: Mapping[str, float], centres: Mapping[str, float]
    ) -> np.ndarray:
        """See `Form.theta_of`."""
        a_n, a_d = constants["aN"], constants["aD"]
        v_n = a_n * (np.log(constants["Nc"]) - centres["N"])
        v_d = a_d * (np.log(constants["Dc"]) - centres["D"])
        return np.array([v_n, v_d, np.log(a_n), np.log(a_d)])

    def without(self, name: str) -> Form | None:
        """See `Form.without`: what is left is a power law of the other variable."""
        (left,) = (term for term in self.terms if term.exponent != name)
        return Form(f"{self.name}-{name}", "A / x^a", self.source, (left,))


def _power(log: np.ndarray) -> np.ndarray:
    """The exponential; what is beyond floating point, at odd exponents, is cut."""
    return np.exp(np.minimum(log, 300.0))


def _repeat_gain(
    log_star: np.ndarray, repeats: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """log(D' / U), and its derivative by log R*: (b, n) each.

    Args:
        log_star: (b, 1).
        repeats: (n,).
    """
    star = np.exp(log_star)
    ratio = repeats[None, :] / star
    decayed = np.exp(-ratio)
    size = 1 - star * np.expm1(-ratio)
    slope = star * (-np.expm1(-ratio) - ratio * decayed)
    return np.log(size), slope / size


_N, _D = Term("N", "A", "a"), Term("D", "B", "b")


def one_variable(name: str, variable: str) -> Form:
    """The form ``power`` or ``floor`` of a variable."""
    form = FORMS[name]
    return dataclasses.replace(form, terms=(Term(variable, "A", "a"),))


FORMS: Mapping[str, Form] = {
    form.name: form
    for form in (
        Form("power", "L = A / x^a", "Frey et al. 2023", (Term("x", "A", "a"),)),
        Form(
            "floor",
            "L = E + A / x^a",
            "Henighan et al. 2020",
            (Term("x", "A", "a"),),
            floor="E",
        ),
        Kaplan(
            "kaplan",
            "L = ((Nc / N)^(aN / aD) + Dc / D)^aD",
            "Eq. 1.5 of Kaplan et al. 2020",
            (Term("N", "Nc", "aN"), Term("D", "Dc", "aD")),
        ),
        Form(
            "chinchilla",
            "L = E + A / N^a + B / D^b",
            "Eq. 2 of Hoffmann et al. 2022",
            (_N, _D),
            floor="E",
        ),
        Form(
            "repeated",
            "L = E + A / N^a + B / D'^b with D' = U + U R* (1 - exp(-R / R*))",
            "Eq. 5 of Muennighoff et al. 2023, without its term of excess parameters",
            (_N, _D),
            floor="E",
            repeats="R*",
        ),
        Form(
            "unimol2",
            "L = A / M^a + B / S^b + G / (M S)^c",
            "Eq. 11 of Ji et al. 2024",
            (Term("M", "A", "a"), Term("S", "B", "b"), Term("MS", "G", "c")),
        ),
    )
}


def named(names: Sequence[str]) -> list[Form]:
    """Forms by name."""
    return [FORMS[name] for name in names]
