"""Synthetic scaling studies: planted laws over grids, with the noise of real ones."""

import dataclasses

import numpy as np

from chemscale_jax.analysis.scaling.data import Cell, Cells, Columns
from chemscale_jax.analysis.scaling.fit import prediction
from chemscale_jax.analysis.scaling.forms import FORMS, Form, make_inputs


@dataclasses.dataclass(frozen=True)
class Planted:
    """A law, and where its losses are measured."""

    form: str
    constants: dict[str, float]
    variables: dict[str, np.ndarray]
    epochs: np.ndarray | None = None

    @property
    def law(self) -> Form:
        return FORMS[self.form]

    @property
    def inputs(self):
        repeats = None if self.epochs is None else self.epochs - 1
        return make_inputs(self.variables, repeats)

    @property
    def losses(self) -> np.ndarray:
        return prediction(self.law, self.constants, self.inputs)


def grid(**axes):
    """All combinations of some values, by name."""
    mesh = np.meshgrid(*axes.values(), indexing="ij")
    return {name: values.ravel() for name, values in zip(axes, mesh, strict=True)}


def even(low, high, number):
    return np.geomspace(low, high, number)


_TWO = {"A": 60.0, "a": 0.35, "B": 100.0, "b": 0.3, "E": 0.6}
_REPEATED = grid(N=even(8e4, 5e6, 3), D=even(1e5, 1e8, 3), R=[1.0, 4.0, 16.0, 64.0])
# Every exponent of these can be told from its grid.
IDENTIFIABLE = {
    "power": Planted("power", {"A": 800.0, "a": 0.25}, {"x": even(1e2, 1e5, 6)}),
    "floor": Planted(
        "floor", {"A": 800.0, "a": 0.4, "E": 5.0}, {"x": even(1e2, 1e6, 9)}
    ),
    "kaplan": Planted(
        "kaplan",
        {"Nc": 3e12, "aN": 0.09, "Dc": 2e12, "aD": 0.12},
        grid(N=even(8e4, 1e7, 4), D=even(1e5, 1e8, 4)),
    ),
    "chinchilla": Planted(
        "chinchilla", _TWO, grid(N=even(8e4, 5e6, 4), D=even(1e5, 1e8, 4))
    ),
    "repeated": Planted(
        "repeated",
        {**_TWO, "R*": 15.0},
        {"N": _REPEATED["N"], "D": _REPEATED["D"]},
        _REPEATED["R"],
    ),
    "unimol2": Planted(
        "unimol2",
        {"A": 1.0, "a": 1.0, "B": 1.8, "b": 0.15, "G": 60.0, "c": 0.5},
        grid(M=even(1, 1e3, 6), S=even(1e3, 1e6, 6)),
    ),
}
# What cannot be told: the exponents by name.
UNIDENTIFIABLE = {
    # The term of compute of Uni-Mol2's law is 1e-10 of the loss.
    "term of nothing": (
        Planted(
            "unimol2",
            {"A": 2.66, "a": 1.137, "B": 1.848, "b": 0.225, "G": 0.588, "c": 1.479},
            grid(
                M=np.array([42.0, 84.0, 164.0, 310.0]), S=np.arange(2.1e5, 8.2e5, 4e4)
            ),
        ),
        ("c",),
    ),
    # Twenty tokens for each parameter, throughout.
    "one ratio": (
        Planted(
            "chinchilla",
            _TWO,
            {"N": even(8e4, 1e8, 12), "D": 20 * even(8e4, 1e8, 12)},
        ),
        ("a", "b"),
    ),
    # So many data that they change nothing.
    "abundant data": (
        Planted("chinchilla", _TWO, grid(N=even(8e4, 5e6, 5), D=even(1e16, 1e19, 4))),
        ("b",),
    ),
    "one more size": (
        Planted("chinchilla", _TWO, grid(N=np.array([1e5, 1e6]), D=even(1e5, 1e8, 6))),
        ("a",),
    ),
    # Kaplan's law where every model is small for its data.
    "small models": (
        Planted(
            "kaplan",
            {"Nc": 3e12, "aN": 0.09, "Dc": 2e3, "aD": 0.12},
            grid(N=even(8e4, 1e7, 4), D=even(1e14, 1e17, 4)),
        ),
        ("aD",),
    ),
    # Too few passes to see that repeats lose their worth.
    "few repeats": (
        Planted(
            "repeated",
            {**_TWO, "R*": 1000.0},
            {"N": _REPEATED["N"], "D": _REPEATED["D"]},
            np.where(_REPEATED["R"] > 4, 2.0, 1.0),
        ),
        ("R*",),
    ),
}


def noisy(losses, seed, size=0.015, seeds=3):
    """(n, seeds) log losses: seeds with heavy tails, cells with an error of their own.

    Small runs, which come first, are noisier than large ones.
    """
    rng = np.random.default_rng([seed, 7])
    n = len(losses)
    scale = size * np.linspace(1.4, 0.8, n)
    # Student's t with 5 degrees of freedom has a variance of 5 / 3.
    over_seeds = scale[:, None] * rng.standard_t(5, (n, seeds)) / np.sqrt(5 / 3)
    of_cells = 0.6 * scale * rng.normal(size=n)
    return np.log(losses)[:, None] + over_seeds + of_cells[:, None]


def cells_of(planted, seed=0, size=0.015, seeds=3, limit=""):
    """A study of a planted law of size and data, as cells."""
    logs = noisy(planted.losses, seed, size, seeds)
    made = []
    for place, row in enumerate(logs):
        values = {name: float(x[place]) for name, x in planted.variables.items()}
        values["C"] = 6 * values.get("N", 1.0) * values.get("D", 1.0)
        values["epochs"] = 1.0 if planted.epochs is None else planted.epochs[place]
        made.append(Cell("", values, np.exp(row), limit, ()))
    return Cells("", tuple(made), Columns())
